"""Guests on a cluster with real daemons: double starts, a daemon away under a guest, takeovers, a full partition."""
from lib import long_test, time_limit, wait_for
from lib.cluster import Cluster, check, story
from lib.load import now
from lib.tiny_guest import TinyGuest

QEMU = "qemu-system-x86_64"


def must_fail(done, what):
    check(done.returncode != 0, f"{what} should have been refused; it said: {(done.stdout + done.stderr).strip()}")
    return (done.stderr or done.stdout).strip()


def second_opens(box, guest, host, other):
    """Everything somebody may try by hand while the guest runs on `host` (scenarios L7 and H33)."""
    domain = box[host].exec("virsh", "dumpxml", guest.name).stdout
    socket = box[host].exec("sh", "-c", f"ls -d /run/gemel/nbd/{guest.name}-*.sock").stdout.split()[0]
    uri = f"nbd+unix:///{guest.name}?socket={socket}"
    image = f"/var/lib/gemel/pools/default/{guest.name}.img"
    renamed = domain.replace(f"<name>{guest.name}</name>", "<name>copy</name>").replace(
        domain.split("<uuid>")[1].split("</uuid>")[0], "6b5ddf4e-9e0f-4a5b-8c52-d4a5cb2a3c11").replace(
        f"{guest.name}.console", "copy.console")
    for place in (host, other):
        must_fail(box[place].exec("virsh", "start", guest.name, check=False), f"virsh start on {place}")
        must_fail(box[place].exec("virsh", "create", "/dev/stdin", input_text=renamed, check=False), f"virsh create of a copy on {place}")
        must_fail(box[place].exec("nbdcopy", uri, "null:", check=False), f"nbdcopy on {place}")
        must_fail(box[place].exec("qemu-img", "info", uri, check=False), f"qemu-img on the socket on {place}")
        must_fail(box[place].exec("qemu-img", "convert", "-f", "raw", "-O", "raw", image, "/tmp/copy", check=False),
                  f"qemu-img on the backing file on {place}")
        must_fail(box[place].exec(QEMU, "-display", "none", "-monitor", "none", "-serial", "none", "-machine", "q35,accel=tcg", "-drive",
                                  f"file={image},format=raw,if=virtio", check=False, timeout_s=20), f"qemu on the backing file on {place}")
        said = box.refusal(place, "volume", "export", guest.name, "--detach")
        check(guest.name in said and host in said, f"the refusal on {place} does not say who has the disk: {said}")
    must_fail(box[host].exec("virsh", "create", "/dev/stdin", input_text=domain, check=False), "virsh create of the same domain")
    check(len(guest.processes(host)) == 1 and not guest.processes(other), "there is a second QEMU of the guest")


def blockd_away(box, guest, host, seconds):
    """Killed, and kept away that long; the guest must see a pause and nothing else."""
    box[host].kill("gemel-blockd")
    box[host].stop_unit("gemel-blockd")
    gone = now()
    wait_for(lambda: now() - gone >= seconds, seconds + 5, f"{seconds} s without gemel-blockd")
    check(box.json(host, "status") is not None, "status must answer while gemel-blockd is away")
    text = box.problems(host)
    check("blockd does not answer" in text, f"status does not say that gemel-blockd is away:\n{text}")
    box[host].start_unit("gemel-blockd")
    guest.counts_on(5, 2 * seconds + 60, f"after {seconds} s without gemel-blockd")
    check(guest.record(host, 1)[1:] == (0, guest.boots), "the guest saw an error or was started again")


def takeover_by_power_cut(box, guest, victim, survivor):
    cut = now()
    box.cut_power(victim)
    wait_for(lambda: guest.runs_on(survivor), 90, f"the guest to run on {survivor}")
    print(f"              vCPUs on {survivor} {now() - cut:.1f} s after the power cut", flush=True)
    guest.came_back(survivor, 5)
    box.wait_healthy()
    box.wait_in_sync(guest.name, survivor)


def guests_with_a_witness(blockd_away_s):
    with Cluster(witness=True) as box:
        guest = TinyGuest(box, "tiny")
        guest.start("node1")
        guest.counts_on(5, 60)
        with story("double starts by hand, on the same node and on the other: every one is refused, the guest goes on"):
            second_opens(box, guest, "node1", "node2")
            guest.counts_on(5, 30)
        with story(f"gemel-blockd killed under the guest and away for {blockd_away_s} s: no error inside"):
            blockd_away(box, guest, "node1", blockd_away_s)
            box.wait_in_sync("tiny")
        with story("the owner loses its power: the guest comes back with everything acknowledged"):
            takeover_by_power_cut(box, guest, "node1", "node2")
        with story("and once more, from the node that was powered on again"):
            takeover_by_power_cut(box, guest, "node2", "node1")
        with story("at the end the replicas are equal"):
            guest.check_errors()
            guest.power_off("node1")
            box.check_equal("tiny")
            check(box.power_ons("node1") == 2 and box.power_ons("node2") == 2, "each victim is powered on once")


@time_limit(400)
def test_double_starts_and_takeovers():
    guests_with_a_witness(blockd_away_s=6)


@long_test
def test_double_starts_and_takeovers_with_blockd_away_for_a_minute():
    guests_with_a_witness(blockd_away_s=60)

