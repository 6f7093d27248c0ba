"""The sandbox itself: what system tests stand on must be true before they mean anything."""
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from lib import Sandbox, TestFailure, wait_for
from lib.sandbox import build_directory, leftovers_of, namespaces_of, new_id, sandbox_command, _environment

from gemel_sandbox.cgroup import Cgroup
from gemel_sandbox.layout import DEFAULT_HOME, REGISTRY, cgroup_name


def check(condition, text):
    if not condition:
        raise TestFailure(text)


def reaches(host, address):
    return host.exec("ping", "-c1", "-W1", address, check=False).returncode == 0


def test_up_is_quick():
    started = time.monotonic()
    with Sandbox(witness=True, product=False) as box:
        seconds = time.monotonic() - started
        check(seconds <= 6, f"up of two nodes and a witness took {seconds:.1f} s, expected at most 6")
        for network in ("control", "mgmt", "link1", "link2", "link3"):
            check(reaches(box["node1"], box["node2"].address(network)), f"node1 does not reach node2 over {network}")
        check(reaches(box["node2"], box["witness"].address("control")), "node2 does not reach the witness")


def test_hosts_are_separate():
    """Own host name, processes, /run, /tmp and /etc; the same machine underneath."""
    with Sandbox(product=False) as box:
        for name in ("node1", "node2"):
            check(box[name].exec("hostname").stdout.strip() == name, f"{name} has another host name")
            check(box[name].exec("cat", "/proc/1/comm").stdout.startswith("python"), f"{name} sees another process 1")
            box[name].exec("sh", "-c", f"echo {name} | tee /run/who /tmp/who /etc/who /var/lib/gemel/who /dev/shm/who")
        for path in ("/run/who", "/tmp/who", "/etc/who", "/var/lib/gemel/who", "/dev/shm/who"):
            check(box["node1"].exec("cat", path).stdout == "node1\n", f"{path} of node1 is not its own")
            check(not Path(path).exists(), f"{path} leaked to the machine")
        box.cut_power("node1")
        box.power_on("node1")
        check(box["node1"].exec("cat", "/var/lib/gemel/who").stdout == "node1\n", "the disk forgot without --lossy-disks")
        for path in ("/run/who", "/tmp/who", "/dev/shm/who"):
            check(box["node1"].exec("test", "-e", path, check=False).returncode == 1, f"{path} survived a power cut")


def test_two_sandboxes_coexist():
    with Sandbox(product=False) as first:
        with Sandbox(product=False) as second:
            check(first["node1"].address("control") != second["node1"].address("control"), "both have the same subnet")
            check(not reaches(first["node1"], second["node1"].address("control")), "one sandbox reaches the other")
            second.cut_link("all")
            check(reaches(first["node1"], first["node2"].address("control")), "a cut in one sandbox cut the other")
        check(reaches(first["node1"], first["node2"].address("control")), "down of one sandbox broke the other")


def test_down_leaves_nothing():
    with Sandbox(witness=True, lossy_disks=True, product=False) as box:
        directory, namespaces = box.live().state.directory, namespaces_of(box)
        box["node1"].start("tail", "-f", "/dev/null")
        box.client.start("tail", "-f", "/dev/null")
        box.cut_power("node2")
        box.power_on("node2")
        box.pause("node1")
        alive = leftovers_of(box.id, directory, namespaces)
        check(any("process" in line for line in alive) and any("mount" in line for line in alive),
              f"this test's eyes are shut: of a living sandbox it sees only {alive}")
        box.run("down")
        wait_for(lambda: not leftovers_of(box.id, directory, namespaces), 3,
                 f"nothing to be left, not {leftovers_of(box.id, directory, namespaces)}")


