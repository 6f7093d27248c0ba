#!/usr/bin/python3
"""Figures of this machine: a Gemel volume (mirrored, through NBD) beside the local raw file and what one would use
without a mirror. Everything compared is measured in one run, in turn, round by round; medians are shown.

    raw      the local raw file, fio directly on it
    local    qemu-storage-daemon serving the local file on a unix socket
    remote   one copy: qemu-storage-daemon in the other namespace, over TCP
    gemel    two gemel-blockd, one in each namespace: written to both

Absolute figures vary from run to run and machine to machine; the ratios are what counts.
"""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "system"))
sys.dont_write_bytecode = True

from lib.blockd_client import BlockdError, Pair, run, wait_until  # noqa: E402  (the path above makes it importable)
from lib.nbd_writer import Client  # noqa: E402

# name, fio's rw, block size, depth, fsync after each write, unit
WORKLOADS = [
    ("seq write 1M QD8", "write", "1M", 8, False, "MB/s"),
    ("seq read 1M QD8", "read", "1M", 8, False, "MB/s"),
    ("4k write QD1", "randwrite", "4k", 1, False, "IOPS"),
    ("4k write QD32", "randwrite", "4k", 32, False, "IOPS"),
    ("4k read QD1", "randread", "4k", 1, False, "IOPS"),
    ("4k read QD32", "randread", "4k", 32, False, "IOPS"),
    ("4k write+flush QD1", "randwrite", "4k", 1, True, "IOPS"),
]
# (workload, stack to compare with, least ratio): issue 2, section 9
TARGETS = [("seq write 1M QD8", "remote", 0.6), ("4k write QD1", "remote", 0.6), ("4k read QD32", "local", 0.7)]
RESIDENT_LIMIT_MIB = 64 + 4
RAMP_S = 0.5            # fio runs that long before it counts
FREEZE_LIMIT_S = 3.0
FAILOVER_LIMIT_S = 8.0


class Network:
    """Two namespaces and one veth link, named after this process."""

    def __init__(self):
        self.names = [f"gemel-bench-{os.getpid()}-{i}" for i in (1, 2)]
        self.addresses = ["10.89.7.1", "10.89.7.2"]

    def __enter__(self):
        for name in self.names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "link", "add", "l1", "netns", self.names[0], "type", "veth", "peer", "name", "l2", "netns",
            self.names[1])
        for i, name in enumerate(self.names):
            run("ip", "-n", name, "addr", "add", f"{self.addresses[i]}/24", "dev", f"l{i + 1}")
            run("ip", "-n", name, "link", "set", f"l{i + 1}", "up")
        return self

    def __exit__(self, *_):
        for name in self.names:
            run("ip", "netns", "del", name, check=False)


class Qsd:
    """qemu-storage-daemon exporting one file."""

    def __init__(self, network, side, image, aio, listen, uri):
        self.uri = uri
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", network.names[side], "qemu-storage-daemon", "--blockdev",
             f"driver=file,node-name=d,filename={image},cache.direct=on,aio={aio}", "--nbd-server", listen, "--export",
             "nbd,id=e,node-name=d,name=d,writable=on"], stdin=subprocess.DEVNULL)
        wait_until(lambda: run("ip", "netns", "exec", network.names[0], "nbdinfo", "--size", uri,
                               check=False).returncode == 0, 20, "qemu-storage-daemon")

    def pids(self):
        return [self.process.pid]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def fio(network, target, workload, seconds, size):
    _, rw, block, depth, flush, unit = workload
    command = ["ip", "netns", "exec", network.names[0], "fio", "--output-format=json", "--name=j", f"--rw={rw}",
               f"--bs={block}", f"--iodepth={depth}", f"--size={size}", "--direct=1", "--time_based",
               f"--runtime={seconds}", "--norandommap", "--randrepeat=0", f"--ramp_time={RAMP_S}", *target]
    if flush:
        command.append("--fsync=1")
    said = run(*command, timeout=seconds * 5 + 120).stdout
    job = json.loads(said[said.index("{"):])["jobs"][0]    # notes may come first
    if job["error"]:
        raise SystemExit(f"fio: error {job['error']} in {workload[0]}")
    side = job["write" if "write" in rw else "read"]
    return side["bw_bytes"] / 1e6 if unit == "MB/s" else side["iops"]


def fill(network, target, size):
    run("ip", "netns", "exec", network.names[0], "fio", "--name=fill", "--rw=write", "--bs=1M", "--iodepth=8",
        "--direct=1", f"--size={size}", *target, timeout=900)


