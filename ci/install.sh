#!/usr/bin/env bash
# Installs what the suites need and is not there yet; with all of it there it only looks.
#
#   ci/install.sh [nextest|lab|dpdk|fuzz|valgrind|python|node|chromium|autobahn]...   (default: all)
#
# Wants a Debian 12 with a Rust toolchain, root for apt, and the package registries that the
# machine's own apt, pip, npm and cargo are set up for. Says what is missing, and fails, where it
# cannot install it. What is not a Debian package goes to the cache folder (see lib.sh).
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 1200 "$@"

# apt_install PACKAGE...
apt_install() {
    [[ $(id -u) -eq 0 ]] || die "missing Debian package(s) $*, and only root can install them"
    command -v apt-get >/dev/null || die "missing Debian package(s) $*, and there is no apt-get"
    say "installing: $*"
    local log=$logs/apt.log
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@"; } >"$log" 2>&1 ||
        { tail -n 5 "$log" >&2 && die "apt-get could not install $*"; }
}

# want COMMAND PACKAGE...: the Debian packages, unless the command is there.
want() {
    local command=$1
    shift
    command -v "$command" >/dev/null || apt_install "$@"
}

# quietly NAME COMMAND...: its output only where it fails.
quietly() {
    local name=$1 log=$logs/install-$1.log
    shift
    say "installing: $name"
    "$@" >"$log" 2>&1 || { tail -n 15 "$log" >&2 && die "could not install $name: $*"; }
}

install_rust() {
    local part
    command -v cargo >/dev/null || die "no cargo: install Rust $(rust_version) with rustup"
    for part in fmt clippy; do
        cargo "$part" --version >/dev/null 2>&1 && continue
        command -v rustup >/dev/null || die "no cargo $part, and no rustup to install it with"
        quietly "$part" rustup component add "${part/fmt/rustfmt}"
    done
    want cc build-essential
}

rust_version() { sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml; }

install_nextest() {
    install_rust
    cargo nextest --version >/dev/null 2>&1 ||
        quietly cargo-nextest cargo install --locked --no-default-features \
            --features default-no-update cargo-nextest # without what it updates itself with
}

install_fuzz() {
    install_rust
    want c++ build-essential
    need_nightly
    cargo fuzz --version >/dev/null 2>&1 || quietly cargo-fuzz cargo install --locked cargo-fuzz
}

install_lab() {
    want ip iproute2
    want ethtool ethtool
    want ping iputils-ping
    want tcpdump tcpdump
}

# libdpdk with its drivers, and a libclang for bindgen.
install_dpdk() {
    install_rust
    want pkg-config pkg-config
    pkg-config --exists libdpdk || apt_install libdpdk-dev
    # The one that clang-sys looks for, and the headers that belong to it.
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null &&
        compgen -G '/usr/lib/llvm-*/lib/clang/*/include/stddef.h' >/dev/null ||
        apt_install libclang1-14 libclang-common-14-dev
    # For placement by NUMA node; without libudev-dev it doesn't link.
    pkg-config --exists hwloc || apt_install libhwloc-dev
    pkg-config --exists libudev || apt_install libudev-dev
    # Beside the other programs of DPDK's.
    want dpdk-dumpcap dpdk-dev
}

install_valgrind() { want valgrind valgrind; }

install_python() {
    local venv=$cache/python wanted=tests/clients/python/requirements.txt
    cmp -s "$wanted" "$venv/installed.txt" && return 0
    want python3 python3 python3-venv
    python3 -c 'import venv, ensurepip' 2>/dev/null || apt_install python3-venv
    rm -rf "$venv"
    quietly python-venv python3 -m venv "$venv"
    quietly python-clients "$venv/bin/pip" install --quiet -r "$wanted"
    cp "$wanted" "$venv/installed.txt"
}

install_node() {
    local home=$cache/node wanted=tests/clients/node/package.json
    want node nodejs
    cmp -s "$wanted" "$home/installed.json" && return 0
    command -v npm >/dev/null || apt_install npm
    rm -rf "$home"
    mkdir -p "$home"
    cp "$wanted" "$home/package.json"
    quietly node-clients npm install --prefix "$home" --no-audit --no-fund --no-package-lock \
        --ignore-scripts
    cp "$wanted" "$home/installed.json"
}

install_chromium() {
    want python3 python3
    want chromium chromium
}

# The test suite is written for Python 2.7, which Debian 12 does not have any more.
install_autobahn() {
    local home=$cache/autobahn
    python27_env
    [[ -e $home/installed && $("$home/bin/python" -c 'print(27)' 2>/dev/null) == 27 ]] && return 0
    # pip and virtualenv of today run on Python 3 and set up a Python 2.7 environment.
    want python3 python3 python3-pip
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
    want cc build-essential
    rm -rf "$home"
    mkdir -p "$home"
    local python
    python=$(python27)
    python27_env
    quietly virtualenv python3 -m pip install --quiet --target "$home/virtualenv" \
        virtualenv==16.7.12
    quietly autobahn-venv "$python" "$home/virtualenv/virtualenv.py" --quiet --no-download "$home"
    # Debian's Python.h includes a header by its path from here.
    quietly autobahn env C_INCLUDE_PATH="$home/python27/usr/include" \
        "$home/bin/pip" install --quiet autobahntestsuite==25.10.1
    touch "$home/installed"
}

# A Python 2.7: pyenv's where there is one, else Debian 11's packages, unpacked but not installed.
python27() {
    local pyenv=${PYENV_ROOT:-$HOME/.pyenv}/versions/2.7.18/bin/python2.7
    if [[ -x $pyenv && ${HIOLOAD_NO_PYENV:-} != 1 ]]; then
        say "$pyenv"
    else
        unpack_python27 "$cache/autobahn/python27" >&2
        say "$cache/autobahn/python27/usr/bin/python2.7"
    fi
}

# unpack_python27 FOLDER: its packages and the two libraries that Debian 12 does not have, from the
# archive that this machine's apt uses. apt gets folders of its own, so the machine's lists stay.
unpack_python27() {
    local folder=$1 apt=$1/apt archive
    [[ $(id -u) -eq 0 ]] || die "no Python 2.7.18 in pyenv, and only root can unpack Debian's"
    # shellcheck disable=SC2016 # apt-get expands it
    archive=$(apt-get indextargets --format '$(REPO_URI)' | grep -m 1 '/debian/*$') ||
        die "apt knows no Debian archive to take Python 2.7 from"
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
    say "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive bullseye main" \
        >"$apt/sources.list"
    local options=(-o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State=$apt/state" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
    quietly python2.7-lists apt-get "${options[@]}" update
    # The -dev packages are for the native parts of the test suite, compiled by pip.
    (cd "$apt/debs" && quietly python2.7 apt-get "${options[@]}" download \
        python2.7-minimal libpython2.7-minimal libpython2.7-stdlib libpython2.7 \
        python2.7-dev libpython2.7-dev libssl1.1 libffi7)
    local package
    for package in "$apt"/debs/*.deb; do dpkg -x "$package" "$folder"; done
    rm -rf "$apt"
}

groups=("$@")
((${#groups[@]})) || groups=(nextest lab dpdk fuzz valgrind python node chromium autobahn)
for group in "${groups[@]}"; do
    declare -F "install_$group" >/dev/null || die "unknown group: $group"
    "install_$group"
done