def _start_up(sandbox_id):
    return subprocess.Popen(
        ["/usr/bin/python3", "-B", "-m", "gemel_sandbox", "--id", sandbox_id, "up", "--witness", "--lossy-disks", "--bin",
         str(build_directory())], env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _populated(sandbox_id, child):
    return Cgroup.top(cgroup_name(sandbox_id)).child(child).populated()


STAGES = {
    "it is registered": lambda name: (REGISTRY / name).is_symlink(),
    "the switch lives": lambda name: _populated(name, "switch"),
    "a host boots": lambda name: _populated(name, "node1"),
    "a disk is mounted": lambda name: _populated(name, "node2-disk"),
    "a BMC lives": lambda name: _populated(name, "bmc1"),
    "a host is on": lambda name: (DEFAULT_HOME / name / "hosts" / "node1" / "power").exists(),
}


def test_down_after_a_crash_in_the_middle_of_up():
    """SIGKILL of the tool at every stage of `up`; `down` and `up` both clean what it left."""
    for number, (stage, reached) in enumerate(STAGES.items()):
        sandbox_id = new_id()
        tool = _start_up(sandbox_id)
        wait_for(lambda: reached(sandbox_id) or tool.poll() is not None, 15, f"up to come so far that {stage}")
        tool.send_signal(signal.SIGKILL)
        tool.wait()
        if number % 2:
            done = sandbox_command("--id", sandbox_id, "up", "--bin", str(build_directory()))
            # On a quick machine the tool was done before it was killed: then there was no crash to clean up after.
            check(done.returncode == 0 or "is up already" in done.stderr, f"up after a crash when {stage}: {done.stderr}")
        done = sandbox_command("--id", sandbox_id, "down")
        check(done.returncode == 0, f"down after a crash when {stage}: {done.stderr}")
        wait_for(lambda: not leftovers_of(sandbox_id, DEFAULT_HOME / sandbox_id), 3,
                 f"nothing to be left after a crash when {stage}, not "
                 f"{leftovers_of(sandbox_id, DEFAULT_HOME / sandbox_id)}")


# Prints "TIME SOURCE-MAC FLAGS" of every frame that comes in on any interface; TIME is the kernel's, of its arrival;
# FLAGS: TCP's, or - for other protocols. Ends when this host sends a datagram to port 9 (LAST_FRAME).
SNIFFER = """
import socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, 35, 1)             # SO_TIMESTAMPNS
print("ready")
while True:
    f, extra, _, where = s.recvmsg(65536, 100)
    seconds, nanoseconds = struct.unpack("qq", extra[0][2])
    ip = f[14:]
    if where[2] == 4:                              # outgoing: only a datagram to port 9 matters, it ends the watch
        if ip[9:10] == b"\\x11" and ip[22:24] == b"\\0\\x09": break
        continue
    tcp = f[12:14] == b"\\x08\\x00" and ip[9] == 6
    flags = ip[(ip[0] & 15) * 4 + 13] if tcp else None
    names = "".join(n for bit, n in ((1, "F"), (2, "S"), (4, "R"), (8, "P"), (16, "A")) if flags and flags & bit) or "-"
    print(seconds + nanoseconds / 1e9, f[6:12].hex(":"), names)
"""
LAST_FRAME = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.sendto(b"", ("255.255.255.255", 9))
"""
SERVER = """
import socket
s = socket.create_server(("0.0.0.0", 9000)); print("ready")
peers = []
while True:
    peers.append(s.accept()[0]); print("accepted")
"""
CLIENT = """
import select, socket, sys
s = socket.create_connection((sys.argv[1], 9000)); print("connected")
while len(sys.argv) > 2: s.send(b"x" * 1000); select.select([], [], [], 0.001)
s.recv(1)
"""


def _line(process, word):
    """Reads a process's output up to the line that begins with word."""
    for line in process.stdout:
        if line.startswith(word):
            return line
    raise TestFailure(f"a helper ended before it said '{word}'")


def _frames(sniffer, mac, since):
    """What the sniffer, which has come to its end, saw of mac after `since`."""
    lines = [line.split() for line in sniffer.stdout if line.count(" ") == 2]
    return [flags for when, source, flags in lines if source == mac and float(when) > since]


def _connection_under(end_client, stream=False):
    """A connection from node1 to node2 over the control network is ended by end_client(box). Returns what node2 saw of
    node1 since then, and whether node2 still believes in the connection."""
    with Sandbox(product=False) as box:
        mac = box.layout().mac("control", "node1")
        _line(box["node2"].python(SERVER), "ready")
        sniffer = box["node2"].python(SNIFFER)
        _line(sniffer, "ready")
        client = box["node1"].python(CLIENT, box["node2"].address("control"), *(["stream"] if stream else []))
        _line(client, "connected")
        moment = time.time()
        end_client(box)
        client.wait(5)
        established = "ESTAB" in box["node2"].exec("ss", "-Htn", "sport", "=", ":9000").stdout
        box["node2"].exec("ip", "route", "add", "default", "dev", "control")
        box["node2"].exec("/usr/bin/python3", "-c", LAST_FRAME)
        return _frames(sniffer, mac, moment), established


def test_power_cut_emits_no_frame():
    """The control first: a killed client's kernel does send a FIN, and this test sees it."""
    frames, established = _connection_under(lambda box: box["node1"].exec("pkill", "-KILL", "-f", "create_connection"))
    check(any("F" in flags or "R" in flags for flags in frames), f"the sniffer saw no FIN of a killed client: {frames}")
    check(not established, "node2 did not notice that the client was killed")
    frames, established = _connection_under(lambda box: box.cut_power("node1"))
    check(frames == [], f"a host without power sent {frames}")
    check(established, "node2 learned of the power cut from the dead host")


def test_power_cut_of_a_busy_host():
    """Data in full flow: no FIN, no RST, only the data that was on its way."""
    frames, established = _connection_under(lambda box: box.cut_power("node1"), stream=True)
    check(not any("F" in flags or "R" in flags or "S" in flags for flags in frames), f"a dying host said {set(frames)}")
    check(established, "node2 learned of the power cut from the dead host")


ETCD = ["--data-dir", "/var/lib/gemel/store", "--heartbeat-interval", "100", "--election-timeout", "1000",
        "--client-cert-auth", "--peer-client-cert-auth"]
for _scope in ("", "peer-"):
    ETCD += [f"--{_scope}cert-file", "/etc/gemel/pki/node.crt", f"--{_scope}key-file", "/etc/gemel/pki/node.key",
             f"--{_scope}trusted-ca-file", "/etc/gemel/pki/ca.crt"]


def start_etcd(box, name):
    """A stand-in for clusterd: its member of the store, as the bootstrap marker describes it."""
    marker = json.loads(box[name].exec("cat", "/var/lib/gemel/bootstrap-pending").stdout)
    own = next(member for member in marker["members"] if member["name"] == name)
    cluster = ",".join(f"{member['name']}={member['peer_url']}" for member in marker["members"])
    return box[name].start("etcd", "--name", name, "--initial-cluster", cluster, "--initial-cluster-token",
                           marker["cluster_id"], "--listen-client-urls", own["client_url"], "--advertise-client-urls",
                           own["client_url"], "--listen-peer-urls", own["peer_url"], "--initial-advertise-peer-urls",
                           own["peer_url"], *ETCD, stdout=subprocess.DEVNULL)


def etcdctl(host, *arguments):
    address = host.address("control")
    return host.exec("env", "ETCDCTL_API=3", "etcdctl", "--endpoints", f"https://{address}:2379", "--cacert",
                     "/etc/gemel/pki/ca.crt", "--cert", "/etc/gemel/pki/node.crt", "--key", "/etc/gemel/pki/node.key",
                     "--command-timeout=2s", *arguments, timeout_s=10).stdout


def test_etcd_goes_on_without_one_host():
    """Certificates, witness and disks are right: a trio forms, survives a power cut, and takes the lost one back."""
    with Sandbox(witness=True, product=False, lossy_disks=True) as box:
        for name in ("node1", "node2", "witness"):
            start_etcd(box, name)
        wait_for(lambda: "OK" in etcdctl(box["node1"], "put", "k", "1"), 15, "the store to accept a write")
        box.cut_power("node1")
        started = time.monotonic()
        wait_for(lambda: "OK" in etcdctl(box["node2"], "put", "k", "2"), 10, "the store to go on without node1")
        check(time.monotonic() - started < 8, "the store took longer than 8 s to go on")
        box.power_on("node1")
        start_etcd(box, "node1")
        wait_for(lambda: etcdctl(box["node1"], "get", "k", "--print-value-only").strip() == "2", 15, "node1 to catch up")
        box.cut_power("witness")
        wait_for(lambda: "OK" in etcdctl(box["node1"], "put", "k", "3"), 10, "the store to go on without the witness")
        box.cut_power("node2")
        refused = box["node1"].exec("true", check=False)
        check(refused.returncode == 0, "node1 is gone")
        try:
            etcdctl(box["node1"], "put", "k", "4")
        except TestFailure:
            return
        raise TestFailure("one of three members accepted a write")


def power_of(box, host):
    return next(entry["power"] for entry in box.status()["hosts"] if entry["name"] == host)


def test_fencing_by_bmc():
    with Sandbox(product=False) as box:
        check("ON" in box.fence("node1", "node2", "status").stdout, "status of a host with power is not ON")
        wrong = box.fence("node1", "node2", "off", password="wrong")
        check(wrong.returncode != 0 and power_of(box, "node2") == "on", "a wrong password switched node2 off")
        started = time.monotonic()
        done = box.fence("node1", "node2", "off")
        seconds = time.monotonic() - started
        check(done.returncode == 0, f"off failed: {done.stderr}")
        check(power_of(box, "node2") == "off", "the BMC said off and the host lives")
        check(seconds < 5, f"off took {seconds:.1f} s")
        check(box.fence("node1", "node2", "status").returncode == 2, "status of a host without power is not OFF")
        check(box.fence("node1", "node2", "on").returncode == 0, "on failed")
        wait_for(lambda: power_of(box, "node2") == "on" and reaches(box["node1"], box["node2"].address("control")), 10,
                 "node2 to boot")


def test_bmc_dies_with_the_rack():
    with Sandbox(product=False) as box:
        box.cut_power("node2", with_bmc=True)
        quick = {"shell_timeout": "2", "login_timeout": "2", "power_timeout": "2"}
        done = box.fence("node1", "node2", "status", **quick)
        check(done.returncode not in (0, 2), "a BMC without power answered")
        box.power_on("node2")
        wait_for(lambda: "ON" in box.fence("node1", "node2", "status").stdout, 10, "the BMC to answer again")
        box.cut_link("mgmt", "bmc2")
        check(box.fence("node1", "node2", "status", **quick).returncode not in (0, 2), "a BMC answered through a cut cable")


TICKS = """
import select, time
while True:
    print(time.clock_gettime(time.CLOCK_BOOTTIME)); select.select([], [], [], 0.01)
"""


def test_pause_and_resume():
    with Sandbox(product=False) as box:
        ticker = box["node1"].python(TICKS)
        first = float(ticker.stdout.readline())
        box.pause("node1")
        paused = time.clock_gettime(time.CLOCK_BOOTTIME)
        check(power_of(box, "node1") == "paused", "status does not say paused")
        check("resume" in box.refused("exec", "node1", "true"), "exec on a paused host does not say what to do")
        wait_for(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > paused + 1.0, 5, "a second to pass")
        box.resume("node1")
        resumed = time.clock_gettime(time.CLOCK_BOOTTIME)
        ticks = [first]
        while ticks[-1] < resumed:
            ticks.append(float(ticker.stdout.readline()))
        check(not [tick for tick in ticks if paused + 0.1 < tick < resumed - 0.2], "something ran in a paused host")
        check(max(b - a for a, b in zip(ticks, ticks[1:])) > 0.9, "the host's clock stood still with it")
        check(box["node1"].exec("true").returncode == 0, "the resumed host is not usable")


RECEIVER = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 9001)); print("ready")
while True: print("got", s.recv(100).decode())
"""
SENDER = """
import select, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    s.sendto(sys.argv[2].encode(), (sys.argv[1], 9001)); select.select([], [], [], 0.02)
"""


def test_cuts_are_what_they_say():
    with Sandbox(witness=True, product=False) as box:
        one, two, witness = box["node1"], box["node2"], box["witness"]
        box.cut_link("link2")
        check(not reaches(one, two.address("link2")), "link2 is cut and carries frames")
        check(reaches(one, two.address("link1")), "link2 is cut and link1 is dead")
        box.cut_link("control", "node1")
        check(not reaches(one, two.address("control")), "node1's control port is cut and carries frames")
        check(reaches(two, witness.address("control")), "node1's port is cut and node2 lost the witness")
        box.heal()
        wait_for(lambda: reaches(one, two.address("link2")) and reaches(one, two.address("control")), 10, "cuts to heal")
        receivers = {host: host.python(RECEIVER) for host in (one, two)}
        for receiver in receivers.values():
            _line(receiver, "ready")
        one.python(SENDER, two.address("control"), "to-two")
        two.python(SENDER, one.address("control"), "to-one")
        _line(receivers[one], "got")
        _line(receivers[two], "got")
        box.cut_link("control", "--from", "node1", "--to", "node2")
        before = two.exec("cat", "/proc/net/snmp").stdout
        for _ in range(20):
            _line(receivers[one], "got")
        check(_datagrams(two.exec("cat", "/proc/net/snmp").stdout) - _datagrams(before) == 0,
              "frames pass against the one-way cut")


def _datagrams(snmp):
    rows = [line.split() for line in snmp.splitlines() if line.startswith("Udp:")]
    return int(dict(zip(rows[0], rows[1]))["InDatagrams"])


BULK_SERVER = """
import socket
s = socket.create_server(("0.0.0.0", 9002)); print("ready"); c = s.accept()[0]
while c.recv(1 << 20): pass
c.send(b"!")
"""
BULK_CLIENT = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 9002)); t = time.monotonic()
s.sendall(bytes(int(sys.argv[2]))); s.shutdown(socket.SHUT_WR); s.recv(1); print(time.monotonic() - t)
"""


