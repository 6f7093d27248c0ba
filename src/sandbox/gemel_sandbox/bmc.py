"""A BMC per node: OpenIPMI's ipmi_sim on the management network, outside the host, alive while its host is off.

Power goes through a small program that ipmi_sim calls; "off" returns when nothing of the host lives any more, so
that a fence agent's "verified off" is true here.
"""
import shlex
import subprocess
import uuid

from gemel_sandbox.config import BMC_USER
from gemel_sandbox.host import PACKAGE_PARENT
from gemel_sandbox.layout import bmc_of
from gemel_sandbox.run import environment, run, wait_for

_LAN = """\
name "{name}"
set_working_mc 0x20
  startlan 1
    addr 0.0.0.0 623
    priv_limit admin
    allowed_auths_callback md5
    allowed_auths_user md5
    allowed_auths_operator md5
    allowed_auths_admin md5
    guid {guid}
  endlan
  chassis_control "{directory}/chassis"
  user 1 false "" "" user 10 md5
  user 2 true "{user}" "{password}" admin 10 md5
"""
_EMULATOR = """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""
# Switching on is answered at once and done in the background, as a real BMC does; switching off is done when answered.
_CHASSIS = """\
#!/bin/sh
# ipmi_sim calls: get power | set power 0|1 | set reset 1
power() {{ PYTHONPATH={package} exec /usr/bin/python3 -m gemel_sandbox --id {sandbox} bmc-power {node} "$1" >>{log} 2>&1; }}
case "$1 $2" in
"get power") read -r word <{power_file}; if [ "$word" = on ]; then echo power:1; else echo power:0; fi ;;
"set power") if [ "$3" = 0 ]; then (power off); else (power on) </dev/null & fi ;;
"set reset") (power reset) </dev/null & ;;
esac
"""


class Bmc:
    """The BMC of one node; its process is found by its cgroup."""

    def __init__(self, state, top, switch, node):
        self.state, self.switch, self.node = state, switch, node
        self.layout = state.layout()
        self.name = bmc_of(node)
        self.cgroup = top.child(self.name)

    def running(self):
        return self.cgroup.populated()

    def write(self):
        directory = self.layout.host_dir(self.node) / "bmc"
        (directory / "state").mkdir(parents=True)
        quoted = shlex.quote(str(directory))
        guid = uuid.UUID(self.state.ids[self.node]).hex
        (directory / "lan.conf").write_text(_LAN.format(name=self.name, guid=guid, directory=directory, user=BMC_USER,
                                                        password=self.state.bmc_password))
        (directory / "lan.conf").chmod(0o600)
        (directory / "emulator").write_text(_EMULATOR)
        chassis = directory / "chassis"
        power_file = shlex.quote(str(self.layout.host_dir(self.node) / "power"))
        chassis.write_text(_CHASSIS.format(package=shlex.quote(str(PACKAGE_PARENT)), sandbox=self.state.sandbox_id,
                                           node=self.node, log=f"{quoted}/chassis.log", power_file=power_file))
        chassis.chmod(0o755)

    def start(self):
        if self.running():
            return
        self.switch.unplug(self.name)
        self.cgroup.create()
        directory = self.layout.host_dir(self.node) / "bmc"
        with open(directory / "ipmi_sim.log", "ab") as log:
            process = subprocess.Popen(
                ["unshare", "-n", "ipmi_sim", "-n", "-c", "lan.conf", "-f", "emulator", "-s", "state"],
                cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(),
                start_new_session=True, preexec_fn=self.cgroup.join_function())
        wait_for(lambda: _program_of(process.pid) == "ipmi_sim", f"{self.name} to start", 10)
        self.switch.plug(self.name, process.pid, {"mgmt": "mgmt"})
        address = self.layout.address("mgmt", self.name)
        run(["nsenter", "-t", str(process.pid), "-n", "ip", "-batch", "-"],
            input_text=f"link set lo up\naddr add {address}/24 dev mgmt\nlink set mgmt up\n")

    def kill(self):
        """The rack's power is gone: the BMC dies with its host."""
        self.cgroup.remove()
        self.switch.unplug(self.name)


def _program_of(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""
