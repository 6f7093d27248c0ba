# ./dev lint: format, style, layer rule (the configure step), clang-tidy over what changed since it was clean
install_packages
failed=0
step "clang-format"
mapfile -t sources < <(git ls-files -co --exclude-standard '*.cpp' '*.hpp')
clang-format --dry-run --Werror "${sources[@]}" >.cache/format.log 2>&1 || { head -40 .cache/format.log; failed=1; }
step "style"
tests/style.py "$ROOT" || failed=1
step "layer rule"
cmake --preset dev >.cache/configure-dev.log 2>&1 || { tail -n 20 .cache/configure-dev.log; failed=1; }
step "clang-tidy"
git ls-files -co --exclude-standard 'src/*.cpp' 'sim/*.cpp' | grep -v /tests/ |
    packaging/dev/tidy.py --build build/dev --jobs "$JOBS" >.cache/tidy.log || failed=1
grep -E 'warning:|error:' .cache/tidy.log | sort -u | head -60 || true
[ $failed = 0 ] || die "lint found something (clang-tidy's whole output: .cache/tidy.log)"
step "lint is clean"
