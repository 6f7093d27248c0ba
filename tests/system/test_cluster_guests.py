"""Guests on a cluster with real daemons: double starts, a daemon away under a guest, takeovers, a full partition."""
from lib import long_test, time_limit, wait_for
from lib.cluster import Cluster, check, story
from lib.load import now
from lib.tiny_guest import TinyGuest, build_image

QEMU = "qemu-system-x86_64"
DOMAIN = """<domain type='qemu'>
  <name>old1</name>
  <uuid>0f5a2d4c-6f57-4a5e-9d8a-0a4a54c1b0de</uuid>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>%s</os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='/mnt/old1.raw'/><target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>
"""


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


def imported_domain(box):
    """A libvirt domain from before: what would not survive a failover is refused by its name, nothing is left behind."""
    share = box.layout().directory / "share"
    build_image(share / "old1.raw")
    (share / "bad.xml").write_text(DOMAIN % "<nvram>/var/lib/libvirt/qemu/nvram/old1.fd</nvram>")
    done = box.gemel("node1", "vm", "import", "old1", "/mnt/bad.xml", check=False)
    check(done.returncode != 0 and "nvram" in done.stderr, f"nvram should be refused by name: {done.stderr or done.stdout}")
    check(box.volume("node1", "old1") is None, "a refused import left a volume behind")
    (share / "old1.xml").write_text(DOMAIN % "")
    box.gemel("node1", "vm", "import", "old1", "/mnt/old1.xml", "--prefer", "node2", "--start", timeout_s=90)
    old = TinyGuest(box, "old1")
    wait_for(lambda: old.runs_on("node2"), 60, "the imported domain to run where it prefers")
    old.watch("node2")
    old.counts_on(5, 60)
    old.power_off("node2")
    box.gemel("node1", "vm", "delete", "old1", "--with-volumes", "--confirm", "old1")
    wait_for(lambda: box.volume("node1", "old1") is None, 60, "its volume to be deleted")


def partition(box, guest, owner, other):
    """The owner's node sees nobody, only BMCs are reached: the majority fences it, once, and goes on."""
    # Two servers lost within half a minute look like a guest that kills its hosts; a third one would be the operator's.
    wait_for(lambda: box.json(other, "vm", "show", guest.name)["restarts"] == 0, 60, "the lost servers not to be held against the guest")
    ons = {host: box.power_ons(host) for host in (owner, other)}
    box.isolate(owner)
    guest.came_back(other, 90)
    wait_for(lambda: box.power_ons(owner) == ons[owner] + 1, 60, f"{owner} to be powered on again, once")
    wait_for(lambda: box.store_state(owner) == "no-quorum", 60, f"{owner} to say that it has no quorum")
    check(not guest.processes(owner), f"the guest runs on {owner} as well")
    check(box.power_ons(other) == ons[other], f"{other} was fenced by the side without a majority")
    box.heal()
    box.wait_healthy()
    box.wait_in_sync(guest.name, other)


def guests_with_a_witness(blockd_away_s):
    with Cluster(witness=True) as box:
        guest = TinyGuest(box, "tiny")
        guest.start("node1")
        guest.counts_on(5, 60)
        with story("double starts by hand, on the same node and on the other: every one is refused, the guest goes on"):
            second_opens(box, guest, "node1", "node2")
            guest.counts_on(5, 30)
        with story("a libvirt domain is imported; what would not survive a failover is refused by name"):
            imported_domain(box)
        with story(f"gemel-blockd killed under the guest and away for {blockd_away_s} s: no error inside"):
            blockd_away(box, guest, "node1", blockd_away_s)
            box.wait_in_sync("tiny")
        with story("the owner loses its power: the guest comes back with everything acknowledged"):
            guest.is_taken_over("node1", "node2", 90)
        with story("and once more, from the node that was powered on again"):
            guest.is_taken_over("node2", "node1", 90)
        with story("full partition: the majority goes on, the other side's guest is gone, one fence"):
            partition(box, guest, "node1", "node2")
        with story("at the end the replicas are equal"):
            guest.check_errors()
            guest.power_off("node2")
            box.check_equal("tiny")
            check(box.power_ons("node1") == 3 and box.power_ons("node2") == 2, "each victim is powered on once")


@time_limit(400)
def test_double_starts_and_takeovers():
    guests_with_a_witness(blockd_away_s=6)


@long_test
def test_double_starts_and_takeovers_with_blockd_away_for_a_minute():
    guests_with_a_witness(blockd_away_s=60)

