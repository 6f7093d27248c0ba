"""The guest of tiny_guest.S: boots in a second under emulation, counts on its disk, tells its console what was acknowledged.

    guest = TinyGuest(box, "tiny")
    guest.start("node1")             # imports it and waits until it counts there
    guest.counts_on(5, 30)           # five more acknowledged records
    guest.came_back("node2", 60)     # runs there, with everything that was acknowledged before
"""
import re
import struct
import subprocess
import tempfile
import threading
from pathlib import Path

from .load import now
from .sandbox import REPOSITORY, TestFailure, wait_for

SOURCE = REPOSITORY / "tests" / "system" / "lib" / "tiny_guest.S"
DISK_BYTES = 1 << 20
MAGIC = 0x6E797447
_LINE = re.compile(r"^(E?)([0-9a-f]{8})$")


def build_image(path):
    with tempfile.TemporaryDirectory() as directory:
        thing, boot = Path(directory) / "t.o", Path(directory) / "boot.bin"
        subprocess.run(["as", "--32", str(SOURCE), "-o", str(thing)], check=True)
        subprocess.run(["ld", "-m", "elf_i386", "-Ttext=0x7c00", "--oformat=binary", str(thing), "-o", str(boot)], check=True)
        sector = boot.read_bytes()
    if len(sector) != 512:
        raise TestFailure(f"the boot sector has {len(sector)} bytes, expected 512")
    Path(path).write_bytes(sector + bytes(DISK_BYTES - len(sector)))


class TinyGuest:
    def __init__(self, box, name):
        self.box, self.name = box, name
        self.acknowledged = 0        # the newest record that the guest said was written
        self.moments = []
        self.trouble = []
        self.boots = 0
        self.host = None
        self._console = None

    def start(self, host):
        build_image(self.box.layout().directory / "share" / f"{self.name}.raw")
        self.box.gemel(host, "vm", "import", self.name, f"/mnt/{self.name}.raw", "--format", "raw", "--memory", "64M",
                       "--prefer", host, "--start", timeout_s=90)
        self.box.wait_in_sync(self.name, host)
        self.watch(host)
        self.boots = 1

    def is_taken_over(self, victim, survivor, within_s):
        """The power of its node is cut: it comes back on the other one, nothing is lost, all heals."""
        cut = now()
        self.box.cut_power(victim)
        wait_for(lambda: self.runs_on(survivor), within_s, f"the guest to run on {survivor}")
        print(f"              vCPUs on {survivor} {now() - cut:.1f} s after the power cut", flush=True)
        self.came_back(survivor, 5)
        self.box.wait_healthy()
        self.box.wait_in_sync(self.name, survivor)

    def watch(self, host):
        """Follows the console there; what an earlier one said stays remembered."""
        self.host = host
        self._console = self.box[host].start("gemel", "vm", "console", self.name, stdin=subprocess.PIPE)
        threading.Thread(target=self._read, args=(self._console.stdout,), daemon=True).start()

    def _read(self, stream):
        for line in stream:
            said = _LINE.match(line.strip())
            if not said:
                continue
            self.moments.append(now())
            self.acknowledged = max(self.acknowledged, int(said.group(2), 16))
            if said.group(1):
                self.trouble.append(line.strip())

    def counts_on(self, more, deadline_s, what="the guest goes on"):
        goal = len(self.moments) + more

        def reached():
            self.check_errors()
            return len(self.moments) >= goal

        wait_for(reached, deadline_s, f"{more} more records from {self.name} on {self.host} ({what})")

    def check_errors(self):
        if self.trouble:
            raise RuntimeError(f"{self.name} got an error from its disk: {self.trouble[0]}")

    def silent_since(self):
        return now() - self.moments[-1]

    def state(self, asked):
        return self.box.json(asked, "vm", "show", self.name) or {}

    def runs_on(self, host):
        guest = self.state(host)
        return guest.get("state") == "running" and guest.get("node") == host

    def processes(self, host):
        """QEMU processes of this guest in a host, as the kernel sees them."""
        return self.box[host].exec("pgrep", "-f", f"guest={self.name},", check=False).stdout.split()

    def record(self, host, sector):
        """(counter, errors, boots) in that sector of the host's replica."""
        path, offset, _ = self.box.image(host, self.name)
        with open(path, "rb") as file:
            file.seek(offset + sector * 512)
            magic, counter, errors, boots = struct.unpack("<IIII", file.read(16))
        if magic != MAGIC:
            raise TestFailure(f"sector {sector} of {self.name} on {host} holds no record")
        return counter, errors, boots

    def came_back(self, host, deadline_s):
        """It runs on that host now, booted once more, and found everything that it had said was written."""
        before = self.acknowledged
        wait_for(lambda: self.runs_on(host), deadline_s, f"{self.name} to run on {host}")
        self.watch(host)
        wait_for(lambda: self.record(host, 2)[2] > self.boots, 60, f"{self.name} to boot on {host}")
        found, errors, self.boots = self.record(host, 2)
        if found < before:
            raise RuntimeError(f"{self.name} found record {found} at its start, but {before} had been acknowledged")
        if errors:
            raise RuntimeError(f"{self.name} got {errors} errors from its disk")
        self.counts_on(3, 60, "after its restart")

    def power_off(self, asked):
        self.box.gemel(asked, "vm", "stop", self.name, "--power-off", "--confirm", self.name, timeout_s=90)
