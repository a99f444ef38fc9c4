#!/usr/bin/env bash
# Installs what this machine lacks to build, run, test or check Headwater. Says nothing and
# takes a moment when nothing is missing; asks no questions.
#
#   scripts/setup.sh pure     a Rust toolchain, no GStreamer
#   scripts/setup.sh run      and GStreamer: what `make run` needs
#   scripts/setup.sh test     and the players and readers that the tests use
#   scripts/setup.sh bench    and what the benches ask with
#   scripts/setup.sh check    what `run` needs, and clippy, rustfmt and cargo-deny
#
# Debian 12 is what this is tried on. On another system it changes nothing: it names what is
# missing and stops.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly DENY_VERSION=0.20.2
# Where `cargo install` puts binaries; behind the user's own PATH, so that theirs win.
export PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    say "$1"
    shift
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

missing=()
# need_command COMMAND PACKAGE...
need_command() {
    have "$1" || missing+=("${@:2}")
}
# need_element ELEMENT PACKAGE: one element that only this package brings
need_element() {
    gst-inspect-1.0 --exists "$1" >/dev/null 2>&1 || missing+=("$2")
}

need_build_tools() {
    need_command cc build-essential
    need_command curl curl
    need_command git git
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/ssl/cert.pem ] || missing+=(ca-certificates)
}

need_gstreamer() {
    need_command pkg-config pkg-config
    have pkg-config && pkg-config --exists 'gstreamer-1.0 >= 1.22' || missing+=(libgstreamer1.0-dev)
    have pkg-config && pkg-config --exists gstreamer-app-1.0 gstreamer-video-1.0 ||
        missing+=(libgstreamer-plugins-base1.0-dev)
    if have gst-inspect-1.0; then
        need_element videoconvert gstreamer1.0-plugins-base
        need_element rtmp2sink gstreamer1.0-plugins-bad
        need_element flvmux gstreamer1.0-plugins-good
        need_element x264enc gstreamer1.0-plugins-ugly
        need_element avdec_h264 gstreamer1.0-libav
    else
        missing+=(gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good
            gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav)
    fi
}

need_test_tools() {
    need_command ffmpeg ffmpeg
    need_command ffprobe ffmpeg
    have chromium || have google-chrome || missing+=(chromium)
    need_command node nodejs
    need_command npm npm
    need_command xmllint libxml2-utils
    need_command jq jq
    need_command radosgw radosgw
    need_command ceph-mon ceph-mon
    need_command ceph-osd ceph-osd
    need_command ceph ceph-common
    need_command nginx nginx-light
}

# The toolchain that rust-toolchain.toml pins; only rustup reads that file.
pinned() { sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml; }
# The oldest compiler that Cargo.toml allows, as in "1.92".
oldest() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml; }

rustc_is_new_enough() {
    local found
    found=$(rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9]*\.[0-9]*\).*/\1/p')
    [ -n "$found" ] && [ "$(printf '%s\n%s\n' "$(oldest)" "$found" | sort -V | head -n1)" = "$(oldest)" ]
}

need_rust() {
    if have rustup; then
        return 0 # rustup's own packages: see install_pinned_toolchain
    fi
    if ! have cargo || ! rustc_is_new_enough; then
        missing+=(rustc-web cargo-web)
    fi
}

# Debian's compiler is enough to build; the lints and the formatter are packages of their own.
need_rust_lints() {
    have rustup && return 0
    need_command cargo-clippy rust-web-clippy
    need_command cargo-fmt rustfmt-web
}

install_pinned_toolchain() {
    have rustup || return 0
    local wanted=${RUSTUP_TOOLCHAIN:-$(pinned)}
    if rustup run "$wanted" rustc --version >/dev/null 2>&1 &&
        rustup run "$wanted" cargo clippy --version >/dev/null 2>&1 &&
        rustup run "$wanted" cargo fmt --version >/dev/null 2>&1; then
        return 0
    fi
    say "installing Rust $wanted, which rust-toolchain.toml pins"
    # By name, not left to rustup's own "install what is missing", which RUSTUP_AUTO_INSTALL=0 and
    # older versions do not do.
    rustup toolchain install "$wanted" --profile minimal --component clippy --component rustfmt >&2 ||
        die "rustup is here, but Rust $wanted with clippy and rustfmt is not, and could not be installed" \
            "either give rustup access to its download server and run this again," \
            "or choose a toolchain that is here, $(oldest) or newer, with RUSTUP_TOOLCHAIN=NAME; here are:" \
            "$(rustup toolchain list 2>/dev/null | tr '\n' ' ')"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    elif have sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        # A password can be asked for only where somebody sits.
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    else
        die "this needs root, or a sudo that asks for no password; run as root:" "$*"
    fi
}

install_missing_packages() {
    [ ${#missing[@]} -gt 0 ] || return 0
    local packages
    mapfile -t packages < <(printf '%s\n' "${missing[@]}" | sort -u)
    have apt-get || die "missing on this machine, under Debian's names: ${packages[*]}" \
        "install them with the package manager of this system, and run this again"
    say "installing ${packages[*]}"
    local apt=(apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Acquire::Retries=3)
    as_root "${apt[@]}" update >&2 || say "apt-get update failed; trying with the lists that are here"
    as_root "${apt[@]}" install --no-install-recommends "${packages[@]}" >&2 ||
        die "apt-get could not install: ${packages[*]}"
    hash -r
}

install_cargo_deny() {
    [ "$(cargo-deny --version 2>/dev/null)" = "cargo-deny $DENY_VERSION" ] && return 0
    say "building cargo-deny $DENY_VERSION (once; about two minutes)"
    # Its advisories half is of no use without the database; see deny.toml.
    cargo install cargo-deny --locked --version "$DENY_VERSION" --no-default-features >&2 </dev/null ||
        die "cargo-deny $DENY_VERSION could not be built"
}

verify_rust() {
    have cargo || die "there is still no cargo on the PATH: $PATH"
    rustc_is_new_enough || die "$(rustc --version 2>&1) is older than $(oldest), the oldest this builds with" \
        "remove it from the PATH, or install rustup"
}

main() {
    local level=${1:-}
    need_build_tools
    need_rust
    case $level in
    pure) ;;
    run) need_gstreamer ;;
    test)
        need_gstreamer
        need_test_tools
        ;;
    bench)
        need_gstreamer
        need_test_tools
        need_command wrk wrk
        ;;
    check)
        need_gstreamer
        need_rust_lints
        ;;
    *) die "usage: scripts/setup.sh pure|run|test|bench|check" ;;
    esac
    install_missing_packages
    install_pinned_toolchain
    verify_rust
    if [ "$level" = check ]; then install_cargo_deny; fi
}

main "$@"
