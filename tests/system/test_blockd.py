"""gemel-blockd: two daemons on loopback, the test plays store and clusterd (lib/blockd_client.py)."""
import errno
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from lib import TestFailure
from lib.blockd_client import BlockdError, ManyVolumes, Pair, run, wait_until
from lib.nbd_writer import Relay, Writer

REPOSITORY = Path(__file__).resolve().parents[2]


def program():
    builds = [REPOSITORY / "build" / preset / "src/daemons/blockd/gemel-blockd" for preset in ("release", "dev")]
    found = [path for path in builds if path.exists()]
    if not found:
        raise TestFailure("no gemel-blockd is built: ./dev build")
    return max(found, key=lambda path: path.stat().st_mtime)


@contextmanager
def pair_of(size_mib=64, **more):
    directory = tempfile.mkdtemp(prefix="gemel-blockd-")
    pair = None
    try:
        pair = Pair(directory, program(), size_mib=size_mib, **more)
        with pair:
            yield pair
    except BlockdError as error:
        logs = "".join(f"\n{node.name}: {node.log()[-3000:]}" for node in pair.nodes.values()) if pair else ""
        raise TestFailure(f"{error}{logs}") from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def expect(condition, what):
    if not condition:
        raise TestFailure(what)


def random_image(pair):
    image = pair.directory / "source.img"
    image.write_bytes(os.urandom(pair.size // 2) + bytes(pair.size - pair.size // 2))
    return image


def check_end(pair, writer=None):
    """No request is lost, both replicas are equal."""
    pair.wait_connected(60)
    pair.release()
    for node in pair.nodes.values():
        if writer:
            wrong = writer.missing_in(node.image, pair.data_offset())
            expect(not wrong, f"{node.name} lost {len(wrong)} acknowledged writes, first: {wrong[:3]}")
    expect(pair.same_data(), "the replicas differ")


def test_foreign_tools_and_equal_replicas():
    with pair_of() as pair:
        pair.grant("node1")
        image = random_image(pair)
        expect("can_multi_conn: true" in run("nbdinfo", pair.uri()).stdout, "multi-conn is announced")
        run("nbdcopy", "--flush", image, pair.uri())
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, pair.uri())
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, pair.uri())
        done = run("qemu-io", "-f", "raw", "-c", "write -P 7 512 1536", "-c", "write -z 8M 5M", "-c", "discard 1M 64k",
                   "-c", "write -f -P 9 3M 2M", "-c", "flush", "-c", "read -P 7 512 1536", "-c", "read -P 0 8M 5M",
                   "-c", "read -P 9 3M 2M", "-c", "read -P 0 1M 64k", pair.uri())
        expect("failed" not in done.stdout + done.stderr, done.stdout)
        check_end(pair)


def test_a_second_client_is_refused():
    with pair_of() as pair:
        pair.grant("node1", purpose="vm:web1")
        relay = Relay(pair.directory, pair.name, pair.owner.front)
        try:
            run("nbdinfo", relay.uri())
            expect(run("nbdinfo", pair.uri(), check=False).returncode != 0, "a second process got in (H33)")
            pair.owner.kill()
            pair.restart(pair.owner)
            wait_until(lambda: pair.owner.front, 20, "the front end after a restart")
            expect(run("nbdinfo", pair.uri(), check=False).returncode != 0, "a restart let a second process in")
            run("nbdinfo", relay.uri())
        finally:
            relay.stop()
        expect("is refused" in pair.owner.log(), "the refusal is in the log")


def test_a_live_image_is_refused_to_qemu():
    with pair_of() as pair:
        for node in pair.nodes.values():
            done = run("qemu-io", "-r", "-f", "raw", "-c", "read 0 512", node.image, check=False)
            expect(done.returncode != 0 and "Is another process using the image" in done.stderr, done.stderr)
            expect("used: sequence" in run(program(), "--inspect", node.image).stdout, "inspect reads a live image")


def test_exit_without_gemel():
    """docs/guide/exit.md, literally."""
    with pair_of() as pair:
        pair.grant("node1")
        image = random_image(pair)
        run("nbdcopy", "--flush", image, pair.uri())
        pair.release()
        for node in pair.nodes.values():
            node.kill(signal.SIGTERM)
        for node in pair.nodes.values():
            told = run(program(), "--inspect", node.image).stdout
            command = next(line for line in told.splitlines() if "qemu-nbd" in line).split()
            socket = pair.directory / "exit.sock"
            run(*command[:-1], "--read-only", "--fork", f"--socket={socket}", f"--pid-file={socket}.pid", command[-1])
            pid = int(Path(f"{socket}.pid").read_text())
            try:
                run("qemu-img", "compare", "--image-opts", f"driver=raw,file.driver=file,file.filename={image}",
                    f"driver=raw,size={pair.size},file.driver=nbd,file.server.type=unix,file.server.path={socket}")
            finally:
                wait_until(lambda: not Path(f"/proc/{pid}").exists(), 10, "qemu-nbd ends with its client")


