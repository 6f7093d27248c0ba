# The simulator. The long run and the mutants are commands of their own (./dev sim --seeds N, ./dev sim --mutants).
build release gemel-sim
sim_seeds=200
[ "$long" = no ] || sim_seeds=100000
run sim build/release/sim/gemel-sim --jobs "$JOBS" --seeds $sim_seeds
# Two blocks, every sequence of up to two operations, a crash after every single event (three: ./dev sim --exhaustive).
run exhaustive build/release/sim/gemel-sim --jobs "$JOBS" --exhaustive --operations 2
