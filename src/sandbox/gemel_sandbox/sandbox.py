"""One sandbox as a whole: up, down, cuts, power, status. Every change happens under the sandbox's lock.

`down` removes the sandbox's cgroup (which ends every process, namespace and mount), its directory and its registry
entry, in this order; it needs nothing that `up` must have completed, and so cleans up after a crash as well.
"""
import concurrent.futures
import os
import secrets
import shutil
import time
import uuid
from pathlib import Path

from gemel_sandbox import config, disks, state as state_file
from gemel_sandbox.bmc import Bmc
from gemel_sandbox.cgroup import Cgroup
from gemel_sandbox.errors import COMMAND, SandboxError
from gemel_sandbox.host import REPOSITORY, Host
from gemel_sandbox.layout import CLIENT, DEFAULT_HOME, MAX_LINKS, MAX_NODES, cgroup_name, node_of_bmc
from gemel_sandbox.run import check_tools
from gemel_sandbox.switch import Switch, check_rate


class Sandbox:
    """A live sandbox, read from its state file."""

    def __init__(self, state):
        self.state = state
        self.layout = state.layout()
        self.top = Cgroup.top(cgroup_name(state.sandbox_id))
        self.switch = Switch(state, self.top)

    @staticmethod
    def load(sandbox_id):
        return Sandbox(state_file.load(sandbox_id))

    def host(self, name):
        return Host(self.state, self.top, self.switch, self.layout.check_host(name))

    def hosts(self):
        return [self.host(name) for name in self.layout.hosts()]

    def bmc(self, node):
        return Bmc(self.state, self.top, self.switch, node)

    def cut_power(self, name, with_bmc):
        host = self.host(name)
        if with_bmc and name not in self.layout.nodes():
            raise SandboxError(f"{name} has no BMC; leave out --with-bmc")
        if with_bmc:
            self.bmc(name).kill()
        host.power_off()

    def power_on(self, name):
        """Power for the host and its BMC; returns whether the host was off. (A survivor may have been quicker.)"""
        host = self.host(name)
        if name in self.layout.nodes():
            self.bmc(name).start()
        was_off = not host.running()
        if was_off:
            host.power_on()
        return was_off

    def cut_link(self, networks, host, source, sink):
        """Adds cuts, all in the same moment: whole networks, one host's ports, or one direction between two hosts."""
        cuts = [self._checked_cut(network, host, source, sink) for network in networks]
        self.state.cuts += [cut for cut in cuts if cut not in self.state.cuts]
        self.state.save()
        self.switch.apply_cuts()
        return cuts

    def _checked_cut(self, network, host, source, sink):
        if network != "all" and network not in self.layout.networks():
            raise SandboxError(f"there is no network '{network}': expected all or one of "
                               f"{', '.join(self.layout.networks())}")
        ports = self.layout.hosts() + self.layout.bmcs() + [CLIENT]
        for name in filter(None, (host, source, sink)):
            if name not in ports:
                raise SandboxError(f"there is no host '{name}': expected one of {', '.join(ports)}")
            if network != "all" and network not in self.layout.networks_of(name):
                raise SandboxError(f"{name} has no port on {network}: expected one of "
                                   f"{', '.join(self.layout.networks_of(name))}")
        if bool(source) != bool(sink) or (source and host):
            raise SandboxError("a one-way cut expects --from HOST and --to HOST and no other host")
        return {"network": network, "from": source, "to": sink} if source else {"network": network, "host": host}

    def heal(self):
        healed = len(self.state.cuts)
        self.state.cuts.clear()
        self.state.save()
        self.switch.apply_cuts()
        return healed

    def set_paused(self, name, paused):
        host = self.host(name)
        if not host.running():
            raise SandboxError(f"{name} is off; run `{COMMAND} power-on {name}` first")
        host.cgroup.freeze(paused)

    def host_power(self, host):
        """What is, not what was asked for: off, on, paused, or dead (its init died by itself)."""
        if not host.running():
            return "off" if self.state.power.get(host.name) == "off" else "dead"
        return "paused" if host.cgroup.frozen() else "on"

    def report(self):
        """Everything `status` shows, as plain data."""
        hosts = []
        for host in self.hosts():
            power = self.host_power(host)
            entry = {"name": host.name, "power": power, "power_ons": self.state.cycles.get(host.name, 0),
                     "addresses": {network: self.layout.address(network, host.name)
                                   for network in self.layout.networks_of(host.name) if network != "guest"},
                     "logs": str(self.layout.log_dir(host.name)), "units": []}
            if power == "on":
                entry["init_pid"] = host.init_pid()
                entry["units"] = host.ask(command="status")["units"]
            if host.name in self.layout.nodes():
                bmc = self.bmc(host.name)
                entry["bmc"] = {"address": self.layout.address("mgmt", bmc.name),
                                "state": "answers" if bmc.running() else "dead"}
            hosts.append(entry)
        return {"id": self.state.sandbox_id, "directory": self.state.directory, "hosts": hosts,
                "cuts": self.state.cuts, "link_rate": self.state.link_rate, "lossy_disks": self.state.lossy_disks,
                "seed": self.state.seed, "client_address": self.layout.address("guest", CLIENT),
                "first_guest_address": self.layout.guest_address(1)}


def check_shape(state):
    if not 1 <= state.node_count <= MAX_NODES:
        raise SandboxError(f"--nodes {state.node_count}: expected 1 to {MAX_NODES}")
    if not 1 <= state.link_count <= MAX_LINKS:
        raise SandboxError(f"--links {state.link_count}: expected 1 to {MAX_LINKS}")
    if state.with_witness and state.node_count != 2:
        raise SandboxError("--witness expects --nodes 2: a single node needs none, three and more vote by themselves")
    check_rate(state.link_rate)


