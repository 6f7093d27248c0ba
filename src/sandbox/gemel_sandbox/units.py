"""Reading systemd unit files: the subset the packaged units use, with systemd's meaning. Pure.

A directive that is neither understood nor known to be harmless is refused: a unit that works here and means
something else under systemd would make every system test a lie.
"""
import re
import signal
from dataclasses import dataclass, field

# They only restrict or describe; a daemon that works without them works with them.
_IGNORED = {
    "Description", "Documentation", "WantedBy", "Also", "ProtectSystem", "ProtectHome", "PrivateTmp", "NoNewPrivileges",
    "ProtectKernelTunables", "ProtectKernelModules", "ProtectControlGroups", "RestrictSUIDSGID", "LockPersonality",
    "RestrictRealtime", "SystemCallArchitectures", "SyslogIdentifier", "TasksMax", "Wants", "Requires", "BindsTo",
    "DefaultDependencies", "StandardOutput", "StandardError", "Before", "PartOf", "Delegate", "TimeoutStartSec",
}
_LIMITS = {"LimitNOFILE", "LimitMEMLOCK", "LimitCORE"}
_RESTARTS = {"no", "always", "on-failure"}
_KILL_MODES = {"control-group", "process", "mixed"}
_TYPES = {"simple", "exec"}
_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|min)?$")


class UnitError(Exception):
    """A unit file that this reader will not pretend to understand."""


@dataclass
class Unit:
    """One service; times in seconds."""
    name: str
    command: list = field(default_factory=list)
    type: str = "simple"
    after: list = field(default_factory=list)
    condition_paths: list = field(default_factory=list)
    environment: dict = field(default_factory=dict)
    restart: str = "no"
    restart_s: float = 0.1
    start_limit_burst: int = 5
    start_limit_interval_s: float = 10.0
    kill_mode: str = "control-group"
    kill_signal: int = signal.SIGTERM
    stop_timeout_s: float = 90.0
    runtime_directories: list = field(default_factory=list)
    state_directories: list = field(default_factory=list)
    limits: dict = field(default_factory=dict)
    oom_score_adjust: int | None = None
    realtime_priority: int = 0
    scheduling_policy: str = ""
    nice: int = 0
    runtime_preserve: str = ""


def parse_duration(text):
    if text == "infinity":
        return float("inf")
    match = _DURATION.match(text)
    if not match:
        raise UnitError(f"expected a time such as 5, 200ms or 1min, found '{text}'")
    return float(match[1]) * {"ms": 0.001, "s": 1.0, "min": 60.0, None: 1.0}[match[2]]


def _choice(text, allowed):
    if text not in allowed:
        raise UnitError(f"expected one of {', '.join(sorted(allowed))}, found '{text}'")
    return text


def _add_environment(unit, text):
    for pair in text.split():
        key, _, value = pair.strip('"').partition("=")
        unit.environment[key] = value


def _set_duration(attribute):
    return lambda unit, text: setattr(unit, attribute, parse_duration(text))


def _set_choice(attribute, allowed):
    return lambda unit, text: setattr(unit, attribute, _choice(text, allowed))


def _set_number(attribute):
    return lambda unit, text: setattr(unit, attribute, int(text))


def _extend(attribute):
    return lambda unit, text: getattr(unit, attribute).extend(text.split())


_SETTERS = {
    "ExecStart": lambda unit, text: setattr(unit, "command", text.split()),
    "Type": _set_choice("type", _TYPES),
    "After": _extend("after"),
    "ConditionPathExists": _extend("condition_paths"),
    "Environment": _add_environment,
    "Restart": _set_choice("restart", _RESTARTS),
    "RestartSec": _set_duration("restart_s"),
    "StartLimitBurst": _set_number("start_limit_burst"),
    "StartLimitIntervalSec": _set_duration("start_limit_interval_s"),
    "KillMode": _set_choice("kill_mode", _KILL_MODES),
    "KillSignal": lambda unit, text: setattr(unit, "kill_signal", signal.Signals[text].value),
    "TimeoutStopSec": _set_duration("stop_timeout_s"),
    "RuntimeDirectory": _extend("runtime_directories"),
    "StateDirectory": _extend("state_directories"),
    "OOMScoreAdjust": _set_number("oom_score_adjust"),
    "CPUSchedulingPolicy": _set_choice("scheduling_policy", {"rr", "fifo", "other"}),
    "CPUSchedulingPriority": _set_number("realtime_priority"),
    "Nice": _set_number("nice"),
    # systemd removes a runtime directory at stop unless told otherwise; we never remove one.
    "RuntimeDirectoryPreserve": _set_choice("runtime_preserve", {"yes"}),
}


def parse_unit(name, text):
    """A Unit from a file's text; UnitError names the line."""
    unit = Unit(name)
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;[":
            continue
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip()
        try:
            if not equals:
                raise UnitError("expected KEY=VALUE")
            if key in _LIMITS:
                unit.limits[key] = value
            elif key in _SETTERS:
                _SETTERS[key](unit, value)
            elif key not in _IGNORED:
                raise UnitError(f"directive '{key}' is not known here; teach units.py its meaning")
        except (UnitError, ValueError, KeyError) as problem:
            raise UnitError(f"{name}:{number}: {problem}") from problem
    if not unit.command:
        raise UnitError(f"{name}: expected an ExecStart= line")
    if unit.runtime_directories and not unit.runtime_preserve:
        raise UnitError(f"{name}: expected RuntimeDirectoryPreserve=yes beside RuntimeDirectory= "
                        "(a restart must not wipe what other daemons keep there)")
    return unit


def start_order(units):
    """Units sorted so that each comes after those it names in After=; names from elsewhere are ignored."""
    by_name = {unit.name: unit for unit in units}
    ordered, visiting = [], set()

    def visit(unit):
        if unit in ordered:
            return
        if unit.name in visiting:
            raise UnitError(f"{unit.name}: After= goes in a circle")
        visiting.add(unit.name)
        for earlier in unit.after:
            if earlier in by_name:
                visit(by_name[earlier])
        ordered.append(unit)

    for unit in units:
        visit(unit)
    return ordered
