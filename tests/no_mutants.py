#!/usr/bin/python3
"""Programs built without GEMEL_MUTANTS contain the name of no mutant.

usage: no_mutants.py SOURCE_FOLDER CONTROL PROGRAM...
CONTROL is a file that holds the table of all mutants (the simulator's library): it shows that this search can find one.
"""
import re
import sys
from pathlib import Path


def names_in(header):
    return re.findall(r'\{"([a-z_]+)",', header.read_text())


def contains(image, name):
    """The name as a whole word; plain searches, because expressions take minutes on programs of this size."""
    letters = b"abcdefghijklmnopqrstuvwxyz_"
    at = image.find(name)
    while at >= 0:
        if image[at - 1:at] not in letters and image[at + len(name):at + len(name) + 1] not in letters:
            return True
        at = image.find(name, at + 1)
    return False


def main():
    source, control, *programs = sys.argv[1:]
    headers = sorted(Path(source, "src").rglob("mutants.hpp"))
    names = {name: header for header in headers for name in names_in(header)}
    if len(headers) < 2 or len(names) < 20:
        sys.exit(f"no_mutants: expected the mutants of engine and cluster, found {len(names)} names in {len(headers)} files")
    table = Path(control).read_bytes()
    blind = [name for name in names if name.encode() not in table]
    if blind:
        sys.exit(f"no_mutants: {control} does not contain {blind[0]}: this search proves nothing")
    found = 0
    for program in programs:
        image = Path(program).read_bytes()
        for name in sorted(names):
            if contains(image, name.encode()):
                print(f"{program} contains the mutant '{name}'")
                found += 1
    print(f"no_mutants: {len(programs)} programs, {len(names)} names, {found} found")
    sys.exit(1 if found else 0)


main()
