"""Two nodes without a witness: full partition, a stale node that boots alone (H27), takeover by forcing the store."""
from lib import wait_for
from lib.cluster import SHORT_LEASES, Cluster, check, holds_for, story
from lib.load import Load, now
from lib.tiny_guest import TinyGuest


def partition_story(box, guest, load):
    with story("full partition: the node with the guest wins, fences once and goes on; the other one waits"):
        cut = now()
        box.isolate("node1")
        wait_for(lambda: box.power_ons("node2") == 2, 90, "node2 to be fenced and powered on again, once")
        wait_for(lambda: box.store_state("node1") == "quorate", 60, "node1 to be the only voter")
        load.progress(200, 60, "after the partition")
        guest.counts_on(5, 60)
        print(f"              writes were frozen for {load.longest_gap(cut):.1f} s", flush=True)
        check(box.power_ons("node1") == 1, "both sides were fenced")


def refuses_alone(box, host):
    wait_for(lambda: box.store_state(host) == "waiting-for-peer", 60, f"{host} to say that it waits for its peer")
    text = box.problems(host)
    check("gemel cluster start --alone --accept-loss" in text, f"status does not name the command that overrides:\n{text}")
    said = box.refusal(host, "volume", "export", "disk1", "--detach")
    check("quor" in said or "store" in said or "peer" in said, f"the refusal does not say why: {said}")
    said = box.refusal(host, "cluster", "start", "--alone")
    check("--accept-loss" in said, f"the refusal does not say what is missing: {said}")
    wait_for(lambda: box.id in box.refusal(host, "cluster", "start", "--alone", "--accept-loss", "--confirm", "another"), 30,
             f"{host} to have read its own copy of the store, and the refusal to say which name is expected")


def stale_node_story(box, guest, load):
    with story("blackout, and the stale node boots alone: refused, with the reason and the command that would force it (H27)"):
        load.progress(100, 30)
        before = box.volume("node1", "disk1")
        check(before["ack_set"] == ["node1"], f"node1 acknowledges alone, its record says {before['ack_set']}")
        box.cut_power("node1")
        load.reap(30)
        box.heal()
        refuses_alone(box, "node2")
        ons = box.power_ons("node1")
        holds_for(6, lambda: not guest.processes("node2") and box.power_ons("node1") == ons, "no guest, no fence by the stale node")
    with story("the current node returns: nothing is lost"):
        box.power_on("node1")
        box.wait_healthy()
        box.wait_in_sync("disk1", deadline_s=120)
        wait_for(lambda: guest.state("node1").get("state") == "running", 60, "the guest to run again")
        guest.came_back(guest.state("node1")["node"], 30)


def takeover_story(box, guest, victim, survivor):
    with story("the guest's node loses its power: the other one fences it, becomes the only voter and starts the guest"):
        guest.is_taken_over(victim, survivor, 120)


def test_partition_stale_node_and_takeover():
    with Cluster(timing=SHORT_LEASES, fence_timeout_s=5) as box:
        guest = TinyGuest(box, "tiny")
        guest.start("node1")
        box.new_volume("disk1")
        load = Load(box, "disk1")
        load.start("node1")
        load.progress(200, 60, "the first writes")
        guest.counts_on(5, 60)
        partition_story(box, guest, load)
        stale_node_story(box, guest, load)
        takeover_story(box, guest, guest.host, "node2" if guest.host == "node1" else "node1")
        with story("at the end nothing is lost and the replicas are equal"):
            guest.check_errors()
            guest.power_off(guest.host)
            box.check_equal("tiny")
            box.wait_free("disk1", "node1")
            box.check_equal("disk1")
            box.check_nothing_lost(load, after_blackout=True)
