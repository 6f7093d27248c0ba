"""Real sandboxes for tests. Every action goes through the command line a user has, so that it is tested as well.

    with Sandbox(witness=True) as box:
        box["node1"].exec("ip", "address")
        box.cut_power("node1")
        wait_for(lambda: ..., 10, "the guest to run on node2")

When a test fails inside the `with`, the hosts' logs are kept under .cache/system-tests/TEST/ and the ends of the
loudest ones are part of the failure's text. Nothing of a sandbox outlives its `with`.
"""
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY / "src" / "sandbox"))

from gemel_sandbox.layout import cgroup_name  # noqa: E402  (the path above makes it importable)
from gemel_sandbox.sandbox import Sandbox as LiveSandbox, last_build, product_binaries  # noqa: E402
from gemel_sandbox.state import all_ids  # noqa: E402

KEPT_LOGS = REPOSITORY / ".cache" / "system-tests"
POLL_S = 0.02
_numbers = itertools.count(1)
_current_test = "none"


class TestFailure(AssertionError):
    """A check that did not hold; its text says what was expected and what was seen."""


def long_test(function):
    """Marks a test that only `run.py --long` runs."""
    function.is_long = True
    return function


def time_limit(seconds):
    """For a test of several stories on one cluster, which may take longer than the others."""
    def mark(function):
        function.limit_s = seconds
        return function
    return mark


def wait_for(condition, deadline_s, what):
    """Returns condition()'s first true value; after the deadline the test fails. Errors inside count as "not yet"."""
    end = time.monotonic() + deadline_s
    last_error = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last_error = None
        except (TestFailure, subprocess.SubprocessError, OSError, ValueError, KeyError) as error:
            last_error = error
        if time.monotonic() > end:
            reason = f" (last: {last_error})" if last_error else ""
            raise TestFailure(f"expected {what} within {deadline_s} s{reason}")
        time.sleep(POLL_S)  # poll interval


def set_current_test(name):
    global _current_test
    _current_test = name


def build_directory():
    """Where the product's programs are: GEMEL_BIN, or this tree's last build."""
    candidate = os.environ.get("GEMEL_BIN") or last_build()
    if candidate is None or "gemel-lossyfs" not in product_binaries(candidate):
        raise TestFailure("expected a build with gemel-lossyfs: run ./dev build, or set GEMEL_BIN")
    return Path(candidate)


