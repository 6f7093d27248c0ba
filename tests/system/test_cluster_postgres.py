"""A Debian guest with PostgreSQL and a client outside: one power cut, and (long) fifty live migrations; no acknowledged commit is lost."""
import re
import statistics
import subprocess

from lib import long_test, time_limit, wait_for
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
            count, found, lost = verified(box, address, log)
            check(lost == 0 and found == count and count >= before, f"acknowledged commits are lost: {count} {found} {lost}")
        with story("the victim resyncs, and at the end the replicas are equal"):
            box.wait_healthy(120)
            box.wait_in_sync(GUEST, "node2", 240)
            box.gemel("node2", "vm", "stop", GUEST, timeout_s=180)
            box.check_equal(GUEST, "node2")


def verified(box, address, log):
    done = box.client.exec("/usr/bin/python3", "-B", CLIENT, "verify", "--address", address, "--log", log, "--timeout", 120,
                           check=False, timeout_s=180)
    figures = re.search(r"acknowledged=(\d+) found=(\d+) lost=(\d+)", done.stdout)
    check(figures, f"the rows could not be counted: {(done.stderr or done.stdout).strip()[-300:]}")
    return tuple(map(int, figures.groups()))


@long_test
def test_fifty_migrations_without_a_failed_transaction():
    with Cluster(witness=True) as box:
        address = box.layout().guest_address(1)
        log = box.layout().directory / "share" / "acknowledged.log"

        def moments():
            return [float(line.split()[0]) for line in log.read_bytes().splitlines()] if log.exists() else []

        import_guest(box, address)
        wait_for(lambda: runs_on(box, "node1"), 90, "the guest to run on node1")
        box.wait_in_sync(GUEST, deadline_s=180)
        client = box.client.start("/usr/bin/python3", "-B", CLIENT, "run", "--address", address, "--log", log)
        wait_for(lambda: len(moments()) >= 300, 240, "300 acknowledged commits")
        pauses, times = [], []
        with story("there and back, fifty times, under eight committing connections"):
            for number in range(50):
                host, other = ("node1", "node2") if number % 2 == 0 else ("node2", "node1")
                began = now()
                moved = box.json_of(host, "vm", "migrate", GUEST, other, timeout_s=180)
                times.append(now() - began)
                if moved["result"]["downtime_ms"] is not None:   # libvirt does not always come to tell it
                    pauses.append(moved["result"]["downtime_ms"])
                count = len(moments())
                wait_for(lambda: len(moments()) >= count + 20, 60, f"commits after migration {number + 1}")
        seen = moments()
        longest = max(later - earlier for earlier, later in zip(seen, seen[1:]))
        client.terminate()
        said = client.communicate(timeout=60)[0]
        figures = re.search(r"acknowledged=(\d+) unknown=(\d+) connections=(\d+)", said)
        check(figures, f"the client did not say how it went: {said[-300:]}")
        print(f"              {figures.group(0)}; pause by QEMU {min(pauses)}, {statistics.median(pauses)}, {max(pauses)} ms (least, median, "
              f"most of {len(pauses)} told); each took {min(times):.1f}, {statistics.median(times):.1f}, {max(times):.1f} s; longest time without a commit "
              f"{longest * 1000:.0f} ms", flush=True)
        check(int(figures.group(2)) == 0, f"transactions failed: {figures.group(0)}")
        check(int(figures.group(3)) == 8, f"connections broke: {figures.group(0)}")
        count, found, lost = verified(box, address, log)
        check(lost == 0 and found == count, f"acknowledged commits are lost: {count} {found} {lost}")
        box.gemel("node1", "vm", "stop", GUEST, timeout_s=180)
        box.check_equal(GUEST)
