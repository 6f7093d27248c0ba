# ./dev demo [--keep]: a guest survives two power cuts of the server under it
need_root
install_packages
build dev gemel-clusterd gemel-blockd gemel-guard gemel-witness gemel
step "the guest's disk (cached by its package list)"
image=$ROOT/.cache/demo/guest.raw
mkdir -p "$ROOT/.cache/demo"
src/guestimage/build --output "$image" --format raw --name web1 --address 10.77.200.10/24 --gateway 10.77.200.1 >.cache/guestimage.log 2>&1 ||
    { tail -n 20 .cache/guestimage.log >&2; die "the guest's disk could not be built (.cache/guestimage.log)"; }
step "the demonstration"
exec /usr/bin/python3 src/demo/demo.py --bin "$ROOT/build/dev" --image "$image" --work "$ROOT/.cache/demo" "$@"
