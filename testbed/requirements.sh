# Sourced by the commands of this folder: installs with apt-get what is missing, and only that.
#
#   need_root COMMAND      ends with a clear word unless run as root
#   need_rust              a Rust toolchain
#   need PACKAGE...        Debian or Ubuntu packages

need_root() {
    if [ "$(id -u)" -ne 0 ]; then
        echo "$1: network namespaces, XDP and packet sockets need root; run it as root (for instance: sudo -E $1)" >&2
        exit 1
    fi
}

need_rust() {
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    if ! command -v cargo >/dev/null; then
        echo "cargo is not in the PATH: install a Rust toolchain (https://rustup.rs)" >&2
        exit 1
    fi
}

need() {
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ "${#missing[@]}" -eq 0 ] && return
    echo "installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    local log
    log=$(mktemp)
    if ! { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        echo "apt-get could not install ${missing[*]}" >&2
        exit 1
    fi
    rm -f "$log"
}

# To build the daemons and to lay out a scenario.
BUILD_PACKAGES="gcc g++ libc6-dev make m4 pkg-config clang libelf-dev zlib1g-dev libbpf-dev"
SCENARIO_PACKAGES="iproute2 util-linux ethtool nftables tcpdump iperf3 iputils-ping traceroute curl procps python3 python3-scapy python3-cryptography"
