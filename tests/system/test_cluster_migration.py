"""Live migration with real daemons: there and back under load, and interrupted at each step by whatever can die (L1-L6).

What must hold afterwards, whatever was done: the guest runs on exactly one node (or was started once more), it has everything that
it had said was written, its disk gave it no error, and the replicas are equal.
"""
import re

from lib import long_test, time_limit, wait_for
from lib.cluster import NODES, Cluster, check, story
from lib.load import now
from lib.tiny_guest import TinyGuest

GUEST = "tiny"
SLOW = ("--bandwidth", "4M")   # its 64 MiB then take long enough to be interrupted in the middle


class Moving:
    """A guest that is moved about; knows where it should be."""

    def __init__(self, box):
        self.box = box
        self.guest = TinyGuest(box, GUEST)
        self.guest.start("node1")
        self.guest.counts_on(5, 60)
        self.at = "node1"

    @property
    def other(self):
        return NODES[1 - NODES.index(self.at)]

    def asked(self):
        """A node that answers."""
        return next((host for host in NODES if self.box.json(host, "status")), None)

    def view(self):
        host = self.asked()
        return (self.box.json(host, "vm", "show", GUEST) or {}) if host else {}

    def begin(self, *options):
        """Without waiting for the end; returns the process."""
        return self.box[self.at].start("gemel", "vm", "migrate", GUEST, self.other, *options)

    def copying(self):
        wait_for(lambda: (self.view().get("migration") or {}).get("phase") == "prepared", 60, "the guest's memory to be copied")
        wait_for(lambda: self.guest.processes(self.other), 60, f"QEMU to wait on {self.other}")

    def moved(self):
        """It went on without a restart on the other node."""
        before = self.guest.boots
        self.at = self.other
        wait_for(lambda: self.guest.runs_on(self.at), 60, f"the guest to be placed on {self.at}")
        wait_for(lambda: not self.guest.processes(self.other), 60, f"its QEMU on {self.other} to be gone")
        self.guest.watch(self.at)
        self.guest.counts_on(5, 60, "after it was moved")
        check(self.guest.record(self.at, 1)[1:] == (0, before), "the guest saw an error or was started again")

    def stayed(self):
        """It goes on where it was, and never noticed."""
        wait_for(lambda: self.view().get("migration", 1) is None, 90, "the migration to be given up")
        wait_for(lambda: not self.guest.processes(self.other), 60, f"the QEMU that waited on {self.other} to be gone")
        self.guest.counts_on(5, 60, "after the migration was given up")
        check(self.guest.runs_on(self.at), f"the guest should run on {self.at} still")
        check(self.guest.record(self.at, 1)[1:] == (0, self.guest.boots), "the guest saw an error or was started again")

    def one_of_them(self, deadline_s=150):
        """Exactly one runs: it stayed, moved, or was started once more; with everything that was acknowledged."""
        acknowledged = self.guest.acknowledged

        def settled():
            view = self.view()
            if view.get("state") != "running" or view.get("migration") is not None:
                return False
            running = [host for host in NODES if self.guest.processes(host)]
            return running == [view["node"]]

        wait_for(settled, deadline_s, "the guest to run on exactly one node, with nothing going on")
        self.at = self.view()["node"]
        self.guest.watch(self.at)
        self.guest.counts_on(5, 90, "after an interrupted migration")
        counter, errors, boots = self.guest.record(self.at, 1)
        check(boots in (self.guest.boots, self.guest.boots + 1), f"it was started {boots - self.guest.boots} times")
        check(not errors, f"it got {errors} errors from its disk")
        check(counter >= acknowledged, f"it lost records: {counter} found, {acknowledged} acknowledged")
        print(f"              {'started once more' if boots > self.guest.boots else 'went on'} on {self.at}", flush=True)
        self.guest.boots = boots
        self.box.wait_healthy(120)
        self.box.wait_in_sync(GUEST, self.at, 120)


def there_and_back(moving, times):
    for _ in range(times):
        began = now()
        said = moving.box.gemel(moving.at, "vm", "migrate", GUEST, timeout_s=120).stdout.strip().splitlines()[-1]
        check(moving.other in said, f"the command does not say where the guest is: {said}")
        print(f"              {now() - began:.1f} s: {said}", flush=True)
        moving.moved()


