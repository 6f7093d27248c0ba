"""The demonstration's story, short: a Debian guest with PostgreSQL, a client outside, one power cut; no acknowledged commit is lost."""
import re
import subprocess

from lib import time_limit, wait_for
from lib.cluster import Cluster, check, story
from lib.load import now
from lib.sandbox import REPOSITORY

GUEST = "web1"
CLIENT = REPOSITORY / "src" / "demo" / "client.py"


def import_guest(box, address):
    image = box.layout().directory / "share" / f"{GUEST}.raw"
    gateway = box.layout().address("guest", "client")
    subprocess.run([str(REPOSITORY / "src" / "guestimage" / "build"), "--output", str(image), "--format", "raw", "--name", GUEST,
                    "--address", f"{address}/24", "--gateway", gateway], check=True, capture_output=True, timeout=600)
    box.gemel("node1", "vm", "import", GUEST, f"/mnt/{GUEST}.raw", "--format", "raw", "--memory", "512M", "--bridge", "br-guest",
              "--prefer", "node1", "--start", timeout_s=300)
    image.unlink()


def runs_on(box, host):
    guest = box.json(host, "vm", "show", GUEST) or {}
    return guest.get("state") == "running" and guest.get("node") == host


@time_limit(900)
def test_every_acknowledged_commit_survives_a_power_cut():
    with Cluster(witness=True) as box:
        address = box.layout().guest_address(1)
        log = box.layout().directory / "share" / "acknowledged.log"

        def acknowledged():
            return log.read_bytes().count(b"\n") if log.exists() else 0

        with story("a Debian guest with PostgreSQL is imported and commits"):
            import_guest(box, address)
            wait_for(lambda: runs_on(box, "node1"), 90, "the guest to run on node1")
            box.wait_in_sync(GUEST, deadline_s=180)
            box.client.start("/usr/bin/python3", "-B", CLIENT, "run", "--address", address, "--log", log)
            wait_for(lambda: acknowledged() >= 300, 240, "300 acknowledged commits")
        with story("its server loses its power: the guest comes back on the other one and commits again"):
            before = acknowledged()
            cut = now()
            box.cut_power("node1")
            wait_for(lambda: runs_on(box, "node2"), 90, "the guest to run on node2")
            print(f"              vCPUs on node2 {now() - cut:.1f} s after the power cut", flush=True)
            wait_for(lambda: acknowledged() >= before + 100, 240, "100 more acknowledged commits")
        with story("all acknowledged commits are in the database"):
            done = box.client.exec("/usr/bin/python3", "-B", CLIENT, "verify", "--address", address, "--log", log, "--timeout", 120,
                                   check=False, timeout_s=180)
            figures = re.search(r"acknowledged=(\d+) found=(\d+) lost=(\d+)", done.stdout)
            check(figures, f"the rows could not be counted: {(done.stderr or done.stdout).strip()[-300:]}")
            count, found, lost = map(int, figures.groups())
            check(lost == 0 and found == count and count >= before, f"acknowledged commits are lost: {figures.group(0)}")
        with story("the victim resyncs, and at the end the replicas are equal"):
            box.wait_healthy(120)
            box.wait_in_sync(GUEST, "node2", 240)
            box.gemel("node2", "vm", "stop", GUEST, timeout_s=180)
            box.check_equal(GUEST, "node2")