def sandbox_command(*arguments, timeout_s=90):
    """Runs `gemel sandbox ...`; returns the finished process."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src" / "sandbox"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(["/usr/bin/python3", "-m", "gemel_sandbox", *arguments], env=environment, text=True,
                          capture_output=True, timeout=timeout_s, check=False)


def new_id():
    return f"test-{os.getpid()}-{next(_numbers)}"


def remove_leftovers():
    """Sandboxes of test runs whose process is gone (killed with SIGKILL, or the machine's memory ran out)."""
    for sandbox_id in all_ids():
        parts = sandbox_id.split("-")
        if parts[0] == "test" and len(parts) == 3 and not Path(f"/proc/{parts[1]}").exists():
            sandbox_command("--id", sandbox_id, "down")


class Child(subprocess.Popen):
    """A program in a host; killing it kills the outer and the inner process."""

    def __init__(self, command, **options):
        super().__init__(command, start_new_session=True, **options)

    def kill(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Host:
    """One host of a sandbox, by its name."""

    def __init__(self, box, name):
        self.box, self.name = box, name

    def command(self, *argv):
        """Arguments that run argv inside the host, for subprocess."""
        return ["/usr/bin/python3", "-B", "-m", "gemel_sandbox", "--id", self.box.id, "exec", self.name, "--",
                *map(str, argv)]

    def exec(self, *argv, check=True, input_text=None, timeout_s=30):
        """Runs argv to its end; with check, a failure fails the test. Returns the finished process."""
        child = Child(self.command(*argv), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                      stderr=subprocess.PIPE, env=_environment())
        try:
            output, errors = child.communicate(input_text, timeout=timeout_s)
        except subprocess.TimeoutExpired as late:
            child.kill()
            child.communicate()
            raise TestFailure(f"on {self.name}, '{' '.join(map(str, argv))}' did not end in {timeout_s} s") from late
        done = subprocess.CompletedProcess(argv, child.returncode, output, errors)
        if check and done.returncode != 0:
            raise TestFailure(f"on {self.name}, '{' '.join(map(str, argv))}' ended with {done.returncode}: "
                              f"{(done.stderr or done.stdout).strip()[-2000:]}")
        return done

    def start(self, *argv, **options):
        """Starts argv in the host and returns its Popen; it dies with the host's power or the sandbox."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, "text": True,
                   **options}
        process = Child(self.command(*argv), env=_environment(), **options)
        self.box.children.append(process)
        return process

    def python(self, program, *argv, **options):
        """Starts a Python program (its text) in the host."""
        return self.start("/usr/bin/python3", "-u", "-B", "-c", program, *argv, **options)

    def kill(self, unit, signal="KILL", everything=False):
        self.box.run("kill", self.name, unit, signal, *(["--all"] if everything else []))

    def stop_unit(self, unit):
        self.box.run("stop-unit", self.name, unit)

    def start_unit(self, unit):
        self.box.run("start-unit", self.name, unit)

    def unit(self, name):
        """state, pid, restarts, last_exit of one unit."""
        units = {unit["unit"].removesuffix(".service"): unit for unit in self.report()["units"]}
        return units[name.removesuffix(".service")]

    def report(self):
        return next(host for host in self.box.status()["hosts"] if host["name"] == self.name)

    def address(self, network):
        return self.box.layout().address(network, self.name)

    def path(self, inside):
        """Where a file below one of the host's persistent directories lies outside (also while the host is off)."""
        for directory, name in (("/var/lib/gemel", "var-lib-gemel"), ("/etc/gemel", "etc-gemel"),
                                ("/var/log/libvirt", "var-log-libvirt"), ("/etc/libvirt", "etc-libvirt")):
            if inside.startswith(directory):
                return self.box.layout().disk_dir(self.name) / name / inside[len(directory) + 1:]
        raise ValueError(f"{inside} does not survive a power cut")

    def log(self, unit):
        path = self.box.layout().log_dir(self.name) / f"{unit}.log"
        return path.read_text(errors="replace") if path.exists() else ""


class Sandbox:
    """A sandbox that lives as long as its `with`. product=False: only the lossy disk's program and `programs`.

    programs: name -> text of an executable script that stands in for a daemon, e.g. {"gemel-clusterd": "#!/bin/sh..."}.
    """

    def __init__(self, nodes=2, witness=False, links=3, link_rate="", lossy_disks=False, ignore_syncs=False, seed=1, product=True,
                 programs=None):
        self.id = new_id()
        self.children = []
        self.product, self.programs = product, programs or {}
        self.arguments = ["--nodes", str(nodes), "--links", str(links), "--seed", str(seed)]
        self.arguments += ["--witness"] if witness else []
        self.arguments += ["--link-rate", link_rate] if link_rate else []
        self.arguments += ["--lossy-disks"] if lossy_disks else []
        self.arguments += ["--ignore-syncs"] if ignore_syncs else []
        self.up_output = ""

    def __enter__(self):
        with tempfile.TemporaryDirectory() as directory:
            binaries = build_directory() if self.product and not self.programs else self._collect(Path(directory))
            try:
                self.up_output = self.run("up", *self.arguments, "--bin", str(binaries))
            except BaseException:
                self._down()
                raise
        return self

    def __exit__(self, kind, error, trace):
        try:
            if kind is not None and issubclass(kind, Exception):
                error.args = (f"{error}\n{self._keep_logs()}",)
        finally:
            for child in self.children:
                child.kill()
                child.wait()
            self._down()

    def __getitem__(self, name):
        return Host(self, name)

    @property
    def client(self):
        """The guests' network, from outside the hosts."""
        return Host(self, "client")

    def run(self, *arguments, timeout_s=90):
        """One sandbox command; a failure fails the test. Returns what it printed."""
        done = sandbox_command("--id", self.id, *arguments, timeout_s=timeout_s)
        if done.returncode != 0:
            raise TestFailure(f"`gemel sandbox {' '.join(arguments)}` failed: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def refused(self, *arguments):
        """A sandbox command that must fail with one line; returns that line."""
        done = sandbox_command("--id", self.id, *arguments)
        lines = done.stderr.strip().splitlines()
        if done.returncode == 0 or len(lines) != 1:
            raise TestFailure(f"`gemel sandbox {' '.join(arguments)}` should be refused in one line; exit code "
                              f"{done.returncode}, said: {done.stderr.strip() or done.stdout.strip()}")
        return lines[0]

    def status(self):
        return json.loads(self.run("status", "--json"))

    def live(self):
        return LiveSandbox.load(self.id)

    def layout(self):
        return self.live().layout

    def cut_power(self, host, with_bmc=False):
        self.run("cut-power", host, *(["--with-bmc"] if with_bmc else []))

    def power_on(self, host):
        self.run("power-on", host)

    def cut_link(self, network, *arguments):
        self.run("cut-link", network, *arguments)

    def heal(self):
        self.run("heal")

    def pause(self, host):
        self.run("pause", host)

    def resume(self, host):
        self.run("resume", host)

    def fence(self, by, victim, action, **more_options):
        """fence_ipmilan as the product calls it: options on standard input. Returns the finished process."""
        bmc = json.loads(self[by].exec("cat", "/etc/gemel/sandbox-bmc.json").stdout)[victim]
        options = {**bmc["options"], "action": action, **more_options}
        text = "".join(f"{key}={value}\n" for key, value in options.items())
        return self[by].exec(bmc["agent"], check=False, input_text=text, timeout_s=60)

    def _collect(self, directory):
        lossy = product_binaries(build_directory())["gemel-lossyfs"]
        shutil.copy2(lossy, directory / "gemel-lossyfs")
        if self.product:
            for name, path in product_binaries(build_directory()).items():
                shutil.copy2(path, directory / name)
        for name, text in self.programs.items():
            (directory / name).write_text(text)
            (directory / name).chmod(0o755)
        return directory

    def _keep_logs(self):
        """Copies all logs; returns the ends of those that were written, for the failure's text."""
        source = Path(self.live().state.directory)
        target = KEPT_LOGS / _current_test
        shutil.rmtree(target, ignore_errors=True)
        text = f"logs kept in {target.relative_to(REPOSITORY)}"
        for log in sorted(source.glob("hosts/*/log/*.log")) + sorted(source.glob("hosts/*/bmc/*.log")):
            name = f"{log.parts[-3]}-{log.name}"
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(log, target / name)
            lines = log.read_text(errors="replace").splitlines()[-4:]
            if log.name.startswith("gemel-") or log.name == "init.log":
                text += "".join(f"\n  {name}: {line[:200]}" for line in lines)
        return text

    def _down(self):
        done = sandbox_command("--id", self.id, "down")
        if done.returncode != 0:
            raise TestFailure(f"down failed: {done.stderr.strip()}")


def _environment():
    return {**os.environ, "PYTHONPATH": str(REPOSITORY / "src" / "sandbox")}


def leftovers_of(sandbox_id, directory, namespaces=()):
    """Everything on this machine that still belongs to a sandbox; empty when nothing does.

    Looks for its cgroup, directory, registry entry, processes that name it, mounts in any process's namespace, named
    network namespaces, and processes in the given namespaces (inode numbers noted while it was alive).
    """
    found = []
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/run/gemel-sandbox", "/run/netns"):
        path = Path(root)
        if path.is_dir():
            names = {sandbox_id, f"{sandbox_id}.lock", cgroup_name(sandbox_id)}
            found += [str(entry) for entry in path.iterdir() if entry.name in names]
    if Path(directory).exists():
        found.append(str(directory))
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                continue   # dead; this machine's process 1 will take notice
            command = (process / "cmdline").read_text()
            mounts = (process / "mountinfo").read_text()
            spaces = {os.stat(process / "ns" / kind).st_ino for kind in ("net", "mnt", "pid")}
        except OSError:
            continue
        if sandbox_id in command or spaces & set(namespaces):
            found.append(f"process {process.name}: {command[:100]!r}")
        if str(directory) in mounts:
            found.append(f"a mount seen by process {process.name}")
    return found


def namespaces_of(box):
    """Inode numbers of all namespaces that the sandbox's processes are in and this process is not."""
    own = {os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("net", "mnt", "pid")}
    found = set()
    for pid in box.live().top.processes():
        for kind in ("net", "mnt", "pid"):
            try:
                found.add(os.stat(f"/proc/{pid}/ns/{kind}").st_ino)
            except OSError:
                continue
    return found - own
