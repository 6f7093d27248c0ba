#!/usr/bin/python3
"""Bad input, one row each: what is typed, in which situation, and the one line that must come back. Every row also
shows that nothing was changed, that the exit code is the documented one, and that what was sent kept to the contract."""
import os
import re
import subprocess
import unittest

from clitest import CliTest
from fake_api import ApiError, guest, volume

USAGE, MISSING, REFUSED, FAILED, UNREACHABLE = 2, 3, 4, 1, 5
LONG = "a" * 41


def free_volume(test):
    test.fake.status["volumes"].append(volume("spare", 1 << 30))


def stopped_guest(test):
    test.fake.status["vms"].append(guest("idle1"))
    test.fake.status["volumes"].append(volume("idle1", 1 << 30, vm="idle1"))


def remote_guest(test):
    test.fake.status["vms"].append(guest("far1", "node2"))


def dead_peer(test):
    test.fake.status["nodes"][1]["state"] = "offline"


def drained_peer(test):
    test.fake.status["nodes"][1]["drained"] = True


def moving_guest(test):
    test.fake.status["vms"][0]["migration"] = {"node": "node2", "phase": "prepared", "cancel": False}


def two_histories(test):
    free_volume(test)


def refuse(method, template, code, message):
    def setup(test):
        test.fake.refuse[(method, template)] = ApiError(code, message)
    return setup


def failing(kind, code, message):
    def setup(test):
        test.fake.fail_operation[kind] = ApiError(code, message)
    return setup


def plan(action, **fields):
    def setup(test):
        test.fake.plans[action] = fields
    return setup


def file(name, content=b""):
    def setup(test):
        with open(test.path(name), "wb") as out:
            out.write(content)
    return setup


def image(name, *arguments):
    def setup(test):
        subprocess.run(["qemu-img", "create", "-q", *[a.replace("@", test.folder.name) for a in arguments[:-1]], test.path(name),
                        arguments[-1]], check=True)
    return setup


def backed_image(test):
    image("base.qcow2", "-f", "qcow2", "8M")(test)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", test.path("top.qcow2")],
                   check=True, cwd=test.folder.name)


def truncated_image(test):
    image("cut.qcow2", "-f", "qcow2", "8M")(test)
    with open(test.path("cut.qcow2"), "r+b") as out:
        out.truncate(100)


def locked_image(test):
    image("busy.qcow2", "-f", "qcow2", "8M")(test)
    holder = subprocess.Popen(["qemu-nbd", "-t", "-k", test.path("holder.sock"), "-f", "qcow2", test.path("busy.qcow2")],
                              stdout=subprocess.DEVNULL)
    test.addCleanup(holder.wait)
    test.addCleanup(holder.kill)
    wait_for(lambda: os.path.exists(test.path("holder.sock")))


def wait_for(condition, seconds=10):
    import select
    import time
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("the condition did not come true in time")
        select.select([], [], [], 0.02)


def domain(accepted, refusals=(), disks=()):
    def setup(test):
        file("guest.xml", b"<domain type='kvm'><name>x</name></domain>")(test)
        test.fake.xml_check = {"accepted": accepted, "name": "x", "memory_bytes": 1 << 30, "vcpus": 1,
                               "refusals": [{"element": e, "why": w} for e, w in refusals],
                               "disks": [{"target": t, "source": s, "format": "qcow2"} for t, s in disks]}
    return setup


def api_down(test):
    test.stop_server()
    os.unlink(test.socket)


def api_dead_socket(test):
    test.stop_server()


def not_a_socket(test):
    test.stop_server()
    os.unlink(test.socket)
    file("clusterd.sock")(test)


def version(**fields):
    def setup(test):
        test.fake.version.update(fields)
    return setup


def raw(template, answer):
    def setup(test):
        test.fake.raw_answer[template] = answer
    return setup


def silent(method):
    def setup(test):
        test.fake.lose_reply.add(method)
        test.fake.refuse[("GET", "/v1/operations/{id}")] = ApiError("unavailable", "the store does not answer: wait for a quorum")
        test.fake.hold_operation.clear()
    return setup


