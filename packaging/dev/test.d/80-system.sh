need_root
run system tests/system/run.py $([ "$long" = no ] || echo --long)
