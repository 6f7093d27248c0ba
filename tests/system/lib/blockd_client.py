"""Two gemel-blockd without a cluster: the test plays store and clusterd over the control sockets.

    with Pair(directory, size_mib=256) as pair:
        pair.grant("node1")                   # lease to node1: its NBD socket opens
        run("nbdcopy", image, pair.uri())
        pair.nodes["node1"].kill()            # SIGKILL; start() again; attach() again
        pair.wait_connected()

Records are committed in memory by Store: a proposal is committed when it names the current revision, as the real
store would. Everything lives under `directory`; nothing listens outside loopback (or the given namespaces).
"""
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
import uuid
from pathlib import Path

NIL = "00000000-0000-0000-0000-000000000000"
POLL_S = 0.01
_ports = itertools.count(20000 + os.getpid() % 20000)


class BlockdError(Exception):
    """An answer that says no, or something that did not happen in time."""


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wait_until(condition, deadline_s, what):
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise BlockdError(f"not in {deadline_s} s: {what}")
        threading.Event().wait(POLL_S)


def free_port():
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def run(*command, check=True, timeout=120, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout, **more)
    if check and done.returncode != 0:
        raise BlockdError(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done


class Control:
    """One connection to blockd.sock: requests with answers; events go to a callback on the reading thread."""

    def __init__(self, path, on_event):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.on_event = on_event
        self.answers = {}
        self.numbers = itertools.count(1)
        self.condition = threading.Condition()
        self.closed = False
        self.file = self.socket.makefile("r", encoding="utf-8", newline="\n")
        self.write_lock = threading.Lock()
        self._write({"hello": "gemel-control", "version": 1, "role": "tool"})
        hello = json.loads(self.file.readline())
        if hello.get("hello") != "gemel-control":
            raise BlockdError(f"no hello but {hello}")
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _write(self, message):
        with self.write_lock:
            self.socket.sendall((json.dumps(message) + "\n").encode())

    def _read(self):
        try:
            for line in self.file:
                message = json.loads(line)
                if "id" in message:
                    with self.condition:
                        self.answers[message["id"]] = message
                        self.condition.notify_all()
                else:
                    self.on_event(message)
        except (OSError, ValueError):
            pass
        with self.condition:
            self.closed = True
            self.condition.notify_all()

    def send(self, do, **members):
        number = next(self.numbers)
        try:
            self._write({"id": number, "do": do, **members})
        except (OSError, ValueError) as error:
            raise BlockdError(f"the control socket is closed: {error}") from error
        return number

    def request(self, do, timeout=15, **members):
        number = self.send(do, **members)
        with self.condition:
            self.condition.wait_for(lambda: number in self.answers or self.closed, timeout)
            answer = self.answers.pop(number, None)
        if answer is None:
            raise BlockdError(f"no answer to {do}")
        if "error" in answer:
            raise BlockdError(f"{answer['error']['code']}: {answer['error']['message']}")
        return answer["ok"]

    def close(self):
        self.socket.close()


class Node:
    """One gemel-blockd with directories of its own; optionally in a network namespace."""

    def __init__(self, name, directory, program, cluster, store, address="127.0.0.1", namespace=None,
                 image_directory=None, timing=""):
        self.name = name
        self.directory = Path(directory) / name
        self.program = program
        self.cluster = cluster
        self.store = store
        self.namespace = namespace
        self.link = f"{address}:{free_port()}"
        self.replica = str(uuid.uuid4())
        self.image = Path(image_directory or self.directory) / f"{name}.img"
        self.timing = timing
        self.arguments = []
        self.process = None
        self.control = None
        self.view = {}
        self.front = None
        self.views = {}     # by volume, for tests with several
        self.fronts = {}
        self.events = []
        (self.directory / "run").mkdir(parents=True, exist_ok=True)

    def write_config(self, peer):
        port = free_port
        text = f"""
[cluster]
id = "{self.cluster}"
name = "test"
[node]
name = "{self.name}"
id = "{uuid.uuid4()}"
[paths]
config_dir = "{self.directory}"
state_dir = "{self.directory}"
run_dir = "{self.directory}/run"
[store]
voter = false
members = [ {{ name = "w", peer_url = "https://127.0.0.1:1", client_url = "https://127.0.0.1:1" }} ]
[control]
address = "127.0.0.1:{port()}"
[[link]]
name = "link1"
address = "{self.link}"
[[peer]]
name = "{peer.name}"
id = "{uuid.uuid4()}"
control = "127.0.0.1:{port()}"
links = {{ link1 = "{peer.link}" }}
[timing]
{self.timing}
"""
        (self.directory / "node.toml").write_text(text)

    def start(self):
        prefix = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        log = open(self.directory / "blockd.log", "ab")
        self.process = subprocess.Popen(prefix + [str(self.program), "--config", str(self.directory / "node.toml"),
                                                  *self.arguments],
                                        stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        path = self.directory / "run" / "blockd.sock"

        def connected():
            if self.process.poll() is not None:
                raise BlockdError(f"{self.name} ended: {self.log()[-2000:]}")
            try:
                self.control = Control(path, self._event)
                return True
            except (OSError, ValueError):
                return False
        wait_until(connected, 20, f"control socket of {self.name}")

    def log(self):
        return (self.directory / "blockd.log").read_text(errors="replace")

    def kill(self, with_signal=signal.SIGKILL):
        self.process.send_signal(with_signal)
        self.process.wait(20)
        self.control.close()
        self.front = None
        self.view = {}

    def status(self):
        return self.control.request("status")

    def incarnation(self):
        return self.status()["incarnation"]

    def resident_mib(self):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        return 0.0

    def _event(self, event):
        self.events.append(event)
        if event["event"] == "view":
            self.view = event["view"]
            self.views[event["volume"]] = event["view"]
        elif event["event"] == "front":
            self.front = event["socket"]
            self.fronts[event["volume"]] = event["socket"]
        elif event["event"] == "propose":
            self.store.proposal(self, event)
        elif event["event"] == "need_record":
            self.store.tell(self)


class Store:
    """The committed record of one volume: what etcd and clusterd are for, in memory."""

    def __init__(self, name, volume_id, size_bytes):
        self.lock = threading.RLock()
        self.lineage = str(uuid.uuid4())
        self.revision = 10
        self.nodes = []
        self.commits_allowed = True
        self.waiting = []
        self.first_generation = {"id": str(uuid.uuid4()), "parent": NIL, "counter": 1}
        self.record = {"schema": 1, "id": volume_id, "name": name, "size_bytes": size_bytes, "ack_mode": "writeback",
                       "generation": self.first_generation, "ancestors": [], "replicas": [], "owner": None, "epoch": 0, "handover": None}

    def committed(self):
        with self.lock:
            return {"record": json.loads(json.dumps(self.record)), "revision": self.revision, "lineage": self.lineage}

    def commit(self, change):
        with self.lock:
            change(self.record)
            self.revision += 1
        for node in self.nodes:
            self.tell(node)

    def tell(self, node):
        if node.control is None:
            return
        try:
            node.control.send("record", volume=self.record["name"], committed=self.committed())
        except BlockdError:
            pass    # it is dead: it gets the record when it is back

    def renew(self, node):
        sent = now_ns()
        try:
            node.control.send("renew", volume=self.record["name"], sent_at_ns=sent, committed=self.committed())
        except (BlockdError, AttributeError):
            pass

    def proposal(self, node, event):
        with self.lock:
            if not self.commits_allowed:
                self.waiting.append((node, event))
                return
            outcome = "refused"
            if event["expected_revision"] == self.revision and event["expected_lineage"] == self.lineage:
                self.record = event["next"]
                self.revision += 1
                outcome = "committed"
        for other in self.nodes:
            if other is not node and outcome == "committed":
                self.tell(other)
        try:
            node.control.send("proposal_done", volume=self.record["name"], proposal=event["proposal"],
                              outcome=outcome, committed=self.committed())
        except BlockdError:
            pass

    def allow_commits(self, allowed):
        with self.lock:
            self.commits_allowed = allowed
            waiting, self.waiting = (self.waiting, []) if allowed else ([], self.waiting)
        for node, event in waiting:
            self.proposal(node, event)


class Pair:
    """Two nodes, one mirrored volume."""

    def __init__(self, directory, program, size_mib=256, namespaces=None, addresses=None, image_directories=None,
                 name="vol", timing=""):
        self.directory = Path(directory)
        self.name = name
        self.size = size_mib << 20
        self.volume_id = str(uuid.uuid4())
        cluster = str(uuid.uuid4())
        self.cluster = cluster
        self.store = Store(name, self.volume_id, self.size)
        self.nodes = {}
        for i, node in enumerate(("node1", "node2")):
            self.nodes[node] = Node(node, directory, program, cluster, self.store,
                                    address=addresses[i] if addresses else "127.0.0.1",
                                    namespace=namespaces[i] if namespaces else None,
                                    image_directory=image_directories[i] if image_directories else None, timing=timing)
        one, two = self.nodes.values()
        one.write_config(two)
        two.write_config(one)
        self.store.nodes = [one, two]
        self.owner = None
        self.stop_renewing = threading.Event()

    def __enter__(self):
        try:
            for node in self.nodes.values():
                node.start()
            self.create()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.renewer = threading.Thread(target=self._renew, daemon=True)
        self.renewer.start()
        return self

    def __exit__(self, *_):
        self.stop_renewing.set()
        for node in self.nodes.values():
            if node.process is not None and node.process.poll() is None:
                node.process.kill()
                node.process.wait(20)

    def _renew(self):
        while not self.stop_renewing.wait(1.0):
            if self.owner:
                self.store.renew(self.owner)

    def other(self, node):
        return next(each for each in self.nodes.values() if each is not node)

    def create(self):
        for node in self.nodes.values():
            node.control.request("format", volume=self.name, volume_id=self.volume_id, replica_id=node.replica,
                                 cluster_id=self.cluster, path=str(node.image), size_bytes=self.size,
                                 first_generation=self.store.first_generation,
                                 peer_replica_id=self.other(node).replica)
        self.store.record["replicas"] = [
            {"node": node.name, "replica": node.replica, "pool": "default", "state": "UpToDate", "in_ack_set": True}
            for node in self.nodes.values()]
        for node in self.nodes.values():
            self.attach(node)

    def attach(self, node, timeout=60):
        peer = self.other(node)
        node.control.request("attach", timeout=timeout, volume=self.name, volume_id=self.volume_id,
                             replica_id=node.replica, path=str(node.image),
                             peer={"node": peer.name, "links": {"link1": peer.link}})
        self.store.tell(node)

    def restart(self, node):
        node.start()
        self.attach(node)
        if node is self.owner:
            self.store.renew(node)

    def grant(self, name, purpose="export"):
        node = self.nodes[name]
        incarnation = node.incarnation()

        def change(record):
            record["epoch"] += 1
            record["owner"] = {"node": name, "incarnation": incarnation, "epoch": record["epoch"],
                               "secret": secrets.token_hex(16), "revoking": False, "purpose": purpose}
        self.owner = node
        self.store.commit(change)
        self.store.renew(node)
        wait_until(lambda: node.front and f"-{self.store.record['epoch']}-" in node.front, 15,
                   f"front end on {name}; view {node.view}; log {node.log()[-1500:]}")
        return node.front

    def release(self):
        node, self.owner = self.owner, None
        node.front_closed = False
        self.store.commit(lambda record: record.update(owner=None))
        wait_until(lambda: node.front is None and node.view.get("role") == "secondary", 15,
                   f"{node.name} to be secondary: {node.view}")

    def uri(self):
        return f"nbd+unix:///{self.name}?socket={self.owner.front}"

    def wait_connected(self, deadline_s=20):
        """Both UpToDate, connected, nothing different."""
        def good():
            views = [node.view for node in self.nodes.values()]
            return all(v.get("connection") == "Connected" and v.get("local_state") == "UpToDate"
                       and v.get("sync") == "Off" for v in views) and all(
                r["state"] == "UpToDate" and r["in_ack_set"] for r in self.store.record["replicas"])
        wait_until(good, deadline_s, "both UpToDate and Connected: "
                   + json.dumps([node.view for node in self.nodes.values()]) + json.dumps(self.store.record))

    def data_offset(self):
        offset = 64 << 20
        while offset - (1 << 20) < (self.size // (30720 * 4096) + 1) * 4096:
            offset *= 2
        return offset

    def same_data(self):
        """Compares both data areas byte by byte; call it when nothing writes."""
        one, two = (node.image for node in self.nodes.values())
        done = run("cmp", "--ignore-initial", self.data_offset(), one, two, check=False)
        return done.returncode == 0


class Stores:
    """The committed records of several volumes, by name."""

    def __init__(self):
        self.by_name = {}

    def proposal(self, node, event):
        self.by_name[event["volume"]].proposal(node, event)

    def tell(self, node):
        for store in list(self.by_name.values()):
            store.tell(node)


class ManyVolumes(Pair):
    """Two nodes, many mirrored volumes; owners alternate."""

    def __init__(self, directory, program, count, size_bytes, arguments=()):
        super().__init__(directory, program, size_mib=1)
        self.count = count
        self.size_bytes = size_bytes
        self.stores = Stores()
        for node in self.nodes.values():
            node.store = self.stores
            node.arguments = list(arguments)

    def create(self):
        nodes = list(self.nodes.values())
        for i in range(self.count):
            name, volume = f"vol{i}", str(uuid.uuid4())
            store = Store(name, volume, self.size_bytes)
            store.nodes = nodes
            replicas = {node.name: str(uuid.uuid4()) for node in nodes}
            for node in nodes:
                node.control.request("format", volume=name, volume_id=volume, replica_id=replicas[node.name],
                                     cluster_id=self.cluster, path=str(self.image(node, i)), size_bytes=self.size_bytes,
                                     first_generation=store.first_generation,
                                     peer_replica_id=replicas[self.other(node).name])
            store.record["replicas"] = [{"node": node.name, "replica": replicas[node.name], "pool": "default",
                                         "state": "UpToDate", "in_ack_set": True} for node in nodes]
            self.stores.by_name[name] = store
            for node in nodes:
                peer = self.other(node)
                node.control.request("attach", volume=name, volume_id=volume, replica_id=replicas[node.name],
                                     path=str(self.image(node, i)),
                                     peer={"node": peer.name, "links": {"link1": peer.link}})
                store.tell(node)

    def image(self, node, i):
        return node.directory / f"vol{i}.img"

    def owner_of(self, i):
        return list(self.nodes.values())[i % 2]

    def _renew(self):
        while not self.stop_renewing.wait(1.0):
            for i in range(self.count):
                store = self.stores.by_name.get(f"vol{i}")
                if store and store.record["owner"]:
                    store.renew(self.owner_of(i))

    def grant_all(self):
        incarnations = {node.name: node.incarnation() for node in self.nodes.values()}
        for i in range(self.count):
            node = self.owner_of(i)

            def change(record, node=node):
                record["epoch"] += 1
                record["owner"] = {"node": node.name, "incarnation": incarnations[node.name], "epoch": record["epoch"],
                                   "secret": secrets.token_hex(16), "revoking": False, "purpose": "export"}
            self.stores.by_name[f"vol{i}"].commit(change)
            self.stores.by_name[f"vol{i}"].renew(node)
        wait_until(lambda: all(self.owner_of(i).fronts.get(f"vol{i}") for i in range(self.count)), 60,
                   "the front ends of all volumes")

    def uri_of(self, i):
        return f"nbd+unix:///vol{i}?socket={self.owner_of(i).fronts[f'vol{i}']}"
