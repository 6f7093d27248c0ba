"""The command line. Every message says what to do next; errors are one line and exit code 1."""
import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from gemel_sandbox import config
from gemel_sandbox import sandbox as sandboxes
from gemel_sandbox.config import TIMING_KEYS
from gemel_sandbox.errors import COMMAND, SandboxError
from gemel_sandbox.host import REPOSITORY, signal_number
from gemel_sandbox.layout import CLIENT, DEFAULT_HOME, DEFAULT_ID, WITNESS, check_id
from gemel_sandbox.run import HOST_PATH
from gemel_sandbox.state import State, all_ids, locked

EXEC_ENVIRONMENT = ("TERM", "LANG")


def parser():
    top = argparse.ArgumentParser(prog=COMMAND, description="Real clusters on one machine.")
    top.add_argument("--id", default=None, help=f"which sandbox (default {DEFAULT_ID})")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name, text, *arguments):
        command = commands.add_parser(name, description=text, **({"help": text} if text else {}))
        command.add_argument("--id", dest="late_id", default=None, help=argparse.SUPPRESS)
        for names, options in arguments:
            command.add_argument(*names, **options)
        return command

    host = (["host"], {"metavar": "HOST"})
    unit = (["unit"], {"metavar": "UNIT", "help": "e.g. gemel-blockd"})
    add("up", "build a sandbox and switch its hosts on",
        (["--nodes"], {"type": int, "default": 2}), (["--witness"], {"action": "store_true"}),
        (["--links"], {"type": int, "default": 3, "help": "replication links (default 3)"}),
        (["--link-rate"], {"default": "", "help": "limit of each replication link, e.g. 1gbit"}),
        (["--lossy-disks"], {"action": "store_true", "help": "unsynced writes are partly lost at a power cut"}),
        (["--ignore-syncs"], {"action": "store_true", "help": "with --lossy-disks: no sync makes anything stable, as if the "
                              "programs did none (a control experiment)"}),
        (["--seed"], {"type": int, "default": 1, "help": "decides what lossy disks lose"}),
        (["--timing"], {"action": "append", "default": [], "metavar": "KEY=MS", "help": "a time limit of the cluster, e.g. "
                                                                             "fence_bound_ms=10000; may be repeated"}),
        (["--bin"], {"default": None, "metavar": "DIR", "help": "the product's programs (an install or build directory; in a "
                                                  "source tree the last build)"}),
        (["--dir"], {"default": None, "help": f"where everything is kept (default {DEFAULT_HOME}/ID)"}))
    add("down", "remove a sandbox completely", (["--all"], {"action": "store_true", "help": "every sandbox"}))
    add("status", "hosts, daemons, BMCs and cuts", (["--json"], {"action": "store_true"}))
    add("exec", "run a command inside a host, or from `client` on the guests' network", host,
        (["argv"], {"metavar": "CMD", "nargs": argparse.REMAINDER}))
    add("cut-power", "pull the plug: no frame, no flush, everything dead at once", host,
        (["--with-bmc"], {"action": "store_true", "help": "its BMC dies too"}))
    add("shutdown", "shut a host down as its init system does: it leaves the cluster, then power off", host)
    add("power-on", "give power back to a host and its BMC", host)
    add("cut-link", "drop all frames of a network, of one host's port, or in one direction",
        (["network"], {"help": "linkN, control, mgmt, guest or all; several with commas"}),
        (["host"], {"metavar": "HOST", "nargs": "?", "default": None}),
        (["--from"], {"dest": "source", "metavar": "A"}), (["--to"], {"dest": "sink", "metavar": "B"}))
    add("heal", "end all cuts of links")
    add("pause", "freeze everything in a host; clocks go on", host)
    add("resume", "let a paused host go on", host)
    add("kill", "send a signal to a daemon's main process", host, unit,
        (["signal"], {"nargs": "?", "default": "KILL"}), (["--all"], {"action": "store_true", "help": "all its processes"}))
    add("stop-unit", "stop a daemon; it stays stopped", host, unit)
    add("start-unit", "start a daemon", host, unit)
    add("bmc-power", "", (["node"], {}), (["action"], {"choices": ["on", "off", "reset"]}))
    return top


def timing_of(arguments):
    """["lease_ms=4000"] -> {"lease_ms": 4000}; whether the times fit together is checked by the daemons."""
    timing = {}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in TIMING_KEYS or not value.isdigit():
            raise SandboxError(f"--timing {argument}: expected KEY=MILLISECONDS with one of {', '.join(TIMING_KEYS)}")
        timing[key] = int(value)
    return timing


