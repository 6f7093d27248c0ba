"""mount(2) for the host's init, and the host's view of the file system.

The machine's own tree is the host's base. What a host may change lies on top: overlays on a tmpfs (lost at power
off) for /etc, /var/lib, /var/log, /var/cache and /usr/sbin, and bind mounts of its own disk for what must survive.
Nothing is ever mounted outside the host's private mount namespace.
"""
import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
OVERLAYS = ["/etc", "/var/lib", "/var/log", "/var/cache", "/usr/sbin"]
# what survives a power cut: directory of the host -> name on its disk
PERSISTENT = {
    "/etc/gemel": "etc-gemel", "/var/lib/gemel": "var-lib-gemel", "/etc/libvirt": "etc-libvirt",
    "/var/lib/libvirt": "var-lib-libvirt", "/var/log/libvirt": "var-log-libvirt",
    "/var/cache/libvirt": "var-cache-libvirt",
}


def mount(source, target, kind="", flags=0, data=""):
    if _libc.mount(str(source).encode(), str(target).encode(), kind.encode() or None, ctypes.c_ulong(flags),
                   data.encode() or None) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"mount {kind or 'bind'} on {target}: {os.strerror(error)}")


def kernel_file_systems():
    """proc, sys, devpts and the cgroup tree as this host's namespaces see them."""
    hybrid = Path("/sys/fs/cgroup/unified").is_dir()
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    cgroup = Path("/sys/fs/cgroup")
    if hybrid:
        mount("tmpfs", cgroup, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755")
        cgroup = cgroup / "unified"
        cgroup.mkdir()
    mount("cgroup2", cgroup, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    return cgroup


def overlays(scratch, product_directory):
    """Private, volatile upper layers; the product's programs appear in /usr/sbin, where the package puts them.

    The layers are named relative to the scratch directory, because an overlay may hide the path that leads to it.
    """
    mount("tmpfs", scratch, "tmpfs", 0, "mode=755")
    os.chdir(scratch)
    for directory in OVERLAYS:
        base = directory.strip("/").replace("/", "-")
        os.makedirs(f"{base}/upper")
        os.mkdir(f"{base}/work")
        lower = f"{product_directory}:{directory}" if directory == "/usr/sbin" else directory
        mount("overlay", directory, "overlay", 0, f"lowerdir={lower},upperdir={base}/upper,workdir={base}/work")
    os.chdir("/")


def hold(directory):
    """A handle on a directory that `show_again` can find after mounts have hidden it."""
    return os.open(directory, os.O_PATH | os.O_DIRECTORY)


def show_again(handle, directory):
    """Makes a held directory visible at its old path, whatever was mounted over a part of that path."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    mount(f"/proc/self/fd/{handle}", directory, "", MS_BIND)
    os.close(handle)


def bind_disk(disk, share):
    """The host's own disk, and /mnt, which all hosts share."""
    mount(share, "/mnt", "", MS_BIND)
    for target, name in PERSISTENT.items():
        Path(target).mkdir(parents=True, exist_ok=True)
        mount(Path(disk) / name, target, "", MS_BIND)


def volatile_directories():
    """Fresh at each power-on: /run (the incarnation's nonce lives there), /dev/shm and /tmp."""
    for target, mode in (("/run", "755"), ("/dev/shm", "1777"), ("/tmp", "1777")):
        mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}")
    for directory in ("/run/lock", "/run/fence-agents"):
        os.mkdir(directory, 0o1777)
        os.chmod(directory, 0o1777)
