build dev
run unit ctest --test-dir build/dev --output-on-failure -j "$JOBS"
