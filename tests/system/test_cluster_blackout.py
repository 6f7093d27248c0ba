"""Everything loses its power while one node was alone: who may go on from what (with a witness), and what a human may force."""
from lib import wait_for
from lib.cluster import NODES, SHORT_TIMING, Cluster, check, story
from lib.load import Load


def alone_then_blackout(box, load):
    """node2 is away, node1 acknowledges alone with the witness, then everything is dark."""
    box.cut_power("node2")
    wait_for(lambda: box.volume("node1", "disk1")["ack_set"] == ["node1"], 60, "node1 to go on alone")
    load.progress(300, 60)
    for host in ("node1", "witness"):
        box.cut_power(host)
    load.reap(30)


def stale_node_refuses(box):
    box.power_on("node2")
    wait_for(lambda: box.store_state("node2") == "no-quorum", 60, "node2 to say that there is no quorum")
    said = box.refusal("node2", "volume", "export", "disk1", "--detach")
    check("quor" in said or "store" in said, f"alone: the refusal does not say why: {said}")
    box.power_on("witness")
    wait_for(lambda: box.store_state("node2") == "quorate", 90, "node2 and the witness to be a quorum")
    wait_for(lambda: box.node_state("node2", "node2") == "online", 60, "node2 to take part again")
    wait_for(lambda: (box.volume("node2", "disk1") or {}).get("state") == "unavailable", 60, "disk1 to be shown as unavailable")
    said = box.refusal("node2", "volume", "export", "disk1", "--detach")
    check("Outdated" in said or "current" in said, f"with the witness: the refusal does not say that the replica is old: {said}")
    text = box.explain("node2", "volume", "disk1")
    check("gemel volume force-uptodate disk1 --node" in text, f"explain does not name the command that would force it:\n{text}")
    text = box.problems("node2")
    check("no current replica" in text, f"status does not say what is wrong:\n{text}")


def split_by_force(box, load):
    """The operator declares the stale replica current; then the other node returns after all."""
    said = box.refusal("node2", "volume", "force-uptodate", "disk1", "--node", "node2", "--confirm", "disk1")
    check("gemel node confirm-down node1" in said, f"the holder is not proven gone, and the refusal does not say what to do: {said}")
    wait_for(lambda: "gemel node confirm-down node1" in box.problems("node2"), 60, "status to offer confirm-down")
    box.gemel("node2", "node", "confirm-down", "node1", "--confirm", "node1", timeout_s=90)
    said = box.refusal("node2", "volume", "force-uptodate", "disk1", "--node", "node2", "--confirm", "wrong")
    check("disk1" in said, f"the refusal does not say which name is expected: {said}")
    box.gemel("node2", "volume", "force-uptodate", "disk1", "--node", "node2", "--confirm", "disk1", timeout_s=90)
    second = Load(box, "disk1")
    second.newest = load.newest + 100_000      # other contents than the first history's
    second.start("node2")
    second.progress(100, 60, "on the replica that was forced")
    box.power_on("node1")
    for host in NODES:
        wait_for(lambda: (box.volume(host, "disk1") or {}).get("state") == "split-brain", 90, f"{host} to report the split brain")
        text = box.problems(host)
        check("gemel volume resolve disk1 --keep" in text, f"status on {host} does not name the way out:\n{text}")
    return second


def test_blackout_stale_node_force_and_resolve():
    with Cluster(witness=True, fences=False, timing=SHORT_TIMING) as box:
        box.new_volume("disk1")
        load = Load(box, "disk1")
        load.start("node1")
        load.progress(300, 60, "the first writes")
        with story("blackout; the stale node alone and with the witness: refused, with the reason and the command"):
            alone_then_blackout(box, load)
            stale_node_refuses(box)
        with story("the current node with the witness: starts, and everything flushed is there"):
            box.cut_power("node2")
            box.power_on("node1")
            wait_for(lambda: box.store_state("node1") == "quorate", 90, "node1 and the witness to be a quorum")
            box.wait_free("disk1", "node1", 90)
            box.check_nothing_lost(load, hosts=("node1",), after_blackout=True)
            box.power_on("node2")
            box.wait_healthy()
            box.wait_in_sync("disk1")
            box.check_equal("disk1")
        with story("the same again, but the stale replica is forced: both sides report the split brain"):
            load.start("node1")
            load.progress(200, 60)
            alone_then_blackout(box, load)
            stale_node_refuses(box)
            second = split_by_force(box, load)
        with story("volume resolve keeps one history and renames the other"):
            second.stop()
            box.close("node2", "disk1")
            box.gemel("node1", "volume", "resolve", "disk1", "--keep", "node1", "--confirm", "disk1", timeout_s=120)
            box.wait_in_sync("disk1", deadline_s=120)
            box.check_equal("disk1")
            box.check_nothing_lost(load, after_blackout=True)
            pool = box["node2"].exec("ls", "/var/lib/gemel/pools/default").stdout.split()
            kept = [name for name in pool if name.startswith("disk1") and name != "disk1.img"]
            check(kept, f"the losing replica was not kept: {pool}")
