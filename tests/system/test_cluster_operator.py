"""Where only a human can know: a node and its BMC without power, a node that was frozen through a takeover."""
import re

from lib import time_limit, wait_for
from lib.cluster import SHORT_TIMING, Cluster, check, story
from lib.load import now
from lib.tiny_guest import TinyGuest


def confirm_down(box, asked, lost):
    """The operator's way: what is said while waiting, what is refused, and the word that resolves it."""
    wait_for(lambda: box.node_state(asked, lost) in ("suspected", "fencing", "offline"), 30, f"{asked} to miss {lost}")
    said = box.refusal(asked, "node", "confirm-down", lost, "--confirm", lost)
    check("silen" in said and re.search(r"\d+ s", said), f"too early: the refusal does not say how long to wait: {said}")
    wait_for(lambda: f"gemel node confirm-down {lost}" in box.problems(asked), 90, "status to name the command that resolves it")
    text = box.problems(asked)
    check("does not answer" in text and "fenc" in text, f"status does not say why it waits:\n{text}")
    said = box.refusal(asked, "node", "confirm-down", lost, "--confirm", "somebody")
    check(lost in said, f"a wrong name: the refusal does not say which one is expected: {said}")
    said = box.refusal(asked, "node", "confirm-down", "node9", "--confirm", "node9")
    check("node9" in said, f"an unknown node: {said}")
    box.gemel(asked, "node", "confirm-down", lost, "--confirm", lost, timeout_s=90)


def dead_bmc_story(box, guest):
    with story("a node loses its power together with its BMC: waits and says why; confirm-down resolves"):
        box.cut_power("node1", with_bmc=True)
        wait_for(lambda: "failed" in box.problems("node2") or "fencing" in box.problems("node2"), 60, "status to speak of the fencing")
        check(guest.state("node2").get("node") != "node2", "the guest was started without any proof")
        text = box.explain("node2", "vm", guest.name)
        check("node1" in text, f"explain does not say where it was or what it waits for:\n{text}")
        confirm_down(box, "node2", "node1")
        guest.came_back("node2", 60)
        box.power_on("node1")
        box.wait_healthy()
        box.wait_in_sync(guest.name, "node2")


def stopped_or_gone(box, guest, host):
    """No vCPU of it can run there: every QEMU of it is stopped by the guard (or ended)."""
    states = [box[host].exec("ps", "-o", "stat=", "-p", pid, check=False).stdout.strip() for pid in guest.processes(host)]
    return all(state[:1] in ("T", "Z", "") for state in states)


def frozen_host_story(box, guest):
    """node2 is paused with its guest on it; its BMC cannot be reached; the guest goes on on node1; node2 wakes up."""
    with story("a host is frozen through a takeover and wakes up: it writes not one byte, its guest is killed"):
        box.cut_link("mgmt", "bmc2")
        box.pause("node2")
        confirm_down(box, "node1", "node2")
        guest.came_back("node1", 60)
        box.isolate("node2")     # or the resync would write there, rightly
        path, _, _ = box.image("node1", guest.name)
        stale = box.layout().disk_dir("node2") / "var-lib-gemel" / "pools" / "default" / path.name
        before = stale.read_bytes()
        box.resume("node2")
        woke = now()
        wait_for(lambda: stopped_or_gone(box, guest, "node2"), 60, "the guest's old QEMU to be stopped or killed on node2")
        print(f"              stopped or killed {now() - woke:.1f} s after it woke up", flush=True)
        data = 64 << 20
        check(stale.read_bytes()[data:] == before[data:], "the node that woke up wrote to its replica")
        guest.counts_on(5, 30)
        check(stopped_or_gone(box, guest, "node2"), "the guest's old QEMU runs again")
        box.heal()
        wait_for(lambda: not guest.processes("node2"), 60, "the guest's old QEMU to be killed on node2, which knows of the loss now")
        wait_for(lambda: "is confirmed-down" in box.problems("node1"), 60, "status to say that node2 must boot before it takes part")
        box.cut_power("node2")
        box.power_on("node2")
        box.wait_healthy()
        box.wait_in_sync(guest.name)


@time_limit(400)
def test_operators_word_and_a_frozen_host():
    with Cluster(witness=True, timing=SHORT_TIMING, fence_timeout_s=4) as box:
        guest = TinyGuest(box, "tiny")
        guest.start("node1")
        guest.counts_on(5, 60)
        dead_bmc_story(box, guest)
        frozen_host_story(box, guest)
        with story("at the end the replicas are equal"):
            guest.check_errors()
            guest.power_off("node1")
            box.check_equal(guest.name)
