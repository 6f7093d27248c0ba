# ./dev sandbox COMMAND ...: clusters on this machine. `up` uses this tree's programs: --bin DIR, or build/release,
# or build/dev, whichever is there.
need_root
install_packages
[ "${1:-help}" != help ] || set -- --help
arguments=("$@")
if [[ " $* " == *" up "* && " $* " != *" --bin"* ]]; then
    for candidate in release dev; do
        if [ -f "$ROOT/build/$candidate/build.ninja" ]; then
            arguments+=(--bin "$ROOT/build/$candidate")
            break
        fi
    done
fi
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$ROOT/src/sandbox" exec /usr/bin/python3 -m gemel_sandbox "${arguments[@]}"
