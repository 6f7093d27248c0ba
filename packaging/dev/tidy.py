#!/usr/bin/python3
"""clang-tidy over the units named on standard input, one process a core. A unit that was clean is not looked at again
until what the compiler reads of it changes: its answer is kept under the hash of its preprocessed text (comments
included, for they may silence a check), of .clang-tidy and of clang-tidy's version. Only clean answers are kept."""
import argparse
import concurrent.futures
import hashlib
import json
import pathlib
import shlex
import subprocess
import sys
import time

TIDY, CLANG = "clang-tidy-19", "clang++-19"
QUIET = ("-Wno-unknown-warning-option", "-Wno-ignored-gch")


def commands(build: pathlib.Path) -> dict[str, dict]:
    return {entry["file"]: entry for entry in json.loads((build / "compile_commands.json").read_text())}


def key_of(entry: dict, root: pathlib.Path, rules: bytes) -> str:
    """Of the text after the preprocessor, without the place of the source tree in it."""
    words = shlex.split(entry["command"])[1:]
    at = words.index("-o")
    words = [word for word in words[:at] + words[at + 2:] if word != "-c"]
    text = subprocess.run([CLANG, "-w", "-E", "-C", "-P", *words], cwd=entry["directory"], capture_output=True, check=True).stdout
    flags = " ".join(word for word in words if word.startswith(("-D", "-std", "-f")))
    return hashlib.sha256(rules + flags.encode() + text.replace(str(root).encode(), b"")).hexdigest()


def look(unit: str, entry: dict, options, rules: bytes) -> str:
    """Looks at one unit; the answer is what clang-tidy found, empty when it is clean."""
    try:
        kept = options.cache / key_of(entry, options.root, rules)
    except subprocess.CalledProcessError as error:
        return f"{unit}: error: the preprocessor failed: {error.stderr.decode(errors='replace')[-500:]}\n"
    if kept.exists():
        kept.touch()
        return ""
    extra = [f"--extra-arg={word}" for word in QUIET]
    run = subprocess.run([TIDY, "-p", options.build, "--quiet", *extra, unit], cwd=options.root, capture_output=True, text=True, check=False)
    if run.returncode == 0 and "warning:" not in run.stdout:
        kept.touch()
        return ""
    return run.stdout or f"{unit}: error: {TIDY} ended with {run.returncode}: {run.stderr[-500:]}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/dev", help="build folder with compile_commands.json")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path(".cache/tidy"))
    parser.add_argument("--keep-days", type=int, default=30, help="answers not asked for this long are forgotten")
    options = parser.parse_args()
    options.root = pathlib.Path.cwd()
    options.cache.mkdir(parents=True, exist_ok=True)
    for old in options.cache.iterdir():
        if time.time() - old.stat().st_mtime > options.keep_days * 86400:
            old.unlink()
    rules = (options.root / ".clang-tidy").read_bytes() + subprocess.run([TIDY, "--version"], capture_output=True, check=True).stdout
    known = commands(pathlib.Path(options.build))
    units = [line.strip() for line in sys.stdin if line.strip()]
    strangers = [unit for unit in units if str(options.root / unit) not in known]
    for unit in strangers:
        print(f"{unit}: error: it belongs to no target, so nothing compiles it: add it to its CMakeLists.txt or delete it")
    units = [unit for unit in units if unit not in strangers]
    done, bad = 0, len(strangers)
    started = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        waiting = {pool.submit(look, unit, known[str(options.root / unit)], options, rules): unit for unit in units}
        for future in concurrent.futures.as_completed(waiting):
            found = future.result()
            done += 1
            if found:
                bad += 1
                print(found, end="", flush=True)
            if found or done % 10 == 0 or done == len(units):
                print(f"  {done} of {len(units)} units, {bad} with findings, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
