# The simulator: everything must be reached and nothing broken; then every deliberate break must be found.
# (the simulator is built once there is an engine to simulate)
[ -e src/core/replication/CMakeLists.txt ] || return 0
build release gemel-sim
sim_seeds=2000
[ "$long" = no ] || sim_seeds=100000
run sim build/release/sim/gemel-sim --jobs "$JOBS" --seeds $sim_seeds
build mutants gemel-sim
run mutants build/mutants/sim/gemel-sim --jobs "$JOBS" --mutants
