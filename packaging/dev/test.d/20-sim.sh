# The simulator with the real control plane, then with rules that know everything (the engine meets other orders there). The long
# run and the mutants are commands of their own (./dev sim --seeds N, ./dev sim --mutants).
build release gemel-sim
sim_seeds=2000
[ "$long" = no ] || sim_seeds=100000
run sim build/release/sim/gemel-sim --jobs "$JOBS" --seeds $sim_seeds
run sim-oracle build/release/sim/gemel-sim --jobs "$JOBS" --oracle --seeds 600
# Two blocks, every sequence of up to three operations, a crash after every single event.
run exhaustive build/release/sim/gemel-sim --jobs "$JOBS" --exhaustive --operations 3
