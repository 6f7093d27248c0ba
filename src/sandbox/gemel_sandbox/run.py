"""Running outside programs, and waiting with a deadline. Nothing here knows about sandboxes."""
import shutil
import subprocess
import time

from gemel_sandbox.errors import COMMAND, SandboxError

HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# tool -> Debian package that brings it
TOOLS = {
    "ip": "iproute2", "tc": "iproute2", "nft": "nftables", "nsenter": "util-linux", "unshare": "util-linux",
    "openssl": "openssl", "ipmi_sim": "openipmi", "fence_ipmilan": "fence-agents", "etcd": "etcd-server",
    "libvirtd": "libvirt-daemon",
}


def check_tools():
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool, path=HOST_PATH) is None})
    if missing:
        raise SandboxError(f"expected these packages to be installed: {' '.join(missing)}; "
                           f"run: apt-get install {' '.join(missing)}")


def run(command, *, input_text=None, cgroup=None, timeout_s=30):
    """Runs a program to its end and returns its standard output; a failure carries its last error line."""
    join = cgroup.join_function() if cgroup else None
    try:
        done = subprocess.run(command, input=input_text, text=True, capture_output=True, timeout=timeout_s,
                              preexec_fn=join, env=environment(), check=False)
    except subprocess.TimeoutExpired as late:
        raise SandboxError(f"expected '{command[0]}' to end within {timeout_s} s: {' '.join(command)}") from late
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise SandboxError(f"'{' '.join(command[:6])}' failed: {reason}")
    return done.stdout


def environment():
    return {"PATH": HOST_PATH, "HOME": "/root", "LANG": "C.UTF-8"}


def wait_for(condition, what, deadline_s, step_s=0.005):
    """Waits until condition() is true; after the deadline it says what was awaited."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise SandboxError(f"expected {what} within {deadline_s} s; see `{COMMAND} status` and the logs")
        time.sleep(step_s)
