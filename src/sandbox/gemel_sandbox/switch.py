"""The cables: one network namespace with a bridge per network, a port per host, and the cuts.

All frames of a sandbox pass here, outside the hosts, so that a cut (a dead cable, a dead host) takes effect without
the host's help. Cuts are silent: the carrier stays up, as behind a real switch. No cut, no rule: an uncut sandbox
pays nothing. Rules name ports, not interfaces, and so outlive a host's power cycle.
"""
import re
import subprocess

from gemel_sandbox.errors import COMMAND, SandboxError
from gemel_sandbox.layout import CLIENT, port_name
from gemel_sandbox.run import environment, run, wait_for

_RATE = re.compile(r"^[1-9][0-9]*(kbit|mbit|gbit)$")
QUIET_SETTINGS = ("for f in net/ipv6/conf/default/disable_ipv6 net/ipv6/conf/all/disable_ipv6; do echo 1 >/proc/sys/$f; done; "
          "for f in iptables ip6tables arptables; do f=/proc/sys/net/bridge/bridge-nf-call-$f; "
          "[ ! -e $f ] || echo 0 >$f; done")


def check_rate(rate):
    if rate and not _RATE.match(rate):
        raise SandboxError(f"'{rate}' is no link rate: expected a number with kbit, mbit or gbit, e.g. 1gbit")
    return rate


def ruleset(layout, cuts, isolated):
    """The nftables text for the given cuts; an empty table's removal when there are none. Pure."""
    text = "table bridge gemel\ndelete table bridge gemel\n"
    dead, one_way = set(), set()
    for host in isolated:
        dead |= {port_name(host, network) for network in layout.networks_of(host)}
    for cut in cuts:
        for network in layout.networks() if cut["network"] == "all" else [cut["network"]]:
            if "from" in cut:
                if network in layout.networks_of(cut["from"]) and network in layout.networks_of(cut["to"]):
                    one_way.add((port_name(cut["from"], network), port_name(cut["to"], network)))
            else:
                members = [cut["host"]] if cut.get("host") else layout.members_of(network)
                dead |= {port_name(host, network) for host in members if network in layout.networks_of(host)}
    if not dead and not one_way:
        return text
    names = ", ".join(f'"{name}"' for name in sorted(dead))
    text += "table bridge gemel {\n"
    if dead:
        text += (f" chain from_host {{ type filter hook prerouting priority -300; iifname {{ {names} }} drop; }}\n"
                 f" chain to_host {{ type filter hook postrouting priority 300; oifname {{ {names} }} drop; }}\n")
    if one_way:
        rules = " ".join(f'iifname "{source}" oifname "{sink}" drop;' for source, sink in sorted(one_way))
        text += f" chain across {{ type filter hook forward priority 0; {rules} }}\n"
    return text + "}\n"


class Switch:
    """The live switch of a sandbox; its namespaces are held by one sleeping process each."""

    def __init__(self, state, top):
        self.state = state
        self.layout = state.layout()
        self.cgroup = top.child("switch")
        self.client_cgroup = top.child(CLIENT)

    def create(self):
        self._keep(self.cgroup)
        self._keep(self.client_cgroup)
        self._inside(["sh", "-c", QUIET_SETTINGS])
        batch = [f"link add {network} up type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
                 for network in self.layout.networks()]
        self._ip(batch)
        inside = ["nsenter", "-t", str(self.client_pid()), "-n"]
        run([*inside, "sh", "-c", QUIET_SETTINGS])
        self.plug(CLIENT, self.client_pid(), {"guest": "guest0"})
        address = self.layout.address("guest", CLIENT)
        run([*inside, "ip", "-batch", "-"],
            input_text=f"link set lo up\naddr add {address}/24 dev guest0\nlink set guest0 up\n")

    def pid(self):
        return self._only_pid(self.cgroup, "switch")

    def client_pid(self):
        return self._only_pid(self.client_cgroup, CLIENT)

    def plug(self, host, pid, interfaces):
        """New cables from the bridges into the namespace of pid; interfaces: network -> name inside."""
        batch = []
        for network, inside in interfaces.items():
            port = port_name(host, network)
            batch += [f"link add {port} type veth peer name {inside} address {self.layout.mac(network, host)} netns {pid}",
                      f"link set {port} master {network} up"]
        self._ip(batch)

    def unplug(self, host):
        """Pulls the host's cables out; those that are gone already do not matter."""
        batch = "".join(f"link del {port_name(host, network)}\n" for network in self.layout.networks_of(host))
        subprocess.run(["nsenter", "-t", str(self.pid()), "-n", "ip", "-force", "-batch", "-"], input=batch, text=True,
                       capture_output=True, env=environment(), check=False)

    def apply_cuts(self):
        """Makes the kernel's rules equal to the state's cuts, in one transaction."""
        self._inside(["nft", "-f", "-"], ruleset(self.layout, self.state.cuts, self.state.isolated))

    def _keep(self, cgroup):
        cgroup.create()
        subprocess.Popen(["unshare", "-n", "sleep", "infinity"], preexec_fn=cgroup.join_function(),
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                         start_new_session=True, env=environment(), cwd="/")
        wait_for(lambda: any(_program(pid) == "sleep" for pid in cgroup.processes()), "a network namespace", 10)

    def _only_pid(self, cgroup, name):
        for pid in cgroup.processes():
            if _program(pid) == "sleep":
                return pid
        raise SandboxError(f"the sandbox's {name} is gone (killed from outside?); run `{COMMAND} up "
                           f"--id {self.state.sandbox_id}` to build it anew")

    def _inside(self, command, text=None):
        return run(["nsenter", "-t", str(self.pid()), "-n", *command], input_text=text)

    def _ip(self, batch):
        self._inside(["ip", "-batch", "-"], "\n".join(batch) + "\n")


def _program(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""
