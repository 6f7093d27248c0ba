"""A guest's disk over vhost-user, gemel-blockd restarted under it."""
import signal
import time

from lib import time_limit
from lib.blockd_client import wait_until
from lib.fio_guest import FioGuest
from test_blockd import check_end, expect, pair_of

SECONDS = 20


def restarted_under_fio(signals):
    with pair_of(size_mib=32) as pair:
        pair.grant("node1", purpose="vm:web1")
        socket = pair.owner.front.replace("/nbd/", "/vhost/")
        with FioGuest(pair.directory, socket, pair.size, SECONDS) as guest:
            guest.runs()
            for one in signals:
                up = time.time()
                # it writes on after the one before
                wait_until(lambda: pair.owner.image.stat().st_mtime > up + 1.5, 60, "the guest to write on")
                pair.owner.kill(one)
                pair.restart(pair.owner)
                wait_until(lambda: pair.owner.front, 20, "the front end after a restart")
            result = guest.result(SECONDS + 90)
        longest_ms = 0.0
        for job in result["jobs"]:
            expect(job["error"] == 0, f"fio saw error {job['error']} in {job['jobname']}")
            expect(job["write"]["total_ios"] > 200, f"{job['jobname']} wrote {job['write']['total_ios']} times")
            longest_ms = max(longest_ms, job["write"]["lat_ns"]["max"] / 1e6)
        verified = sum(job["read"]["total_ios"] for job in result["jobs"])
        expect(verified > 200, f"{verified} blocks were verified")
        print(f"              {len(signals)} restarts, {verified} reads, longest write {longest_ms:.0f} ms", flush=True)
        check_end(pair)


@time_limit(240)
def test_sigkill_under_fio():
    restarted_under_fio([signal.SIGKILL] * 4)


@time_limit(240)
def test_orderly_restart_under_fio():
    restarted_under_fio([signal.SIGTERM] * 2)
