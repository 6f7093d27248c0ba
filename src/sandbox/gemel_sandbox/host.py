"""Power of one host: on, off, frozen. Nothing of a host that is off exists, except its disk.

Power off is a power cut: first no frame from or to the host passes the switch, then everything in it is killed at
once; its namespaces and mounts end with its last process. No FIN and no RST can get out.
"""
import json
import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

from gemel_sandbox import config, disks, host_network
from gemel_sandbox.errors import COMMAND, SandboxError
from gemel_sandbox.layout import WITNESS
from gemel_sandbox.run import environment
from gemel_sandbox.state import write_atomically

PACKAGE_PARENT = Path(__file__).resolve().parent.parent
REPOSITORY = PACKAGE_PARENT.parent.parent


class Host:
    """One host of a sandbox; the caller holds the sandbox's lock for everything that changes it."""

    def __init__(self, state, top, switch, name):
        self.state, self.switch, self.name = state, switch, name
        self.layout = state.layout()
        self.cgroup = top.child(name)
        self.disk_cgroup = top.child(f"{name}-disk")

    def running(self):
        return self.cgroup.populated()

    def init_pid(self):
        """Process 1 of the host, as this machine counts: whoever listens on its control socket."""
        with self._connect() as connection:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid = struct.unpack("3i", credentials)[0]
        if not pid:
            raise self._off_error()
        return pid

    def ask(self, timeout_s=5, **request):
        """One request to the host's init; its answer as a dictionary."""
        try:
            with self._connect() as connection:
                connection.settimeout(timeout_s)
                connection.sendall(json.dumps(request).encode() + b"\n")
                answer = json.loads(connection.makefile("r").readline() or '{"ok": false, "error": "no answer"}')
        except TimeoutError as late:
            raise SandboxError(f"{self.name} did not answer within {timeout_s} s; if it is paused, run "
                               f"`{COMMAND} resume {self.name}`") from late
        if not answer["ok"]:
            raise SandboxError(f"{self.name}: {answer['error']}")
        return answer

    def require_on(self):
        """Raises with the next step unless the host runs and is not paused."""
        if not self.running():
            raise self._off_error()
        if self.cgroup.frozen():
            raise SandboxError(f"{self.name} is paused; run `{COMMAND} resume {self.name}` first")

    def power_on(self):
        if self.running():
            raise SandboxError(f"{self.name} is on already; run `{COMMAND} cut-power {self.name}` first")
        self.cgroup.remove()
        self.disk_cgroup.remove()
        self.cgroup.create()
        self.switch.unplug(self.name)
        self.state.cycles[self.name] = self.state.cycles.get(self.name, 0) + 1
        try:
            self._boot()
        except BaseException:
            self.cgroup.kill()
            self.disk_cgroup.remove()
            raise
        self.set_power("on")

    def power_off(self):
        """Idempotent. The order is the promise: frames, then processes, then the disk, then what BMC and status say."""
        if self.name not in self.state.isolated:
            self.state.isolated.append(self.name)
            self.state.save()
        self.switch.apply_cuts()
        self.cgroup.kill()
        disks.power_cut(self)
        self.cgroup.remove()
        self.switch.unplug(self.name)
        self.set_power("off")

    def set_power(self, value):
        """The state file, and the one word the BMC reads; "on" lets frames pass first, "off" is true already."""
        if value == "on" and self.name in self.state.isolated:
            self.state.isolated.remove(self.name)
            self.switch.apply_cuts()
        self.state.power[self.name] = value
        self.state.save()
        write_atomically(self.layout.host_dir(self.name) / "power", value + "\n")

    def enter_command(self, command):
        """Arguments of a program that runs `command` in all of the host's namespaces, and ends it when it is ended."""
        return ["nsenter", "-t", str(self.init_pid()), "-m", "-u", "-i", "-n", "-p", "-C", "--wd=/", "--",
                "setpriv", "--pdeathsig", "KILL", "--", *command]

    def _boot(self):
        directory = self.layout.host_dir(self.name)
        (directory / "scratch").mkdir(exist_ok=True)
        spec_path = directory / "init.json"
        spec_path.write_text(json.dumps(self._spec(), indent=1))
        environ = {**environment(), "PYTHONPATH": str(PACKAGE_PARENT), "PYTHONDONTWRITEBYTECODE": "1"}
        with open(self.layout.log_dir(self.name) / "init.log", "ab") as log:
            process = subprocess.Popen(
                ["unshare", "-m", "-u", "-i", "-n", "-p", "-C", "--fork", "--propagation", "private",
                 "/usr/bin/python3", "-m", "gemel_sandbox.init", str(spec_path)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environ, cwd="/",
                start_new_session=True, preexec_fn=self.cgroup.join_function())
        self._expect(process, "staged")
        pid = self.init_pid()
        if self.state.lossy_disks:
            disks.attach(self, pid)
        self.switch.plug(self.name, pid, host_network.interfaces_of(self.layout, self.name))
        host_network.configure(self.layout, self.name, pid, self.state.link_rate)
        process.stdin.write("go\n")
        process.stdin.flush()
        self._expect(process, "booted")
        process.stdin.close()
        process.stdout.close()

    def _spec(self):
        directory = self.layout.host_dir(self.name)
        disk = disks.mount_point(self) if self.state.lossy_disks else self.layout.disk_dir(self.name)
        return {
            "hostname": self.name, "control_socket": str(self.layout.control_socket(self.name)),
            "sandbox_directory": str(self.layout.directory), "scratch": str(directory / "scratch"), "disk": str(disk),
            "product_directory": str(self.layout.directory / "bin"), "share": str(self.layout.directory / "share"),
            "log_directory": str(self.layout.log_dir(self.name)),
            "machine_id": self.state.ids[self.name].replace("-", ""),
            "hosts": {host: self.layout.address("control", host) for host in self.layout.hosts()},
            "units": config.unit_files(REPOSITORY, self.name == WITNESS),
        }

    def _expect(self, process, word):
        line = process.stdout.readline().strip()
        if line != word:
            log = self.layout.log_dir(self.name) / "init.log"
            lines = log.read_text(errors="replace").strip().splitlines() or ["no message"]
            raise SandboxError(f"{self.name} did not boot: {lines[-1]}; see {log}")

    def _connect(self):
        """Connects relative to the directory's descriptor, for paths longer than a socket address holds."""
        path = self.layout.control_socket(self.name)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = None
        try:
            directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
            connection.connect(f"/proc/self/fd/{directory}/{path.name}")
        except OSError as problem:
            connection.close()
            raise self._off_error() from problem
        finally:
            if directory is not None:
                os.close(directory)
        return connection

    def _off_error(self):
        return SandboxError(f"{self.name} is off; run `{COMMAND} power-on {self.name}` first")


def signal_number(text):
    """"KILL", "SIGKILL" and "9" all mean 9."""
    try:
        return int(text) if text.isdigit() else signal.Signals["SIG" + text.upper().removeprefix("SIG")].value
    except KeyError as unknown:
        raise SandboxError(f"'{text}' is no signal: expected a name such as KILL, STOP, CONT, TERM") from unknown
