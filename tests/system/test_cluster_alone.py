"""Two nodes without a witness: the operator starts the stale one alone, and the two histories meet again."""
from lib import wait_for
from lib.cluster import SHORT_LEASES, Cluster, check, story

OLD, LOST, NEW = "0xaa", "0xbb", "0xcc"


def io(box, host, uri, command):
    done = box[host].exec("qemu-io", "-f", "raw", "-c", command, uri, timeout_s=60)
    check("verification failed" not in done.stdout, f"{command} on {host}: {done.stdout}")


def start_alone(box, host):
    box.gemel(host, "cluster", "start", "--alone", "--accept-loss", "--confirm", box.id, timeout_s=90)


def node1_goes_on_alone(box):
    uri = box.export("node1", "disk1")
    io(box, "node1", uri, f"write -P {OLD} 0 64k")
    box.isolate("node2")
    wait_for(lambda: box.power_ons("node2") == 2, 90, "node2 to be fenced and powered on again")
    wait_for(lambda: (box.volume("node1", "disk1") or {}).get("ack_set") == ["node1"], 60, "node1 to acknowledge alone")
    io(box, "node1", uri, f"write -P {LOST} 0 64k")


def node2_is_started_alone(box):
    box.cut_power("node1")
    box.heal()
    wait_for(lambda: box.store_state("node2") == "waiting-for-peer", 60, "node2 to say that it waits for its peer")
    wait_for(lambda: box.volume("node2", "disk1") is not None, 60, "node2 to show what its own copy of the store holds")
    start_alone(box, "node2")
    wait_for(lambda: box.store_state("node2") == "quorate", 60, "node2 to go on alone")
    uri = box.export("node2", "disk1")
    io(box, "node2", uri, f"read -P {OLD} 0 64k")
    io(box, "node2", uri, f"write -P {NEW} 0 64k")
    return uri


def histories_meet(box):
    # node2 powers its victim on again, once.
    for host in ("node1", "node2"):
        wait_for(lambda host=host: box.store_state(host) == "split-brain", 90, f"{host} to say that the store has two histories")
        text = box.problems(host)
        check("gemel cluster start --alone --accept-loss" in text, f"status on {host} does not say how to choose:\n{text}")
    start_alone(box, "node2")
    wait_for(lambda: box.node_state("node2", "node1") == "online", 90, "node1 to have joined the chosen history")
    kept = box["node1"].exec("sh", "-c", "ls -d /var/lib/gemel/store.aside-*").stdout.split()
    check(len(kept) >= 1, "node1's store was not kept")


def test_a_stale_node_started_alone_and_the_choice_between_two_histories():
    with Cluster(timing=SHORT_LEASES, fence_timeout_s=5) as box:
        box.new_volume("disk1")
        with story("node2 is fenced, node1 goes on alone"):
            node1_goes_on_alone(box)
        with story("node1 loses its power; the operator starts node2 alone and accepts the loss"):
            uri = node2_is_started_alone(box)
        with story("node1 returns: two histories of the store, nothing decided by itself; the operator chooses node2's"):
            histories_meet(box)
        with story("the disk has two histories as well: kept apart, chosen, the other one renamed"):
            wait_for(lambda: box.volume("node2", "disk1")["state"] == "split-brain", 60, "disk1 to be kept apart")
            io(box, "node2", uri, f"read -P {NEW} 0 64k")
            box.gemel("node2", "volume", "resolve", "disk1", "--keep", "node2", "--confirm", "disk1", timeout_s=90)
            box.wait_in_sync("disk1", "node2")
            io(box, "node2", uri, f"read -P {NEW} 0 64k")
            box["node1"].exec("sh", "-c", "ls /var/lib/gemel/pools/default/disk1.img.aside-*")
            box.close("node2", "disk1")
            box.check_equal("disk1")
