#!/usr/bin/python3
"""./dev demo: a guest with PostgreSQL survives two power cuts of the server under it and is moved live in between; no acknowledged
commit is lost.

Everything is done with the product's own commands inside a sandbox of two nodes and a witness. The last line is
`demo ok: …` (exit 0) or `demo FAILED: …` (exit 1). Steps and seconds are printed as they happen; every wait has a
deadline and says what it waited for. Not here: installing, building (packaging/dev/demo.sh does both before).
"""
import argparse
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SANDBOX_ID = "demo"
GUEST = "web1"
GUEST_NUMBER = 1
LEAST_ACKNOWLEDGED = 1000
POLL_S = 0.05


class DemoFailed(Exception):
    """One line for the last line of the output."""


def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Timeline:
    def __init__(self):
        self.start = now()

    def say(self, text):
        print(f"[{now() - self.start:6.1f} s] {text}", flush=True)


def run(command, timeout, what, **options):
    """Standard output of a command that must succeed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"{what}: not finished within {timeout} s") from None
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise DemoFailed(f"{what}: {lines[-1]}")
    return done.stdout


def wait_for(condition, deadline_s, what):
    """The condition's first true value; says what was seen last when time runs out."""
    end = now() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if now() > end:
            raise DemoFailed(f"waited {deadline_s} s for {what}")
        time.sleep(POLL_S)


class Cluster:
    """The sandbox and the product's command line inside its hosts."""

    def __init__(self, binaries, timeline):
        self.timeline = timeline
        self.binaries = binaries
        self.environment = dict(os.environ, PYTHONPATH=str(ROOT / "src/sandbox"), PYTHONDONTWRITEBYTECODE="1")

    def sandbox_command(self, *arguments):
        return ["/usr/bin/python3", "-m", "gemel_sandbox", "--id", SANDBOX_ID, *arguments]

    def sandbox(self, *arguments, timeout=120):
        return run(self.sandbox_command(*arguments), timeout, "gemel sandbox " + " ".join(arguments), env=self.environment)

    def gemel(self, host, *arguments, timeout=60):
        return run(self.sandbox_command("exec", host, "gemel", *arguments), timeout,
                   f"gemel {' '.join(arguments)} on {host}", env=self.environment)

    def client(self, *arguments):
        return self.sandbox_command("exec", "client", "/usr/bin/python3", str(ROOT / "src/demo/client.py"), *arguments)

    def json(self, host, *arguments):
        """The command's JSON, or None while it cannot answer."""
        try:
            return json.loads(self.gemel(host, *arguments, "--json", timeout=10))
        except (DemoFailed, ValueError):
            return None

    def up(self):
        self.sandbox("down")
        self.sandbox("up", "--nodes", "2", "--witness", "--links", "3", "--bin", str(self.binaries))
        for node in ("node1", "node2"):
            wait_for(lambda: self.all_online(node), 60, f"{node} to see a quorate store and both nodes online")

    def all_online(self, host):
        status = self.json(host, "status")
        return status and status["store"]["state"] == "quorate" and all(n["state"] == "online" for n in status["nodes"])

    def fence_devices(self):
        text = run(self.sandbox_command("exec", "node1", "cat", "/etc/gemel/sandbox-bmc.json"), 10,
                   "reading the BMCs' addresses", env=self.environment)
        for node, device in json.loads(text).items():
            options = dict(device["options"])
            secret = options.pop("password")
            arguments = ["fence", "set", "bmc-" + node, "--node", node, "--agent", device["agent"]]
            for key, value in options.items():
                arguments += ["--option", f"{key}={value}"]
            run(self.sandbox_command("exec", "node1", "gemel", *arguments, "--secret-file", "password=-"), 60,
                "gemel fence set", env=self.environment, input=secret + "\n")

    def guest_on(self, asked):
        """The node where the guest's vCPUs run, or None."""
        guest = self.json(asked, "vm", "show", GUEST)
        return guest["node"] if guest and guest["state"] == "running" else None

    def in_sync(self, asked):
        volumes = self.json(asked, "volume", "list")
        volumes = volumes.get("volumes", volumes) if isinstance(volumes, dict) else volumes
        return bool(volumes) and all(v["state"] == "ok" and len(v["ack_set"]) == 2 for v in volumes)

    def data_hash(self, node, volume):
        """SHA-256 of the data area of a replica, found by what gemel-blockd --inspect prints."""
        path = f"/var/lib/gemel/pools/default/{volume}.img"
        printed = run(self.sandbox_command("exec", node, "gemel-blockd", "--inspect", path), 60, f"inspecting {volume} on {node}",
                      env=self.environment)
        area = re.search(r"^data: (\d+) bytes from offset (\d+)", printed, re.M)
        if not area:
            raise DemoFailed(f"gemel-blockd --inspect on {node} does not say where the data of {volume} lies")
        size, offset = int(area.group(1)), int(area.group(2))
        digest = hashlib.sha256()
        reader = subprocess.Popen(self.sandbox_command("exec", node, "dd", f"if={path}", "bs=1M", "iflag=skip_bytes,count_bytes",
                                                       f"skip={offset}", f"count={size}", "status=none"),
                                  stdout=subprocess.PIPE, env=self.environment)
        total = 0
        while chunk := reader.stdout.read(1 << 20):
            digest.update(chunk)
            total += len(chunk)
        if reader.wait() != 0 or total != size:
            raise DemoFailed(f"could read only {total} of {size} bytes of {volume} on {node}")
        return digest.hexdigest()


