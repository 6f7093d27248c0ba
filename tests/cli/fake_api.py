#!/usr/bin/python3
"""A stand-in for gemel-clusterd, for tests of its clients: serves the whole contract on a unix socket from a small
state in memory, checks every request and every answer of its own against api/openapi.yaml, and records what was asked.
Exported volumes are real NBD servers (qemu-nbd) on real files. Faults are put in by the test that uses it.

Alone: fake_api.py SOCKET [STATUS.json]
"""
import copy
import http.server
import json
import os
import pathlib
import select
import shutil
import socket as socketlib
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid

from openapi_schema import Contract

STATUS_OF = {"invalid_argument": 400, "permission_denied": 403, "not_found": 404, "already_exists": 409,
             "failed_precondition": 409, "unsupported": 422, "corrupt": 500, "io_error": 500, "internal": 500,
             "unavailable": 503, "timed_out": 504, "out_of_space": 507}
NIL = "00000000-0000-4000-8000-000000000000"


class NotYet(Exception):
    """An operation's work goes on; the step it is at."""


class ApiError(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message

    def body(self):
        return {"code": self.code, "message": self.message}


def rung(kind, state, device=None):
    return {"kind": kind, "state": state, "device": device}


def node(name, state="online", coordinator=False, fence="ok"):
    rungs = [rung("clean-leave", "ok"), rung("fence-device", fence, None if fence == "absent" else f"bmc-{name}"),
             rung("watchdog", "absent"), rung("confirm-down", "ok")]
    return {"name": name, "id": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)), "state": state, "voter": True,
            "drained": False, "roles": ["compute", "storage"] + (["coordinator"] if coordinator else []), "standing": True,
            "incarnation": f"{NIL}/{NIL}", "version": "0.1.0",
            "links": [{"name": link, "state": "up"} for link in ("control", "link1", "link2", "link3")],
            "fencing": {"protected": fence == "ok", "rungs": rungs},
            "memory_total_bytes": 16 << 30, "memory_free_bytes": 12 << 30,
            "pools": [{"name": "default", "total_bytes": 500 << 30, "free_bytes": 420 << 30}]}


def volume(name, size=20 << 30, owner=None, vm=None):
    replicas = [{"node": n, "disk": "UpToDate", "role": "Primary" if n == owner else "Secondary",
                 "connection": "Connected", "resync": None} for n in ("node1", "node2")]
    return {"name": name, "id": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)), "size_bytes": size, "pool": "default",
            "ack_mode": "writeback", "state": "ok", "generation": 1, "revision": 1,
            "ack_set": ["node1", "node2"], "replicas": replicas, "vm": vm, "export": None,
            "owner": {"node": owner, "epoch": 1, "lease": "held", "front_end": f"vm:{vm}"} if owner else None}


def guest(name, where=None):
    return {"name": name, "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "state": "running" if where else "shut off",
            "desired": "running" if where else "stopped", "phase": None, "why": None, "node": where, "type": "qemu",
            "memory_bytes": 2 << 30, "memory": "shared", "vcpus": 2, "disks": [{"target": "vda", "volume": name}],
            "nics": [{"bridge": "br0", "mac": "52:54:00:00:00:01"}], "priority": 100, "preferred_node": None, "restarts": 0,
            "migration": None}


def healthy():
    """Two nodes and a witness, one guest, all well: the state tests begin with."""
    return {"cluster": {"name": "demo", "id": NIL, "mode": "two-nodes-witness"}, "node": "node1",
            "as_of": {"time": "2026-03-01T02:14:07Z", "stale": False},
            "store": {"state": "quorate", "lineage": NIL, "revision": 1234,
                      "voters": [{"name": "node1", "kind": "node", "state": "up"},
                                 {"name": "node2", "kind": "node", "state": "up"},
                                 {"name": "witness", "kind": "witness", "state": "up"}]},
            "coordinator": {"node": "node1", "term": 7}, "nodes": [node("node1", coordinator=True), node("node2")],
            "volumes": [volume("web1", owner="node1", vm="web1")], "vms": [guest("web1", "node1")],
            "operations": [], "problems": []}


