# ./dev build [PRESET] [targets...]
preset=${1:-dev}
[ $# -eq 0 ] || shift
case $preset in
    dev | release | mutants | asan | tsan | fuzz) ;;
    *) die "there is no preset '$preset': dev, release, mutants, asan, tsan or fuzz are expected" ;;
esac
build "$preset" "$@"
step "built in build/$preset"