def measure(network, directories, arguments, program):
    """stack -> workload -> list of figures; and what gemel-blockd cost."""
    size = int(arguments.size_gib * 1024) << 20
    aio = "threads" if arguments.backing == "tmpfs" else "native"
    images = [directory / "plain.img" for directory in directories]
    for image in images:
        with open(image, "wb") as file:
            file.truncate(size)
    work = Path(tempfile.mkdtemp(prefix="gemel-bench-"))
    figures = {stack: {workload[0]: [] for workload in WORKLOADS} for stack in ("raw", "local", "remote", "gemel")}
    cost = {}
    pair = Pair(work, program, size_mib=size >> 20, namespaces=network.names, addresses=network.addresses,
                image_directories=directories)
    servers = []
    try:
        with pair:
            pair.grant("node1")
            local = Qsd(network, 0, images[0], aio, f"addr.type=unix,addr.path={work}/local.sock",
                        f"nbd+unix:///d?socket={work}/local.sock")
            servers.append(local)
            remote = Qsd(network, 1, images[1], aio, "addr.type=inet,addr.host=0.0.0.0,addr.port=10809",
                         f"nbd://{network.addresses[1]}:10809/d")
            servers.append(remote)
            nbd = lambda uri: ["--ioengine=nbd", f"--uri={uri}"]
            targets = {"local": nbd(local.uri), "remote": nbd(remote.uri), "gemel": nbd(pair.uri())}
            for name, target in targets.items():
                print(f"  filling {name}", file=sys.stderr)
                fill(network, target, size)
            # raw goes last in each round: QEMU's lock allows no second user, so its server rests meanwhile
            for number in range(arguments.rounds):
                for workload in WORKLOADS:
                    for name, target in targets.items():
                        before = cpu_seconds(node.process.pid for node in pair.nodes.values())
                        figure = fio(network, target, workload, arguments.seconds, size)
                        figures[name][workload[0]].append(figure)
                        if name == "gemel":
                            spent = cpu_seconds(node.process.pid for node in pair.nodes.values()) - before
                            cost.setdefault(workload[0], []).append((spent, figure))
                    raw = ["--ioengine=libaio", f"--filename={images[0]}"]
                    figures["raw"][workload[0]].append(fio(network, raw, workload, arguments.seconds, size))
                print(f"  round {number + 1} of {arguments.rounds} done", file=sys.stderr)
            resident = max(node.resident_mib() for node in pair.nodes.values())
            pair.release()
            same = pair.same_data()
    finally:
        for server in servers:
            server.stop()
        for directory in directories:
            for image in directory.glob("*.img"):
                image.unlink()
        shutil.rmtree(work, ignore_errors=True)
    return figures, cost, resident, same


def machine():
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), os.uname().machine)
    memory = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()
                  if line.startswith("MemTotal"))
    return {"processors": os.cpu_count(), "model": model, "memory_gib": round(memory / 2**20, 1),
            "kernel": os.uname().release, "load_at_start": os.getloadavg()[0]}


def freeze_seconds(network, program):
    """The longest time between two answered 4k writes at an owner whose peer vanishes without a word. The record is
    committed by the bench at once: a store with a witness adds one transaction."""
    work = Path(tempfile.mkdtemp(prefix="gemel-bench-"))
    try:
        with Pair(work, program, size_mib=64, namespaces=network.names, addresses=network.addresses) as pair:
            pair.grant("node1")
            client = Client(pair.owner.front, pair.name)
            longest, answered, vanished, left_at = 0.0, time.monotonic(), False, None
            end = answered + 60
            while time.monotonic() < end:
                client.request(1, 0, 4096, bytes(4096))
                now = time.monotonic()
                longest, answered = max(longest, now - answered), now
                if not vanished and now > end - 59:
                    run("ip", "-n", network.names[1], "link", "set", "l2", "down")
                    vanished = True
                if left_at is None and not pair.store.record["replicas"][1]["in_ack_set"]:
                    left_at = now
                if left_at is not None and now > left_at + 1:
                    return longest
            raise BlockdError("the peer's leave was not committed")
    finally:
        run("ip", "-n", network.names[1], "link", "set", "l2", "up")
        shutil.rmtree(work, ignore_errors=True)


def failover_seconds(count):
    """From power cut to the guest's vCPU running on the survivor, as ./dev demo measures it (two in each run)."""
    found = []
    while len(found) < count:
        print(f"  demo for failovers {len(found) + 1} and {len(found) + 2}", file=sys.stderr)
        last = run(REPOSITORY / "dev", "demo", timeout=1800).stdout.strip().splitlines()[-1]
        if not last.startswith("demo ok"):
            raise SystemExit(last)
        words = dict(word.split("=") for word in last.split() if "=" in word)
        found += [float(each) for each in words["vcpu_restart_seconds"].split(",")]
    return found[:count]


