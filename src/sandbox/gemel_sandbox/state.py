"""What the tool remembers between commands: one JSON file in the sandbox's directory, and one lock per sandbox.

The registry (/run/gemel-sandbox/ID) is a symlink to the directory; it is written before anything else is made and
removed after everything else is gone, so that a sandbox is found even when the tool died half way.
"""
import contextlib
import fcntl
import json
import os
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gemel_sandbox.errors import COMMAND, SandboxError
from gemel_sandbox.layout import DEFAULT_HOME, REGISTRY, Layout

MARKER = "gemel-sandbox.json"


@dataclass
class State:
    """Everything a later command needs; written atomically. phase: building, up."""
    sandbox_id: str
    directory: str
    node_count: int = 2
    with_witness: bool = False
    link_count: int = 3
    link_rate: str = ""
    lossy_disks: bool = False
    seed: int = 1
    timing: dict = field(default_factory=dict)   # node.toml's [timing] where it differs from the defaults
    ignore_syncs: bool = False
    phase: str = "building"
    bmc_password: str = ""
    ids: dict = field(default_factory=dict)      # "cluster" and every node -> uuid
    cuts: list = field(default_factory=list)     # {"network", "host"} or {"network", "from", "to"}
    isolated: list = field(default_factory=list)  # hosts without power: no frame from or to them passes
    power: dict = field(default_factory=dict)    # host -> "on" | "off"
    cycles: dict = field(default_factory=dict)   # host -> number of power-ons, part of the disk's seed

    def layout(self):
        return Layout(self.sandbox_id, Path(self.directory), self.node_count, self.with_witness, self.link_count)

    def save(self):
        path = Path(self.directory) / MARKER
        with SAVING:    # `up` powers its hosts on side by side
            write_atomically(path, json.dumps(asdict(self), indent=1))


SAVING = threading.Lock()


def write_atomically(path, text, mode=0o644):
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    with open(temporary, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    os.rename(temporary, path)


def registered_directory(sandbox_id):
    """The directory of a known sandbox, or None; a directory at the default place counts (the machine rebooted)."""
    link = REGISTRY / sandbox_id
    if link.is_symlink():
        return Path(os.readlink(link))
    default = DEFAULT_HOME / sandbox_id
    return default if default.exists() else None


def register(sandbox_id, directory):
    REGISTRY.mkdir(exist_ok=True)
    link = REGISTRY / sandbox_id
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(directory)


def unregister(sandbox_id):
    for name in (sandbox_id, sandbox_id + ".lock"):
        with contextlib.suppress(FileNotFoundError):
            (REGISTRY / name).unlink()
    for directory in (REGISTRY, DEFAULT_HOME):
        with contextlib.suppress(OSError):  # another sandbox is using it, or it was never made
            directory.rmdir()


def all_ids():
    """Ids of all registered sandboxes."""
    if not REGISTRY.is_dir():
        return []
    return sorted(entry.name for entry in REGISTRY.iterdir() if entry.is_symlink())


def load(sandbox_id):
    directory = registered_directory(sandbox_id)
    path = directory / MARKER if directory else None
    if path is None or not path.is_file():
        known = ", ".join(all_ids()) or "none"
        raise SandboxError(f"there is no sandbox '{sandbox_id}' (known: {known}); run `{COMMAND} up` "
                           "or give the right --id")
    state = State(**json.loads(path.read_text()))
    if state.phase != "up":
        raise SandboxError(f"sandbox '{sandbox_id}' was left half built; run `{COMMAND} up` or "
                           f"`{COMMAND} down --id {sandbox_id}`")
    return state


@contextlib.contextmanager
def locked(sandbox_id):
    """One changing command at a time per sandbox; a dead holder's lock is free."""
    REGISTRY.mkdir(exist_ok=True)
    path = REGISTRY / (sandbox_id + ".lock")
    while True:
        with open(path, "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_still(path, file):   # `down` removed it while we waited
                continue
            yield
            return


def _is_still(path, file):
    try:
        return os.stat(path).st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        REGISTRY.mkdir(exist_ok=True)
        return False
