# ./dev test [--long]: everything that must be true. Prints one closing line `N passed, N failed`.
long=no
for argument in "$@"; do
    case $argument in
        --long) long=yes ;;
        *) die "test takes --long or nothing, not '$argument'" ;;
    esac
done
passed=0 failures=()
# show_failure NAME LINES: a part that failed and the last LINES it printed
show_failure() {
    tail -n "$2" "$ROOT/.cache/test-$1.log"
    printf '%sFAILED: %s (whole output: %s)%s\n' "$RED" "$1" ".cache/test-$1.log" "$PLAIN"
}
# run NAME COMMAND...: one part of the suite; its output goes to .cache/test-NAME.log and, where it fails, to the screen
run() {
    local name=$1 log=$ROOT/.cache/test-$1.log
    shift
    step "test: $name"
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
        tail -n 3 "$log" | sed 's/^/       /'
    else
        failures+=("$name")
        show_failure "$name" 60
    fi
}
for part in packaging/dev/test.d/*.sh; do . "$part"; done
step "done"
# Once more, at the end: whoever sees only a log's last lines sees why.
for name in "${failures[@]}"; do show_failure "$name" 12; done
printf '%d passed, %d failed\n' "$passed" "${#failures[@]}"
[ ${#failures[@]} = 0 ]