def with_writer(pair, work):
    pair.grant("node1", purpose="vm:web1")
    relay = Relay(pair.directory, pair.name, pair.owner.front)
    try:
        writer = Writer(relay, pair.size)
        writer.progress(300)
        work(writer)
        writer.progress(300)
        writer.stop()
    finally:
        relay.stop()
    check_end(pair, writer)


def test_sigkill_of_the_peer_under_load():
    with pair_of() as pair:
        def work(writer):
            for _ in range(3):
                pair.nodes["node2"].kill()
                pair.restart(pair.nodes["node2"])
                writer.progress(200)
                pair.wait_connected(60)
        with_writer(pair, work)


def test_sigkill_of_the_owner_under_load():
    with pair_of() as pair:
        def work(writer):
            for _ in range(3):
                pair.nodes["node1"].kill()
                pair.restart(pair.nodes["node1"])
                writer.progress(200)
                pair.wait_connected(60)
        with_writer(pair, work)


def test_the_peer_stays_away_and_returns():
    with pair_of() as pair:
        def work(writer):
            node = pair.nodes["node2"]
            node.kill()
            wait_until(lambda: not pair.store.record["replicas"][1]["in_ack_set"], 20, "peer_left to be committed")
            writer.progress(500)
            pair.restart(node)
            writer.progress(200)
            pair.wait_connected(60)
        with_writer(pair, work)


def test_nothing_is_acknowledged_without_permission():
    with pair_of() as pair:
        def work(writer):
            pair.store.allow_commits(False)
            pair.nodes["node2"].kill()
            wait_until(lambda: pair.nodes["node1"].view.get("frozen") == "peer_lost", 10, "the freeze")
            before = writer.count
            wait_until(lambda: pair.store.waiting, 10, "the proposal")
            expect(writer.count <= before + len(writer.threads), "writes went on without permission (D2)")
            pair.store.allow_commits(True)
            writer.progress(100)
            pair.restart(pair.nodes["node2"])
            pair.wait_connected(60)
        with_writer(pair, work)


@contextmanager
def small_disks(mib):
    """One directory on a file system of that size, one with room."""
    directories = [Path(tempfile.mkdtemp(prefix="gemel-disk-")) for _ in range(2)]
    run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "gemel-test", directories[0])
    try:
        yield directories
    finally:
        run("umount", "-l", directories[0], check=False)
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)


def test_the_owners_disk_fails_and_the_guest_goes_on():
    """K2, D15. The owner's disk takes no more writes (its file system is full): the peer serves, and no request fails."""
    with small_disks(24) as disks, pair_of(image_directories=disks) as pair:
        pair.grant("node1", purpose="vm:web1")
        relay = Relay(pair.directory, pair.name, pair.owner.front)
        try:
            writer = Writer(relay, pair.size)
            wait_until(lambda: pair.store.record["replicas"][0]["state"] == "Failed", 60, "local_failed to be committed")
            writer.progress(500)
            expect(not pair.store.record["replicas"][0]["in_ack_set"], "a Failed replica is not in the ack set")
            expect(pair.owner.view["role"] == "primary" and pair.owner.view["frozen"] == "none", f"{pair.owner.view}")
            pair.nodes["node2"].kill()      # the only copy goes away and comes back: frozen, then on
            pair.restart(pair.nodes["node2"])
            writer.progress(300)
            writer.stop()
            # A new process does not know what the old one answered: it serves nothing over the network, and its lease
            # can be given back (clusterd then starts the guest where the copy is).
            former = pair.nodes["node1"]
            former.kill()
            pair.restart(former)
            wait_until(lambda: "role" in former.view, 30, "the new process to speak of the volume")
            served = time.monotonic() + 3
            wait_until(lambda: time.monotonic() > served or former.front or former.view["role"] == "primary", 5, "three seconds")
            expect(former.front is None and former.view["role"] == "secondary", f"it serves: {former.view}")
            former.control.request("refuse_epoch", volume=pair.name, epoch=pair.store.record["epoch"])
        finally:
            relay.stop()
        pair.release()
        wrong = writer.missing_in(pair.nodes["node2"].image, pair.data_offset())
        expect(not wrong, f"{len(wrong)} acknowledged writes are lost, first: {wrong[:3]}")
        run("mount", "-o", "remount,size=200m", disks[0])
        pair.nodes["node1"].kill()
        pair.restart(pair.nodes["node1"])
        pair.grant("node2")
        check_end(pair, writer)


def test_the_lease_moves():
    with pair_of() as pair:
        image = random_image(pair)
        pair.grant("node1")
        run("nbdcopy", "--flush", image, pair.uri())
        pair.release()
        pair.grant("node2")
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, pair.uri())
        run("qemu-io", "-f", "raw", "-c", "write -P 3 0 1M", pair.uri())
        check_end(pair)