def test_link_rate():
    """20 MB over a 100 Mbit/s link take 1.6 s; over the unlimited control network much less."""
    with Sandbox(product=False, link_rate="100mbit") as box:
        seconds = {}
        for network in ("link1", "control"):
            server = box["node2"].python(BULK_SERVER)
            _line(server, "ready")
            client = box["node1"].python(BULK_CLIENT, box["node2"].address(network), "20000000")
            seconds[network] = float(client.stdout.readline())
            server.wait(10)
        check(1.5 < seconds["link1"] < 4, f"20 MB over link1 took {seconds['link1']:.2f} s at 100 Mbit/s")
        check(seconds["control"] < 1, f"20 MB over the control network took {seconds['control']:.2f} s")


def test_guest_address_moves_between_hosts():
    """A guest keeps its address when it changes hosts: the client outside reaches it wherever it is."""
    with Sandbox(product=False) as box:
        address = box.layout().guest_address(1)
        for host, other in (("node1", "node2"), ("node2", "node1")):
            box[other].exec("ip", "address", "flush", "dev", "br-guest")
            box[host].exec("ip", "link", "set", "br-guest", "address", "02:67:00:00:00:01")
            box[host].exec("ip", "address", "add", f"{address}/24", "dev", "br-guest")
            reaches(box[host], box.layout().address("guest", "client"))   # a guest that comes up speaks first
            wait_for(lambda: reaches(box.client, address), 10, f"the client to reach the guest's address on {host}")


