"""Process 1 of a sandbox's host: mounts its file systems, starts the packaged units, reaps orphans.

Started by host.py inside fresh pid, mount, network, uts, ipc and cgroup namespaces. Speaks on its standard output:
"staged" when the host's disk and cables may be attached, then, after a line on standard input, "booted" when every
unit was started. Later it answers one JSON request per connection on its control socket.
"""
import json
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path

from gemel_sandbox import mounts
from gemel_sandbox.service import STOPPING, Service
from gemel_sandbox.units import parse_unit, start_order


class Init:
    """The event loop. All state is the services'; a request that must wait keeps its connection open."""

    def __init__(self, spec):
        self.spec = spec
        self.services = {}
        self.waiting = []   # (connection, service): a stop in progress
        self.selector = selectors.DefaultSelector()
        self.listener = None

    def listen(self):
        """The socket lies in the host's directory outside; bound relative to it, for paths of any length."""
        path = Path(self.spec["control_socket"])
        path.unlink(missing_ok=True)
        os.chdir(path.parent)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path.name)
        self.listener.listen(16)
        os.chdir("/")
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)

    def load_units(self, cgroup_root):
        units = [parse_unit(Path(path).name, text) for path, text in self.spec["units"].items()]
        for unit in start_order(units):
            self.services[unit.name] = Service(unit, cgroup_root, self.spec["log_directory"])

    def start_all(self):
        for service in self.services.values():
            service.start()

    def loop(self):
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Process 1 gets no signal that it has no handler for; ignoring them here would make the daemons ignore them.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self.selector.register(reader, selectors.EVENT_READ, lambda: os.read(reader, 4096))
        while True:
            self._reap()
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            dues = [due for due in [service.tick(now) for service in self.services.values()] if due is not None]
            timeout = max(0.0, min(dues) - now) if dues else None
            for key, _ in self.selector.select(timeout):
                key.data()

    def _reap(self):
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            for service in self.services.values():
                if service.pid == pid:
                    code = os.waitstatus_to_exitcode(status)
                    how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
                    service.exited(how, failed=code != 0)
        for connection, service in list(self.waiting):
            if service.state != STOPPING:
                self.waiting.remove((connection, service))
                _reply(connection, {"ok": True, **service.report()})

    def _accept(self):
        connection, _ = self.listener.accept()
        connection.settimeout(2)
        try:
            request = json.loads(connection.makefile("r").readline())
            answer = self._answer(connection, request)
        except (OSError, ValueError, KeyError, TypeError) as problem:
            answer = {"ok": False, "error": f"bad request: {problem}"}
        if answer is not None:
            _reply(connection, answer)

    def _answer(self, connection, request):
        command = request["command"]
        if command == "status":
            return {"ok": True, "units": [service.report() for service in self.services.values()]}
        name = request["unit"] if "." in request["unit"] else request["unit"] + ".service"
        service = self.services.get(name)
        if service is None:
            return {"ok": False, "error": f"no unit '{name}' here: expected one of {', '.join(self.services)}"}
        if command == "start":
            service.start()
        elif command == "stop":
            service.stop()
            if service.state == STOPPING:
                self.waiting.append((connection, service))
                return None
        elif command == "kill":
            if not service.send(request["signal"], request.get("all", False)):
                return {"ok": False, "error": f"{name} is not running ({service.state}); start it with start-unit"}
        else:
            return {"ok": False, "error": f"unknown command '{command}'"}
        return {"ok": True, **service.report()}


def _reply(connection, answer):
    try:
        connection.sendall(json.dumps(answer).encode() + b"\n")
    except OSError:
        pass
    connection.close()


def _write_etc(spec):
    """The files a host's installer writes; /etc is this host's own overlay."""
    Path("/etc/hostname").write_text(spec["hostname"] + "\n")
    hosts = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in spec["hosts"].items())
    Path("/etc/hosts").write_text(hosts)
    Path("/etc/machine-id").write_text(spec["machine_id"] + "\n")
    # libvirt's daemon package (without its -system package) expects these to exist
    for path, name, line in (("/etc/passwd", "libvirt-qemu", "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin"),
                             ("/etc/group", "libvirt-qemu", "libvirt-qemu:x:64055:"), ("/etc/group", "kvm", "kvm:x:64056:")):
        text = Path(path).read_text()
        if not any(entry.startswith(name + ":") for entry in text.splitlines()):
            Path(path).write_text(text.rstrip("\n") + "\n" + line + "\n")


def main(spec_path):
    spec = json.loads(Path(spec_path).read_text())
    init = Init(spec)
    init.listen()
    cgroup_root = mounts.kernel_file_systems()
    directory = mounts.hold(spec["sandbox_directory"])
    mounts.overlays(spec["scratch"], spec["product_directory"])
    mounts.volatile_directories()
    mounts.show_again(directory, spec["sandbox_directory"])
    socket.sethostname(spec["hostname"])
    print("staged", flush=True)
    if not sys.stdin.readline():
        return 1    # the tool died; nobody would attach our cables
    mounts.bind_disk(spec["disk"], spec["share"])
    _write_etc(spec)
    init.load_units(cgroup_root)
    init.start_all()
    print("booted", flush=True)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    init.loop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
