"""The situations whose status screens are golden: each function turns a healthy cluster into one of them."""
import copy

from fake_api import guest, healthy, node, volume


def problem(severity, target, what, why, command):
    return {"severity": severity, "object": target, "what": what, "why": why, "next_command": command}


def lost_peer(status, state):
    peer = status["nodes"][1]
    peer["state"] = state
    peer["links"] = [{"name": link["name"], "state": "down"} for link in peer["links"]]
    status["nodes"][0]["links"] = peer["links"]
    peer["memory_free_bytes"] = peer["memory_total_bytes"] = None
    for pool in peer["pools"]:
        pool["free_bytes"] = None
    status["store"]["voters"][1]["state"] = "down"


def degraded(item, owner="node1", other="node2", disk="Outdated"):
    item["state"] = "degraded"
    item["ack_set"] = [owner]
    for replica in item["replicas"]:
        if replica["node"] == other:
            replica["disk"], replica["connection"], replica["role"] = disk, "Unknown", "Unknown"
        else:
            replica["connection"] = "Connecting"


def one_node(status):
    status["cluster"]["mode"] = "one-node"
    status["nodes"] = status["nodes"][:1]
    status["nodes"][0]["links"] = []
    status["nodes"][0]["fencing"] = {"protected": False, "rungs": []}
    status["store"]["voters"] = status["store"]["voters"][:1]
    status["volumes"], status["vms"] = [], []


def peer_lost(status):
    lost_peer(status, "fencing")
    status["volumes"][0]["state"] = "frozen"
    status["volumes"][0]["replicas"][1]["connection"] = "Unknown"
    status["problems"] = [problem(
        "critical", "node/node2", "does not answer on any path; it is being fenced",
        "no heartbeat on control, link1, link2 and link3 for 4 s; bmc-node2 was asked to power it off 1 s ago", None)]
    status["operations"] = [{"id": "00000000-0000-4000-8000-000000000001", "kind": "node.fence", "object": "node/node2",
                             "state": "running", "step": "waiting for bmc-node2 to say off", "progress": None, "error": None,
                             "result": None}]


def resync(status):
    item = status["volumes"][0]
    item["state"] = "resync"
    item["replicas"][0]["connection"] = "SyncSource"
    item["replicas"][1].update(disk="Inconsistent", connection="SyncTarget",
                               resync={"done_bytes": 9 << 30, "total_bytes": 20 << 30, "rate_bytes_per_s": 90 << 20})
    status["volumes"].insert(0, volume("archive1", 100 << 30))
    status["problems"] = [problem("warning", "volume/web1", "only node1 has current data until the resync ends",
                                  "node2 came back 2 min ago; 11 GiB are still to be copied", None)]


def two_voters_waiting(status):
    status["cluster"]["mode"] = "two-nodes"
    status["as_of"]["stale"] = True
    status["store"]["state"] = "waiting-for-peer"
    del status["store"]["voters"][2]
    lost_peer(status, "unknown")
    status["nodes"][0]["standing"] = False
    status["coordinator"] = None
    item = status["volumes"][0]
    item["state"] = "unavailable"
    item["owner"] = None
    for replica in item["replicas"]:
        replica.update(disk="Consistent" if replica["node"] == "node1" else "Unknown", role="Unknown", connection="Unknown")
    status["vms"][0].update(state="shut off", node=None, desired="running", phase="waiting",
                            why="no replica of web1 may be promoted before node2 was asked")
    status["problems"] = [problem(
        "critical", "store", "this node booted alone and waits for node2",
        "it is one of two voters and has not met node2 since it was switched on, so node2 may hold newer data; if node2 will "
        "not come back, what only node2 holds is lost", "gemel cluster start --alone --accept-loss")]


def bmc_unreachable(status):
    lost_peer(status, "offline")
    status["nodes"][1]["fencing"]["rungs"][1]["state"] = "failing"
    status["nodes"][1]["fencing"]["protected"] = False
    degraded(status["volumes"][0], disk="Unknown")
    status["volumes"][0]["state"] = "unavailable"
    status["volumes"][0]["owner"] = {"node": "node2", "epoch": 4, "lease": "unknown", "front_end": "vm:web1"}
    status["volumes"][0]["ack_set"] = ["node1", "node2"]
    status["vms"][0].update(state="unknown", node=None, phase="waiting", why="node2 may still run it: its loss is not proven")
    status["problems"] = [
        problem("critical", "node/node2", "does not answer, and its power cannot be proven off",
                "no heartbeat on any path for 3 min; bmc-node2 does not answer either (timed out after 20 s), so power and BMC "
                "may be gone together. Go and look: if it is off, confirm it; what it alone acknowledged is lost",
                "gemel node confirm-down node2"),
        problem("error", "fence/bmc-node2", "does not answer", "connection to 192.0.2.12 timed out 3 times",
                "gemel fence test bmc-node2")]


def split_brain(status):
    item = status["volumes"][0]
    item["state"] = "split-brain"
    item["owner"] = None
    for replica in item["replicas"]:
        replica.update(connection="StandAlone", role="Unknown")
    status["vms"][0].update(state="shut off", node=None, phase="blocked", why="volume web1 has two histories")
    status["problems"] = [problem(
        "critical", "volume/web1", "both replicas have writes the other lacks",
        "node1 acknowledged alone from 01:10 to 01:40, node2 from 01:45 to 02:05 after 'cluster start --alone'. Nothing is "
        "lost yet: choose whose history goes on, the other one is renamed and kept", "gemel volume resolve web1 --keep node2")]


