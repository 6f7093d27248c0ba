# ./dev sim [options]: builds the simulator and runs it; --mutants uses the build that has them.
preset=release
for argument in "$@"; do
    case $argument in
        --mutants | --mutant) preset=mutants ;;
    esac
done
build "$preset" gemel-sim
"build/$preset/sim/gemel-sim" --jobs "$JOBS" "$@"
