# ./dev lint: format, style, layer rule (the configure step), clang-tidy over what changed or everything (--all)
install_packages
failed=0
step "clang-format"
mapfile -t sources < <(git ls-files -co --exclude-standard '*.cpp' '*.hpp')
clang-format --dry-run --Werror "${sources[@]}" 2>&1 | head -40
[ "${PIPESTATUS[0]}" = 0 ] || failed=1
step "style"
tests/style.py "$ROOT" || failed=1
step "layer rule"
cmake --preset dev >.cache/configure-dev.log 2>&1 || { tail -n 20 .cache/configure-dev.log; failed=1; }
step "clang-tidy"
mapfile -t units < <(git ls-files -co --exclude-standard 'src/*.cpp' 'sim/*.cpp' | grep -v /tests/)
if ! printf '%s\n' "${units[@]}" | xargs -P "$JOBS" -n 4 clang-tidy-19 -p build/dev --quiet --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-ignored-gch >.cache/tidy.log 2>.cache/tidy.err; then failed=1; fi
grep -E 'warning:|error:' .cache/tidy.log | sort -u | head -60 || true
[ $failed = 0 ] || die "lint found something (clang-tidy's whole output: .cache/tidy.log)"
step "lint is clean"
