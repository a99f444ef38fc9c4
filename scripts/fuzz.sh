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
    # What is found goes to the first folder, which git ignores; the seeds are only read.
    folders=("fuzz/corpus/$target")
    if [ -d "fuzz/seeds/$target" ]; then folders+=("fuzz/seeds/$target"); fi
    mkdir -p "${folders[0]}"
    cargo +nightly fuzz run "$target" "${folders[@]}" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -verbosity=0 -print_funcs=0 -print_final_stats=1 </dev/null
done