def refusals(box, moving):
    for arguments, word in ((("vm", "migrate", GUEST, moving.at), "already"), (("vm", "migrate", GUEST, "node9"), "no node"),
                            (("vm", "migrate", "nosuch"), "nosuch"), (("vm", "migrate", GUEST, "--cancel"), "not moving")):
        said = box.refusal("node1", *arguments)
        check(word in said, f"'gemel {' '.join(arguments)}' should say '{word}': {said}")


def cancelled(moving):
    process = moving.begin(*SLOW)
    moving.copying()
    moving.box.gemel(moving.at, "vm", "migrate", GUEST, "--cancel")
    check(process.wait(60) != 0, "a migration that was cancelled must not end as a success")
    moving.stayed()


def killer(unit, side):
    def kill(moving):
        moving.box[moving.at if side == "source" else moving.other].kill(unit)
    kill.__name__ = f"{unit} killed on the {side}"
    return kill


def qemu_killed(side):
    def kill(moving):
        host = moving.at if side == "source" else moving.other
        for pid in moving.guest.processes(host):
            moving.box[host].exec("kill", "-9", pid, check=False)
    kill.__name__ = f"QEMU killed on the {side}"
    return kill


def power_cut(side):
    def cut(moving):
        host = moving.at if side == "source" else moving.other
        moving.box.cut_power(host)
        if side == "destination":   # nothing of it is needed elsewhere: nobody fences it, nobody powers it on
            wait_for(lambda: moving.view().get("migration", 1) is None, 90, "the migration to be over")
            if moving.view()["node"] != host:
                moving.box.power_on(host)
    cut.__name__ = f"power of the {side} cut"
    return cut


def links_cut(moving):
    links = ",".join(moving.box.layout().links())
    moving.box.cut_link(links, moving.other)
    until = now() + 5
    wait_for(lambda: now() > until, 10, "links to be dead for 5 s")
    moving.box.heal()


FAULTS = ([killer(unit, side) for unit in ("gemel-clusterd", "gemel-blockd", "libvirtd") for side in ("source", "destination")]
          + [qemu_killed("destination"), qemu_killed("source"), links_cut, power_cut("destination"), power_cut("source")])


def interrupted_while_copying(box, moving, fault):
    process = moving.begin(*SLOW)
    moving.copying()
    fault(moving)
    moving.one_of_them()
    process.kill()


def interrupted_at(box, moving, fault, after_s):
    """At some moment of a migration at full speed: begin, prepare, copy, switchover, finish, confirm all lie within two seconds."""
    process = moving.begin()
    until = now() + after_s
    wait_for(lambda: now() >= until, after_s + 5, "the moment that is tried")
    fault(moving)
    moving.one_of_them()
    process.kill()


def ends_equal(box, moving):
    moving.guest.check_errors()
    moving.guest.power_off("node1")
    box.check_equal(GUEST)


@time_limit(400)
def test_there_and_back_and_cancel():
    with Cluster(witness=True) as box:
        moving = Moving(box)
        with story("there and back under load, four times"):
            there_and_back(moving, 4)
        with story("what cannot be moved is refused with a reason"):
            refusals(box, moving)
        with story("cancelled in the middle: it goes on where it was"):
            cancelled(moving)
        with story("a drained node is left by its guest, and takes none"):
            source = moving.at
            box.gemel("node1", "node", "drain", source, timeout_s=120)
            moving.moved()
            check("drained" in box.refusal("node1", "vm", "migrate", GUEST, source), "a drained node took a guest")
            box.gemel("node1", "node", "undrain", source)
            there_and_back(moving, 1)
        with story("at the end the replicas are equal"):
            ends_equal(box, moving)


@time_limit(600)
def test_interrupted_while_copying():
    with Cluster(witness=True) as box:
        moving = Moving(box)
        for fault in FAULTS:
            with story(f"memory is being copied: {fault.__name__.replace('_', ' ')}"):
                interrupted_while_copying(box, moving, fault)
        ends_equal(box, moving)


@long_test
def test_interrupted_at_every_moment():
    with Cluster(witness=True) as box:
        moving = Moving(box)
        for fault in FAULTS:
            for tenths in range(1, 20, 2):
                with story(f"{tenths / 10} s after it began: {fault.__name__.replace('_', ' ')}"):
                    interrupted_at(box, moving, fault, tenths / 10)
        ends_equal(box, moving)


@long_test
def test_two_voters_migrate():
    with Cluster(witness=False) as box:
        moving = Moving(box)
        there_and_back(moving, 10)
        check(re.search(r"moved from node\d to node\d", box.events("node1")), "no event says that it was moved")