def lapsed_lease(status):
    status["volumes"][0]["owner"]["lease"] = "lapsed"
    status["volumes"][0]["state"] = "frozen"
    status["vms"][0].update(state="paused", phase="waiting", why="its lease ran out; it resumes with a fresh one")
    status["problems"] = [problem("error", "volume/web1", "node1 could not renew its lease and stopped serving",
                                  "neither node2 nor a quorate store was reachable for 10 s", "gemel explain volume web1")]


def fenced_node(status):
    lost_peer(status, "fenced")
    degraded(status["volumes"][0])
    status["problems"] = [
        problem("error", "node/node2", "was fenced and is being powered on again",
                "bmc-node2 verified it off at 02:11:30; guests that ran there run on node1", None),
        problem("warning", "volume/web1", "only node1 has current data",
                "node2 is off; it is brought up to date when it returns", None)]


def unknown(status):
    status["as_of"]["stale"] = True
    status["store"].update(state="unknown", lineage=None, revision=None)
    for voter in status["store"]["voters"]:
        voter["state"] = "unknown"
    status["coordinator"] = None
    peer = status["nodes"][1]
    peer["state"] = "unknown"
    peer["links"] = [{"name": link["name"], "state": "unknown"} for link in peer["links"]]
    peer["fencing"]["rungs"][1]["state"] = "untested"
    item = status["volumes"][0]
    item["state"] = "unknown"
    item["owner"]["lease"] = "unknown"
    item["replicas"][1].update(disk="Unknown", role="Unknown", connection="Unknown")
    status["problems"] = [problem("critical", "store", "this node's store does not answer",
                                  "etcd on node1 refused the connection; guests that run go on running",
                                  "systemctl status gemel-clusterd")]


def link_down(status):
    for item in status["nodes"]:
        item["links"][2]["state"] = "down"
    status["problems"] = [problem("warning", "node/node1", "link2 to node2 is down; the other links carry on",
                                  "no answer from 10.77.2.2:7710 for 40 s; check the cable and the switch port",
                                  "gemel node show node1")]


def unprotected(status):
    status["nodes"][1] = node("node2", fence="absent")
    status["problems"] = [problem("warning", "node/node2", "has no fence device: its loss cannot be proven",
                                  "if node2 dies its guests wait for an operator",
                                  "gemel fence set NAME --node node2 --agent fence_ipmilan --option ip=ADDRESS --secret-file "
                                  "password=FILE")]


def out_of_restarts(status):
    status["vms"][0].update(state="crashed", node="node1", phase="blocked", restarts=5,
                            why="crashed 5 times within 10 min of its start; it is not started again by itself")
    status["problems"] = [problem("error", "vm/web1", "crashes at every start; no more attempts",
                                  "5 restarts since it was last started by hand", "gemel vm console web1")]


def migrating(status):
    status["vms"][0]["migration"] = {"node": "node2", "phase": "prepared", "cancel": False}
    status["vms"].append(guest("mail1", "node1"))
    status["volumes"].append(volume("mail1", owner="node1", vm="mail1"))
    status["vms"][1]["migration"] = {"node": "node2", "phase": "preparing", "cancel": True}
    status["operations"] = [{"id": f"00000000-0000-4000-8000-00000000000{i}", "kind": kind, "object": what, "state": "running",
                             "step": step, "progress": None, "error": None, "result": None} for i, kind, what, step in (
        (1, "vm.migrate", "vm/web1", "copying memory to node2: 45 % of 1228 MiB, 118 MiB/s"),
        (2, "vm.migrate", "vm/mail1", "node2 gets ready"))]


def draining(status):
    status["nodes"][0]["drained"] = True
    status["vms"].append(guest("mail1", "node1"))
    status["volumes"].append(volume("mail1", owner="node1", vm="mail1"))
    degraded(status["volumes"][0], disk="Inconsistent")
    status["operations"] = [{"id": "00000000-0000-4000-8000-000000000001", "kind": "node.drain", "object": "node/node1",
                             "state": "running", "progress": None, "error": None, "result": None,
                             "step": "waiting: the copy of web1 on node2 is Inconsistent; wait until it is UpToDate (gemel volume "
                             "list); mail1 could not be moved and is tried again"}]


def drained(status):
    status["nodes"][0]["drained"] = True
    status["vms"][0]["node"] = status["volumes"][0]["owner"]["node"] = "node2"


def drained_and_off(status):
    lost_peer(status, "left")
    status["nodes"][1]["drained"] = True
    degraded(status["volumes"][0])
    status["problems"] = [problem("warning", "node/node2", "is left", "it takes part again when it has booted", None)]


def many_guests(status):
    for i in range(2, 31):
        name = f"app{i}"
        status["volumes"].append(volume(name, 8 << 30, owner="node1" if i % 2 else "node2", vm=name))
        status["vms"].append(guest(name, "node1" if i % 2 else "node2"))
    status["vms"][20].update(state="shut off", node=None, phase="starting", why="waits for app3, which has a higher priority")


CASES = {case.__name__: case for case in (
    one_node, peer_lost, resync, two_voters_waiting, bmc_unreachable, split_brain, lapsed_lease, fenced_node, unknown,
    link_down, unprotected, out_of_restarts, migrating, draining, drained, drained_and_off, many_guests)}
CASES["healthy"] = lambda status: None


def make(name):
    status = copy.deepcopy(healthy())
    CASES[name](status)
    return status