def test_bad_requests_change_nothing():
    with pair_of() as pair:
        node = pair.nodes["node1"]
        base = {"volume": pair.name, "volume_id": pair.volume_id, "replica_id": node.replica, "path": str(node.image)}
        rows = [
            ("attach", {**base, "path": str(pair.directory / "none.img"), "volume": "other"}, "not_found"),
            ("attach", {**base, "path": str(pair.nodes["node2"].image)}, "already_exists"),
            ("attach", {**base, "surplus": 1}, "not known here"),
            ("attach", {"volume": pair.name}, "is missing"),
            ("format", {**base, "cluster_id": pair.cluster, "size_bytes": 1000, "first_generation": None}, "4096"),
            ("remove", {"volume": pair.name, "path": str(node.image)}, "detach it first"),
            ("record", {"volume": "nobody", "committed": pair.store.committed()}, "not attached"),
            ("fly", {}, "not known to gemel-blockd"),
        ]
        for do, members, said in rows:
            try:
                node.control.request(do, **members)
            except BlockdError as error:
                expect(said in str(error) and "\n" not in str(error), f"{do}: '{error}' instead of '{said}'")
            else:
                raise TestFailure(f"{do} {members} was accepted")
        pair.grant("node1")
        try:
            node.control.request("detach", volume=pair.name)
        except BlockdError as error:
            expect("release its lease" in str(error), str(error))
        else:
            raise TestFailure("a Primary was detached")
        check_end(pair)
        first, second = (node.control.send("detach", volume=pair.name) for _ in range(2))
        wait_until(lambda: {first, second} <= node.control.answers.keys(), 15, "both of two requests for the same end answered")
        moved = str(node.image) + ".losing"
        node.control.request("rename", volume=pair.name, path=str(node.image), to=moved)
        expect(os.path.exists(moved), "renamed")
        node.control.request("remove", volume=pair.name, path=moved)
        expect(not os.path.exists(moved), "removed")


@contextmanager
def loop_device(mib):
    directory = tempfile.mkdtemp(prefix="gemel-loop-")
    image = Path(directory) / "device.img"
    with open(image, "wb") as file:
        file.truncate(1 << 20)      # the place for metadata must be empty, the rest is what somebody left behind
        file.seek(1 << 20)
        for _ in range(mib - 1):
            file.write(b"\xa5" * (1 << 20))
    device = run("losetup", "--find", "--show", image).stdout.strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device, check=False)
        shutil.rmtree(directory, ignore_errors=True)


def test_a_block_device_is_held_alone():
    """A block device as backing: opened with O_EXCL, so that mounting or a second daemon is refused; SIGKILL lets go."""
    with loop_device(128) as device:
        directory = tempfile.mkdtemp(prefix="gemel-blockd-")
        try:
            pair = Pair(directory, program(), size_mib=64)
            pair.nodes["node1"].image = Path(device)
            with pair:
                expect(pair.same_data(), "two new replicas differ: the device's old contents show through (D16)")

                def free():
                    try:
                        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
                        return True
                    except OSError as error:
                        expect(error.errno == errno.EBUSY, f"{error}")
                        return False
                expect(not free(), "an attached device was opened exclusively by somebody else")
                expect(run("mkfs.ext4", "-q", device, check=False).returncode != 0, "mkfs took an attached device")
                with_writer(pair, lambda writer: (pair.nodes["node1"].kill(), wait_until(free, 10, "the device free"),
                                                  pair.restart(pair.nodes["node1"]), writer.progress(200)))
        finally:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def many(count, size_bytes, *arguments):
    directory = tempfile.mkdtemp(prefix="gemel-blockd-")
    try:
        with ManyVolumes(directory, program(), count, size_bytes, arguments) as volumes:
            volumes.grant_all()
            yield volumes
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def test_many_volumes_on_two_reactors():
    """64 volumes, owned by both nodes in turn, all written at once: payload memory is shared, each makes progress."""
    with many(64, 16 << 20, "--reactors", "2") as volumes:
        def writing(i):
            return subprocess.Popen(["qemu-io", "-f", "raw", "-c", f"write -P {i + 1} 0 12M", "-c", "flush", "-c",
                                     f"read -P {i + 1} 0 12M", volumes.uri_of(i)], stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT, text=True)
        busy = [writing(i) for i in range(volumes.count)]
        for i, process in enumerate(busy):
            said = process.communicate(timeout=240)[0]
            expect(process.returncode == 0 and "failed" not in said, f"volume {i}: {said}")
        for node in volumes.nodes.values():
            threads = len(os.listdir(f"/proc/{node.process.pid}/task"))
            expect(threads >= 4, f"two reactors, the control socket and the signals, not {threads} threads")
        node = volumes.nodes["node2"]
        expect(all(node.views[f"vol{i}"]["connection"] == "Connected" for i in range(volumes.count)), "all are connected")


def test_memory_of_large_volumes():
    """Section 9: at most 64 MiB and 4 MiB for each volume of 100 GiB."""
    count = 8
    with many(count, 100 << 30) as volumes:
        for i in range(count):
            run("qemu-io", "-f", "raw", "-c", "write -P 1 0 8M", "-c", "write -P 1 99G 8M", "-c", "flush", volumes.uri_of(i))
        for node in volumes.nodes.values():
            resident = node.resident_mib()
            expect(resident <= 64 + 4 * count, f"{node.name}: {resident:.0f} MiB resident for {count} volumes of 100 GiB")