STAND_IN = "#!/bin/sh\nsetsid tail -f /dev/null </dev/null >/dev/null 2>&1 &\necho $! >/run/child-of-{0}\nexec tail -f /dev/null\n"


def test_units_are_kept_as_systemd_would():
    """Restart= brings a killed daemon back; KillMode=process spares clusterd's child, blockd's dies with it."""
    programs = {name: STAND_IN.format(name) for name in ("gemel-blockd", "gemel-clusterd")}
    with Sandbox(product=False, programs=programs) as box:
        host = box["node1"]
        for name, child_survives in (("gemel-clusterd", True), ("gemel-blockd", False)):
            child = wait_for(lambda name=name: host.exec("cat", f"/run/child-of-{name}").stdout.strip(), 5, "a child")
            before = host.unit(name)["pid"]
            host.kill(name)
            wait_for(lambda name=name, before=before: host.unit(name)["state"] == "active"
                     and host.unit(name)["pid"] not in (0, before), 10, f"{name} to be restarted")
            alive = host.exec("kill", "-0", child, check=False).returncode == 0
            check(alive == child_survives, f"{name}'s child {'lives' if alive else 'died'} after its parent was killed")
            check("SIGKILL" in host.unit(name)["last_exit"], "status does not say how it ended")
            host.stop_unit(name)
            check(host.unit(name)["state"] == "inactive", f"{name} did not stay stopped")
            host.start_unit(name)
        check(host.unit("gemel-guard")["state"] == "not-installed", "a missing program is not reported")
        check("not running" in box.refused("kill", "node1", "gemel-guard"), "killing what does not run is not refused")