SIZE_HINT = "write a whole number and K, M, G or T"
NAME_HINT = "1 to 40 lower case letters, digits and dashes are expected"
# (what is typed; how the situation is made; exit code; what the line must say)
ROWS = [
    # -- words
    ("", None, USAGE, "'gemel' needs a command after it; 'gemel --help' lists them"),
    ("stauts", None, USAGE, "there is no command 'gemel stauts'"),
    ("volume", None, USAGE, "'gemel volume' needs a command after it"),
    ("volume make x 1G", None, USAGE, "there is no command 'gemel volume make'"),
    ("volume create", None, USAGE, "NAME is required; 'gemel volume create --help'"),
    ("volume create a", None, USAGE, "SIZE is required"),
    ("volume create a 1G extra", None, USAGE, "'extra' is not expected by 'gemel volume create'"),
    ("status --nosuch", None, USAGE, "'--nosuch' is not expected by 'gemel status'"),
    ("status --watch 0", None, USAGE, "'0' is no number of seconds between two looks: 0.2 to 3600 is expected"),
    ("status --watch 3601", None, USAGE, "0.2 to 3600 is expected"),
    ("status --watch -1", None, USAGE, "'-1' is not expected by 'gemel status'|no number of seconds"),
    ("status --watch 1s", None, USAGE, "'1s' is no number of seconds"),
    ("status --watch nan", None, USAGE, "'nan' is no number of seconds"),
    ("status --watch 2 3", None, USAGE, "'3' is not expected by 'gemel status'"),
    ("status --count 2", None, USAGE, "--count requires --watch"),
    ("status --watch --count 0", None, USAGE, "not in range 1 to 1000000"),
    ("vm migrate", None, USAGE, "NAME is required; 'gemel vm migrate --help'"),
    ("vm migrate web1 node2 extra", None, USAGE, "'extra' is not expected by 'gemel vm migrate'"),
    ("node drain", None, USAGE, "NODE is required"),
    ("events -n 5000", None, USAGE, "not in range 1 to 1000"),
    ("events -n many", None, USAGE, "many"),
    ("help nosuch", None, USAGE, "there is no command 'gemel nosuch'"),
    ("explain guest web1", None, USAGE, "there is no command 'gemel explain guest'"),
    # -- sizes
    ("volume create a 20GB", None, USAGE, SIZE_HINT),
    ("volume create a 1.5G", None, USAGE, SIZE_HINT),
    ("volume create a -5G", None, USAGE, "-5G"),
    ("volume create a ''", None, USAGE, "SIZE|size"),
    ("volume create a G", None, USAGE, SIZE_HINT),
    ("volume create a 20g", None, USAGE, SIZE_HINT),
    ("volume create a 0", None, USAGE, "a volume of 0 B is not possible: 1M to 64T is expected"),
    ("volume create a 512K", None, USAGE, "1M to 64T is expected"),
    ("volume create a 65T", None, USAGE, "1M to 64T is expected"),
    ("volume create a 99999999999999999999T", None, USAGE, "too large: at most 64T"),
    ("volume create a 9000000P", None, USAGE, "too large: at most 64T"),
    ("volume create a 2000000", None, USAGE, "is not a multiple of 4096: write 2002944"),
    ("vm create a --memory 1M --disk spare", free_volume, USAGE, "whole MiB from 32M are expected"),
    ("vm create a --memory 64000001 --disk spare", free_volume, USAGE, "whole MiB from 32M are expected"),
    ("vm create a --cpus 0 --disk spare", free_volume, USAGE, "not in range 1 to 255"),
    ("vm create a --priority 2000 --disk spare", free_volume, USAGE, "not in range 0 to 1000"),
    ("vm migrate web1 --bandwidth 100MB", None, USAGE, "a bandwidth of '100MB' is not possible: 1M to 1T bytes a second is expected"),
    ("vm migrate web1 --bandwidth 512K", None, USAGE, "1M to 1T bytes a second is expected"),
    ("vm migrate web1 --bandwidth 2T", None, USAGE, "1M to 1T bytes a second is expected"),
    ("vm migrate web1 --downtime 0", None, USAGE, "not in range 1 to 60000"),
    ("vm migrate web1 --downtime 60001", None, USAGE, "not in range 1 to 60000"),
    ("vm migrate web1 --cancel --downtime 50", None, USAGE, "--cancel stands alone: gemel vm migrate web1 --cancel"),
    ("vm migrate web1 node2 --cancel", None, USAGE, "--cancel stands alone"),
    # -- names
    ("volume create Web1 1G", None, USAGE, "'Web1' is not a volume name: " + NAME_HINT),
    ("volume create web_1 1G", None, USAGE, NAME_HINT),
    ("volume create ../etc 1G", None, USAGE, NAME_HINT),
    ("volume create web1- 1G", None, USAGE, NAME_HINT),
    (f"volume create {LONG} 1G", None, USAGE, NAME_HINT),
    ("volume show 'a/b?c'", None, USAGE, NAME_HINT),
    ("vm create Ümlaut --disk spare", None, USAGE, "not a guest name"),
    ("node show NODE1", None, USAGE, "not a node name"),
    ("fence set BMC --node node2 --agent fence_ipmilan", None, USAGE, "not a fence device name"),
    ("vm start web1 --node Node2", None, USAGE, "not a node name"),
    ("vm migrate Web1", None, USAGE, "not a guest name"),
    ("vm migrate web1 Node2", None, USAGE, "not a node name"),
    ("node drain ../etc", None, USAGE, "not a node name"),
    ("node undrain NODE1", None, USAGE, "not a node name"),
    ("vm create a --disk spare --prefer Node2", None, USAGE, "not a node name"),
    # -- missing objects
    ("volume show nosuch", None, MISSING, "there is no volume nosuch: 'gemel volume list' shows what there is"),
    ("volume delete nosuch --confirm nosuch", None, MISSING, "there is no volume nosuch"),
    ("volume export nosuch", None, MISSING, "there is no volume nosuch"),
    ("volume force-uptodate nosuch --node node1 --confirm nosuch", None, MISSING, "there is no volume nosuch"),
    ("volume resolve spare --keep node9 --confirm spare", two_histories, MISSING, "there is no node node9"),
    ("volume create a 1G --node node9", None, MISSING, "there is no node node9"),
    ("node show node9", None, MISSING, "there is no node node9"),
    ("node confirm-down node9 --confirm node9", None, MISSING, "there is no node node9"),
    ("vm show nosuch", None, MISSING, "there is no guest nosuch"),
    ("vm start nosuch", None, MISSING, "there is no guest nosuch"),
    ("vm stop nosuch", None, MISSING, "there is no guest nosuch"),
    ("vm migrate nosuch", None, MISSING, "there is no guest nosuch"),
    ("vm migrate nosuch --cancel", None, MISSING, "there is no guest nosuch"),
    ("vm migrate web1 node9", None, MISSING, "there is no node node9"),
    ("node drain node9", None, MISSING, "there is no node node9"),
    ("node undrain node9", None, MISSING, "there is no node node9"),
    ("vm stop nosuch --power-off --confirm nosuch", None, MISSING, "there is no guest nosuch"),
    ("vm delete nosuch --confirm nosuch", None, MISSING, "there is no guest nosuch"),
    ("vm console nosuch", None, MISSING, "there is no guest nosuch"),
    ("vm create a --disk nosuch", None, MISSING, "there is no volume nosuch"),
    ("fence test nosuch", None, MISSING, "there is no fence device nosuch"),
    ("fence set bmc9 --node node9 --agent fence_ipmilan", None, MISSING, "there is no node node9"),
    ("explain vm nosuch", None, MISSING, "there is no guest nosuch"),
    ("explain volume nosuch", None, MISSING, "there is no volume nosuch"),
    # -- there already, busy, wrong moment
    ("volume create web1 1G", None, REFUSED, "there is a volume web1 already"),
    ("volume delete web1 --confirm web1", None, REFUSED, "volume web1 is in use"),
    ("volume export web1", None, REFUSED, "volume web1 is served already"),
    ("volume export web1 --close", None, MISSING, "volume web1 is not exported"),
    ("volume export web1 --close --detach", None, USAGE, "--close stands alone"),
    ("volume create a 1G", failing("volume.create", "out_of_space", "pool default on node2 has 0.5 GiB free and 1 GiB is "
     "needed: free some space or choose another --pool"), FAILED, "pool default on node2 has 0.5 GiB free"),
    ("vm create web1 --disk spare", free_volume, REFUSED, "there is a guest web1 already"),
    ("vm create a --disk web1", None, REFUSED, "volume web1 is a disk of guest web1"),
    ("vm create a", None, USAGE, "add --disk VOLUME .* or --new-disk SIZE"),
    ("vm create web2 --new-disk 1G", failing("vm.create", "unavailable", "the store is not quorate: wait for node2"), UNREACHABLE,
     "the store is not quorate"),
    ("vm delete web1 --confirm web1", None, REFUSED, "guest web1 runs: stop it first"),
    ("vm start idle1", lambda t: (stopped_guest(t), failing("vm.start", "failed_precondition", "no replica of idle1 may be "
     "promoted now: 'gemel explain volume idle1' says why")(t)), REFUSED, "no replica of idle1 may be promoted"),
    ("vm stop web1", failing("vm.stop", "timed_out", "guest web1 did not shut down within 2 min and goes on: try again or use "
     "--power-off"), UNREACHABLE, "did not shut down within 2 min"),
    ("vm console idle1", stopped_guest, REFUSED, "does not run"),
    ("vm console far1", remote_guest, REFUSED, "runs on node2: run this command there"),
    ("vm console web1", lambda t: t.fake.console.update(path="/nonexistent/pty"), UNREACHABLE, "could not be opened"),
    ("vm console web1", lambda t: t.fake.console.update(kind="unix", path="/nonexistent/s"), UNREACHABLE, "could not be connected"),
    ("vm console web1", lambda t: t.fake.console.update(kind="unix", path="/" + "x" * 120), UNREACHABLE, "could not be opened"),
    ("node confirm-down node1 --confirm node1", None, REFUSED, "node1 answers: power it off first"),
    ("node confirm-down node2 --confirm node2", plan("node.confirm-down", allowed=False, refusal="node2 answered 3 s ago on "
     "link1: look why it is slow with 'gemel node show node2'"), REFUSED, "node2 answered 3 s ago on link1"),
    ("vm migrate web1 node1", None, REFUSED, "guest web1 runs on node1 already"),
    ("vm migrate idle1", stopped_guest, REFUSED, "guest idle1 does not run; 'gemel vm start idle1"),
    ("vm migrate web1", drained_peer, REFUSED, "node2 is drained; gemel node undrain node2"),
    ("vm migrate web1", lambda t: t.fake.stuck.update(web1="the copy of web1 on node2 is Inconsistent; wait until it is UpToDate"),
     REFUSED, "the copy of web1 on node2 is Inconsistent"),
    ("vm migrate web1", moving_guest, REFUSED, "guest web1 is moving to node2 already"),
    ("vm migrate web1 --cancel", None, REFUSED, "guest web1 is not moving; nothing to cancel"),
    ("vm migrate web1", refuse("POST", "/v1/vms/{name}/migrate", "unavailable", "the store has no quorum: bring node2 or the witness "
     "back"), UNREACHABLE, "the store has no quorum"),
    ("node drain node1", drained_peer, REFUSED, "there is no other node that guests could move to"),
    ("node leave", None, USAGE, "either the node's name or --here is expected"),
    ("node leave node1 --here", None, USAGE, "either the node's name or --here is expected"),
    ("node leave node9 --confirm node9", None, MISSING, "there is no node node9"),
    ("node leave node2 --confirm node2", None, REFUSED, "run 'gemel node leave node2' on node2"),
    ("node leave node1", None, REFUSED, "add --confirm node1"),
    ("cluster start", None, USAGE, "both --alone and --accept-loss are expected"),
    ("cluster start --alone", None, USAGE, "both --alone and --accept-loss are expected"),
    ("cluster start --alone --accept-loss --confirm demo", plan("cluster.start-alone", allowed=False, refusal="the store is "
     "quorate: nothing has to be forced"), REFUSED, "the store is quorate"),
    # -- not confirmed
    ("volume delete spare", free_volume, REFUSED, "add --confirm spare; nothing was changed"),
    ("volume delete spare --confirm web1", free_volume, REFUSED, "'web1' was typed and 'spare' was expected: nothing was changed"),
    ("volume force-uptodate spare --node node1", free_volume, REFUSED, "add --confirm spare"),
    ("volume force-uptodate spare", free_volume, USAGE, "--node is required"),
    ("volume resolve spare --keep node1 --confirm node1", two_histories, REFUSED, "'node1' was typed and 'spare' was expected"),
    ("node confirm-down node2", dead_peer, REFUSED, "add --confirm node2"),
    ("node confirm-down node2 --confirm node1", dead_peer, REFUSED, "'node1' was typed and 'node2' was expected"),
    ("cluster start --alone --accept-loss", None, REFUSED, "add --confirm demo"),
    ("cluster start --alone --accept-loss --confirm yes", None, REFUSED, "'yes' was typed and 'demo' was expected"),
    ("vm delete idle1 --with-volumes", stopped_guest, REFUSED, "add --confirm idle1"),
    ("vm stop web1 --power-off", None, REFUSED, "add --confirm web1"),
    ("vm stop web1 --power-off --confirm idle1", None, REFUSED, "'idle1' was typed and 'web1' was expected"),
    # -- fence devices
    ("fence set bmc2 --node node2", None, USAGE, "--agent is required"),
    ("fence set bmc2 --node node2 --agent fence_ipmilan --option ip", None, USAGE, "NAME=VALUE is expected"),
    ("fence set bmc2 --node node2 --agent fence_ipmilan --option =x", None, USAGE, "NAME=VALUE is expected"),
    ("fence set bmc2 --node node2 --agent fence_ipmilan --option password=x", None, USAGE, "give it with --secret-file password=FILE"),
    ("fence set bmc2 --node node2 --agent fence_ipmilan --secret-file password=/nonexistent", None, USAGE, "no password could be read"),
    ("fence set bmc2 --node node2 --agent fence_ipmilan --timeout 900", None, USAGE, "not in range 1 to 120"),
    ("fence set bmc2 --node node2 --agent fence_ipmilan --option ip=192.0.2.12", failing("fence.set", "permission_denied",
     "bmc2 refused the user name or password: check username and --secret-file password"), REFUSED, "refused the user name or password"),
    ("fence set bmc2 --node node2 --agent fence_ipmilan --option ip=192.0.2.12", failing("fence.set", "timed_out",
     "bmc2 did not answer within 20 s: check ip, and that the BMC is reachable from every node"), UNREACHABLE, "did not answer within 20 s"),
    # -- images
    ("vm import a @/nosuch.qcow2", None, MISSING, "there is no file .*/nosuch.qcow2: give a qcow2 or raw image"),
    ("vm import a @", None, USAGE, "a file or a block device is expected"),
    ("vm import a @/empty", file("empty"), USAGE, "it is empty"),
    ("vm import a @/notes.txt", file("notes.txt", b"hello\n"), USAGE, "no multiple of 512"),
    ("vm import a @/x.gz", file("x.gz", b"\x1f\x8b" + bytes(510)), USAGE, "compressed with gzip: unpack it"),
    ("vm import a @/x.xz", file("x.xz", b"\xfd7zXZ\0" + bytes(506)), USAGE, "compressed with xz"),
    ("vm import a @/x.zip", file("x.zip", b"PK\3\4" + bytes(508)), USAGE, "a zip archive"),
    ("vm import a @/x.ova", file("x.ova", bytes(257) + b"ustar" + bytes(250)), USAGE, "a tar archive or OVA"),
    ("vm import a @/x.vmdk", image("x.vmdk", "-f", "vmdk", "8M"), USAGE, "it is vmdk: qcow2 or raw is expected; convert it with"),
    ("vm import a @/x.vdi", image("x.vdi", "-f", "vdi", "8M"), USAGE, "it is vdi: qcow2 or raw is expected"),
    ("vm import a @/latin1.xml", file("latin1.xml", b"<domain><name>caf\xe9</name></domain>"), USAGE, "is not in UTF-8"),
    ("vm import a @/huge.xml", file("huge.xml", b"<domain>" + b" " * 300000), USAGE, "at most 256 KiB is expected"),
    ("vm import a @/top.qcow2", backed_image, USAGE, "it needs its backing file base.qcow2: flatten it"),
    ("vm import a @/cut.qcow2", truncated_image, USAGE, "is not a usable disk image"),
    ("vm import a @/busy.qcow2", locked_image, REFUSED, "is in use: shut down what has it open"),
    ("vm import a @/x.img --format vmdk", image("x.img", "-f", "raw", "8M"), USAGE, "raw or qcow2 is expected"),
    ("vm import a @/x.img --format qcow2", image("x.img", "-f", "raw", "8M"), USAGE, "not a usable disk image"),
    ("vm import web1 @/x.img", image("x.img", "-f", "raw", "8M"), REFUSED, "there is a guest web1 already"),
    ("vm import spare @/x.img", lambda t: (free_volume(t), image("x.img", "-f", "raw", "8M")(t)), REFUSED,
     "there is a volume spare already"),
    ("vm import a @/guest.xml", domain(False, [("nvram", "firmware variables are a file on this host"), ("hostdev", "the device is "
     "in this host only")]), USAGE, "would not survive a failover: <nvram>: .*; <hostdev>: .*; remove or change that"),
    ("vm import a @/guest.xml", domain(True), USAGE, "has no disk"),
    ("vm import a @/guest.xml", domain(True, disks=[("vda", "/nonexistent/disk.qcow2")]), MISSING, "there is no file /nonexistent/disk.qcow2"),
    # -- the API itself
    ("status", api_down, UNREACHABLE, "gemel-clusterd is not running here .*systemctl start gemel-clusterd"),
    ("status", api_dead_socket, UNREACHABLE, "gemel-clusterd does not answer on .*systemctl status gemel-clusterd"),
    ("status", not_a_socket, UNREACHABLE, "is not a socket"),
    ("volume create a 1G", api_down, UNREACHABLE, "gemel-clusterd is not running here"),
    ("status", version(api_version="2.0"), USAGE, "this gemel speaks API 1.x and what listens on .* speaks 2.0: install the same"),
    ("status", version(product="other"), USAGE, "install the same version"),
    ("volume create a 1G", version(api_version="0.9"), USAGE, "speaks 0.9"),
    ("status", raw("/v1/version", b"hello"), USAGE, "is no gemel-clusterd of that kind"),
    ("status", raw("/v1/status", b"{\"cluster\": "), FAILED, "is not JSON: install the same version"),
    ("status", refuse("GET", "/v1/status", "internal", "a table could not be read: look with 'journalctl -u gemel-clusterd'"),
     FAILED, "a table could not be read"),
    ("volume create a 1G", refuse("POST", "/v1/volumes", "unavailable", "the store has no quorum: bring node2 or the witness back"),
     UNREACHABLE, "the store has no quorum"),
    ("volume create a 1G", refuse("POST", "/v1/volumes", "permission_denied", "this node was fenced and has not rejoined: wait"),
     REFUSED, "has not rejoined"),
    ("volume create a 1G", silent("POST"), UNREACHABLE, "broke off its answer|does not answer"),
]


def words_of(line, folder):
    words = re.findall(r"'([^']*)'|(\S+)", line)
    return [(quoted or bare).replace("@", folder) for quoted, bare in words]


class BadInput(unittest.TestCase):
    """Filled below, one test a row."""


def make_test(line, setup, code, pattern):
    def test(self):
        case = CliTest()
        case.begin()
        self.addCleanup(case.doCleanups)
        self.addCleanup(case.end)
        if setup:
            setup(case)
        before = case.fake.state()
        done = case.gemel(*words_of(line, case.folder.name))
        self.assertRegex(done.stderr.splitlines()[-1] if done.stderr else "(nothing)", "^gemel: .*(" + pattern + ")")
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(done.stdout, "")
        said = [text for text in done.stderr.splitlines() if text.startswith("gemel: ")]
        self.assertEqual(len(said), 1, done.stderr)
        self.assertEqual(case.fake.state(), before, "something was changed")
        self.assertEqual(case.fake.breaches, [])
    return test


for index, row in enumerate(ROWS):
    setattr(BadInput, f"test_{index:03}_{re.sub(r'[^a-z0-9]+', '_', row[0].lower())[:50]}", make_test(*row))

if __name__ == "__main__":
    unittest.main()
