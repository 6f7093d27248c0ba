"""A whole cluster for system tests: the product's daemons in a sandbox, spoken to by the product's own command line.

    with Cluster(witness=True) as box:              # quorate, all nodes online, a fence device for each
        box.new_volume("disk1")
        uri = box.export("node1", "disk1")
        with story("its power is cut"): ...         # one of several stories on the same cluster

What is asked of a node is asked by `gemel ... --json` inside it; None while it cannot answer.
"""
import contextlib
import hashlib
import json
import re
import time

from .sandbox import POLL_S, Sandbox, TestFailure, wait_for

POOL = "/var/lib/gemel/pools/default"
# Short limits for what waits them out: regrant bound 10 s, confirm-down after 16 s of silence. (With two voters the
# fence bound must hold the other one's turn as well: a device's time-out, 2 s, and the fence.)
SHORT_LEASES = {"lease_ms": 4000, "watchdog_ms": 5000, "margin_ms": 1000}
SHORT_TIMING = {**SHORT_LEASES, "fence_bound_ms": 8000}
NODES = ("node1", "node2")


def check(condition, text):
    if not condition:
        raise TestFailure(text)


@contextlib.contextmanager
def story(text):
    """Names what is being tried in a failure's text, and says how long it took."""
    started = time.monotonic()
    try:
        yield
    except Exception as error:
        error.args = (f"story '{text}': {error}",)
        raise
    print(f"     {time.monotonic() - started:6.1f} s  {text}", flush=True)


