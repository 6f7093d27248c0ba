#!/usr/bin/python3
"""What the commands do when all is well, and what they undo when it is not: requests as the fake API saw them, images
copied byte for byte, lost replies, interrupts, consoles, help and manual pages."""
import filecmp
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
import unittest

from clitest import GEMEL, ROOT, CliTest
from fake_api import ApiError, guest, volume

DEADLINE_S = 60


def read_until(descriptor, wanted, seen=b""):
    end = time.monotonic() + DEADLINE_S
    while wanted not in seen:
        ready, _, _ = select.select([descriptor], [], [], max(0, end - time.monotonic()))
        if not ready:
            raise AssertionError(f"{wanted!r} did not come; seen: {seen!r}")
        seen += os.read(descriptor, 4096)
    return seen


class Requests(CliTest):
    def sent(self):
        """The last change: method, path, query without the operation id, body."""
        method, path, query, body = [call for call in self.fake.calls if call[0] != "GET"][-1]
        return method, path, {k: v for k, v in query.items() if k != "operation_id"}, body

    def test_volumes(self):
        self.good("volume", "create", "data1", "20G", "--stable", "--pool", "fast", "--node", "node1", "--node", "node2")
        self.assertEqual(self.sent(), ("POST", "/v1/volumes", {}, {
            "name": "data1", "size_bytes": 20 << 30, "pool": "fast", "ack_mode": "stable", "nodes": ["node1", "node2"]}))
        self.assertRegex(self.good("volume", "list"), r"(?m)^data1 +20 GiB +ok +node1 UpToDate, node2 UpToDate")
        self.assertIn("ack set      node1, node2", self.good("volume", "show", "data1"))
        self.good("volume", "resolve", "data1", "--keep", "node2", "--confirm", "data1")
        self.assertEqual(self.sent(), ("POST", "/v1/volumes/data1/resolve", {}, {"keep": "node2", "confirm_name": "data1"}))
        self.good("volume", "force-uptodate", "data1", "--node", "node1", "--confirm", "data1")
        self.assertEqual(self.sent()[3], {"node": "node1", "confirm_name": "data1"})
        self.good("volume", "delete", "data1", "--confirm", "data1")
        self.assertEqual(self.sent(), ("DELETE", "/v1/volumes/data1", {"confirm_name": "data1"}, None))
        self.assertNotIn("data1", self.good("volume", "list"))

    def test_object_names_may_be_command_words(self):
        self.good("volume", "create", "list", "1G")
        self.assertIn("list: ok", self.good("volume", "show", "list"))
        self.good("volume", "create", "status", "1G")
        self.assertIn("status: ok", self.good("volume", "show", "status"))

    def test_guests(self):
        self.good("vm", "create", "app1", "--memory", "2G", "--cpus", "4", "--new-disk", "4G", "--new-disk", "8G", "--bridge", "br0",
                  "--priority", "7", "--prefer", "node2", "--start")
        bodies = [body for method, path, _, body in self.fake.calls if (method, path) == ("POST", "/v1/vms")]
        self.assertEqual(bodies, [{"name": "app1", "memory_bytes": 2 << 30, "vcpus": 4, "disks": [{"volume": "app1"},
                         {"volume": "app1-2"}], "nics": [{"bridge": "br0"}], "priority": 7, "preferred_node": "node2"}])
        self.assertEqual(self.sent()[1], "/v1/vms/app1/start")
        self.assertRegex(self.good("vm", "list"), r"(?m)^app1 +running +running +node1 +4 +2 GiB +app1,app1-2")
        self.assertIn("disk         vda: volume app1", self.good("vm", "show", "app1"))
        self.assertIn("memory       2 GiB, shared (not used under emulation", self.good("vm", "show", "app1"))
        self.good("vm", "create", "app2", "--new-disk", "4G", "--private-memory")
        self.assertIn("memory       1 GiB, private", self.good("vm", "show", "app2"))
        self.good("vm", "stop", "app1", "--timeout", "30")
        self.assertEqual(self.sent()[3], {"mode": "shutdown", "timeout_ms": 30000})
        self.good("vm", "start", "app1", "--node", "node2")
        self.assertEqual(self.sent()[3], {"node": "node2"})
        self.good("vm", "stop", "app1", "--power-off", "--confirm", "app1")
        self.assertEqual(self.sent()[3], {"mode": "power-off"})
        self.good("vm", "delete", "app1", "--with-volumes", "--confirm", "app1")
        self.assertEqual(self.sent()[2], {"confirm_name": "app1", "with_volumes": "true"})

    def test_nodes_and_cluster(self):
        self.fake.status["nodes"][1]["state"] = "offline"
        self.assertRegex(self.good("node", "list"), r"(?m)^node2 +offline +compute,storage +yes +4 up +bmc-node2 ok")
        self.assertIn("fencing      fence-device ok, bmc-node2", self.good("node", "show", "node2"))
        self.good("node", "confirm-down", "node2", "--confirm", "node2")
        self.assertEqual(self.sent(), ("POST", "/v1/nodes/node2/confirm-down", {}, {"confirm_name": "node2"}))
        self.good("node", "leave", "node1", "--confirm", "node1")
        self.assertEqual(self.sent(), ("POST", "/v1/nodes/node1/leave", {}, {"confirm_name": "node1"}))
        self.good("node", "leave", "--here")
        self.assertEqual(self.sent(), ("POST", "/v1/nodes/node1/leave", {}, {"confirm_name": "node1"}))
        self.good("cluster", "start", "--alone", "--accept-loss", "--confirm", "demo")
        self.assertEqual(self.sent(), ("POST", "/v1/cluster/start-alone", {}, {"accept_loss": True, "confirm_name": "demo"}))

    def test_fence(self):
        secret = self.path("secret")
        pathlib.Path(secret).write_text("hunter2\n", encoding="utf-8")
        said = self.good("fence", "set", "bmc2", "--node", "node2", "--agent", "fence_ipmilan", "--option", "ip=192.0.2.12",
                         "--option", "options=a=b", "--secret-file", f"password={secret}", "--timeout", "9")
        self.assertEqual(self.sent(), ("PUT", "/v1/fence-devices/bmc2", {}, {
            "node": "node2", "agent": "fence_ipmilan", "options": {"ip": "192.0.2.12", "options": "a=b"},
            "secrets": {"password": "hunter2"}, "timeout_ms": 9000}))
        said += self.good("fence", "test", "bmc2") + self.good("fence", "list") + self.good("fence", "list", "--json")
        self.assertNotIn("hunter2", said)
        self.assertIn("says that node2 is on", said)
        self.good("fence", "set", "bmc2", "--node", "node2", "--agent", "/usr/local/bin/fence_x", "--secret-file", "password=-",
                  text="other\n")
        self.assertEqual(self.fake.secrets["bmc2"], {"password": "other"})

    def test_events_and_explain(self):
        self.assertEqual(self.good("events").splitlines()[0], "2026-03-01 02:14:01  info      node/node1: node1 is online")
        self.assertEqual(len(self.good("events", "-n", "1").splitlines()), 1)
        self.assertEqual(json.loads(self.good("events", "--json").splitlines()[1])["sequence"], 2)
        for kind, name in (("vm", "web1"), ("node", "node1"), ("volume", "web1")):
            self.assertIn("both replicas are UpToDate", self.good("explain", kind, name))

    def test_json_is_the_answer_itself(self):
        self.assertEqual(json.loads(self.good("status", "--json")), self.fake.status)
        self.assertEqual(json.loads(self.good("volume", "list", "--json")), {"volumes": self.fake.status["volumes"]})
        self.assertEqual(json.loads(self.good("vm", "show", "web1", "--json")), self.fake.status["vms"][0])

    def test_version(self):
        self.assertRegex(self.good("version"), r"gemel 0\.\d+\.\d+ \(API 1\)\ngemel-clusterd 0.1.0 \(API 1.0\), node node1, cluster demo")

    def test_an_answer_cannot_drive_the_terminal(self):
        self.fake.status["vms"][0]["why"] = "\x1b[2Jgone\x07"
        self.fake.status["vms"][0]["phase"] = "waiting"
        self.assertNotIn("\x1b", self.good("status"))

    def test_a_lost_reply_is_read_and_not_repeated(self):
        self.fake.lose_reply.add("POST")
        self.good("volume", "create", "data1", "1G")
        self.assertEqual(len([1 for call in self.fake.calls if call[:2] == ("POST", "/v1/volumes")]), 1)

    def test_progress_after_two_seconds_and_not_before(self):
        self.fake.hold_operation.clear()
        threading.Timer(3.0, self.fake.hold_operation.set).start()
        slow = self.gemel("volume", "create", "slow1", "1G")
        self.assertEqual(slow.returncode, 0)
        self.assertRegex(slow.stderr, r"^creating volume slow1: working, 0 of 100 \(2 s\)\n$")
        self.assertEqual(self.gemel("volume", "create", "fast1", "1G").stderr, "")

    def test_interrupted_wait_says_that_the_cluster_goes_on(self):
        self.fake.hold_operation.clear()
        child = subprocess.Popen([GEMEL, "volume", "create", "slow1", "1G"], stderr=subprocess.PIPE, text=True, env=self.environment())
        self.wait_for_call("GET", "/v1/operations/")
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=DEADLINE_S)
        self.assertEqual(child.returncode, 130)
        self.assertIn("the cluster goes on with it", said)

    def wait_for_call(self, method, prefix):
        end = time.monotonic() + DEADLINE_S
        while not any(call[0] == method and call[1].startswith(prefix) for call in list(self.fake.calls)):
            self.assertLess(time.monotonic(), end, f"no {method} {prefix}")
            select.select([], [], [], 0.01)


