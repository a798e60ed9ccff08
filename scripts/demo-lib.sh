# shellcheck shell=bash
# What the demos on DPDK share: installing, building, the EAL's arguments for a machine as it is, a
# server that is started, found ready and always stopped again. Sourced, never run.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repo" || exit
program=${CARGO_TARGET_DIR:-$repo/target}/release/hioload-ws
as_root=()
[[ $(id -u) -eq 0 ]] || as_root=(sudo)

say() { printf '%s\n' "$*"; }
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Packages, Rust, and the program with DPDK in it.
prepare() {
    [[ $(uname -s) == Linux ]] || die "only Linux has what this shows"
    ((${#as_root[@]} == 0)) || command -v sudo >/dev/null || die "run it as root: there is no sudo"
    scripts/install-dpdk.sh --demo
    # Where rustup puts it, a shell may not look.
    enough_rust || PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    enough_rust || install_rust
    say "building (some minutes the first time)"
    local quiet=(--quiet)
    [[ ! -t 2 ]] || quiet=()
    cargo build --release "${quiet[@]}" --features dpdk --bin hioload-ws
}

wanted_rust() { sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml; }

# True where there is a cargo that is as new as Cargo.toml asks for.
enough_rust() {
    local have
    have=$(cargo --version 2>/dev/null | cut -d ' ' -f 2)
    [[ -n $have ]] && printf '%s\n' "$(wanted_rust)" "${have%%-*}" | sort -CV
}

install_rust() {
    # Toolchains that are there already are the user's to choose from.
    ! command -v rustup >/dev/null ||
        die "rustup has no Rust $(wanted_rust) chosen: \`rustup default stable && rustup update stable\`"
    local bin=${CARGO_HOME:-$HOME/.cargo}/bin
    say "installing Rust by rustup, for $(id -un) only (\`$bin/rustup self uninstall\` removes it)"
    # The script that https://sh.rustup.rs leads to. Another Rust, too old, may stay where it is.
    curl --proto '=https' --tlsv1.2 -sSf https://static.rust-lang.org/rustup/rustup-init.sh |
        RUSTUP_INIT_SKIP_PATH_CHECK=yes sh -s -- -y --quiet --no-modify-path --profile minimal \
            --default-toolchain stable ||
        die "rustup could not install Rust: see https://rustup.rs, then run this again"
    enough_rust || die "rustup installed $(cargo --version), older than $(wanted_rust)"
}

# eal_memory: arguments for hugepages where 128 of them (256 MiB) are free, else for doing without.
eal_memory() {
    local free=0
    read -r free 2>/dev/null </sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages || true
    if ((free >= 128)); then say "--in-memory -m 256"; else say "--no-huge -m 512"; fi
}

server_pid='' folder='' shown=0

# Ends the server in order and shows what it says then; meant for `trap stop_demo EXIT`.
stop_demo() {
    [[ -n $folder ]] || return 0
    if [[ -n $server_pid ]]; then
        exec {hold}>&-
        wait "$server_pid" 2>/dev/null || true
        server_pid=''
    fi
    # The terminal may be gone.
    tail -n "+$((shown + 1))" "$log" 2>/dev/null || true
    rm -rf "$folder"
    folder=''
}

# start_demo NET DEVICE [INTERFACE]: the appliance on a virtual device of DPDK, as host 2 of
# 10.99.NET.0/24 and fd99:NET::/64. Its log goes to $log. INTERFACE is removed when it ends.
start_demo() {
    local net=$1 device=$2 memory core
    read -ra memory <<<"$(eal_memory)"
    core=$(taskset -cp $$ | sed 's/.*: //; s/[,-].*//')
    folder=$(mktemp -d)
    log=$folder/log
    mkfifo "$folder/hold"
    # Asks for the password, if there is one to ask for, while it can be answered: building takes long.
    ((${#as_root[@]} == 0)) || sudo true
    # A session of its own: Ctrl-C is for this script. No PCI: this machine's NICs are not meant.
    "${as_root[@]}" setsid --wait scripts/demo-keeper.sh "$folder" "${3:-}" \
        "$program" serve --log error --backend dpdk --address "10.99.$net.2/24" \
        --address "fd99:$net::2/64" --listen 0.0.0.0:9001 -- -l "$core" "${memory[@]}" \
        --no-pci --no-telemetry --file-prefix hioload-demo --vdev="$device" \
        <"$folder/hold" >"$log" 2>&1 &
    server_pid=$!
    exec {hold}>"$folder/hold"
    local tries=300
    until grep -q 'listening on' "$log"; do
        [[ -e /proc/$server_pid ]] || die "the server ended at once"
        ((tries-- > 0)) || die "the server was not ready within 30 s"
        sleep 0.1
    done
}

# kernel_end INTERFACE NET: the kernel is host 1 there.
kernel_end() {
    "${as_root[@]}" ip address add "10.99.$2.1/24" dev "$1"
    # Where there is no IPv6, there is IPv4.
    "${as_root[@]}" ip address add "fd99:$2::1/64" dev "$1" nodad 2>/dev/null || true
    "${as_root[@]}" ip link set "$1" up
    # Otherwise the kernel leaves checksums and segmentation to a device that does neither.
    "${as_root[@]}" ethtool -K "$1" tx off >/dev/null
}

# show NET ARGS...: says how to reach it and waits for Ctrl-C; with --check, loads it for a moment.
show() {
    local net=$1 url=ws://10.99.$1.2:9001/
    shift
    cat "$log"
    shown=$(wc -l <"$log")
    if [[ ${1:-} == --check ]]; then
        "$program" bench "$url" --connections 50 --size 1024 --duration 2s
        return
    fi
    say
    say "An echo server on DPDK and TCP/IP of its own. From this machine:"
    say "  a client         $url"
    say "  a browser        file://${repo// /%20}/scripts/demo.html#$url"
    say "  how fast it is   $program bench $url"
    say "Ctrl-C ends it and takes the interface away."
    wait "$server_pid" || die "the server ended by itself"
}
