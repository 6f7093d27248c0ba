#!/usr/bin/python3
"""The guest image alone, without a cluster: boots, commits, is killed twice under load and comes back each time by
itself with every acknowledged row (promise D1 depends on it: the guest must really send FLUSH), shuts down at the press
of the power button and leaves a clean file system. Needs root (building the image) and about a minute and a half.
"""
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent / "build"
CLIENT = HERE.parent.parent / "demo" / "client.py"
ROOT_OFFSET = 32 * 1048576
CONNECTIONS = 8


def wait_for(what, condition, deadline_s):
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {deadline_s} s")
        time.sleep(0.05)    # poll interval


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Guest:
    """QEMU with the devices of a rendered domain."""

    def __init__(self, directory, disk, port):
        self.directory, self.disk, self.port = directory, disk, port
        self.process = None

    def start(self):
        qmp = f"{self.directory}/qmp"
        pathlib.Path(qmp).unlink(missing_ok=True)
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg", "-machine", "pc-q35-7.2", "-cpu", "qemu64", "-m", "512", "-smp", "1",
             "-nodefaults", "-no-user-config", "-display", "none", "-serial", f"file:{self.directory}/serial",
             "-qmp", f"unix:{qmp},server=on,wait=off", "-blockdev",
             json.dumps({"driver": "raw", "node-name": "vda", "file": {"driver": "file", "filename": self.disk}}),
             "-device", "virtio-blk-pci,drive=vda,id=disk-vda,bootindex=1,write-cache=on",
             "-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-10.0.2.15:5432",
             "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"],
            stdin=subprocess.DEVNULL)

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    def qmp(self, *commands):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(f"{self.directory}/qmp")
            stream = connection.makefile("rw")
            stream.readline()
            answer = None
            for command in ("qmp_capabilities", *commands):
                stream.write(json.dumps({"execute": command}) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
                while "event" in answer:
                    answer = json.loads(stream.readline())
            return answer["return"]

    def flushes(self):
        return sum(device["stats"]["flush_operations"] for device in self.qmp("query-blockstats"))


class BootTest(unittest.TestCase):
    def setUp(self):
        self.assertEqual(os.geteuid(), 0, "needs root, as the image builder does")
        self.temporary = tempfile.TemporaryDirectory()
        self.directory = self.temporary.name
        self.disk = f"{self.directory}/disk.raw"
        subprocess.run([BUILD, "--output", self.disk, "--name", "web1", "--address", "10.0.2.15/24", "--gateway", "10.0.2.2"],
                       check=True)
        self.log = f"{self.directory}/acknowledged"
        self.port = free_port()
        self.guest = Guest(self.directory, self.disk, self.port)
        self.client = None

    def tearDown(self):
        for process in (self.client, self.guest.process):
            if process and process.poll() is None:
                process.kill()
                process.wait()
        self.temporary.cleanup()

    def acknowledged(self):
        try:
            return pathlib.Path(self.log).read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    def wait_for_more(self, rows, what):
        before, start = self.acknowledged(), time.monotonic()
        wait_for(what, lambda: self.acknowledged() > before, 120)
        print(f"{what}: first acknowledgement after {time.monotonic() - start:.1f} s", flush=True)
        wait_for(what, lambda: self.acknowledged() >= before + rows, 120)

    def test_survives_kills_and_keeps_every_acknowledged_row(self):
        self.guest.start()
        target = ["--address", "127.0.0.1", "--port", str(self.port), "--log", self.log]
        self.client = subprocess.Popen([CLIENT, "run", "--connections", str(CONNECTIONS), "--pause-ms", "5", *target])
        self.wait_for_more(500, "first boot")
        rows, flushes = self.acknowledged(), self.guest.flushes()
        self.assertGreaterEqual(flushes, rows / CONNECTIONS, "each commit waits for a FLUSH, shared by at most all connections")
        for attempt in ("after the first kill", "after the second kill"):
            self.guest.kill()
            self.guest.start()
            self.wait_for_more(200, attempt)
        self.client.send_signal(signal.SIGTERM)
        self.assertEqual(self.client.wait(30), 0)
        verdict = subprocess.run([CLIENT, "verify", *target], capture_output=True, text=True, check=False)
        print(verdict.stdout.strip(), flush=True)
        self.assertEqual(verdict.returncode, 0, verdict.stdout + verdict.stderr)
        self.guest.qmp("system_powerdown")
        self.assertEqual(self.guest.process.wait(60), 0)
        checked = subprocess.run(["e2fsck", "-fn", f"{self.disk}?offset={ROOT_OFFSET}"], capture_output=True, text=True, check=False)
        self.assertEqual(checked.returncode, 0, checked.stdout)


if __name__ == "__main__":
    sys.exit(unittest.main())