MOVES = "copying memory to node2: 45 % of 1228 MiB, 118 MiB/s"


class Moving(CliTest):
    """Guests that move: what is asked for, what is said meanwhile, and how it ends."""
    sent, wait_for_call = Requests.sent, Requests.wait_for_call

    def begin_command(self, *arguments):
        return subprocess.Popen([GEMEL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment())

    def end_command(self, child):
        out, said = child.communicate(timeout=DEADLINE_S)
        self.assertEqual(self.fake.breaches, [])
        return child.returncode, out, said

    def on_the_way(self, name="web1"):
        self.assertIsNotNone(self.fake.one("vms", name)["migration"])

    def test_migrate(self):
        self.assertEqual(self.good("vm", "migrate", "web1"), "web1 runs on node2 now; it paused for 84 ms\n")
        self.assertEqual(self.sent(), ("POST", "/v1/vms/web1/migrate", {}, {}))
        self.good("vm", "migrate", "web1", "node1", "--bandwidth", "100M", "--downtime", "50", "--no-auto-converge")
        self.assertEqual(self.sent()[3], {"node": "node1", "bandwidth_bytes": 100 << 20, "downtime_ms": 50, "auto_converge": False})
        operation = json.loads(self.good("vm", "migrate", "web1", "--json"))
        self.assertEqual((operation["kind"], operation["state"]), ("vm.migrate", "succeeded"))
        self.assertEqual((operation["result"]["node"], operation["result"]["downtime_ms"]), ("node2", 84))

    def test_a_pause_that_nobody_measured_is_not_made_up(self):
        original = self.fake.migration

        def unmeasured(*arguments):
            record = original(*arguments)
            record["result"]["downtime_ms"] = None
            return record
        self.fake.migration = unmeasured
        self.assertEqual(self.good("vm", "migrate", "web1"), "web1 runs on node2 now\n")

    def test_its_step_is_shown_while_it_is_waited_for(self):
        self.fake.hold_moves.clear()
        threading.Timer(3.0, self.fake.hold_moves.set).start()
        done = self.gemel("vm", "migrate", "web1")
        self.assertEqual((done.returncode, done.stdout), (0, "web1 runs on node2 now; it paused for 84 ms\n"))
        self.assertEqual(done.stderr, f"moving web1: {MOVES} (2 s)\n")

    def test_everything_shows_a_migration(self):
        self.fake.status["vms"][0]["migration"] = {"node": "node2", "phase": "prepared", "cancel": False}
        self.assertRegex(self.good("vm", "list"), r"(?m)^web1 +migrating to node2 +running +node1 ")
        page = self.good("vm", "show", "web1")
        self.assertIn("web1: running on node1, migrating to node2\n", page)
        self.assertIn("  migration    its memory is being copied\n", page)
        self.fake.status["vms"][0]["migration"].update(phase="preparing")
        self.assertIn("  migration    node2 gets ready\n", self.good("vm", "show", "web1"))
        self.fake.status["vms"][0]["migration"].update(cancel=True)
        self.assertIn("  migration    given up; it stays unless it has arrived already\n", self.good("vm", "show", "web1"))

    def test_interrupt_says_that_it_goes_on_and_how_to_cancel_it(self):
        self.fake.hold_moves.clear()
        child = self.begin_command("vm", "migrate", "web1")
        self.wait_for_call("GET", "/v1/operations/")
        child.send_signal(signal.SIGINT)
        code, out, said = self.end_command(child)
        self.assertEqual((code, out), (130, ""))
        self.assertEqual(said, "gemel: stopped waiting; web1 goes on moving: 'gemel status --watch' shows how far it is, 'gemel vm "
                         "migrate web1 --cancel' keeps it where it is\n")
        self.on_the_way()

    def test_cancel(self):
        self.fake.hold_moves.clear()
        child = self.begin_command("vm", "migrate", "web1")
        self.wait_for_call("GET", "/v1/operations/")
        self.assertEqual(self.good("vm", "migrate", "web1", "--cancel"), "web1 runs on node1; its migration is over\n")
        code, out, said = self.end_command(child)
        self.assertEqual((code, out, said), (4, "", "gemel: web1 stays on node1: cancelled\n"))
        self.assertIn(("POST", "/v1/vms/web1/migrate-cancel"), self.fake.changes())

    def test_cancel_that_comes_too_late_says_where_it_runs(self):
        self.fake.status["vms"][0]["migration"] = {"node": "node2", "phase": "prepared", "cancel": False}
        child = self.begin_command("vm", "migrate", "web1", "--cancel")
        self.wait_for_call("GET", "/v1/vms/web1")
        with self.fake.lock:
            self.fake.status["vms"][0].update(node="node2", migration=None)
        self.assertEqual(self.end_command(child), (0, "web1 runs on node2; its migration is over\n", ""))

    def test_drain_and_undrain(self):
        self.fake.status["vms"] += [guest("app2", "node1"), guest("app3", "node2")]
        self.assertEqual(self.good("node", "drain", "node1").splitlines(), [
            "web1 runs on node2 now; it paused for 84 ms", "app2 runs on node2 now; it paused for 84 ms",
            "node1 is drained: no guest runs there, and none is started there until 'gemel node undrain node1'"])
        self.assertEqual(self.sent(), ("POST", "/v1/nodes/node1/drain", {}, {}))
        self.assertRegex(self.good("node", "list"), r"(?m)^node1 +drained ")
        self.assertIn("node1: online\n  drained      guests move away", self.good("node", "show", "node1"))
        self.assertIn("demo: all is well; node1 is drained ", self.good("status"))
        self.assertEqual(self.good("node", "undrain", "node1"), "node1 takes guests again; those that moved stay where they are\n")
        self.assertEqual(self.sent(), ("POST", "/v1/nodes/node1/undrain", {}, {}))
        self.assertRegex(self.good("node", "list"), r"(?m)^node1 +online ")

    def test_drain_of_an_empty_node_and_json(self):
        done = json.loads(self.good("node", "drain", "node2", "--json"))
        self.assertEqual((done["kind"], done["state"]), ("node.drain", "succeeded"))
        self.good("node", "undrain", "node2")
        done = json.loads(self.good("node", "drain", "node1", "--json"))
        self.assertEqual(done["object"], "node/node1")

    def test_drain_tells_only_its_own_migrations(self):
        self.good("vm", "migrate", "web1")
        self.good("vm", "migrate", "web1")
        self.assertEqual(len(self.good("node", "drain", "node1").splitlines()), 2)

    def test_drain_says_what_stays_and_why(self):
        self.fake.status["vms"].append(guest("app2", "node1"))
        self.fake.stuck["app2"] = "the copy of app2 on node2 is Inconsistent; wait until it is UpToDate (gemel volume list)"
        child = self.begin_command("node", "drain", "node1")
        line = child.stderr.readline()
        self.assertEqual(line, f"still on node1: app2; waiting: {self.fake.stuck['app2']}\n")
        self.fake.stuck.clear()
        code, out, said = self.end_command(child)
        self.assertEqual((code, said), (0, ""))
        self.assertEqual([text.split()[0] for text in out.splitlines()], ["web1", "app2", "node1"])

    def test_drain_says_which_guest_was_not_moved(self):
        self.fake.fail_operation["vm.migrate"] = ApiError("failed_precondition", "web1 stays on node1: node2 was lost")
        child = self.begin_command("node", "drain", "node1")
        self.assertEqual(child.stderr.readline(), "web1 was not moved: web1 stays on node1: node2 was lost\n")
        with self.fake.lock:
            self.fake.status["vms"][0]["migration"] = None
            self.fake.fail_operation.clear()
        self.assertEqual(self.end_command(child)[0], 0)

    def test_interrupted_drain_says_what_is_left(self):
        self.fake.hold_moves.clear()
        child = self.begin_command("node", "drain", "node1")
        self.wait_for_call("GET", "/v1/operations/")
        child.send_signal(signal.SIGINT)
        code, out, said = self.end_command(child)
        self.assertEqual((code, out), (130, ""))
        self.assertEqual(said, "gemel: stopped waiting; guests go on moving away from node1: 'gemel status --watch' shows how far they "
                         "are, 'gemel node undrain node1' ends it; still on node1: web1\n")
        self.assertTrue(self.fake.one("nodes", "node1")["drained"])

    def test_undrain_ends_a_drain(self):
        self.fake.stuck["web1"] = "the copy of web1 on node2 is Inconsistent"
        child = self.begin_command("node", "drain", "node1")
        child.stderr.readline()
        self.good("node", "undrain", "node1")
        code, out, said = self.end_command(child)
        self.assertEqual((code, out), (4, ""))
        self.assertEqual(said, "gemel: it was undrained meanwhile; guests that moved stay where they are; still on node1: web1\n")


class Typing(CliTest):
    """At a terminal the name is asked for, after what may be lost was said."""

    def talk(self, arguments, answer):
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(GEMEL, ["gemel", *arguments], self.environment())
        seen = read_until(terminal, b"to go on, anything else to stop: ")
        os.write(terminal, answer + b"\n")
        try:
            while piece := os.read(terminal, 4096):
                seen += piece
        except OSError:
            pass  # the terminal's other side is closed
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode()

    def test_right_name(self):
        self.fake.status["volumes"].append(volume("spare", 1 << 30))
        code, seen = self.talk(["volume", "delete", "spare"], b"spare")
        self.assertEqual(code, 0, seen)
        self.assertLess(seen.index("what only spare knows"), seen.index("Type spare to go on"))
        self.assertNotIn("spare", [item["name"] for item in self.fake.status["volumes"]])

    def test_wrong_name(self):
        self.fake.status["volumes"].append(volume("spare", 1 << 30))
        for answer in (b"y", b"", b"web1"):
            code, seen = self.talk(["volume", "delete", "spare"], answer)
            self.assertEqual(code, 4, seen)
            self.assertEqual(self.fake.changes(), [])


class Import(CliTest):
    def make_image(self, name, form="qcow2", size="8M"):
        raw = self.path(name + ".raw")
        subprocess.run(["qemu-img", "create", "-q", "-f", "raw", raw, size], check=True)
        with open(raw, "r+b") as out:
            out.write(os.urandom(1 << 20))
            out.seek(5 << 20)
            out.write(os.urandom(4096))
        if form == "raw":
            return raw, raw
        subprocess.run(["qemu-img", "convert", "-O", form, raw, self.path(name)], check=True)
        return self.path(name), raw

    def assert_same(self, raw, backing):
        compared = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", raw, backing], capture_output=True, text=True)
        self.assertEqual(compared.returncode, 0, compared.stdout + compared.stderr)

    def assert_nothing_left(self, before):
        self.assertEqual(self.fake.state(), before)
        self.assertEqual(self.fake.servers, {})
        self.assertEqual(list(self.fake.folder.iterdir()), [])

    def test_images(self):
        for form in ("qcow2", "raw"):
            name = f"guest-{form}"
            image, raw = self.make_image(name, form)
            self.good("vm", "import", name, image, "--memory", "512M", "--start")
            self.assert_same(raw, self.fake.backing(name))
            imported = self.fake.one("volumes", name)
            self.assertEqual((imported["export"], imported["vm"]), (None, name))
            self.assertEqual(self.fake.one("vms", name)["state"], "running")

    def test_odd_size_is_rounded_up(self):
        image, raw = self.make_image("odd", "raw", "6291968")
        self.good("vm", "import", "odd", image)
        self.assertEqual(self.fake.one("volumes", "odd")["size_bytes"], 6295552)
        self.assert_same(raw, self.fake.backing("odd"))

    def test_domain_xml_with_two_disks(self):
        first, first_raw = self.make_image("one.qcow2")
        second, second_raw = self.make_image("two.qcow2")
        xml = self.path("guest.xml")
        pathlib.Path(xml).write_text("<domain type='kvm'><name>old</name></domain>", encoding="utf-8")
        self.fake.xml_check = {"accepted": True, "refusals": [], "name": "old", "memory_bytes": 3 << 30, "vcpus": 3, "disks": [
            {"target": "vda", "source": first, "format": "qcow2"}, {"target": "vdb", "source": second, "format": "qcow2"}]}
        self.good("vm", "import", "two-disks", xml, "--cpus", "2")
        body = [call[3] for call in self.fake.calls if call[:2] == ("POST", "/v1/vms")][0]
        self.assertEqual(body["disks"], [{"volume": "two-disks", "target": "vda"}, {"volume": "two-disks-2", "target": "vdb"}])
        self.assertEqual((body["memory_bytes"], body["vcpus"]), (3 << 30, 2))
        self.assert_same(first_raw, self.fake.backing("two-disks"))
        self.assert_same(second_raw, self.fake.backing("two-disks-2"))

    def test_every_failing_step_leaves_nothing(self):
        image, _ = self.make_image("guest.qcow2")
        before = self.fake.state()
        for kind in ("volume.create", "volume.export", "vm.create"):
            with self.subTest(kind):
                self.fake.fail_operation = {kind: ApiError("io_error", "the disk of node2 failed: 'gemel status' says more")}
                failed = self.gemel("vm", "import", "guest1", image)
                self.assertEqual(failed.returncode, 1, failed.stderr)
                self.assertRegex(failed.stderr, "gemel: the disk of node2 failed")
                self.fake.fail_operation = {}
                self.assert_nothing_left(before)

    def test_what_cannot_be_undone_is_named(self):
        image, _ = self.make_image("guest.qcow2")
        self.fake.fail_operation = {"volume.unexport": ApiError("io_error", "the disk of node2 failed")}
        failed = self.gemel("vm", "import", "guest1", image)
        self.assertEqual(failed.returncode, 1)
        self.assertRegex(failed.stderr, "gemel: the disk of node2 failed; volume guest1 was left behind: delete it with")

    def test_copy_that_breaks_off_leaves_nothing(self):
        image, _ = self.make_image("guest.qcow2")
        before = self.fake.state()
        original = self.fake.exportVolume

        def export_to_nobody(path, query, body):
            answer = original(path, query, body)
            server = self.fake.servers[path["name"]]
            server.kill()
            server.wait()
            return answer
        self.fake.exportVolume = export_to_nobody
        failed = self.gemel("vm", "import", "guest1", image)
        self.assertEqual(failed.returncode, 1, failed.stderr)
        self.assertRegex(failed.stderr, "gemel: copying .*guest.qcow2 failed")
        self.assert_nothing_left(before)

    def test_interrupt_leaves_nothing(self):
        image, _ = self.make_image("guest.qcow2")
        before = self.fake.state()
        self.fake.hold_operation.clear()
        child = subprocess.Popen([GEMEL, "vm", "import", "guest1", image], stderr=subprocess.PIPE, text=True, env=self.environment())
        Requests.wait_for_call(self, "GET", "/v1/operations/")
        child.send_signal(signal.SIGINT)
        self.fake.hold_operation.set()
        _, said = child.communicate(timeout=DEADLINE_S)
        self.assertEqual(child.returncode, 130, said)
        self.assert_nothing_left(before)

    def test_what_a_killed_import_left_is_named_and_kept(self):
        image, _ = self.make_image("guest.qcow2")
        self.fake.status["volumes"].append(volume("guest1", 4 << 20))
        before = self.fake.state()
        failed = self.gemel("vm", "import", "guest1", image)
        self.assertEqual(failed.returncode, 4)
        self.assertIn("used by no guest (if an interrupted import left it, delete it)", failed.stderr)
        self.assertEqual(self.fake.state(), before)


class Export(CliTest):
    def setUp(self):
        super().setUp()
        self.good("volume", "create", "data1", "1M")

    def closed(self):
        return self.fake.one("volumes", "data1")["export"] is None

    def test_command_gets_the_uri_and_its_exit_code_is_ours(self):
        said = self.good("volume", "export", "data1", "--", "sh", "-c", 'nbdinfo --size "$uri"')
        self.assertEqual(said, "1048576\n")
        self.assertTrue(self.closed())
        failed = self.gemel("volume", "export", "data1", "--", "sh", "-c", "exit 9")
        self.assertEqual(failed.returncode, 9, failed.stderr)
        self.assertTrue(self.closed())

    def test_missing_command_closes_the_export(self):
        failed = self.gemel("volume", "export", "data1", "--", "/nonexistent/program")
        self.assertEqual(failed.returncode, 127)
        self.assertTrue(self.closed())

    def test_detached(self):
        uri = self.good("volume", "export", "data1", "--detach").strip()
        seen = subprocess.run(["nbdinfo", "--size", uri], capture_output=True, text=True)
        self.assertEqual(seen.stdout, "1048576\n", seen.stderr)
        self.good("volume", "export", "data1", "--close")
        self.assertTrue(self.closed())

    def test_until_interrupted(self):
        child = subprocess.Popen([GEMEL, "volume", "export", "data1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 env=self.environment())
        self.assertRegex(child.stdout.readline(), "^nbd\\+unix:///")
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=DEADLINE_S)
        self.assertEqual(child.returncode, 0)
        self.assertTrue(self.closed())


class Console(CliTest):
    def attach(self):
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(GEMEL, ["gemel", "vm", "console", "web1"], self.environment())
        read_until(terminal, b"Ctrl-] detaches")
        return pid, terminal

    def talk(self, line):
        pid, terminal = self.attach()
        os.write(terminal, b"root\r")
        self.assertEqual(read_until(line, b"root\r"), b"root\r")
        os.write(line, b"Password: ")
        read_until(terminal, b"Password: ")
        os.write(terminal, b"last\x1dnever")
        self.assertEqual(read_until(line, b"last"), b"last")
        read_until(terminal, b"detached from web1")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)

    def test_pty(self):
        guest_side, slave = pty.openpty()
        self.fake.console = {"kind": "pty", "path": os.ttyname(slave), "node": "node1"}
        self.talk(guest_side)

    def test_unix_stream(self):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path("serial"))
        listener.listen()
        self.fake.console = {"kind": "unix", "path": self.path("serial"), "node": "node1"}
        accepted = []
        thread = threading.Thread(target=lambda: accepted.append(listener.accept()[0]))
        thread.start()
        pid, terminal = self.attach()
        thread.join(DEADLINE_S)
        os.write(terminal, b"hello")
        self.assertEqual(read_until(accepted[0].fileno(), b"hello"), b"hello")
        accepted[0].close()
        listener.close()
        read_until(terminal, b"the guest stopped or moved")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)

    def test_second_console_is_refused(self):
        guest_side, slave = pty.openpty()
        self.fake.console = {"kind": "pty", "path": os.ttyname(slave), "node": "node1"}
        pid, terminal = self.attach()
        os.write(guest_side, b"login: ")
        read_until(terminal, b"login: ")  # the first one is attached now
        second = self.gemel("vm", "console", "web1")
        self.assertEqual(second.returncode, 4)
        self.assertIn("another console is attached", second.stderr)
        os.write(terminal, b"\x1d")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)


