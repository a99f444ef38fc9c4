#!/usr/bin/env bash
# Runs every fuzz target for SECONDS each: scripts/fuzz.sh SECONDS. Needs rustup's nightly, which
# the sanitizers ask for, and cargo-fuzz; names what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=$1
[ -d fuzz ] || { echo "fuzz: there is no fuzz/ folder" >&2; exit 1; }
rustup run nightly rustc --version >/dev/null 2>&1 ||
    { echo "fuzz: needs Rust nightly: rustup toolchain install nightly" >&2; exit 1; }
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked </dev/null

for target in $(cargo +nightly fuzz list); do
    echo "fuzz: $target for $seconds s"
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -rss_limit_mb=2048 </dev/null
done