def command_up(options):
    directory = Path(os.path.abspath(options.dir)) if options.dir else DEFAULT_HOME / options.id
    state = State(options.id, str(directory), options.nodes, options.witness, options.links, options.link_rate,
                  options.lossy_disks, options.seed, timing=timing_of(options.timing), ignore_syncs=options.ignore_syncs)
    if options.ignore_syncs and not options.lossy_disks:
        raise SandboxError("--ignore-syncs expects --lossy-disks: other disks keep everything anyway")
    started = time.monotonic()

    def progress(text):
        print(f"  {time.monotonic() - started:4.1f} s  {text}", flush=True)

    sandbox = sandboxes.bring_up(state, options.bin, progress)
    suffix = id_suffix(options.id)
    absent = {unit["unit"] for host in sandbox.hosts() for unit in host.ask(command="status")["units"]
              if unit["state"] == "not-installed"}
    if absent:
        print(f"  not installed, so not started: {', '.join(sorted(absent))} (give the programs by --bin DIR)")
    print(f"sandbox '{options.id}' is up after {time.monotonic() - started:.1f} s; next: {COMMAND}{suffix} status, "
          f"{COMMAND}{suffix} exec node1 gemel status, {COMMAND}{suffix} down")


def command_down(options):
    ids = all_ids() if options.all else [options.id]
    for sandbox_id in ids:
        if sandboxes.take_down(sandbox_id):
            print(f"sandbox '{sandbox_id}' is gone; nothing of it is left")
        else:
            print(f"there was no sandbox '{sandbox_id}'; `{COMMAND} up` makes one")
    if not ids:
        print(f"there was no sandbox; `{COMMAND} up` makes one")


def command_status(options):
    report = sandboxes.Sandbox.load(options.id).report()
    if options.json:
        print(json.dumps(report, indent=1))
        return
    disks = f"lossy (seed {report['seed']})" if report["lossy_disks"] else "plain"
    print(f"sandbox {report['id']}  {report['directory']}  links {report['link_rate'] or 'unlimited'}  disks {disks}")
    for host in report["hosts"]:
        bmc = f"  BMC {host['bmc']['address']} {host['bmc']['state']}" if "bmc" in host else ""
        print(f"{host['name']:8} {host['power']:7} {host['addresses']['control']}{bmc}  logs {host['logs']}")
        for unit in host["units"]:
            extra = f", {unit['restarts']} restarts, last: {unit['last_exit']}" if unit["restarts"] else ""
            print(f"         {unit['unit']:24} {unit['state']}{extra}")
    for cut in report["cuts"]:
        print("cut: " + describe_cut(cut))
    suffix = id_suffix(options.id)
    if report["cuts"]:
        print(f"next: {COMMAND}{suffix} heal")
    for host in report["hosts"]:
        if host["power"] != "on":
            what = f"resume {host['name']}" if host["power"] == "paused" else f"power-on {host['name']}"
            print(f"next: {COMMAND}{suffix} {what}")


def command_exec(options):
    sandbox = sandboxes.Sandbox.load(options.id)
    argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not argv:
        raise SandboxError(f"expected a command after '{options.host}', e.g. {COMMAND} exec {options.host} ip address")
    environment = {key: os.environ[key] for key in EXEC_ENVIRONMENT if key in os.environ}
    environment |= {"PATH": HOST_PATH, "HOME": "/root"}
    if options.host == CLIENT:
        command = ["nsenter", "-t", str(sandbox.switch.client_pid()), "-n", "--", *argv]
        sandbox.switch.client_cgroup.join_function()()
    else:
        host = sandbox.host(options.host)
        if host.running() and host.cgroup.frozen():
            raise SandboxError(f"{options.host} is paused; run `{COMMAND} resume {options.host}` first")
        command = host.enter_command(argv)
        host.cgroup.join_function()()    # a power cut ends, and a pause stops, what runs in the host
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


def command_cut_power(sandbox, options):
    sandbox.cut_power(options.host, options.with_bmc)
    dead = " and its BMC are" if options.with_bmc else " is"
    return f"{options.host}{dead} without power; next: {COMMAND}{id_suffix(options.id)} power-on {options.host}"


