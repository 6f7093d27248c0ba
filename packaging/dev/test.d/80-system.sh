need_root
build dev
run system env GEMEL_BIN="$ROOT/build/dev" tests/system/run.py $([ "$long" = no ] || echo --long)
