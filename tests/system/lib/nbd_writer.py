"""A client that remembers: threads write numbered blocks over NBD and keep what was acknowledged.

Speaks to a qemu-storage-daemon that stands between (Relay), because that is what a guest has: QEMU's NBD client, which
reconnects by itself while gemel-blockd is away and never shows an error to the guest.
"""
import os
import random
import socket
import struct
import subprocess
import threading
from pathlib import Path

from lib.blockd_client import BlockdError, wait_until

BLOCK = 4096


class Relay:
    """qemu-storage-daemon: NBD client with reconnect towards blockd, NBD server for the test."""

    def __init__(self, directory, volume, upstream):
        self.path = str(Path(directory) / "relay.sock")
        self.log = open(Path(directory) / "relay.log", "ab")
        self.process = subprocess.Popen(
            ["qemu-storage-daemon", "--blockdev",
             f"driver=nbd,node-name=d,server.type=unix,server.path={upstream},export={volume},reconnect-delay=120",
             "--nbd-server", f"addr.type=unix,addr.path={self.path}", "--export",
             "nbd,id=e,node-name=d,name=d,writable=on"], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        wait_until(lambda: os.path.exists(self.path) or self.process.poll() is not None, 20, "the relay's socket")

    def uri(self):
        return f"nbd+unix:///d?socket={self.path}"

    def stop(self):
        self.process.kill()
        self.process.wait(20)
        self.log.close()


class Client:
    """One plain NBD connection, one request at a time."""

    def __init__(self, path, export):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(150)
        self.socket.connect(path)
        self._take(16)
        self._take(2)
        self.socket.sendall(struct.pack(">I", 3))
        name = export.encode()
        self.socket.sendall(b"IHAVEOPT" + struct.pack(">II", 1, len(name)) + name)
        self.size, _ = struct.unpack(">QH", self._take(10))
        self.cookie = 0

    def _take(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise BlockdError("the NBD connection ended")
            data += part
        return data

    def request(self, command, offset=0, length=0, payload=b"", flags=0):
        self.cookie += 1
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, flags, command, self.cookie, offset, length) + payload)
        magic, error, cookie = struct.unpack(">IIQ", self._take(16))
        if magic != 0x67446698 or cookie != self.cookie:
            raise BlockdError("a reply to something else")
        if error:
            raise BlockdError(f"NBD command {command} at {offset} failed: {os.strerror(error)}")
        return self._take(length) if command == 0 else b""


def contents(block, number):
    return struct.pack("<QQ", block, number) * (BLOCK // 16)


class Writer:
    """Threads that write random blocks, each its own, and flush now and then."""

    def __init__(self, relay, size, threads=6, seed=1):
        self.relay = relay
        self.blocks = size // BLOCK
        self.acknowledged = {}
        self.errors = []
        self.ending = threading.Event()
        self.count = 0
        self.threads = [threading.Thread(target=self._run, args=(i, threads, seed), daemon=True)
                        for i in range(threads)]
        for thread in self.threads:
            thread.start()

    def _run(self, index, threads, seed):
        chance = random.Random(seed * 1000 + index)
        try:
            client = Client(self.relay.path, "d")
            number = 0
            while not self.ending.is_set():
                number += 1
                block = chance.randrange(self.blocks // threads) * threads + index
                client.request(1, block * BLOCK, BLOCK, contents(block, number), flags=chance.random() < 0.02)
                self.acknowledged[block] = number
                self.count += 1
                if number % 50 == 0:
                    client.request(3)
        except (BlockdError, OSError) as error:
            self.errors.append(str(error))

    def progress(self, more, deadline_s=60):
        """Waits until so many more writes were acknowledged."""
        goal = self.count + more
        wait_until(lambda: self.count >= goal or self.errors, deadline_s, f"{more} more writes (now {self.count})")
        if self.errors:
            raise BlockdError(f"the guest saw an error: {self.errors[0]}")

    def stop(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(150)
        if self.errors:
            raise BlockdError(f"the guest saw an error: {self.errors[0]}")

    def missing_in(self, image, data_offset):
        """Blocks whose acknowledged contents are not in that replica's data area."""
        wrong = []
        with open(image, "rb") as file:
            for block, number in sorted(self.acknowledged.items()):
                file.seek(data_offset + block * BLOCK)
                if file.read(BLOCK) != contents(block, number):
                    wrong.append((block, number))
        return wrong
