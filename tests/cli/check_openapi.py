#!/usr/bin/python3
"""Does a running gemel-clusterd keep to api/openapi.yaml?

    check_openapi.py [--write] [SOCKET]        default: $GEMEL_API_SOCKET or /run/gemel/clusterd.sock

Asks every GET of the contract (for every object there is), sends bad requests that must be refused in the documented
way, and with --write makes, exports and deletes a small volume of its own. One line a check; exit 1 if any failed."""
import argparse
import http.client
import json
import os
import socket
import sys
import time
import urllib.parse
import uuid

from openapi_schema import Contract

DEADLINE_S = 60


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Checker:
    def __init__(self, path):
        self.path, self.contract, self.failed, self.passed = path, Contract(), 0, 0

    def say(self, good, what, why=""):
        self.passed += good
        self.failed += not good
        print(f"{'ok  ' if good else 'FAIL'}  {what}{': ' + why if why and not good else ''}", flush=True)
        return good

    def raw(self, method, target, text=None):
        connection = UnixConnection(self.path)
        try:
            connection.request(method, target, body=text, headers={"Content-Type": "application/json"} if text else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def call(self, method, target, body=None, expect=None, text=None):
        """Sends a request and checks status and shape of the answer against the contract; the answer or None."""
        what = f"{method} {target}" + (f" {json.dumps(body)[:60]}" if body is not None else "")
        path = urllib.parse.urlsplit(target).path
        found = self.contract.find(method, path)
        status, answer_text = self.raw(method, target, text if text is not None else (json.dumps(body) if body is not None else None))
        try:
            answer = json.loads(answer_text)
        except ValueError:
            self.say(False, what, f"status {status}, not JSON: {answer_text[:80]!r}")
            return None
        wrong = []
        if found:
            _, schema = self.contract.response_schema(found[0], status)
            wrong = self.contract.breaches(schema, answer, "answer") if schema else [f"status {status} is not in the contract"]
        elif status >= 400:
            wrong = self.contract.breaches({"$ref": "#/components/schemas/Error"}, answer, "answer")
        if expect is None and status >= 400:
            wrong.append(f"status {status}: {answer}")
        if expect is not None:
            code = answer.get("code") if status >= 400 else "accepted"
            if code not in expect:
                wrong.append(f"{' or '.join(expect)} expected, got {code} (status {status}): {str(answer)[:200]}")
        self.say(not wrong, what, "; ".join(wrong[:4]))
        return answer

    # -- reading

    def reads(self):
        self.call("GET", "/v1/version")
        status = self.call("GET", "/v1/status") or {}
        for kind in ("nodes", "volumes", "vms", "fence-devices"):
            listed = self.call("GET", f"/v1/{kind}") or {}
            for item in listed.get(kind.replace("-", "_"), []):
                self.call("GET", f"/v1/{kind}/{item['name']}")
        for kind, key in (("node", "nodes"), ("volume", "volumes"), ("vm", "vms")):
            for item in status.get(key, []):
                self.call("GET", f"/v1/explain/{kind}/{item['name']}")
        for item in status.get("nodes", []):
            self.call("GET", f"/v1/plan?action=node.confirm-down&object={item['name']}")
        for item in status.get("volumes", []):
            self.call("GET", f"/v1/plan?action=volume.delete&object={item['name']}")
        for item in status.get("vms", []):
            plan = self.call("GET", f"/v1/plan?action=vm.delete&object={item['name']}&with_volumes=true") or {}
            self.say(bool(plan.get("may_lose")), f"the plan to delete {item['name']} with its volumes says what is lost")
        self.call("GET", f"/v1/plan?action=cluster.start-alone&object={status.get('cluster', {}).get('name', 'x')}")
        events = self.call("GET", "/v1/events?limit=3") or {"events": []}
        self.say(len(events["events"]) <= 3, "events are bounded by limit")
        sequence = [event["sequence"] for event in events["events"]]
        self.say(sequence == sorted(set(sequence)), "events are in order")
        for operation in (self.call("GET", "/v1/operations") or {}).get("operations", [])[:5]:
            self.call("GET", f"/v1/operations/{operation['id']}")
        self.stream("/v1/events/stream?after=0", "Event")
        return status

    def stream(self, target, schema, until_final=False):
        """Reads lines of a stream: until the first object, or until an operation's final state."""
        connection = UnixConnection(self.path)
        wrong, seen, last = [], 0, None
        try:
            connection.request("GET", target)
            answer = connection.getresponse()
            kind = answer.getheader("Content-Type", "")
            if answer.status != 200 or "application/x-ndjson" not in kind:
                wrong.append(f"status {answer.status}, {kind}")
            while not wrong and (line := answer.readline()):
                if not line.strip():
                    continue
                last = json.loads(line)
                seen += 1
                wrong += self.contract.breaches({"$ref": f"#/components/schemas/{schema}"}, last, "line")
                if not until_final or last.get("state") in ("succeeded", "failed"):
                    break
        except TimeoutError:
            wrong.append("no line came in time, not even an empty one")
        finally:
            connection.close()
        self.say(not wrong, f"GET {target} ({seen} lines)", "; ".join(wrong[:3]))
        return last

    # -- refusals; none of them may change anything

    def refusals(self, status):
        cluster = status.get("cluster", {}).get("name", "x")
        name = f"none-{uuid.uuid4().hex[:8]}"
        missing, bad = ("not_found",), ("invalid_argument",)
        for kind in ("nodes", "volumes", "vms", "fence-devices"):
            self.call("GET", f"/v1/{kind}/{name}", expect=missing)
        self.call("GET", "/v1/volumes/Not_A_Name", expect=("invalid_argument", "not_found"))
        self.call("GET", "/v1/nosuch", expect=("not_found",))
        self.call("GET", "/v2/status", expect=("not_found", "unsupported"))
        self.call("PATCH", "/v1/volumes", expect=("not_found", "invalid_argument", "unsupported"))
        self.call("GET", f"/v1/explain/volume/{name}", expect=missing)
        self.call("GET", f"/v1/explain/nosuch/{name}", expect=("invalid_argument", "not_found"))
        self.call("GET", f"/v1/operations/{uuid.uuid4()}", expect=missing)
        self.call("GET", f"/v1/plan?action=volume.delete&object={name}", expect=missing)
        self.call("GET", f"/v1/plan?action=nosuch&object={name}", expect=bad)
        self.call("GET", "/v1/plan", expect=bad)
        self.call("POST", "/v1/volumes", text="{not json", expect=bad)
        self.call("POST", "/v1/volumes", text="[]", expect=bad)
        for body in ({}, {"name": name}, {"name": "UPPER", "size_bytes": 1 << 20}, {"name": name, "size_bytes": "1G"},
                     {"name": name, "size_bytes": 1000}, {"name": name, "size_bytes": 1 << 60}, {"name": name, "size_bytes": -4096},
                     {"name": name, "size_bytes": 1 << 20, "nosuch": 1}, {"name": name, "size_bytes": 1 << 20, "ack_mode": "maybe"},
                     {"name": name, "size_bytes": 1 << 20, "nodes": []}):
            self.call("POST", "/v1/volumes", body, expect=bad)
        self.call("POST", "/v1/volumes", {"name": name, "size_bytes": 1 << 20, "nodes": [name]}, expect=("not_found", "invalid_argument"))
        self.call("DELETE", f"/v1/volumes/{name}?confirm_name={name}", expect=missing)
        for action in ("start", "stop"):
            self.call("POST", f"/v1/vms/{name}/{action}", {}, expect=missing)
        self.moving_refusals(status, name)
        self.call("GET", f"/v1/vms/{name}/console", expect=missing)
        self.call("POST", "/v1/vms", {"name": name, "memory_bytes": 1 << 30, "vcpus": 1, "disks": [{"volume": name}]}, expect=missing)
        self.call("POST", "/v1/vms", {"name": name, "memory_bytes": 1, "vcpus": 0, "disks": []}, expect=bad)
        self.call("POST", "/v1/vms/check-xml", {}, expect=bad)
        self.call("PUT", f"/v1/fence-devices/{name}", {"node": name, "agent": "fence_ipmilan", "options": {}},
                  expect=("not_found", "invalid_argument"))
        self.call("PUT", f"/v1/fence-devices/{name}", {"node": name, "agent": "rm -rf", "options": {}}, expect=bad)
        self.call("POST", f"/v1/fence-devices/{name}/test", expect=missing)
        self.call("POST", "/v1/cluster/start-alone", {"accept_loss": False, "confirm_name": cluster}, expect=bad)
        self.call("POST", "/v1/cluster/start-alone", {"accept_loss": True, "confirm_name": name}, expect=("invalid_argument", "failed_precondition"))
        for node in [item["name"] for item in status.get("nodes", [])][:1]:
            self.call("POST", f"/v1/nodes/{node}/confirm-down", {"confirm_name": name}, expect=("invalid_argument", "failed_precondition"))
        for volume in [item["name"] for item in status.get("volumes", [])][:1]:
            self.call("DELETE", f"/v1/volumes/{volume}?confirm_name={name}", expect=("invalid_argument", "failed_precondition"))
            self.call("DELETE", f"/v1/volumes/{volume}", expect=bad)
            self.call("POST", "/v1/volumes", {"name": volume, "size_bytes": 1 << 20}, expect=("already_exists",))

    def moving_refusals(self, status, name):
        missing, bad = ("not_found",), ("invalid_argument",)
        for action in ("migrate", "migrate-cancel"):
            self.call("POST", f"/v1/vms/{name}/{action}", {}, expect=missing)
        for body in ({"node": "UPPER"}, {"bandwidth_bytes": -1}, {"bandwidth_bytes": "100M"}, {"downtime_ms": 0}, {"downtime_ms": 60001},
                     {"auto_converge": "yes"}, {"nosuch": 1}):
            self.call("POST", f"/v1/vms/{name}/migrate", body, expect=bad)
        self.call("POST", f"/v1/vms/{name}/migrate-cancel", {"node": name}, expect=bad)
        for action in ("drain", "undrain"):
            self.call("POST", f"/v1/nodes/{name}/{action}", {}, expect=missing)
            self.call("POST", f"/v1/nodes/{name}/{action}", {"confirm_name": name}, expect=bad)
        for guest in [item for item in status.get("vms", []) if item.get("node") and not item.get("migration")][:1]:
            refused = ("failed_precondition",)
            self.call("POST", f"/v1/vms/{guest['name']}/migrate", {"node": guest["node"]}, expect=refused)
            self.call("POST", f"/v1/vms/{guest['name']}/migrate-cancel", {}, expect=refused)
            self.call("POST", f"/v1/vms/{guest['name']}/migrate", {"node": name}, expect=missing)

    # -- a volume of our own

    def finish(self, operation):
        end = time.monotonic() + DEADLINE_S
        while operation and operation.get("state") not in ("succeeded", "failed", None):
            if time.monotonic() > end:
                break
            last = self.stream(f"/v1/operations/{operation['id']}/stream", "Operation", until_final=True)
            operation = last or operation
        good = bool(operation) and operation.get("state") == "succeeded"
        self.say(good, f"{(operation or {}).get('kind')} succeeds", str((operation or {}).get("error") or operation))
        return operation if good else None

    def writes(self):
        name, identity = f"check-{uuid.uuid4().hex[:8]}", uuid.uuid4()
        body = {"name": name, "size_bytes": 4 << 20}
        first = self.call("POST", f"/v1/volumes?operation_id={identity}", body, expect=("accepted",))
        again = self.call("POST", f"/v1/volumes?operation_id={identity}", body, expect=("accepted",))
        self.say(bool(first) and bool(again) and first.get("id") == again.get("id") == str(identity), "a repeated operation id is the same operation")
        if not self.finish(first):
            return
        listed = [item["name"] for item in self.call("GET", "/v1/volumes")["volumes"]]
        self.say(listed.count(name) == 1, "the volume is there once")
        made = self.call("GET", f"/v1/volumes/{name}") or {}
        self.say(made.get("size_bytes") == 4 << 20, "it has the size")
        exported = self.finish(self.call("POST", f"/v1/volumes/{name}/export", {}, expect=("accepted",)))
        if exported:
            self.say(str((exported.get("result") or {}).get("uri", "")).startswith("nbd+unix:///"), "the export's result has its URI", str(exported))
            self.call("POST", f"/v1/volumes/{name}/export", {}, expect=("failed_precondition", "already_exists"))
            self.call("DELETE", f"/v1/volumes/{name}?confirm_name={name}", expect=("failed_precondition",))
            self.finish(self.call("DELETE", f"/v1/volumes/{name}/export", expect=("accepted",)))
        self.call("DELETE", f"/v1/volumes/{name}?confirm_name=other", expect=("invalid_argument", "failed_precondition"))
        self.finish(self.call("DELETE", f"/v1/volumes/{name}?confirm_name={name}", expect=("accepted",)))
        self.call("GET", f"/v1/volumes/{name}", expect=("not_found",))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("socket", nargs="?", default=os.environ.get("GEMEL_API_SOCKET", "/run/gemel/clusterd.sock"))
    parser.add_argument("--write", action="store_true", help="also make and delete a volume")
    options = parser.parse_args()
    checker = Checker(options.socket)
    try:
        status = checker.reads()
        checker.refusals(status)
        if options.write:
            checker.writes()
    except OSError as error:
        checker.say(False, f"speaking to {options.socket}", str(error))
    print(f"{checker.passed} passed, {checker.failed} failed")
    return 1 if checker.failed else 0


if __name__ == "__main__":
    sys.exit(main())
