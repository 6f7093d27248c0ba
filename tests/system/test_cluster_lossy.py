"""Disks that lose what was not synced (etcd's too), under power cuts of everything; and the control experiment that shows
that the check can fail: the same with every sync ignored, which is the product with every fsync removed."""
from lib import time_limit, wait_for
from lib.cluster import NODES, Cluster, check, story
from lib.load import Load

HOSTS = (*NODES, "witness")


def everything_dark_under_load(box, load):
    """Power of everything is cut in the middle of writing. Returns what each replica on the disks lacks of what was flushed."""
    load.progress(400, 90)
    areas = {host: box.image(host, "disk1")[:2] for host in NODES}
    load.progress(100, 60)
    for host in HOSTS:
        box.cut_power(host)
    load.reap(30)
    check(len(load.flushed) > 100, f"only {len(load.flushed)} blocks were flushed: that is no load")
    return {host: load.missing(*areas[host], after_blackout=True) for host in NODES}


@time_limit(300)
def test_power_cuts_of_everything_on_lossy_disks_lose_nothing():
    with Cluster(witness=True, lossy_disks=True, seed=11) as box:
        box.new_volume("disk1")
        load = Load(box, "disk1")
        for turn, owner in enumerate(("node1", "node2"), 1):
            with story(f"power cut of everything, number {turn}: what was flushed is on both disks, and the cluster comes back"):
                load.start(owner)
                lost = everything_dark_under_load(box, load)
                check(not any(lost.values()), f"flushed blocks are lost: {lost}")
                for host in HOSTS:
                    box.power_on(host)
                box.wait_healthy(120)
                box.wait_free("disk1", "node1", 90)
                box.wait_in_sync("disk1", deadline_s=120)
                box.check_equal("disk1")
                box.check_nothing_lost(load, after_blackout=True)
                load.forget_unflushed()


@time_limit(200)
def test_with_every_sync_ignored_the_same_check_is_red():
    with Cluster(witness=True, lossy_disks=True, ignore_syncs=True, seed=11) as box:
        box.new_volume("disk1")
        load = Load(box, "disk1")
        load.start("node1")
        lost = everything_dark_under_load(box, load)
        check(all(lost.values()), "no flushed block was lost although nothing was ever synced: the check sees nothing")