def command_shutdown(options):
    """What the packaged unit does at a host's shutdown, word for word, then the end of everything in the host. The
    leave takes as long as the guests take; the sandbox's lock is held for the power only."""
    host = sandboxes.Sandbox.load(options.id).host(options.host)
    clean = ""
    if options.host != WITNESS:
        command, limit_s = config.stop_command(REPOSITORY)
        host.require_on()
        done = subprocess.run(host.enter_command(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=limit_s, check=False,
                              env={"PATH": HOST_PATH, "HOME": "/root"})
        print(done.stdout, end="")
        clean = " after a clean leave" if done.returncode == 0 else " WITHOUT having left the cluster"
    with locked(options.id):
        sandboxes.Sandbox.load(options.id).cut_power(options.host, False)
    print(f"{options.host} is off{clean}; next: {COMMAND}{id_suffix(options.id)} power-on {options.host}")


def command_power_on(sandbox, options):
    was_off = sandbox.power_on(options.host)
    return f"{options.host} {'is on' if was_off else 'was on already'}; next: {COMMAND}{id_suffix(options.id)} status"


def command_cut_link(sandbox, options):
    cuts = sandbox.cut_link(options.network.split(","), options.host, options.source, options.sink)
    return f"cut: {', '.join(map(describe_cut, cuts))}; next: {COMMAND}{id_suffix(options.id)} heal"


def command_heal(sandbox, options):
    healed = sandbox.heal()
    return f"{healed} cut{'' if healed == 1 else 's'} healed; next: {COMMAND}{id_suffix(options.id)} status"


def command_pause(sandbox, options):
    sandbox.set_paused(options.host, True)
    return f"{options.host} is frozen; next: {COMMAND}{id_suffix(options.id)} resume {options.host}"


def command_resume(sandbox, options):
    sandbox.set_paused(options.host, False)
    return f"{options.host} goes on; next: {COMMAND}{id_suffix(options.id)} status"


def command_bmc_power(sandbox, options):
    sandboxes.bmc_power(sandbox, options.node, options.action)
    return f"{options.node}: power {options.action}"


def command_kill(options):
    host = sandboxes.Sandbox.load(options.id).host(options.host)
    host.ask(command="kill", unit=options.unit, signal=signal_number(options.signal), all=options.all)
    print(f"{options.unit} got signal {options.signal}; next: {COMMAND}{id_suffix(options.id)} status")


def command_stop_unit(options):
    report = sandboxes.Sandbox.load(options.id).host(options.host).ask(120, command="stop", unit=options.unit)
    print(f"{options.unit} is {report['state']}; next: {COMMAND}{id_suffix(options.id)} start-unit "
          f"{options.host} {options.unit}")


def command_start_unit(options):
    report = sandboxes.Sandbox.load(options.id).host(options.host).ask(command="start", unit=options.unit)
    if report["state"] != "active":
        raise SandboxError(f"{options.unit} is {report['state']} {report['last_exit']}; see {report['log']}")
    print(f"{options.unit} is {report['state']}; its log: {report['log']}")


def describe_cut(cut):
    if "from" in cut:
        return f"{cut['network']} from {cut['from']} to {cut['to']}"
    return f"{cut['network']} of {cut['host'] or 'every host'}"


def id_suffix(sandbox_id):
    return "" if sandbox_id == DEFAULT_ID else f" --id {shlex.quote(sandbox_id)}"


# The first kind takes the lock itself or needs none (exec never returns); the second kind changes a live sandbox.
_FREE = {"up": command_up, "down": command_down, "status": command_status, "exec": command_exec, "kill": command_kill, "shutdown": command_shutdown,
         "stop-unit": command_stop_unit, "start-unit": command_start_unit}
_LOCKED = {"cut-power": command_cut_power, "power-on": command_power_on, "cut-link": command_cut_link,
           "heal": command_heal, "pause": command_pause, "resume": command_resume, "bmc-power": command_bmc_power}


def main(arguments):
    options = parser().parse_args(arguments)
    try:
        options.id = check_id(options.late_id or options.id or os.environ.get("GEMEL_SANDBOX", DEFAULT_ID))
        if os.geteuid() != 0:
            raise SandboxError("expected root (namespaces and mounts need it); run the same with sudo")
        if options.command in _FREE:
            _FREE[options.command](options)
        else:
            sandboxes.Sandbox.load(options.id)   # an unknown sandbox is reported without leaving a lock behind
            with locked(options.id):
                print(_LOCKED[options.command](sandboxes.Sandbox.load(options.id), options))
    except SandboxError as problem:
        print(f"{COMMAND}: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