class Load:
    """The client outside the guest that remembers every acknowledgement."""

    def __init__(self, cluster, address, log):
        self.cluster, self.address, self.log = cluster, address, log
        self.process = None

    def start(self):
        self.log.unlink(missing_ok=True)
        self.process = subprocess.Popen(self.cluster.client("run", "--address", self.address, "--log", str(self.log)),
                                        env=self.cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def acknowledged(self):
        return self.log.read_bytes().count(b"\n") if self.log.exists() else 0

    def more(self, count, deadline_s, what):
        target = self.acknowledged() + count
        wait_for(lambda: self.acknowledged() >= target, deadline_s, what)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise DemoFailed("the client did not end within 60 s") from None


def cut_and_recover(cluster, load, timeline, victim, survivor):
    """Power of the owner goes, the guest comes back on the survivor. Returns (moment of the cut, seconds to vCPUs)."""
    load.more(300, 120, "300 more acknowledged commits before the cut")
    timeline.say(f"cutting the power of {victim} under the guest ({load.acknowledged()} commits acknowledged)")
    cut = now()
    cluster.sandbox("cut-power", victim)
    wait_for(lambda: cluster.guest_on(survivor) == survivor, 60, f"the guest to run on {survivor}")
    restart = now() - cut
    timeline.say(f"{victim} is fenced, the disk promoted, the guest's vCPUs run on {survivor}: {restart:.1f} s after the cut")
    load.more(50, 180, f"commits acknowledged on {survivor}")
    timeline.say(f"the client commits again ({load.acknowledged()} acknowledged)")
    wait_for(lambda: cluster.all_online(survivor), 120, f"{victim} to be powered on and to join again")
    timeline.say(f"{victim} was powered on again and has joined; its replica resyncs while the guest writes")
    wait_for(lambda: cluster.in_sync(survivor), 180, "the resync to end")
    timeline.say("both replicas are UpToDate again")
    return cut, restart


def move_under_load(cluster, load, timeline, source, destination):
    """Moved live while the client commits. Returns the pause in milliseconds, as QEMU measured it."""
    load.more(100, 120, "100 more acknowledged commits before the guest is moved")
    timeline.say(f"moving the guest live from {source} to {destination} ({load.acknowledged()} commits acknowledged)")
    began = now()
    done = json.loads(cluster.gemel(source, "vm", "migrate", GUEST, destination, "--json", timeout=180))
    wait_for(lambda: cluster.guest_on(destination) == destination, 30, f"the guest to be placed on {destination}")
    downtime = done.get("result", {}).get("downtime_ms")
    if downtime is None:
        raise DemoFailed("gemel vm migrate does not say for how long the guest paused")
    timeline.say(f"it runs on {destination} after {now() - began:.1f} s and was paused for {downtime} ms")
    load.more(100, 60, f"100 more commits acknowledged on {destination}")
    timeline.say(f"the client never stopped ({load.acknowledged()} acknowledged)")
    wait_for(lambda: cluster.in_sync(destination), 60, "both replicas to be UpToDate")
    return int(downtime)


def story(cluster, timeline, work, image):
    timeline.say("starting two nodes and a witness, each with its own etcd, libvirtd, blockd, clusterd, guard and BMC")
    cluster.up()
    cluster.fence_devices()
    timeline.say("the cluster is quorate, a fence device is set and tested for each node")
    cluster.gemel("node1", "vm", "import", GUEST, str(image), "--format", "raw", "--memory", "512M", "--bridge", "br-guest",
                  "--prefer", "node1", "--start", timeout=300)
    wait_for(lambda: cluster.guest_on("node1") == "node1", 60, "the guest to run on node1")
    timeline.say("the guest is imported onto a mirrored volume and runs on node1")
    wait_for(lambda: cluster.in_sync("node1"), 180, "the volume's first resync to end")
    load = Load(cluster, f"10.77.200.{9 + GUEST_NUMBER}", work / "acknowledged.log")
    try:
        load.start()
        load.more(50, 180, "the guest's PostgreSQL to answer")
        timeline.say("the client outside the guest commits, several at a time")
        cuts = [cut_and_recover(cluster, load, timeline, "node1", "node2")]
        downtime = move_under_load(cluster, load, timeline, "node2", "node1")
        cuts.append(cut_and_recover(cluster, load, timeline, "node1", "node2"))
        load.more(max(0, LEAST_ACKNOWLEDGED - load.acknowledged()), 300, f"{LEAST_ACKNOWLEDGED} acknowledged commits")
    finally:
        load.stop()
    return load, cuts, downtime


def judge(cluster, timeline, load, cuts, downtime):
    at = [argument for cut, _ in cuts for argument in ("--at", f"{cut:.3f}")]
    gaps = run(cluster.client("gaps", "--log", str(load.log), *at), 60, "measuring the gaps", env=cluster.environment)
    verified = subprocess.run(cluster.client("verify", "--address", load.address, "--log", str(load.log)), env=cluster.environment,
                              capture_output=True, text=True, timeout=180)
    figures = re.search(r"acknowledged=(\d+) found=(\d+) lost=(\d+)", verified.stdout)
    if not figures:
        raise DemoFailed("the rows could not be counted: " + (verified.stderr.strip().splitlines() or ["no answer"])[-1])
    acknowledged, found, lost = (int(n) for n in figures.groups())
    timeline.say(f"{acknowledged} commits were acknowledged, {found} of them are in the database")
    cluster.gemel("node1", "vm", "stop", GUEST, timeout=180)
    volumes = [disk["volume"] for disk in cluster.json("node1", "vm", "show", GUEST)["disks"]]
    wait_for(lambda: cluster.in_sync("node1"), 60, "both replicas to be UpToDate at the end")
    different = [volume for volume in volumes if cluster.data_hash("node1", volume) != cluster.data_hash("node2", volume)]
    timeline.say("the guest is stopped; " + ("its replicas DIFFER" if different else "both replicas of its disk are byte-identical"))
    restarts = ",".join(f"{seconds:.1f}" for _, seconds in cuts)
    line = (f"acknowledged={acknowledged} found={found} lost={lost} failovers={len(cuts)} migration_downtime_ms={downtime} vcpu_restart_seconds={restarts} "
            f"{gaps.strip()}")
    if lost or found != acknowledged:
        raise DemoFailed(f"acknowledged commits were lost: {line}")
    if acknowledged < LEAST_ACKNOWLEDGED:
        raise DemoFailed(f"fewer than {LEAST_ACKNOWLEDGED} commits were acknowledged: {line}")
    if different:
        raise DemoFailed(f"the replicas of {', '.join(different)} differ: {line}")
    return line


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True, type=pathlib.Path, help="directory with the product's programs")
    parser.add_argument("--image", required=True, type=pathlib.Path, help="the guest's disk, raw")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="where the client's log is kept")
    parser.add_argument("--keep", action="store_true", help="leave the sandbox running at the end")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    timeline = Timeline()
    cluster = Cluster(options.bin, timeline)
    try:
        load, cuts, downtime = story(cluster, timeline, options.work, options.image)
        line = judge(cluster, timeline, load, cuts, downtime)
    except (DemoFailed, KeyboardInterrupt) as problem:
        print("the sandbox is kept for a look: ./dev sandbox status; ./dev sandbox down removes it", flush=True)
        print(f"demo FAILED: {problem or 'interrupted'}", flush=True)
        return 1
    if not options.keep:
        cluster.sandbox("down")
    print(f"demo ok: {line}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
