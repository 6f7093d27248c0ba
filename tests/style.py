#!/usr/bin/python3
"""The style test: rules of the house that a compiler does not check. Prints one line per breach; exit 1 if any.

Checked: functions of at most 70 lines; core without system headers, clocks, threads or random sources; core and sim
without floating sleeps; headers with a comment at their top and #pragma once; no unfinished-work words; include paths
from the source root; no sleeps in tests. Files over 500 lines are named but do not fail.
"""
import pathlib
import re
import subprocess
import sys

MAX_FUNCTION_LINES = 70
SOFT_FILE_LINES = 500
IMPURE_HEADERS = {
    "thread", "mutex", "shared_mutex", "condition_variable", "future", "chrono", "random", "iostream", "fstream",
    "cstdio", "ctime", "filesystem", "unistd.h", "time.h", "pthread.h", "fcntl.h", "spdlog/spdlog.h", "cstdlib",
}
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
SLEEP = re.compile(r"sleep_for|\busleep\(|\bnanosleep\(|time\.sleep\(")


def tracked(root):
    out = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True)
    if out.returncode == 0:
        return [root / line for line in out.stdout.splitlines() if (root / line).is_file()]
    return [p for p in root.rglob("*") if p.is_file() and "build" not in p.parts]


def strip_strings(line):
    return re.sub(r'"(\\.|[^"\\])*"|\'(\\.|[^\'\\])\'', '""', re.sub(r"//.*", "", line))


def function_lengths(lines):
    """Yields (first line, length) of every block that looks like a function body in clang-formatted code."""
    stack = []
    text = re.sub(r'R"\((.*?)\)"', lambda m: "\n" * m.group(1).count("\n"), "\n".join(lines), flags=re.S)
    for number, raw in enumerate(text.split("\n"), 1):
        line = strip_strings(raw)
        opened = line.count("{") - line.count("}")
        if opened > 0:
            header = line.strip()
            is_scope = re.match(r"^(inline )?(namespace|class|struct|enum|union|extern)\b", header) is not None
            for _ in range(opened):
                stack.append((number, is_scope))
        elif opened < 0:
            for _ in range(-opened):
                if not stack:
                    break
                first, is_scope = stack.pop()
                inside_function = any(not scope for _, scope in stack)
                if not is_scope and not inside_function:
                    yield first, number - first + 1


def check_cpp(path, relative, breaches, notes):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if len(lines) > SOFT_FILE_LINES:
        notes.append(f"{relative}: {len(lines)} lines (soft limit {SOFT_FILE_LINES})")
    if path.suffix == ".hpp":
        if not lines or not lines[0].startswith("//"):
            breaches.append(f"{relative}:1: a header begins with a comment that says what it promises")
        if "#pragma once" not in text:
            breaches.append(f"{relative}:1: a header has #pragma once")
    for first, length in function_lengths(lines):
        if length > MAX_FUNCTION_LINES:
            breaches.append(f"{relative}:{first}: a function of {length} lines (at most {MAX_FUNCTION_LINES})")
    pure = str(relative).startswith(("src/core/", "src/base/")) and "/tests/" not in str(relative)
    for number, line in enumerate(lines, 1):
        match = re.match(r'\s*#include\s*[<"]([^>"]+)[>"]', line)
        if match:
            header = match.group(1)
            if header.startswith("../") or header.startswith("./"):
                breaches.append(f"{relative}:{number}: include from the source root, not '{header}'")
            if pure and str(relative) != "src/base/invariant.cpp" and (header in IMPURE_HEADERS or header.startswith("sys/")):
                breaches.append(f"{relative}:{number}: core and base are pure: no <{header}>")
            if pure and re.match(r"(adapters|daemons|cli)/", header):
                breaches.append(f"{relative}:{number}: core must not include '{header}'")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    breaches, notes = [], []
    for path in tracked(root):
        relative = path.relative_to(root)
        if path.suffix in (".cpp", ".hpp"):
            check_cpp(path, relative, breaches, notes)
        if path.suffix in (".cpp", ".hpp", ".py", ".sh", ".cmake") or path.name in ("dev", "CMakeLists.txt"):
            is_test = re.match(r"(tests|sim)/|.*/tests/", str(relative)) is not None
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if UNFINISHED.search(line):
                    breaches.append(f"{relative}:{number}: a sign of unfinished work: finish it or leave it out")
                if is_test and SLEEP.search(line) and "poll interval" not in line and relative != pathlib.Path("tests/style.py"):
                    breaches.append(f"{relative}:{number}: tests wait for a condition with a deadline, they do not sleep")
    for note in notes:
        print("note:", note)
    for breach in breaches:
        print(breach)
    print(f"style: {len(breaches)} breaches")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
