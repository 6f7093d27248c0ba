# ./dev fuzz [--seconds N] [NAME...]: every fuzzer (or the named ones) for N seconds each, from the corpus in .cache/fuzz
seconds=60 names=()
while [ $# -gt 0 ]; do
    case $1 in
        --seconds)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "--seconds takes a whole number above 0, for example --seconds 60"
            seconds=$2
            shift 2
            ;;
        -*) die "fuzz takes --seconds N and names of fuzzers, not '$1'" ;;
        *)
            names+=("$1")
            shift
            ;;
    esac
done
if [ ${#names[@]} = 0 ]; then
    mapfile -t names < <(cd tests/fuzz && ls fuzz_*.cpp | sed 's/^fuzz_//; s/\.cpp$//')
fi
for name in "${names[@]}"; do
    [ -f "tests/fuzz/fuzz_$name.cpp" ] || die "there is no fuzzer '$name': $(cd tests/fuzz && ls fuzz_*.cpp | sed 's/^fuzz_//; s/\.cpp$//' | tr '\n' ' ')"
done
build fuzz "${names[@]/#/fuzz_}"
failed=0
for name in "${names[@]}"; do
    corpus=$ROOT/.cache/fuzz/$name
    mkdir -p "$corpus"
    step "fuzz: $name for $seconds s"
    if build/fuzz/tests/fuzz/fuzz_"$name" -max_total_time="$seconds" -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$corpus-crash-" "$corpus" >"$ROOT/.cache/fuzz-$name.log" 2>&1; then
        awk '/number_of_executed_units/ {units=$2} / cov: / {for (i=1; i<NF; i++) if ($i=="cov:") cov=$(i+1)}
             END {printf "       %s inputs tried, %s edges covered\n", units, cov}' "$ROOT/.cache/fuzz-$name.log"
    else
        failed=1
        tail -n 30 "$ROOT/.cache/fuzz-$name.log"
    fi
done
[ $failed = 0 ] || die "a fuzzer found something; the input is named above (.cache/fuzz-NAME.log)"
step "no fuzzer found anything"