def target(results, name, figure, limit, below, unit=""):
    met = figure <= limit if below else figure >= limit
    results.append({"name": name, "figure": round(figure, 3), "limit": limit, "met": met})
    print(f"target: {name} {'<=' if below else '>='} {limit:g}{unit}: {figure:.2f} {'met' if met else 'MISSED'}")
    return met


def report(arguments, figures, cost, resident, same):
    """Prints the table; the same as a dictionary."""
    medians = {stack: {name: statistics.median(values) for name, values in rows.items()}
               for stack, rows in figures.items()}
    print(f"\nbacking {arguments.backing}, {arguments.size_gib} GiB, {arguments.seconds} s each, median of {arguments.rounds}")
    print(f"{'':22}{'raw':>12}{'local nbd':>12}{'remote nbd':>12}{'gemel':>12}{'/raw':>8}{'/local':>8}{'/remote':>8}"
          f"{'blockd CPU':>16}")
    rows = {}
    for name, _, _, _, _, unit in WORKLOADS:
        row = [medians[stack][name] for stack in ("raw", "local", "remote", "gemel")]
        spent = statistics.median(cpu / (figure * (arguments.seconds + RAMP_S)) for cpu, figure in cost[name])
        per = f"{spent * 1073.7:.2f} s/GiB" if unit == "MB/s" else f"{spent * 1e6:.0f} us/op"
        print(f"{name:22}" + "".join(f"{value:>12,.0f}" for value in row)
              + "".join(f"{row[3] / value:>8.2f}" for value in row[:3]) + f"{per:>16}")
        rows[name] = {"unit": unit, **{stack: medians[stack][name] for stack in medians}, "cpu": per,
                      "of_raw": row[3] / row[0], "of_local": row[3] / row[1], "of_remote": row[3] / row[2]}
    results = []
    for name, stack, least in TARGETS:
        target(results, f"{name}, of {stack} nbd", medians["gemel"][name] / medians[stack][name], least, below=False)
    target(results, "resident memory", resident, RESIDENT_LIMIT_MIB, below=True, unit=" MiB")
    print(f"replicas byte-identical afterwards: {'yes' if same else 'NO'}")
    return {"backing": arguments.backing, "seconds": arguments.seconds, "rounds": arguments.rounds,
            "size_gib": arguments.size_gib, "workloads": rows, "targets": results, "replicas_identical": same}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backing", choices=["tmpfs", "disk", "both"], default="both")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size-gib", type=float, default=2)
    parser.add_argument("--quick", action="store_true", help="one round of two seconds, 1 GiB")
    parser.add_argument("--program", default=str(REPOSITORY / "build/release/src/daemons/blockd/gemel-blockd"))
    parser.add_argument("--failovers", type=int, default=0, metavar="N",
                        help="also run ./dev demo until N failovers are measured (five for section 9)")
    parser.add_argument("--json", metavar="FILE", help="write everything there too")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.rounds, arguments.size_gib = 2, 1, 1
    said = {"machine": machine(), "backings": [], "targets": []}
    print(", ".join(f"{name} {value}" for name, value in said["machine"].items()))
    backings = ["tmpfs", "disk"] if arguments.backing == "both" else [arguments.backing]
    for arguments.backing in backings:
        place = Path(tempfile.mkdtemp(prefix="gemel-bench-data-", dir=REPOSITORY / ".cache"))
        try:
            if arguments.backing == "tmpfs":
                run("mount", "-t", "tmpfs", "-o", f"size={int(arguments.size_gib * 5) + 1}g", "gemel-bench", place)
            directories = [place / "1", place / "2"]
            for directory in directories:
                directory.mkdir()
            started = time.monotonic()
            with Network() as network:
                said["backings"].append(report(arguments, *measure(network, directories, arguments,
                                                                   arguments.program)))
            print(f"took {time.monotonic() - started:.0f} s")
        finally:
            if arguments.backing == "tmpfs":
                run("umount", "-l", place, check=False)
            shutil.rmtree(place, ignore_errors=True)
    with Network() as network:
        freezes = [freeze_seconds(network, arguments.program) for _ in range(3)]
    print()
    target(said["targets"], "writes frozen when the owner's peer vanishes, longest of three", max(freezes), FREEZE_LIMIT_S,
           below=True, unit=" s")
    if arguments.failovers:
        target(said["targets"], f"power cut to vCPU running, median of {arguments.failovers}",
               statistics.median(failover_seconds(arguments.failovers)), FAILOVER_LIMIT_S, below=True, unit=" s")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(said, indent=2) + "\n")
    missed = [each for part in (said, *said["backings"]) for each in part["targets"] if not each["met"]]
    return 0 if not missed and all(part["replicas_identical"] for part in said["backings"]) else 1


if __name__ == "__main__":
    sys.exit(main())