def test_libvirt_runs_guests_in_every_host():
    xml = ("<domain type='qemu'><name>g</name><memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os>"
           "<devices><interface type='bridge'><source bridge='br-guest'/></interface></devices></domain>")
    with Sandbox(product=False) as box:
        uuids = set()
        for name in ("node1", "node2"):
            host = box[name]
            wait_for(lambda host=host: host.exec("virsh", "-c", "qemu:///system", "uri"), 15, "libvirtd to answer")
            host.exec("sh", "-c", "cat >/tmp/g.xml", input_text=xml)
            host.exec("virsh", "-c", "qemu:///system", "create", "/tmp/g.xml")
            check("running" in host.exec("virsh", "-c", "qemu:///system", "domstate", "g").stdout, "the guest does not run")
            uuids.add(re.search("<uuid>(.*?)</uuid>", host.exec("virsh", "-c", "qemu:///system", "capabilities").stdout)[1])
        check(len(uuids) == 2, "both libvirts are the same host")
        pid = box["node1"].exec("pgrep", "-f", "qemu-system").stdout.split()[0]
        box["node1"].kill("libvirtd")
        wait_for(lambda: box["node1"].unit("libvirtd")["restarts"] == 1 and
                 "running" in box["node1"].exec("virsh", "-c", "qemu:///system", "domstate", "g").stdout, 15,
                 "libvirtd to come back to its guest")
        check(box["node1"].exec("pgrep", "-f", "qemu-system").stdout.split()[0] == pid, "the guest was restarted")