class FakeCluster:
    def __init__(self, status=None):
        self.contract = Contract()
        self.status = copy.deepcopy(status or healthy())
        self.devices = {}
        self.secrets = {}
        self.events = [{"sequence": i, "time": f"2026-03-01T02:14:0{i}Z", "severity": "info", "kind": "node.online",
                        "object": f"node/node{i}", "node": "node1", "message": f"node{i} is online"} for i in (1, 2)]
        self.operations = {}
        self.console = {"kind": "pty", "path": "/dev/null", "node": "node1"}
        self.xml_check = None
        self.plans = {}
        self.calls = []            # (method, path, query, body) of every request
        self.breaches = []         # requests and answers that are not as the contract says
        self.version = {"product": "gemel", "version": "0.1.0", "api_version": "1.0", "node": "node1", "cluster": "demo"}
        self.refuse = {}           # (method, template) -> ApiError, before anything happens
        self.fail_operation = {}   # kind -> ApiError
        self.polls_to_finish = 0   # how often an operation must be asked about before it ends
        self.hold_moves = threading.Event()  # cleared: guests that move are on their way until set
        self.hold_moves.set()
        self.step = "copying memory to node2: 45 % of 1228 MiB, 118 MiB/s"  # what they say meanwhile
        self.stuck = {}            # guest -> why it cannot be moved now
        self.lose_reply = set()    # methods whose next reply is lost after the work was done
        self.raw_answer = {}       # template -> bytes sent as the body
        self.hold_operation = threading.Event()  # cleared: operations stay running until set
        self.hold_operation.set()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gemel-fake-"))
        self.servers = {}
        self.lock = threading.RLock()

    def close(self):
        for server in self.servers.values():
            stop(server)
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- what tests ask

    def changes(self):
        return [(method, path) for method, path, _, _ in self.calls if method != "GET" and path != "/v1/vms/check-xml"]

    def state(self):
        return json.dumps([self.status["volumes"], self.status["vms"], self.devices, self.secrets], sort_keys=True)

    def backing(self, name):
        return self.folder / f"{name}.img"

    # -- lookup

    def one(self, kind, name):
        for item in self.status[kind]:
            if item["name"] == name:
                return item
        word = {"nodes": "node", "volumes": "volume", "vms": "guest"}[kind]
        command = {"nodes": "node", "volumes": "volume", "vms": "vm"}[kind]
        raise ApiError("not_found", f"there is no {word} {name}: 'gemel {command} list' shows what there is")

    def has(self, kind, name):
        return any(item["name"] == name for item in self.status[kind])

    def confirmed(self, given, name):
        if given != name:
            raise ApiError("invalid_argument", f"confirm_name is '{given}' and '{name}' was expected; nothing was changed")

    # -- operations

    def operation(self, kind, target, work, identity):
        identity = identity or str(uuid.uuid4())
        if identity in self.operations:
            return self.operations[identity]
        record = {"id": identity, "kind": kind, "object": target, "state": "running", "step": "working",
                  "progress": {"done": 0, "total": 100, "unit": "steps"}, "error": None, "result": None,
                  "started": "2026-03-01T02:14:07Z"}
        self.operations[identity] = record
        record["_work"], record["_polls"] = work, self.polls_to_finish
        self.advance(record)
        return record

    def advance(self, record):
        if record["state"] != "running" or not self.hold_operation.is_set():
            return
        if record["_polls"] > 0:
            record["_polls"] -= 1
            if record["progress"]:
                record["progress"]["done"] = min(99, record["progress"]["done"] + 10)
            return
        try:
            if record["kind"] in self.fail_operation:
                raise self.fail_operation[record["kind"]]
            record["result"] = copy.deepcopy(record["_work"]())
            record["state"] = "succeeded"
        except NotYet as step:
            record["step"] = str(step)
        except ApiError as error:
            record["error"], record["state"] = error.body(), "failed"

    @staticmethod
    def shown(record):
        return {key: value for key, value in record.items() if not key.startswith("_")}

    # -- the contract's operations; each gets (path parameters, query, body)

    def getVersion(self, path, query, body):
        return self.version

    def getStatus(self, path, query, body):
        moving = [self.shown(one) for one in self.operations.values() if one["kind"] == "vm.migrate" and one["state"] == "running"]
        return self.status | {"operations": self.status["operations"] + moving}

    def getPlan(self, path, query, body):
        action, name = query["action"], query["object"]
        kind = {"node": "nodes", "volume": "volumes", "vm": "vms"}.get(action.split(".")[0])
        if kind:
            self.one(kind, name)
        if "node" in query:
            self.one("nodes", query["node"])
        plan = {"action": action, "object": name, "allowed": True, "refusal": None, "confirm_name": name, "wait_ms": None,
                "will_do": [f"do what {action} says to {name}"], "may_lose": [f"what only {name} knows"]}
        return plan | self.plans.get(action, {})

    def startAlone(self, path, query, body):
        self.confirmed(body["confirm_name"], self.status["cluster"]["name"])
        return self.operation("cluster.start-alone", "cluster/demo", lambda: None, query.get("operation_id"))

    def listNodes(self, path, query, body):
        return {"nodes": self.status["nodes"]}

    def getNode(self, path, query, body):
        return self.one("nodes", path["name"])

    def confirmDown(self, path, query, body):
        self.confirmed(body["confirm_name"], path["name"])
        target = self.one("nodes", path["name"])
        if target["state"] == "online":
            raise ApiError("failed_precondition", f"{path['name']} answers: power it off first")

        def work():
            target["state"] = "confirmed-down"
        return self.operation("node.confirm-down", f"node/{path['name']}", work, query.get("operation_id"))

    def leaveNode(self, path, query, body):
        self.confirmed(body["confirm_name"], path["name"])
        target = self.one("nodes", path["name"])
        if path["name"] != self.status["node"]:
            raise ApiError("failed_precondition", f"a node leaves by its own word: run 'gemel node leave {path['name']}' on "
                           f"{path['name']}")

        def work():
            target["state"] = "left"
        return self.operation("node.leave", f"node/{path['name']}", work, query.get("operation_id"))

    # -- moving

    def other(self, name):
        return next(item["name"] for item in self.status["nodes"] if item["name"] != name)

    def migration(self, target, destination, identity):
        """Begins to move a guest; it moves when its operation is looked at."""
        target["migration"] = {"node": destination, "phase": "prepared", "cancel": False}

        def work():
            if target["migration"]["cancel"]:
                target["migration"] = None
                raise ApiError("failed_precondition", f"{target['name']} stays on {target['node']}: cancelled")
            if not self.hold_moves.is_set():
                raise NotYet(self.step)
            target["node"], target["migration"] = destination, None
            return target | {"downtime_ms": 84}
        record = self.operation("vm.migrate", f"vm/{target['name']}", work, identity)
        record["progress"] = None
        return record

    def moves(self):
        """Time goes by for guests that move."""
        for record in list(self.operations.values()):
            if record["kind"] == "vm.migrate":
                self.advance(record)

    def migrateVm(self, path, query, body):
        name = path["name"]
        target = self.one("vms", name)
        if query.get("operation_id") in self.operations:
            return self.operations[query["operation_id"]]
        if target["state"] != "running":
            raise ApiError("failed_precondition", f"guest {name} does not run; 'gemel vm start {name} --node node2' starts it there")
        destination = body.get("node", self.other(target["node"]))
        there = self.one("nodes", destination)
        if destination == target["node"]:
            raise ApiError("failed_precondition", f"guest {name} runs on {destination} already")
        if target["migration"]:
            raise ApiError("failed_precondition", f"guest {name} is moving to {target['migration']['node']} already")
        if there["drained"]:
            raise ApiError("failed_precondition", f"{destination} is drained; gemel node undrain {destination}")
        if name in self.stuck:
            raise ApiError("failed_precondition", self.stuck[name])
        return self.migration(target, destination, query.get("operation_id"))

    def cancelMigration(self, path, query, body):
        target = self.one("vms", path["name"])
        if not target["migration"]:
            raise ApiError("failed_precondition", f"guest {path['name']} is not moving; nothing to cancel")

        def work():
            target["migration"]["cancel"] = True
        return self.operation("vm.migrate-cancel", f"vm/{path['name']}", work, query.get("operation_id"))

    def drainNode(self, path, query, body):
        name = path["name"]
        drained = self.one("nodes", name)
        if all(item["drained"] for item in self.status["nodes"] if item["name"] != name):
            raise ApiError("failed_precondition", "there is no other node that guests could move to; add one, or undrain one, first")
        drained["drained"] = True

        def work():
            if not drained["drained"]:
                raise ApiError("failed_precondition", "it was undrained meanwhile; guests that moved stay where they are")
            here = [item for item in self.status["vms"] if item["node"] == name]
            self.moves()
            for target in here:
                if target["node"] == name and target["name"] not in self.stuck:
                    if not target["migration"]:
                        self.migration(target, self.other(name), None)
                    raise NotYet(f"moving {target['name']} to {self.other(name)}")
            if here:
                raise NotYet("waiting: " + "; ".join(self.stuck[target["name"]] for target in here))
        return self.operation("node.drain", f"node/{name}", work, query.get("operation_id"))

    def undrainNode(self, path, query, body):
        target = self.one("nodes", path["name"])

        def work():
            target["drained"] = False
        return self.operation("node.undrain", f"node/{path['name']}", work, query.get("operation_id"))

    def listVolumes(self, path, query, body):
        return {"volumes": self.status["volumes"]}

    def getVolume(self, path, query, body):
        return self.one("volumes", path["name"])

    def createVolume(self, path, query, body):
        name = body["name"]
        if self.has("volumes", name) and query.get("operation_id") not in self.operations:
            raise ApiError("already_exists", f"there is a volume {name} already: choose another name")
        for wanted in body.get("nodes", []):
            self.one("nodes", wanted)

        def work():
            made = volume(name, body["size_bytes"])
            with open(self.backing(name), "wb") as backing:
                backing.truncate(body["size_bytes"])
            self.status["volumes"].append(made)
            return made
        return self.operation("volume.create", f"volume/{name}", work, query.get("operation_id"))

    def deleteVolume(self, path, query, body):
        name = path["name"]
        target = self.one("volumes", name)
        self.confirmed(query["confirm_name"], name)
        if target["vm"] or target["export"]:
            raise ApiError("failed_precondition", f"volume {name} is in use: delete its guest or close its export first")

        def work():
            self.status["volumes"].remove(target)
            self.backing(name).unlink(missing_ok=True)
        return self.operation("volume.delete", f"volume/{name}", work, query.get("operation_id"))

    def exportVolume(self, path, query, body):
        name = path["name"]
        target = self.one("volumes", name)
        if target["owner"] or target["export"]:
            raise ApiError("failed_precondition", f"volume {name} is served already: stop its guest or close its export first")

        def work():
            socket = self.folder / f"{name}.sock"
            self.servers[name] = subprocess.Popen(["qemu-nbd", "-t", "-e", "0", "-k", socket, "-f", "raw", self.backing(name)],
                                                  stderr=subprocess.DEVNULL)
            end = time.monotonic() + 60
            while not answers(socket):
                if time.monotonic() > end:
                    raise ApiError("timed_out", "qemu-nbd did not start")
                select.select([], [], [], 0.01)
            target["export"] = {"uri": f"nbd+unix:///?socket={socket}", "node": "node1", "epoch": 2}
            return target["export"]
        return self.operation("volume.export", f"volume/{name}", work, query.get("operation_id"))

    def unexportVolume(self, path, query, body):
        name = path["name"]
        target = self.one("volumes", name)
        if not target["export"]:
            raise ApiError("not_found", f"volume {name} is not exported")

        def work():
            server = self.servers.pop(name)
            stop(server)
            (self.folder / f"{name}.sock").unlink(missing_ok=True)
            target["export"] = None
        return self.operation("volume.unexport", f"volume/{name}", work, query.get("operation_id"))

    def forceUpToDate(self, path, query, body):
        self.confirmed(body["confirm_name"], path["name"])
        self.one("nodes", body["node"])
        return self.operation("volume.force-uptodate", f"volume/{path['name']}", lambda: None, query.get("operation_id"))

    def resolveVolume(self, path, query, body):
        self.confirmed(body["confirm_name"], path["name"])
        self.one("nodes", body["keep"])
        return self.operation("volume.resolve", f"volume/{path['name']}", lambda: None, query.get("operation_id"))

    def listVms(self, path, query, body):
        return {"vms": self.status["vms"]}

    def getVm(self, path, query, body):
        self.moves()
        return self.one("vms", path["name"])

    def createVm(self, path, query, body):
        name = body["name"]
        if self.has("vms", name) and query.get("operation_id") not in self.operations:
            raise ApiError("already_exists", f"there is a guest {name} already: choose another name")
        volumes = [self.one("volumes", disk["volume"]) for disk in body["disks"]]
        for used in volumes:
            if used["vm"]:
                raise ApiError("failed_precondition", f"volume {used['name']} is a disk of guest {used['vm']}: choose another")

        def work():
            made = guest(name)
            made["disks"] = [{"target": disk.get("target", f"vd{chr(97 + i)}"), "volume": disk["volume"]}
                             for i, disk in enumerate(body["disks"])]
            made["memory_bytes"], made["vcpus"] = body.get("memory_bytes", 1 << 30), body.get("vcpus", 1)
            made["memory"] = body.get("memory", "shared")
            made["nics"] = body.get("nics", [])
            for used in volumes:
                used["vm"] = name
            self.status["vms"].append(made)
            return made
        return self.operation("vm.create", f"vm/{name}", work, query.get("operation_id"))

    def checkVmXml(self, path, query, body):
        return self.xml_check or {"accepted": False, "refusals": [{"element": "domain", "why": "not a libvirt domain"}], "disks": []}

    def deleteVm(self, path, query, body):
        name = path["name"]
        target = self.one("vms", name)
        self.confirmed(query["confirm_name"], name)
        if target["state"] != "shut off":
            raise ApiError("failed_precondition", f"guest {name} runs: stop it first with 'gemel vm stop {name}'")

        def work():
            self.status["vms"].remove(target)
        return self.operation("vm.delete", f"vm/{name}", work, query.get("operation_id"))

    def startVm(self, path, query, body):
        target = self.one("vms", path["name"])
        if body.get("node"):
            self.one("nodes", body["node"])

        def work():
            target["state"], target["desired"], target["node"] = "running", "running", body.get("node", "node1")
            return target
        return self.operation("vm.start", f"vm/{path['name']}", work, query.get("operation_id"))

    def stopVm(self, path, query, body):
        target = self.one("vms", path["name"])

        def work():
            target["state"], target["desired"], target["node"] = "shut off", "stopped", None
            return target
        return self.operation("vm.stop", f"vm/{path['name']}", work, query.get("operation_id"))

    def getConsole(self, path, query, body):
        target = self.one("vms", path["name"])
        if target["node"] is None:
            raise ApiError("failed_precondition", f"guest {path['name']} does not run: 'gemel vm start {path['name']}' starts it")
        if target["node"] != "node1":
            raise ApiError("failed_precondition", f"guest {path['name']} runs on {target['node']}: run this command there")
        return self.console

    def listFenceDevices(self, path, query, body):
        return {"fence_devices": list(self.devices.values())}

    def getFenceDevice(self, path, query, body):
        if path["name"] not in self.devices:
            raise ApiError("not_found", f"there is no fence device {path['name']}: 'gemel fence list' shows what there is")
        return self.devices[path["name"]]

    def setFenceDevice(self, path, query, body):
        self.one("nodes", body["node"])

        def work():
            self.secrets[path["name"]] = body.get("secrets", {})
            self.devices[path["name"]] = {"name": path["name"], "node": body["node"], "agent": body["agent"],
                                          "options": body["options"], "secrets_set": sorted(body.get("secrets", {})),
                                          "state": "ok", "power": "on", "tested": "2026-03-01T02:14:07Z", "detail": None,
                                          "timeout_ms": body.get("timeout_ms", 20000)}
            return self.devices[path["name"]]
        return self.operation("fence.set", f"fence/{path['name']}", work, query.get("operation_id"))

    def testFenceDevice(self, path, query, body):
        device = self.getFenceDevice(path, query, body)
        return self.operation("fence.test", f"fence/{path['name']}", lambda: device, query.get("operation_id"))

    def listEvents(self, path, query, body):
        after = int(query.get("after", 0))
        return {"events": [e for e in self.events if e["sequence"] > after][-int(query.get("limit", 50)):]}

    def explain(self, path, query, body):
        self.one({"vm": "vms", "node": "nodes", "volume": "volumes"}[path["kind"]], path["name"])
        return {"object": f"{path['kind']}/{path['name']}", "now": "as it is",
                "because": ["node1 owns its volume at epoch 1", "both replicas are UpToDate"],
                "next": [{"when": "node1 dies", "then": "it is fenced and the guest starts on node2", "next_command": None}]}

    def listOperations(self, path, query, body):
        return {"operations": [self.shown(o) for o in self.operations.values()]}

    def getOperation(self, path, query, body):
        if path["id"] not in self.operations:
            raise ApiError("not_found", f"there is no operation {path['id']}: it is finished long ago or was never accepted")
        self.advance(self.operations[path["id"]])
        return self.operations[path["id"]]


