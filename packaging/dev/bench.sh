# ./dev bench [--backing tmpfs|disk] [--seconds N] [--rounds N] [--size-gib N] [--quick] [--failovers N] [--json FILE]: figures side by side, in one run
need_root
build release gemel-blockd
step "measuring (two network namespaces, one unlimited link)"
exec /usr/bin/python3 tests/bench/bench.py "$@"