class Watching(CliTest):
    def watch(self, *arguments, **options):
        return subprocess.Popen([GEMEL, "status", "--watch", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=self.environment(), **options)

    def interrupt(self, child):
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=DEADLINE_S)
        self.assertEqual((child.returncode, said), (0, b""))

    def resync(self, done_bytes):
        self.fake.status["volumes"][0]["state"] = "resync"
        self.fake.status["volumes"][0]["replicas"][1].update(disk="Inconsistent", connection="SyncTarget", resync={
            "done_bytes": done_bytes, "total_bytes": 20 << 30, "rate_bytes_per_s": None})

    def test_watch_shows_changes_and_survives_silence(self):
        child = self.watch("0.2")
        seen = read_until(child.stdout.fileno(), b"all is well")
        self.assertRegex(seen, rb"^== \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC ==\ndemo: all is well")
        self.fake.status["vms"][0].update(state="crashed", phase="blocked")
        seen = read_until(child.stdout.fileno(), b"crashed (blocked)")
        self.assertRegex(seen, rb"\n== \d{4}-\d\d-\d\d [\d:]+ UTC ==\n")
        self.fake.refuse[("GET", "/v1/status")] = ApiError("unavailable", "the store does not answer: wait for it")
        seen = read_until(child.stdout.fileno(), b"NO ANSWER: the store does not answer")
        self.fake.refuse.clear()
        read_until(child.stdout.fileno(), b"crashed (blocked)")
        self.assertNotIn(b"\x1b", seen)
        self.interrupt(child)

    def test_interrupt_does_not_wait_for_the_next_look(self):
        child = self.watch("3600")
        read_until(child.stdout.fileno(), b"VOLUMES\nweb1")
        self.interrupt(child)

    def test_it_ends_when_nobody_reads(self):
        child = self.watch("0.2")
        read_until(child.stdout.fileno(), b"all is well")
        child.stdout.close()
        self.assertEqual(child.wait(DEADLINE_S), 0)
        child.stderr.close()

    def test_count(self):
        said = self.good("status", "--watch", "0.2", "--count", "3")
        self.assertEqual(said.count("demo: all is well"), 3)
        self.assertEqual(len([call for call in self.fake.calls if call[1] == "/v1/status"]), 3)
        self.assertEqual(self.good("status", "--watch", "--count", "1").count("all is well"), 1)

    def test_json_is_an_object_a_line(self):
        lines = self.good("status", "--watch", "0.2", "--count", "2", "--json").splitlines()
        self.assertEqual([json.loads(line) for line in lines], [self.fake.status] * 2)
        self.fake.refuse[("GET", "/v1/status")] = ApiError("unavailable", "the store does not answer")
        silent = self.good("status", "--watch", "--count", "1", "--json")
        self.assertEqual(json.loads(silent), {"error": {"code": "unavailable", "message": "the store does not answer"}})

    def test_a_migration_and_its_step(self):
        self.fake.hold_moves.clear()
        self.fake.migration(self.fake.one("vms", "web1"), "node2", None)
        child = self.watch("0.2")
        seen = read_until(child.stdout.fileno(), b"118 MiB/s\n").decode()
        self.assertRegex(seen, r"(?m)^web1 +migrating to node2 +node1 ")
        self.assertIn(f"UNDER WAY\nvm.migrate vm/web1: {MOVES}\n", seen)
        self.interrupt(child)

    def test_the_rate_of_a_resync_comes_from_two_looks(self):
        self.resync(5 << 30)
        original = self.fake.getStatus

        def further(path, query, body):
            self.fake.status["volumes"][0]["replicas"][1]["resync"]["done_bytes"] += 20 << 20
            return original(path, query, body)
        self.fake.getStatus = further
        blocks = self.good("status", "--watch", "0.2", "--count", "3").split("\n== ")
        self.assertRegex(blocks[0], r"(?m)^resync volume/web1, node1 to node2: 25 % of 20 GiB$")
        for block in blocks[1:]:
            self.assertRegex(block, r"(?m)^resync volume/web1, node1 to node2: 25 % of 20 GiB, [\d.]+ MiB/s, [\dhmins ]+ left$")
        lines = [json.loads(line) for line in self.good("status", "--watch", "0.2", "--count", "2", "--json").splitlines()]
        rates = [line["volumes"][0]["replicas"][1]["resync"]["rate_bytes_per_s"] for line in lines]
        self.assertIsNone(rates[0])
        self.assertTrue(1 << 20 < rates[1] <= 100 << 20, rates)

    def test_a_resync_that_began_anew_has_no_rate_yet(self):
        self.resync(9 << 30)
        answers = iter([9 << 30, 1 << 30])
        original = self.fake.getStatus

        def less(path, query, body):
            self.resync(next(answers))
            return original(path, query, body)
        self.fake.getStatus = less
        self.assertNotIn("left", self.good("status", "--watch", "0.2", "--count", "2"))


