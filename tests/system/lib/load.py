"""A writer inside a host, and outside of it the memory of what was acknowledged.

    load = Load(box, "disk1")
    load.start("node1")              # takes the volume's lease there; may be started again elsewhere
    load.progress(200, 60)           # 200 more acknowledged writes
    load.longest_gap(since)          # seconds without an acknowledgement after that moment
    load.missing(image, offset)      # what a replica lacks

A number is written once, so that an old content is never taken for a newer one. All moments are CLOCK_BOOTTIME.
"""
import os
import subprocess
import threading
import time

from .nbd_writer import BLOCK, contents
from .sandbox import REPOSITORY, TestFailure, wait_for
from .volume_writer import THREADS

SECTOR = 512
WRITER = REPOSITORY / "tests" / "system" / "lib" / "volume_writer.py"


def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def numbers_in(found, block):
    """Which writes of that block are in its sectors; -1 where a sector holds something else, 0 where it was never written."""
    numbers = set()
    for start in range(0, BLOCK, SECTOR):
        sector = found[start:start + SECTOR]
        number = int.from_bytes(sector[8:16], "little")
        right = sector == contents(block, number)[:SECTOR] or sector == bytes(SECTOR)
        numbers.add(number if right else -1)
    return numbers


class Load:
    def __init__(self, box, volume):
        self.box, self.volume = box, volume
        self.acknowledged = {}                  # block -> number
        self.flushed = {}                       # block -> number
        self.newest = 0                         # highest number acknowledged
        self.moments = []
        self.errors = []
        self._process = self._reader = None
        self._unflushed = [{} for _ in range(THREADS)]

    def start(self, host):
        """Exports the volume on `host` and writes there; numbers go on where they were."""
        self.reap(30)
        uri = self.box.export(host, self.volume)
        size = self.box.volume(host, self.volume)["size_bytes"]
        self._unflushed = [{} for _ in range(THREADS)]
        first = self.newest + 2                 # the one in flight when the last writer ended is not used again
        self._process = self.box[host].start("/usr/bin/python3", "-B", WRITER, uri.split("socket=", 1)[1], self.volume,
                                             size, first, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream):
        for line in stream:
            words = line.split()
            if not line.endswith("\n"):
                break
            if words[0] == "w":
                block, number = int(words[1]), int(words[2])
                self.moments.append(now())
                self.acknowledged[block] = number
                self._unflushed[block % THREADS][block] = number
                self.newest = max(self.newest, number)
            elif words[0] == "f":
                self.flushed.update(self._unflushed[int(words[1])])
                self._unflushed[int(words[1])].clear()
            else:
                self.errors.append(line.strip())

    def count(self):
        return len(self.moments)

    def progress(self, more, deadline_s, what="the writer goes on"):
        goal = self.count() + more

        def reached():
            self.check_errors()
            return self.count() >= goal

        wait_for(reached, deadline_s, f"{more} more acknowledged writes ({what}; {self.count()} by now)")

    def check_errors(self):
        if self.errors:
            raise RuntimeError(f"an error reached the writer: {self.errors[0]}")

    def stop(self):
        """Ends the writer after a last FLUSH: then everything acknowledged is flushed."""
        self._process.stdin.close()
        self.reap(30)
        self.check_errors()
        behind = {block for block in self.acknowledged if self.flushed.get(block) != self.acknowledged[block]}
        if behind:
            raise TestFailure(f"the writer ended without its last FLUSH ({len(behind)} blocks)")

    def reap(self, deadline_s):
        """Waits for the end of a writer that ends by itself or whose host has lost its power."""
        if self._process is None:
            return
        wait_for(lambda: self._process.poll() is not None, deadline_s, "the writer to end")
        self._reader.join(deadline_s)
        self._process = None

    def longest_gap(self, since):
        """Seconds; the gap before the first acknowledgement after `since` counts from the last one before it."""
        moments = sorted(self.moments)
        gaps = [later - earlier for earlier, later in zip(moments, moments[1:]) if later > since]
        if not gaps:
            raise TestFailure("nothing was acknowledged after that moment")
        return max(gaps)

    def forget_unflushed(self):
        """After a blackout: what was acknowledged and not flushed may be there or not, and is nobody's promise any more."""
        self.acknowledged = dict(self.flushed)

    def missing(self, image, offset, after_blackout=False):
        """Blocks whose content there is older than what was acknowledged (after a blackout: than what was flushed), or
        was never written."""
        wanted = self.flushed if after_blackout else self.acknowledged
        wrong = []
        if not os.path.exists(image):
            return [(block, wanted.get(block, 0), "no file") for block in sorted(wanted)]
        with open(image, "rb") as file:
            for block in sorted(self.acknowledged):
                found = os.pread(file.fileno(), BLOCK, offset + block * BLOCK)
                numbers = numbers_in(found, block)
                torn = len(numbers) > 1 and not after_blackout    # a disk may tear what it was not told to flush
                if torn or not all(wanted.get(block, 0) <= number <= self.newest + 1 for number in numbers):
                    wrong.append((block, wanted.get(block, 0), sorted(numbers)))
        return wrong
