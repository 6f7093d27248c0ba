# Shared by the scripts behind ./dev: progress lines, package installation, builds.
if [ -t 1 ]; then BOLD=$'\e[1m' RED=$'\e[31m' PLAIN=$'\e[0m'; else BOLD='' RED='' PLAIN=''; fi
STEP_START=$SECONDS

step() { printf '%s==> [%4ds] %s%s\n' "$BOLD" "$((SECONDS - STEP_START))" "$*" "$PLAIN"; }
die() {
    printf '%s./dev: %s%s\n' "$RED" "$*" "$PLAIN" >&2
    exit 1
}
need_root() { [ "$(id -u)" = 0 ] || die "this needs root (namespaces, packages): run it with sudo"; }

wanted_packages() { grep -v '^#' "$ROOT/packaging/dev/packages.txt"; }

missing_packages() {
    local have
    have=$(dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' 2>/dev/null | awk '$2=="ii"{print $1}')
    wanted_packages | grep -vxF -f <(printf '%s\n' "$have") || true
}

# One transaction, waiting for apt's lock and trying again; daemons of the packages are not started on this machine.
install_packages() {
    local missing try policy=/usr/sbin/policy-rc.d
    command -v dpkg-query >/dev/null || die "this is not a Debian machine: Debian 12 (bookworm) is expected"
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    need_root
    step "installing $(printf '%s\n' "$missing" | wc -l) Debian packages"
    local log=$ROOT/.cache/install.log made_policy=''
    mkdir -p "$ROOT/.cache"
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        made_policy=yes
    fi
    for try in 1 2 3; do
        if apt-get -o DPkg::Lock::Timeout=300 update -q >"$log" 2>&1 &&
            DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -q \
                --no-install-recommends $missing >>"$log" 2>&1; then
            [ -z "$made_policy" ] || rm -f $policy
            step "packages installed"
            return 0
        fi
        step "apt failed (attempt $try of 3), last line: $(tail -n 1 "$log")"
    done
    [ -z "$made_policy" ] || rm -f $policy
    die "could not install the packages; the whole output is in .cache/install.log"
}

# build PRESET [targets...]
build() {
    local preset=$1
    shift
    install_packages
    if [ ! -f "build/$preset/build.ninja" ]; then
        step "configuring $preset"
        cmake --preset "$preset" >"$ROOT/.cache/configure-$preset.log" 2>&1 ||
            { cat "$ROOT/.cache/configure-$preset.log" >&2; die "configuring $preset failed"; }
    fi
    step "building $preset${*:+ ($*)}"
    local targets=()
    [ $# -eq 0 ] || targets=(--target "$@")
    cmake --build "build/$preset" -j "$JOBS" "${targets[@]}" >"$ROOT/.cache/build-$preset.log" 2>&1 ||
        { grep -E 'error|FAILED|warning' -A 12 "$ROOT/.cache/build-$preset.log" | head -80 >&2; die "the build failed (.cache/build-$preset.log)"; }
}
mkdir -p "$ROOT/.cache"