def holds_for(seconds, condition, what):
    """The condition is looked at all that time and must be true each time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        check(condition(), f"expected for {seconds} s: {what}")
        time.sleep(POLL_S)   # poll interval


class Cluster(Sandbox):
    """With fences=True a fence device is set for every node. timing: node.toml's [timing], e.g. {"fence_bound_ms": 5000}."""

    def __init__(self, fences=True, timing=None, fence_timeout_s=20, **options):
        super().__init__(**options)
        self.fences, self.fence_timeout_s = fences, fence_timeout_s
        for key, value in (timing or {}).items():
            self.arguments += ["--timing", f"{key}={value}"]

    def __enter__(self):
        super().__enter__()
        try:
            check("not installed" not in self.up_output, f"programs are missing in the build:\n{self.up_output}")
            self.wait_healthy()
            if self.fences:
                self.set_fences()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def gemel(self, host, *arguments, check=True, timeout_s=60, input_text=None):
        return self[host].exec("gemel", *arguments, check=check, timeout_s=timeout_s, input_text=input_text)

    def refusal(self, host, *arguments, timeout_s=60):
        """What a command that must fail said: one line on standard error, nothing done."""
        done = self.gemel(host, *arguments, check=False, timeout_s=timeout_s)
        lines = done.stderr.strip().splitlines()
        check(done.returncode != 0, f"'gemel {' '.join(arguments)}' on {host} should be refused; it said: {done.stdout.strip()}")
        check(lines, f"'gemel {' '.join(arguments)}' on {host} was refused without a word")
        return lines[-1]

    def json(self, host, *arguments):
        done = self.gemel(host, *arguments, "--json", check=False, timeout_s=20)
        try:
            return json.loads(done.stdout) if done.returncode == 0 else None
        except ValueError:
            return None

    def json_of(self, host, *arguments, timeout_s=60):
        """The answer of a command that must succeed."""
        return json.loads(self.gemel(host, *arguments, "--json", timeout_s=timeout_s).stdout)

    def state(self, host):
        return self.json(host, "status") or {}

    def healthy(self, host):
        status = self.state(host)
        if not status or status["store"]["state"] != "quorate":
            return False
        # A node that is being added counts as a voter already where that is the safer answer; it may not become the only one before
        # it is committed as a voter. And a node that sees a quorum refuses changes until it has registered its life.
        committed = {voter["name"] for voter in status["store"]["voters"]}
        return (all(n["state"] == "online" and n["voter"] and n["name"] in committed for n in status["nodes"])
                and "boot: acting" in self.explain(host, "node", host))

    def wait_healthy(self, deadline_s=90, hosts=NODES):
        for host in hosts:
            wait_for(lambda: self.healthy(host), deadline_s, f"{host} to see a quorate cluster with all nodes online and voting")

    def node_state(self, asked, name):
        return next((n["state"] for n in self.state(asked).get("nodes", []) if n["name"] == name), None)

    def store_state(self, asked):
        return self.state(asked).get("store", {}).get("state")

    def problems(self, asked):
        """What `gemel status` says is wrong, as text."""
        return self.gemel(asked, "status", check=False).stdout

    def events(self, host):
        return self.gemel(host, "events").stdout

    def explain(self, host, kind, name):
        return self.gemel(host, "explain", kind, name).stdout

    # Volumes

    def volume(self, asked, name):
        return self.json(asked, "volume", "show", name)

    def in_sync(self, asked, name):
        volume = self.volume(asked, name)
        return bool(volume) and volume["state"] == "ok" and len(volume["ack_set"]) == 2

    def wait_in_sync(self, name, asked="node1", deadline_s=90):
        wait_for(lambda: self.in_sync(asked, name), deadline_s, f"volume {name} to be UpToDate on both nodes")

    def new_volume(self, name, size="64M"):
        self.gemel("node1", "volume", "create", name, size)
        self.wait_in_sync(name)

    def export(self, host, name):
        """Takes the lease for this host; returns the NBD URI (of a socket inside the host)."""
        return self.gemel(host, "volume", "export", name, "--detach").stdout.strip().splitlines()[-1]

    def close(self, host, name):
        self.gemel(host, "volume", "export", name, "--close")
        self.wait_free(name, host)

    def wait_free(self, name, asked, deadline_s=60):
        wait_for(lambda: self.volume(asked, name)["owner"] is None, deadline_s, f"the lease of {name} to be released")

    def image(self, host, name):
        """(path outside the host, offset of the data area, size of the data area) of a replica."""
        printed = self[host].exec("gemel-blockd", "--inspect", f"{POOL}/{name}.img").stdout
        area = re.search(r"^data: (\d+) bytes from offset (\d+)", printed, re.M)
        check(area, f"gemel-blockd --inspect on {host} does not say where the data of {name} lies:\n{printed}")
        return self[host].path(f"{POOL}/{name}.img"), int(area.group(2)), int(area.group(1))

    def data_hash(self, host, name):
        path, offset, size = self.image(host, name)
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            file.seek(offset)
            while size > 0:
                chunk = file.read(min(size, 1 << 20))
                check(chunk, f"the replica of {name} on {host} is shorter than it says")
                digest.update(chunk)
                size -= len(chunk)
        return digest.hexdigest()

    def check_equal(self, name, asked="node1"):
        """The volume is free: nothing is in flight, both are UpToDate, and every byte is the same."""
        self.wait_in_sync(name, asked)
        self.wait_free(name, asked)
        check(self.data_hash("node1", name) == self.data_hash("node2", name), f"the replicas of {name} differ")

    def check_nothing_lost(self, load, hosts=NODES, after_blackout=False):
        for host in hosts:
            path, offset, _ = self.image(host, load.volume)
            wrong = load.missing(path, offset, after_blackout)
            check(not wrong, f"{len(wrong)} of {len(load.acknowledged)} acknowledged blocks are lost or damaged in the replica on {host}, "
                             f"the first: block, acknowledged, found = {wrong[:3]}")

    # Fencing

    def bmc_devices(self):
        return json.loads(self["node1"].exec("cat", "/etc/gemel/sandbox-bmc.json").stdout)

    def set_fences(self):
        for node, device in self.bmc_devices().items():
            options = dict(device["options"])
            secret = options.pop("password")
            arguments = [part for key, value in options.items() for part in ("--option", f"{key}={value}")]
            self.gemel("node1", "fence", "set", "bmc-" + node, "--node", node, "--agent", device["agent"], *arguments,
                       "--secret-file", "password=-", "--timeout", self.fence_timeout_s, input_text=secret + "\n")

    def isolate(self, host):
        """Control and replication paths of a host are cut in one moment; its BMC's network lives."""
        self.cut_link(",".join(("control", *self.layout().links())), host)

    def power_ons(self, host):
        return self[host].report()["power_ons"]

    def never_fenced(self, asked="node1"):
        events = self.events(asked)
        check("going to be fenced" not in events and "is being fenced" not in events, f"somebody was fenced:\n{events}")

