"""A Linux guest that runs fio on a vhost-user disk: QEMU without libvirt, kernel and drivers of the guest image, fio from this machine.

    with FioGuest(directory, socket) as guest:     # boots
        guest.runs()                               # fio has begun
        ...                                        # whatever shall not show inside
        result = guest.result(120)                 # fio's own report: errors, latencies; what it verified
"""
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from lib import TestFailure
from lib.blockd_client import BlockdError, run, wait_until

REPOSITORY = Path(__file__).resolve().parents[3]
BOOT_AT = 1 << 20    # of the guest image: its file system with the kernel
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mkdir -p /tmp /dev/shm
/bin/busybox mount -t tmpfs none /dev/shm
while read -r module; do /bin/busybox insmod "/modules/$module"; done </modules/order
until [ -b /dev/vda ]; do /bin/busybox usleep 20000; done
echo "fio begins" >/dev/console
/usr/bin/fio --output-format=json --output=/tmp/result /job >/tmp/said 2>&1
echo "fio ended with $?" >/dev/console
/bin/busybox cat /tmp/said >/dev/console
/bin/busybox dmesg | /bin/busybox grep -i -E "i/o error|blk_update" >/dev/console
echo "result begins" >/dev/console
/bin/busybox cat /tmp/result >/dev/console
echo "result ends" >/dev/console
/bin/busybox poweroff -f
"""
# Every block is verified, newest write and all: a request that was lost, or run again after a newer one, shows.
JOB = """[global]
filename=/dev/vda
direct=1
thread=1
ioengine=libaio
time_based=1
runtime={seconds}
verify=crc32c
verify_fatal=1
do_verify=1
random_generator=lfsr
[writes]
rw=randrw
bs=4k
iodepth=16
size={half}
verify_backlog=256
[syncs]
rw=randwrite
bs=16k
iodepth=4
fsync=16
offset={half}
size={half}
verify_backlog=64
"""


class FioGuest:
    def __init__(self, directory, socket, size_bytes, seconds):
        self.directory, self.socket = Path(directory), socket
        self.half, self.seconds = size_bytes // 2, seconds
        self.process = None
        self.serial = self.directory / "serial"

    def __enter__(self):
        kernel, initrd = self._build()
        log = open(self.directory / "qemu.log", "wb")
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-machine", "pc-q35-7.2,accel=tcg,memory-backend=ram", "-cpu", "qemu64", "-smp", "2", "-m", "512M",
             "-nodefaults", "-display", "none", "-no-reboot", "-object", "memory-backend-memfd,id=ram,size=512M,share=on",
             "-chardev", f"socket,id=disk,path={self.socket},reconnect=1", "-device", "vhost-user-blk-pci,chardev=disk,num-queues=2",
             "-serial", f"file:{self.serial}", "-kernel", str(kernel), "-initrd", str(initrd),
             "-append", "console=ttyS0 quiet nokaslr mitigations=off audit=0 no_timer_check ipv6.disable=1 panic=-1"],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)

    def _build(self):
        cache = REPOSITORY / ".cache" / "guestimage"
        subprocess.run([str(REPOSITORY / "src/guestimage/build")], check=True, stderr=subprocess.DEVNULL)
        image = max(cache.glob("*.raw"), key=lambda path: path.stat().st_mtime)
        kernel, initrd, tree = self.directory / "vmlinuz", self.directory / "initrd.gz", self.directory / "tree"
        for name, path in (("vmlinuz", kernel), ("initrd.gz", initrd)):
            run("mcopy", "-n", "-i", f"{image}@@{BOOT_AT}", f"::/{name}", path)
        tree.mkdir()
        run("sh", "-c", f"gzip -dc {initrd} | cpio --quiet -idm", cwd=tree)
        fio = shutil.which("fio") or "fio"
        (tree / "usr/bin").mkdir(parents=True)
        (tree / "sys").mkdir()
        shutil.copy(fio, tree / "usr/bin/fio")
        for library in re.findall(r"(/\S+) \(0x", run("ldd", fio).stdout):
            target = tree / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.realpath(library), target)
        (tree / "init").write_text(INIT)
        (tree / "job").write_text(JOB.format(seconds=self.seconds, half=self.half))
        run("sh", "-c", f"find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0 > {initrd}", cwd=tree)
        shutil.rmtree(tree)
        return kernel, initrd

    def said(self):
        return self.serial.read_text(errors="replace") if self.serial.exists() else ""

    def _alive(self):
        if self.process.poll() is not None and "result ends" not in self.said():
            raise TestFailure(f"QEMU ended: {(self.directory / 'qemu.log').read_text()[-2000:]} {self.said()[-2000:]}")
        return True

    def runs(self, deadline_s=90):
        wait_until(lambda: self._alive() and "fio begins" in self.said(), deadline_s, f"fio in the guest: {self.said()[-1000:]}")

    def result(self, deadline_s):
        try:
            wait_until(lambda: self._alive() and "result ends" in self.said(), deadline_s, "fio's result")
        except BlockdError as error:
            raise TestFailure(f"{error}; QEMU said: {(self.directory / 'qemu.log').read_text()[-1000:]} {self.said()[-1000:]}") from error
        text = self.said().replace("\r", "")
        if "fio ended with 0\n" not in text:
            raise TestFailure(f"the guest saw an error: {text[-3000:]}")
        between = text.split("fio ended with 0\n")[1].split("result begins")
        if between[0].strip():
            raise TestFailure(f"the guest saw an error: {between[0][-2000:]}")
        self.process.wait(30)
        return json.loads(between[1].split("result ends")[0])
