"""cgroup v2: who belongs to a sandbox, freezing and killing it as a whole.

Every process of a sandbox lives below one cgroup, and all its namespaces and mounts are held by these processes
only. Killing the cgroup therefore removes everything at once, and survives a crash of the tool at any point.
Needs no controllers, so the v2 tree of a hybrid machine serves as well.
"""
import os
from pathlib import Path

from gemel_sandbox.errors import SandboxError
from gemel_sandbox.run import wait_for


def v2_root():
    """Where this machine has its cgroup v2 tree (/sys/fs/cgroup, or .../unified on a hybrid machine)."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise SandboxError("expected a cgroup v2 tree: mount one, e.g. `mount -t cgroup2 none /sys/fs/cgroup`")


class Cgroup:
    """One cgroup by its absolute path; it need not exist."""

    def __init__(self, path):
        self.path = Path(path)

    @staticmethod
    def top(name):
        return Cgroup(v2_root() / name)

    def child(self, name):
        return Cgroup(self.path / name)

    def exists(self):
        return self.path.is_dir()

    def create(self):
        self.path.mkdir(parents=True, exist_ok=True)
        return self

    def join_function(self):
        """For subprocess's preexec_fn: the child is inside before it runs a single instruction of its program."""
        target = str(self.path / "cgroup.procs")

        def join():
            descriptor = os.open(target, os.O_WRONLY)
            os.write(descriptor, b"0")
            os.close(descriptor)
        return join

    def _event(self, key):
        try:
            text = (self.path / "cgroup.events").read_text()
        except OSError:
            return False
        return f"{key} 1" in text

    def populated(self):
        return self._event("populated")

    def frozen(self):
        return self._event("frozen")

    def freeze(self, on):
        (self.path / "cgroup.freeze").write_text("1" if on else "0")
        wait_for(lambda: self.frozen() == on or not self.populated(),
                 f"all processes to {'freeze' if on else 'go on'}", 10)

    def signal_kill(self):
        """SIGKILL to everything below, forks in flight included; does not wait. Frozen processes die too."""
        try:
            (self.path / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            pass

    def kill(self):
        """signal_kill, and waits until nothing lives."""
        self.signal_kill()
        wait_for(lambda: not self.populated(), f"the processes of {self.path.name} to die", 15)

    def processes(self):
        """Pids of everything below, recursively."""
        found = []
        for directory, _, files in os.walk(self.path):
            if "cgroup.procs" in files:
                try:
                    found += [int(pid) for pid in (Path(directory) / "cgroup.procs").read_text().split()]
                except OSError:
                    continue
        return found

    def remove(self):
        """Kills what lives and removes the whole subtree."""
        if not self.exists():
            return
        self.kill()
        for directory, _, _ in os.walk(self.path, topdown=False):
            wait_for(lambda path=directory: _rmdir(path), f"cgroup {directory} to be empty", 5)


def _rmdir(path):
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
