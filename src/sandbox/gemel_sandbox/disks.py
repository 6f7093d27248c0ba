"""Lossy disks: a host's persistent directories on gemel-lossyfs, which forgets unsynced writes at a power cut.

The file system's process belongs to the machine ("the disk"), not to the host: it outlives the host's processes by
the moment in which it decides what the platters kept. It is mounted in the host's mount namespace only.
"""
import os
import shutil
import signal
import subprocess
import zlib

from gemel_sandbox.errors import SandboxError
from gemel_sandbox.run import environment, wait_for

PROGRAM = "gemel-lossyfs"


def check_program(layout):
    if not program(layout):
        raise SandboxError(f"--lossy-disks expects {PROGRAM}: build it (`./dev build`) and give its directory by --bin")


def program(layout):
    own = layout.directory / "bin" / PROGRAM
    return str(own) if own.exists() else shutil.which(PROGRAM)


def mount_point(host):
    return host.layout.host_dir(host.name) / "lossy"


def attach(host, pid):
    """Mounts the disk in the mount namespace of pid. The seed differs per host and power cycle, and is repeatable."""
    cycle = host.state.cycles[host.name]
    seed = zlib.crc32(f"{host.state.seed}/{host.name}/{cycle}".encode())
    mount_point(host).mkdir(exist_ok=True)
    host.disk_cgroup.create()
    log_path = host.layout.log_dir(host.name) / "lossyfs.log"
    with open(log_path, "ab") as log:
        process = subprocess.Popen(
            [program(host.layout), f"--seed={seed}", f"--mount-namespace=/proc/{pid}/ns/mnt",
             *(["--ignore-syncs"] if host.state.ignore_syncs else []), str(host.layout.disk_dir(host.name)), str(mount_point(host))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=environment(), cwd="/",
            start_new_session=True, preexec_fn=host.disk_cgroup.join_function())
    if process.stdout.readline().strip() != "mounted":
        raise SandboxError(f"{host.name}: the lossy disk did not mount; see {log_path}")
    process.stdout.close()


def power_cut(host):
    """Everything in the host is dead: now the disk forgets, and ends. A disk that is not lossy keeps everything."""
    if not host.disk_cgroup.populated():
        return
    for pid in host.disk_cgroup.processes():
        os.kill(pid, signal.SIGUSR1)
    wait_for(lambda: not host.disk_cgroup.populated(), f"{host.name}'s lossy disk to settle", 30)
    host.disk_cgroup.remove()
