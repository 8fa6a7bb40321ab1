#!/bin/sh
# Makes a bare Debian or Ubuntu ready: the packages that tests and demo drive, then the virtual environment .venv.
#
# 1. Only what is missing is installed, only as root, and no service is started by it.
# 2. What cannot be installed is named. That is an error only with CI=true: otherwise the rest still runs.
# 3. Python packages come from requirements/dev.lock, each checked against its hash.
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# The Python to use: PYTHON if set, else the newest of those on PATH.
python() {
    for candidate in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# Debian packages whose commands are not there.
missing() {
    if found=$(python); then
        "$found" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    elif ! command -v python3 >/dev/null; then
        echo python3 python3-venv
    fi
    while read -r package commands; do
        for each in $commands; do
            command -v "$each" >/dev/null || { echo "$package"; break; }
        done
    done <<END
prometheus prometheus promtool
prometheus-alertmanager prometheus-alertmanager amtool
prometheus-blackbox-exporter prometheus-blackbox-exporter
prometheus-node-exporter prometheus-node-exporter
nftables nft
iproute2 ip ss tc
iputils-ping ping
procps sysctl
openssl openssl
faketime faketime
ethtool ethtool
openvswitch-switch ovsdb-server ovs-vswitchd ovs-vsctl
ovn-central ovn-northd
ovn-host ovn-controller
chromium chromium
shellcheck shellcheck
podman podman
buildah buildah
runc runc
mmdebstrap mmdebstrap
docker-compose docker-compose
systemd systemd-analyze
END
}

# Install packages without a service of theirs being started, now (invoke-rc.d asks policy-rc.d, 101 means no) or at
# the next boot.
install() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 1' INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt="apt-get -qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=5"
    apt_install="$apt install -y --no-install-recommends"
    # One by one where not all of them can be had: Ubuntu, say, has Chromium only as a snap.
    # shellcheck disable=SC2086 # words of a command
    said=$({ $apt update || true; $apt_install "$@" || for each in "$@"; do $apt_install "$each"; done; } 2>&1) ||
        echo "$said" >&2
    for each in "$@"; do
        systemctl disable "$each" >/dev/null 2>&1 || true
    done
}

# kubectl 1.32, whose kustomize renders the manifests, into .venv/bin: Debian 12's cannot. It is Debian 13's package,
# unpacked by an apt with a state of its own, so that this system's stays as it is.
rendering() {
    [ ! -x .venv/bin/kubectl ] || return 0
    for found in $(command -v -p kubectl || command -v kubectl); do
        if "$found" kustomize --help 2>/dev/null | grep -q enable-helm; then
            ln -s "$found" .venv/bin/kubectl
            return 0
        fi
    done
    apt=$(mktemp -d)
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/none"
    touch "$apt/status"
    site=$(apt-get indextargets --format '$(SITE)' | head -n 1)
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$key] $site trixie main" >"$apt/sources.list"
    cat >"$apt/conf" <<END
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "$apt/none";
Dir::State::Lists "$apt/lists";
Dir::State::Status "$apt/status";
Dir::Cache "$apt";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "5";
END
    for pause in 10 20 0; do # a mirror has its moments
        if (
            cd "$apt"
            export APT_CONFIG="$apt/conf"
            { apt-get -qq update && apt-get -qq download kubectl; } >/dev/null 2>&1 &&
                dpkg-deb --extract kubectl_*.deb root
        ); then
            break
        fi
        sleep "$pause"
    done
    cp "$apt/root/usr/bin/kubectl" .venv/bin/kubectl 2>/dev/null ||
        echo "setup: no kubectl 1.32 could be had, so manifests cannot be rendered" >&2
    rm -rf "$apt"
}

packages() {
    lacking=$(missing | xargs)
    [ -n "$lacking" ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing $lacking"
        # shellcheck disable=SC2086 # a list of words
        (install $lacking)
        lacking=$(missing | xargs)
        [ -n "$lacking" ] || return 0
    fi
    echo "setup: missing: $lacking (as root: apt-get install $lacking)" >&2
    if [ "${CI:-}" = true ]; then
        exit 1
    fi
    echo "setup: going on with what can run without" >&2
}

environment() {
    if ! .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        found=$(python) || {
            echo "setup: Python 3.11 or newer is needed, and $(python3 --version 2>&1 || true) is what is here;" \
                "name another with PYTHON=/path/to/python3" >&2
            exit 1
        }
        "$found" -m venv --clear .venv
    fi
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    .venv/bin/python -m pip install --quiet --require-hashes -r requirements/dev.lock
    .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
    rendering
    touch .venv/.ready
}

case "${1:-}" in
packages | environment) "$1" ;;
*)
    echo "usage: lab/setup.sh packages | environment" >&2
    exit 2
    ;;
esac