def product_binaries(directory):
    """gemel and gemel-* programs of an install or build directory; a build directory is searched through."""
    if directory is None:
        directory = last_build()
    if directory is None:
        return {}    # installed: the programs are in /usr/sbin already
    root = Path(directory).resolve()
    if not root.is_dir():
        raise SandboxError(f"--bin expects a directory with the product's programs, found no directory '{directory}'")
    found = {}
    for parent, subdirectories, files in os.walk(root):
        subdirectories[:] = [name for name in subdirectories if not name.endswith(".dir") and name != "CMakeFiles"]
        for name in files:
            path = Path(parent) / name
            if (name == "gemel" or name.startswith("gemel-")) and "." not in name and os.access(path, os.X_OK):
                found.setdefault(name, path)
    return found


def last_build():
    """In a source tree: the build directory whose programs were linked last; else None."""
    candidates = [REPOSITORY / "build" / preset for preset in ("release", "dev")]
    newest = {build: max((path.stat().st_mtime for path in product_binaries(build).values()), default=0.0)
              for build in candidates if build.is_dir() and "gemel" in product_binaries(build)}
    return max(newest, key=newest.get, default=None)


def bring_up(state, bin_directory, progress):
    """Builds a sandbox from nothing; on an error everything made so far is removed again."""
    check_tools()
    check_shape(state)
    binaries = product_binaries(bin_directory)
    with state_file.locked(state.sandbox_id):
        try:
            _refuse_or_clean(state.sandbox_id, Path(state.directory), progress)
        except SandboxError:
            if state_file.registered_directory(state.sandbox_id) is None:
                state_file.unregister(state.sandbox_id)   # refused before anything was made: the lock goes too
            raise
        try:
            return _build(state, binaries, progress)
        except BaseException:
            _remove_everything(state.sandbox_id, Path(state.directory))
            raise


def _refuse_or_clean(sandbox_id, directory, progress):
    known = state_file.registered_directory(sandbox_id)
    top = Cgroup.top(cgroup_name(sandbox_id))
    if known and top.exists() and top.child("switch").populated():
        try:
            state_file.load(sandbox_id)
        except SandboxError:
            pass
        else:
            raise SandboxError(f"sandbox '{sandbox_id}' is up already; run `{COMMAND} down --id {sandbox_id}` first, "
                               "or choose another --id")
    if known or top.exists():
        progress("removing what an earlier run left behind")
        _remove_everything(sandbox_id, known)
    if directory.exists() and any(directory.iterdir()):
        raise SandboxError(f"{directory} is not empty and is not this sandbox's: expected a new or empty directory")


def _build(state, binaries, progress):
    layout, directory = state.layout(), Path(state.directory)
    state_file.register(state.sandbox_id, directory)
    directory.mkdir(parents=True, exist_ok=True)
    state.save()
    state.ids = {name: str(uuid.uuid4()) for name in ["cluster", *layout.hosts()]}
    state.bmc_password = secrets.token_hex(8)
    for name in ("bin", "share", "hosts"):
        (directory / name).mkdir()
    for name, path in binaries.items():
        _link_or_copy(path, directory / "bin" / name)
    if state.lossy_disks:
        disks.check_program(layout)
    sandbox = Sandbox(state)
    sandbox.top.create()
    config.make_authority(layout)
    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        switch = pool.submit(sandbox.switch.create)
        written = [pool.submit(config.write_host, state, host) for host in layout.hosts()]
        for job in (switch, *written):
            job.result()
        progress(f"switch with {len(layout.networks())} networks, certificates and configuration")
        booted = [pool.submit(host.power_on) for host in sandbox.hosts()]
        for node in layout.nodes():
            sandbox.bmc(node).write()
        started = [pool.submit(sandbox.bmc(node).start) for node in layout.nodes()]
        for job in (*booted, *started):
            job.result()
    progress(f"{', '.join(layout.hosts())} are on, {len(started)} BMCs answer")
    state.phase = "up"
    state.save()
    return sandbox


def _link_or_copy(source, target):
    """A hard link keeps the version that was there, as an installation does: the linker replaces, it does not rewrite."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def take_down(sandbox_id):
    """Removes the sandbox in whatever state it is. Returns whether there was anything."""
    with state_file.locked(sandbox_id):
        known = state_file.registered_directory(sandbox_id)
        existed = known is not None or Cgroup.top(cgroup_name(sandbox_id)).exists()
        _remove_everything(sandbox_id, known)
        return existed


def _remove_everything(sandbox_id, directory):
    Cgroup.top(cgroup_name(sandbox_id)).remove()
    if directory is not None and directory.exists():
        marker = directory / state_file.MARKER
        if marker.exists() or directory == DEFAULT_HOME / sandbox_id:
            _remove_tree(directory, marker)
    state_file.unregister(sandbox_id)


def _remove_tree(directory, marker):
    """The marker goes last, so that an interrupted removal is still known as ours."""
    end = time.monotonic() + 5
    while True:
        try:
            for entry in directory.iterdir():
                if entry == marker:
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
            marker.unlink(missing_ok=True)
            directory.rmdir()
            return
        except OSError:   # a dying mount namespace may hold a mount point for a moment
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def bmc_power(sandbox, node, action):
    """What the BMC was told to do."""
    if node not in sandbox.layout.nodes():
        raise SandboxError(f"{node} has no BMC: expected one of {', '.join(map(node_of_bmc, sandbox.layout.bmcs()))}")
    host = sandbox.host(node)
    if action in ("off", "reset"):
        host.power_off()
    if action == "reset" or (action == "on" and not host.running()):
        host.power_on()
