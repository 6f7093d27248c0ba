"""One service under the host's init: started, watched and restarted by its unit's rules. Runs inside the host only.

Each service has a cgroup of its own, so that KillMode= means what it means under systemd.
"""
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

from gemel_sandbox.run import HOST_PATH

INACTIVE, ACTIVE, WAITING, STOPPING, FAILED, ABSENT = (
    "inactive", "active", "auto-restart", "deactivating", "failed", "not-installed")


class Service:
    """States: inactive, active, auto-restart (a restart is due), deactivating, failed, not-installed, skipped."""

    def __init__(self, unit, cgroup_root, log_directory):
        self.unit = unit
        self.cgroup = Path(cgroup_root) / unit.name
        self.log_path = Path(log_directory) / (unit.name.removesuffix(".service") + ".log")
        self.state = INACTIVE
        self.pid = 0
        self.starts = []          # times of recent starts, for the start limit
        self.restarts = 0
        self.restart_due = None   # BOOTTIME seconds
        self.kill_due = None
        self.last_exit = ""

    def start(self):
        """Starts it now; a missing program or condition is a state, not an error."""
        if self.state in (ACTIVE, STOPPING):
            return
        self.restart_due = None
        if not os.access(self.unit.command[0], os.X_OK):
            self.state = ABSENT
            return
        missing = [path for path in self.unit.condition_paths if not os.path.exists(path)]
        if missing:
            self.state, self.last_exit = INACTIVE, f"condition failed: {missing[0]} does not exist"
            return
        if not self._within_start_limit():
            self.state, self.last_exit = FAILED, "restarted too often"
            return
        self.cgroup.mkdir(exist_ok=True)
        for base, names in (("/run", self.unit.runtime_directories), ("/var/lib", self.unit.state_directories)):
            for name in names:
                Path(base, name).mkdir(parents=True, exist_ok=True)
        try:
            self._spawn()
        except OSError as problem:
            self.exited(f"could not be started: {problem}", failed=True)

    def _within_start_limit(self):
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        interval = self.unit.start_limit_interval_s
        if not interval:
            return True
        self.starts = [start for start in self.starts if now - start < interval] + [now]
        return len(self.starts) <= self.unit.start_limit_burst

    def _spawn(self):
        environment = {"PATH": HOST_PATH, "LANG": "C.UTF-8", **self.unit.environment}
        with open(self.log_path, "ab", buffering=0) as log:
            log.write(f"-- {time.strftime('%H:%M:%S')} init starts {self.unit.name}\n".encode())
            process = subprocess.Popen(self.unit.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env=environment, cwd="/", start_new_session=True, preexec_fn=self._prepare)
        self.pid = process.pid
        process.returncode = 0    # init reaps by waitpid(-1); Popen must not wait for this pid itself
        self.state = ACTIVE

    def _prepare(self):
        """Between fork and exec: the cgroup, limits and scheduling the unit asks for."""
        descriptor = os.open(self.cgroup / "cgroup.procs", os.O_WRONLY)
        os.write(descriptor, b"0")
        os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for name, value in self.unit.limits.items():
            which = getattr(resource, "RLIMIT_" + name.removeprefix("Limit"))
            number = resource.RLIM_INFINITY if value == "infinity" else int(value)
            _warn_if_refused(lambda: resource.setrlimit(which, (number, number)), f"{name}={value}")
        if self.unit.oom_score_adjust is not None:
            score = str(self.unit.oom_score_adjust)
            _warn_if_refused(lambda: Path("/proc/self/oom_score_adj").write_text(score), f"OOMScoreAdjust={score}")
        if self.unit.scheduling_policy in ("rr", "fifo"):
            policy = os.SCHED_RR if self.unit.scheduling_policy == "rr" else os.SCHED_FIFO
            _warn_if_refused(lambda: os.sched_setscheduler(0, policy, os.sched_param(self.unit.realtime_priority)),
                             "CPUSchedulingPolicy")
        if self.unit.nice:
            os.nice(self.unit.nice)

    def stop(self):
        """Asks it to end; `exited` or the deadline finishes the job."""
        self.restart_due = None
        if self.state == ACTIVE:
            self.state = STOPPING
            self.kill_due = time.clock_gettime(time.CLOCK_BOOTTIME) + self.unit.stop_timeout_s
            targets = self._processes() if self.unit.kill_mode == "control-group" else [self.pid]
            for pid in targets:
                _kill(pid, self.unit.kill_signal)
                _kill(pid, signal.SIGCONT)
        elif self.state == WAITING:
            self.state = INACTIVE

    def send(self, number, everything):
        """A signal from a test or operator: to the main process, or to all of the unit's."""
        if self.state not in (ACTIVE, STOPPING):
            return False
        for pid in self._processes() if everything else [self.pid]:
            _kill(pid, number)
        return True

    def exited(self, how, failed):
        """The main process is gone. What the unit left behind dies too, unless KillMode=process."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        wanted_stop = self.state == STOPPING
        self.pid, self.kill_due, self.last_exit = 0, None, how
        if self.unit.kill_mode != "process" and self.cgroup.is_dir():
            (self.cgroup / "cgroup.kill").write_text("1")
        rule = self.unit.restart
        if not wanted_stop and (rule == "always" or (rule == "on-failure" and failed)):
            self.state, self.restart_due = WAITING, now + self.unit.restart_s
            self.restarts += 1
        else:
            self.state = FAILED if failed and not wanted_stop else INACTIVE

    def tick(self, now):
        """Does what is due; returns the next deadline or None."""
        if self.restart_due is not None and now >= self.restart_due:
            self.state = INACTIVE
            self.start()
        if self.kill_due is not None and now >= self.kill_due:
            self.kill_due = None
            for pid in self._processes():
                _kill(pid, signal.SIGKILL)
        return min((due for due in (self.restart_due, self.kill_due) if due is not None), default=None)

    def report(self):
        return {"unit": self.unit.name, "state": self.state, "pid": self.pid, "restarts": self.restarts,
                "last_exit": self.last_exit, "log": str(self.log_path)}

    def _processes(self):
        try:
            return [int(pid) for pid in (self.cgroup / "cgroup.procs").read_text().split()]
        except OSError:
            return []


def _kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _warn_if_refused(action, what):
    """Without the privilege (e.g. real-time priority on a container's host) the daemon runs on, and its log says so."""
    try:
        action()
    except (OSError, ValueError) as problem:
        os.write(2, f"init: this machine refuses {what}: {problem}\n".encode())