# Acknowledges (prints) a number only after it is stable in three ways: appended, in a database, by rename. A fourth
# file is written without fsync.
WRITER = """
import itertools, os, sqlite3
os.chdir("/var/lib/gemel")
log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
careless = os.open("careless", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
db = sqlite3.connect("db"); db.execute("pragma synchronous = full")
db.execute("create table if not exists t (n integer)"); db.commit()
start = (db.execute("select max(n) from t").fetchone()[0] or 0) + 1
print("start", start)
for n in itertools.count(start):
    os.write(careless, b"%15d\\n" % n)
    os.write(log, b"%15d\\n" % n); os.fdatasync(log)
    db.execute("insert into t values (?)", (n,)); db.commit()
    new = os.open("current.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(new, b"%d" % n); os.fsync(new); os.close(new)
    os.rename("current.new", "current")
    directory = os.open(".", os.O_RDONLY); os.fsync(directory); os.close(directory)
    print("acknowledged", n)
"""


DATABASE = """
import sqlite3
db = sqlite3.connect("/var/lib/gemel/db")
print(db.execute("pragma integrity_check").fetchone()[0], db.execute("select count(distinct n) from t").fetchone()[0])
"""


def _numbers(path):
    """The whole numbers in a file of 16-byte lines; a torn tail is not one."""
    data = path.read_bytes() if path.exists() else b""
    lines = [data[i:i + 16] for i in range(0, len(data), 16)]
    return {int(line) for line in lines if len(line) == 16 and line[:15].strip().isdigit()}