def answers(path):
    """Somebody listens on this socket (its file appears a moment before)."""
    with socketlib.socket(socketlib.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def stop(server):
    """Ends a qemu-nbd. A SIGTERM that comes while it starts is forgotten by it (seen), so SIGKILL follows; what clients
    flushed is in the file by then."""
    server.terminate()
    try:
        server.wait(2)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.handle_any()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def handle_any(self):
        fake = self.server.fake
        length = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(length)
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        try:
            body = json.loads(text) if text else None
        except ValueError:
            return self.answer(400, ApiError("invalid_argument", "the body is not JSON: send an object").body())
        with fake.lock:
            fake.calls.append((self.command, url.path, query, body))
        found = fake.contract.find(self.command, url.path)
        if found is None:
            return self.answer(404, ApiError("not_found", f"there is nothing at {self.command} {url.path}").body())
        operation, template, parameters = found
        if template in fake.raw_answer:
            return self.send(200, fake.raw_answer[template])
        if operation["operationId"] in ("streamEvents", "streamOperation"):
            return self.stream(fake, operation["operationId"], parameters, query)
        try:
            with fake.lock:
                breaches = fake.contract.request_breaches(operation, parameters, query, body)
                if breaches:
                    fake.breaches.append(f"{self.command} {self.path}: {breaches}")
                    raise ApiError("invalid_argument", breaches[0])
                if (self.command, template) in fake.refuse:
                    raise fake.refuse[(self.command, template)]
                answer = getattr(fake, operation["operationId"])(parameters, query, body)
                if "_work" in answer:
                    answer = fake.shown(answer)
                answer = copy.deepcopy(answer)
            status = 202 if "202" in operation["responses"] else 200
        except ApiError as error:
            status, answer = STATUS_OF[error.code], error.body()
        if self.command in fake.lose_reply:
            fake.lose_reply.discard(self.command)
            self.close_connection = True
            return None
        kind, schema = fake.contract.response_schema(operation, status)
        wrong = fake.contract.breaches(schema, answer, f"{template} {status}")
        if wrong and not (template == "/v1/version"):
            fake.breaches.append(f"the fake's own answer: {wrong}")
        return self.answer(status, answer)

    def stream(self, fake, what, parameters, query):
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        events = [e for e in fake.events if e["sequence"] > int(query.get("after", 0))]
        lines = events if what == "streamEvents" else [fake.shown(fake.operations[parameters["id"]])]
        for line in [None] + lines:
            piece = (b"" if line is None else json.dumps(line).encode()) + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def answer(self, status, body):
        self.send(status, json.dumps(body).encode())

    def send(self, status, text):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def address_string(self):
        return "unix"


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path, fake):
        self.fake = fake
        super().__init__(str(path), Handler)

    def handle_error(self, request, client_address):
        kind = sys.exc_info()[0]
        if kind not in (BrokenPipeError, ConnectionResetError):
            super().handle_error(request, client_address)


def serve(path, fake):
    server = Server(path, fake)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


def main():
    path = sys.argv[1]
    status = json.loads(pathlib.Path(sys.argv[2]).read_text(encoding="utf-8")) if len(sys.argv) > 2 else None
    if os.path.exists(path):
        os.unlink(path)
    fake = FakeCluster(status)
    server = serve(path, fake)
    print(f"serving on {path}; Ctrl-C ends it", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.shutdown()
        fake.close()


if __name__ == "__main__":
    main()