class WatchingAtATerminal(CliTest):
    def watch(self, rows, columns):
        pid, terminal = pty.fork()
        if pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execve(GEMEL, ["gemel", "status", "--watch", "3600"], self.environment())
        return pid, terminal

    def end_watch(self, pid, terminal, seen):
        os.write(terminal, b"\x03")
        try:
            while piece := os.read(terminal, 4096):
                seen += piece
        except OSError:
            pass  # the terminal's other side is closed
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        os.close(terminal)
        return seen

    @staticmethod
    def rows_of(draw):
        """What one drawing shows, without escape sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", draw.decode()).split("\r\n")

    def test_the_other_screen_is_used_and_given_back(self):
        pid, terminal = self.watch(40, 120)
        seen = read_until(terminal, b"\x1b[J")
        self.assertTrue(seen.startswith(b"\x1b[?1049h\x1b[?25l\x1b[H"), seen)
        self.assertIn(b"\x1b[32mall is well\x1b[0m", seen)
        seen = self.end_watch(pid, terminal, seen)
        self.assertTrue(seen.endswith(b"\x1b[?25h\x1b[?1049l"), seen)
        self.assertEqual(seen.count(b"\x1b[?1049h"), 1)

    def test_it_keeps_to_the_window_and_follows_its_size(self):
        pid, terminal = self.watch(8, 30)
        seen = read_until(terminal, b"\x1b[J")
        rows = self.rows_of(seen)
        self.assertEqual(len(rows), 8)
        self.assertTrue(all(len(row) <= 30 for row in rows), rows)
        self.assertRegex(rows[-1], r"^\(\d+ more lines")
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        larger = read_until(terminal, b"\x1b[J")
        self.assertIn("seen from node1, 2026-03-01 02:14:07 UTC", self.rows_of(larger)[0])
        self.assertRegex(self.rows_of(larger)[-1], r"^web1 +running")
        self.end_watch(pid, terminal, seen)


class Following(CliTest):
    def test_events_follow(self):
        child = subprocess.Popen([GEMEL, "events", "-f"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.environment())
        read_until(child.stdout.fileno(), b"node2 is online\n")
        self.fake.events.append({"sequence": 3, "time": "2026-03-01T02:15:00Z", "severity": "error", "kind": "node.lost",
                                 "object": "node/node2", "node": "node1", "message": "node2 does not answer"})
        seen = read_until(child.stdout.fileno(), b"node2 does not answer\n")
        self.assertNotIn(b"node2 is online", seen)
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=DEADLINE_S)


class Completion(CliTest):
    def complete(self, line):
        words = line.split(" ")
        script = f'source "{ROOT}/packaging/completion/gemel"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gemel; printf "%s\\n" "${{COMPREPLY[@]}}"'
        path = f"{GEMEL.parent}:{os.environ['PATH']}"
        done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, env=self.environment(PATH=path))
        self.assertEqual(done.stderr, "")
        return set(done.stdout.split())

    def test_words(self):
        self.fake.status["vms"].append(guest("idle1"))
        self.fake.devices["bmc2"] = {"name": "bmc2", "node": "node2", "agent": "fence_ipmilan", "options": {}, "secrets_set": [],
                                     "state": "ok"}
        for line, wanted in (("gemel sta", {"status"}), ("gemel vol", {"volume"}), ("gemel volume c", {"create"}),
                             ("gemel vm s", {"show", "start", "stop"}), ("gemel volume show ", {"web1"}),
                             ("gemel volume delete we", {"web1"}), ("gemel vm start ", {"web1", "idle1"}),
                             ("gemel vm console i", {"idle1"}), ("gemel node confirm-down ", {"node1", "node2"}),
                             ("gemel vm start web1 --node ", {"node1", "node2"}), ("gemel explain ", {"vm", "node", "volume"}),
                             ("gemel explain node node2", {"node2"}), ("gemel fence test ", {"bmc2"}),
                             ("gemel vm create x --disk ", {"web1"}), ("gemel vm import x y --format q", {"qcow2"}),
                             ("gemel volume create ", set()), ("gemel volume delete x --con", {"--confirm"}),
                             ("gemel status --w", {"--watch"}), ("gemel vm migrate ", {"web1", "idle1"}),
                             ("gemel vm migrate web1 ", {"node1", "node2"}), ("gemel vm migrate web1 node2", {"node2"}),
                             ("gemel vm migrate web1 --down", {"--downtime"}), ("gemel vm migrate --bandwidth ", set()),
                             ("gemel vm migrate --bandwidth 100M i", {"idle1"}), ("gemel vm mi", {"migrate"}),
                             ("gemel node dr", {"drain"}), ("gemel node drain ", {"node1", "node2"}),
                             ("gemel node undrain node1", {"node1"}), ("gemel status --watch ", set())):
            with self.subTest(line):
                self.assertEqual(self.complete(line), wanted)

    def test_without_an_api_there_are_no_names_and_no_noise(self):
        self.fake.refuse[("GET", "/v1/volumes")] = ApiError("unavailable", "no quorum: wait")
        self.assertEqual(self.complete("gemel volume show "), set())


class Documentation(CliTest):
    def commands(self):
        return self.good("help", "--commands").splitlines()

    def test_every_command_of_the_contract_is_there(self):
        wanted = {"status", "node list", "node show", "node confirm-down", "node leave", "node drain", "node undrain", "cluster start", "volume create", "volume list",
                  "volume show", "volume delete", "volume export", "volume force-uptodate", "volume resolve", "vm create",
                  "vm import", "vm list", "vm show", "vm start", "vm stop", "vm console", "vm migrate", "vm delete", "fence set", "fence test",
                  "fence list", "events", "explain vm", "explain node", "explain volume", "sandbox", "help", "version"}
        self.assertLessEqual({f"gemel {words}" for words in wanted}, set(self.commands()))

    def test_every_command_has_help_and_a_manual_page_that_is_current(self):
        pages = {path.name for path in (ROOT / "docs/reference").glob("*.1")}
        for command in self.commands():
            words = command.split()[1:]
            with self.subTest(command):
                page = "-".join(["gemel", *words]) + ".1"
                self.assertEqual((ROOT / "docs/reference" / page).read_text(encoding="utf-8"), self.good("help", "--man", *words),
                                 "run docs/reference/generate.sh")
                pages.discard(page)
                if words and words[0] != "sandbox":
                    self.assertEqual(self.good(*words, "--help"), self.good("help", *words))
                self.assertIn("usage: gemel", self.good("help", *words))
                for line in self.good("help", *words).splitlines():
                    self.assertTrue(len(line) <= 80 or line.startswith("  gemel "), line)
        self.assertEqual(pages, set(), "pages without a command")
        self.assertEqual((ROOT / "docs/reference/cli.md").read_text(encoding="utf-8"), self.good("help", "--markdown"))

    def test_examples_are_understood(self):
        """Every example of the help is a line that the parser accepts and the contract too."""
        examples = []
        for command in self.commands():
            text = self.good("help", *command.split()[1:])
            examples += [line.strip() for line in text.partition("examples:\n")[2].splitlines() if line.startswith("  gemel ")]
        self.assertGreater(len(examples), 30)
        for example in examples:
            words = example.split(" | ")[0]
            if "sandbox" in words or "--watch" in words or " -f" in words or "export" in words:
                continue
            done = subprocess.run(["sh", "-c", words.replace("gemel ", f"{GEMEL} ", 1)], capture_output=True, text=True, input="",
                                  env=self.environment(), timeout=30)
            self.assertNotRegex(done.stderr, "says what is|is required|there is no command", example)
            self.assertEqual(self.fake.breaches, [], example)


if __name__ == "__main__":
    unittest.main()