def test_lossy_disk_keeps_what_was_synced_and_loses_the_rest():
    losses = 0
    with Sandbox(nodes=1, product=False, lossy_disks=True, seed=7) as box:
        host = box["node1"]
        for cycle in range(6):
            writer = host.python(WRITER)
            first = int(_line(writer, "start").split()[1])
            for _ in range(40 + 7 * cycle):
                _line(writer, "acknowledged")
            box.cut_power("node1")
            numbers = [int(line.split()[1]) for line in writer.stdout if line.startswith("acknowledged ") and line[-1] == "\n"]
            last = max(numbers, default=first + 39)
            wanted = set(range(1, last + 1))
            check(wanted <= _numbers(host.path("/var/lib/gemel/log")), f"cycle {cycle}: fdatasync'ed records are lost")
            check(int(host.path("/var/lib/gemel/current").read_text()) >= last, f"cycle {cycle}: a synced rename is lost")
            losses += len(wanted - _numbers(host.path("/var/lib/gemel/careless")))
            box.power_on("node1")
            state, count = host.exec("/usr/bin/python3", "-c", DATABASE).stdout.split()
            check(state == "ok" and int(count) >= last, f"cycle {cycle}: {last} acknowledged, the database: {state} {count}")
    check(losses > 0, "six power cuts lost nothing of a file that was never synced: the disk is not lossy")


def test_lossy_disk_carries_direct_and_asynchronous_io():
    """O_DIRECT, io_uring with fixed buffers, O_DSYNC, shared mappings and OFD locks, verified by fio and a program."""
    with Sandbox(nodes=1, product=False, lossy_disks=True) as box:
        host = box["node1"]
        for options in (["--direct=1", "--ioengine=io_uring", "--fixedbufs", "--fdatasync=16"],
                        ["--direct=0", "--ioengine=psync", "--sync=dsync"], ["--direct=0", "--ioengine=mmap"]):
            done = host.exec("fio", "--name=v", "--filename=/var/lib/gemel/fio", "--size=8M", "--rw=randwrite", "--bs=4k",
                             "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", *options, check=False, timeout_s=60)
            check(done.returncode == 0, f"fio {options}: {done.stdout[-500:]} {done.stderr[-500:]}")
        done = host.exec("/usr/bin/python3", "-c", LOCKS, check=False)
        check(done.stdout == "locked out\n", f"locks of two openers: {done.stdout}{done.stderr}")


LOCKS = """
import fcntl, os, struct
lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 100, 1, 0)
one, two = (os.open("/var/lib/gemel/fio", os.O_RDWR) for _ in range(2))
fcntl.fcntl(one, fcntl.F_OFD_SETLK, lock)
try: fcntl.fcntl(two, fcntl.F_OFD_SETLK, lock)
except BlockingIOError: print("locked out")
"""


def test_bad_input_is_one_line():
    with Sandbox(product=False) as box:
        for arguments, expected in (
                (["cut-power", "node9"], "expected one of node1, node2"), (["cut-link", "link9"], "expected all or one of"),
                (["cut-link", "link1", "witness"], "no host 'witness'"), (["cut-link", "link1", "--from", "node1"], "--to"),
                (["kill", "node1", "nothing"], "no unit"),
                (["kill", "node1", "libvirtd", "NOISE"], "is no signal"), (["up"], "is up already"),
                (["exec", "node1"], "expected a command"), (["cut-power", "node1", "--id", "Bad"], "no sandbox id")):
            check(expected in box.refused(*arguments), f"{arguments} said: {box.refused(*arguments)}")
        check("was on already" in box.run("power-on", "node1"), "power-on of a host with power")
        box.cut_power("node1")
        check("power-on node1" in box.refused("exec", "node1", "true"), "exec on a host without power")
        for arguments, expected in ((["--nodes", "0"], "1 to 16"), (["--nodes", "3", "--witness"], "--nodes 2"),
                                    (["--links", "99"], "1 to 8"), (["--link-rate", "fast"], "e.g. 1gbit"),
                                    (["--bin", "/nonexistent"], "no directory"), (["--dir", "/etc"], "is not empty")):
            done = sandbox_command("--id", new_id(), "up", *arguments)
            check(done.returncode == 1 and expected in done.stderr and len(done.stderr.strip().splitlines()) == 1,
                  f"up {arguments} said: {done.stderr}")
    left = list(REGISTRY.glob(f"test-{os.getpid()}-*")) if REGISTRY.exists() else []
    check(not left, f"refused commands left {left}")


if __name__ == "__main__":
    raise SystemExit("run tests/system/run.py sandbox")
