"""Faults that must not cost anything but time: two nodes and a witness, one volume under writes, nobody is fenced."""
from lib import long_test, time_limit, wait_for
from lib.cluster import NODES, Cluster, check, holds_for, story
from lib.load import Load, now

LINKS = ("link1", "link2", "link3")
LONGEST_FREEZE_S = 20    # of a busy machine; what is measured is printed


def kill_etcd(box, host):
    """SIGKILL to the store's member; clusterd starts it again."""
    box[host].exec("pkill", "-KILL", "-x", "etcd")


def etcd_of(box, host):
    return box[host].exec("pgrep", "-x", "etcd", check=False).stdout.strip()


def daemon_stories(box, load):
    for host, what in (("node1", "the owner's"), ("node2", "the peer's")):
        with story(f"SIGKILL of {what} gemel-blockd under load"):
            box[host].kill("gemel-blockd")
            load.progress(300, 60)
            box.wait_in_sync("disk1")
    with story("SIGKILL of both gemel-clusterd under load"):
        for host in NODES:
            box[host].kill("gemel-clusterd")
        load.progress(300, 60)
        box.wait_healthy()
        load.progress(100, 60)
    for host in ("node1", "node2", "witness"):
        with story(f"SIGKILL of etcd on {host} under load"):
            before = etcd_of(box, host)
            kill_etcd(box, host)
            load.progress(300, 60)
            wait_for(lambda: etcd_of(box, host) not in ("", before), 60, f"etcd on {host} to be started again")
            box.wait_healthy()
    box.wait_in_sync("disk1")


def links_story(box, load):
    with story("replication links cut while control lives: the owner goes on alone, nobody is fenced"):
        cut = now()
        box.cut_link(",".join(LINKS))
        wait_for(lambda: box.volume("node1", "disk1")["ack_set"] == ["node1"], 60, "the permission to go on alone")
        load.progress(200, 60)
        gap = load.longest_gap(cut)
        print(f"              writes were frozen for {gap:.1f} s", flush=True)
        check(gap < LONGEST_FREEZE_S, f"writes were frozen for {gap:.1f} s")
        volume = box.volume("node2", "disk1")
        states = {replica["node"]: replica["disk"] for replica in volume["replicas"]}
        check(states["node2"] == "Outdated", f"the peer must know from the store that it is Outdated, it says {states}")
        text = box.problems("node1")
        check("paths link1, link2, link3" in text, f"status does not say which links are down:\n{text}")
        box.heal()
        box.wait_in_sync("disk1")
        load.progress(100, 60)


def witness_path_story(box, load, seconds):
    with story(f"the owner and the witness do not see each other for {seconds} s: nothing happens"):
        before = box.volume("node2", "disk1")
        box.cut_link("control", "--from", "node1", "--to", "witness")
        box.cut_link("control", "--from", "witness", "--to", "node1")
        start = now()

        def unchanged():
            load.check_errors()
            volume = box.volume("node2", "disk1")
            return volume is not None and all(volume[key] == before[key] for key in ("owner", "generation", "ack_set"))

        holds_for(seconds, unchanged, "the same owner, epoch, generation and ack set")
        load.progress(100, 60)
        gap = load.longest_gap(start)
        check(gap < 5, f"writes stood still for {gap:.1f} s")
        box.heal()
        box.wait_healthy()


def faults(witness_path_s):
    with Cluster(witness=True) as box:
        box.new_volume("disk1")
        load = Load(box, "disk1")
        load.start("node1")
        load.progress(300, 60, "the first writes")
        daemon_stories(box, load)
        links_story(box, load)
        witness_path_story(box, load, witness_path_s)
        with story("at the end nothing is lost, the replicas are equal, nobody was fenced"):
            load.stop()
            box.close("node1", "disk1")
            box.check_equal("disk1")
            box.check_nothing_lost(load)
            box.never_fenced()


@time_limit(400)
def test_under_load_nobody_is_fenced_and_nothing_is_lost():
    faults(witness_path_s=8)


@long_test
def test_the_same_with_the_witness_out_of_sight_for_two_minutes():
    faults(witness_path_s=120)
