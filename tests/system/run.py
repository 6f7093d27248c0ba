#!/usr/bin/python3
"""Runs the system tests: real daemons in sandboxes. Needs root and a build.

    tests/system/run.py [--long] [--list] [NAME ...]     NAME: a file (sandbox), or file.test, or a part of a test's name.
    Slow tests run with --long, or when file.test names one.

One line per test with its seconds, at the end what failed, once more, and `N passed, N failed`; exit code 0 only when
all passed. Tests run one after the other: they measure times, and the machine is small.
"""
import argparse
import importlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path

TEST_LIMIT_S = 180
LONG_TEST_LIMIT_S = 1200
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

from lib import sandbox as library  # noqa: E402  (the path above makes it importable)


def discover(names, with_long):
    """(name, function) of every wanted test, in the order of files and of definitions."""
    found = []
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(path.stem)
        short = path.stem.removeprefix("test_")
        for attribute, function in vars(module).items():
            if not attribute.startswith("test_") or not callable(function):
                continue
            name = f"{short}.{attribute.removeprefix('test_')}"
            wanted = any(name == want or short == want or want in name for want in names) if names else True
            if wanted and (with_long or name in names or not getattr(function, "is_long", False)):
                found.append((name, function))
    return found


def out_of_time(*_):
    raise library.TestFailure("the test did not end in its time; it hangs in the line above")


def run_one(name, function):
    """None where the test passed, else the lines that say what failed and where."""
    library.set_current_test(name)
    started = time.monotonic()
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(getattr(function, "limit_s", LONG_TEST_LIMIT_S if getattr(function, "is_long", False) else TEST_LIMIT_S))
    try:
        try:
            function()
        finally:
            signal.alarm(0)
    except Exception as error:   # a broken test is a failed test; the others still run
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).name.startswith("test_")] or frames
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        lines = [f"FAIL {time.monotonic() - started:6.1f} s  {name}",
                 f"     {Path(own[-1].filename).name}:{own[-1].lineno}: {own[-1].line}",
                 "     " + (kind + str(error)).replace("\n", "\n     ")]
        failure = "\n".join(lines)
        print(failure, flush=True)
        return failure
    print(f"ok   {time.monotonic() - started:6.1f} s  {name}", flush=True)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="the slow ones too")
    parser.add_argument("--list", action="store_true", help="only print the names")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    tests = discover(options.names, options.long)
    if options.list:
        print("\n".join(name for name, _ in tests))
        return 0
    if not tests:
        print("there is no such test; tests/system/run.py --list --long shows all", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("system tests need root (namespaces, mounts): run the same with sudo", file=sys.stderr)
        return 2
    library.remove_leftovers()
    failures = [failure for name, function in tests if (failure := run_one(name, function))]
    if failures:   # again, at the end: whoever sees only a log's last lines sees why
        print("\n".join(failures))
    print(f"{len(tests) - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
