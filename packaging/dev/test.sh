# ./dev test [--long]: everything that must be true. Prints one closing line `N passed, N failed`.
long=no
for argument in "$@"; do
    case $argument in
        --long) long=yes ;;
        *) die "test takes --long or nothing, not '$argument'" ;;
    esac
done
passed=0 failed=0
# run NAME COMMAND...: one part of the suite; its output goes to .cache/test-NAME.log and, where it fails, to the screen
run() {
    local name=$1 log=$ROOT/.cache/test-$1.log
    shift
    step "test: $name"
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
        tail -n 3 "$log" | sed 's/^/       /'
    else
        failed=$((failed + 1))
        tail -n 60 "$log"
        printf '%sFAILED: %s (whole output: %s)%s\n' "$RED" "$name" ".cache/test-$name.log" "$PLAIN"
    fi
}
for part in packaging/dev/test.d/*.sh; do . "$part"; done
step "done"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
