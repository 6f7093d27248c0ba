# ./dev sandbox COMMAND ...: clusters on this machine, with the programs this tree built last (or `up --bin DIR`).
need_root
install_packages
[ "${1:-help}" != help ] || set -- --help
GEMEL_SANDBOX_COMMAND="./dev sandbox" PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$ROOT/src/sandbox" exec /usr/bin/python3 -m gemel_sandbox "$@"
