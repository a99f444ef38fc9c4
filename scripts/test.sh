#!/usr/bin/env bash
# Runs every test: scripts/test.sh LIMIT [arguments of cargo test]. `make test` calls it after
# scripts/setup.sh; LIMIT, as `timeout` takes it, bounds the whole.
set -euo pipefail
cd "$(dirname "$0")/.."

limit=$1
shift

# What the tests use that the repository does not carry.
scripts/npm_tools.sh

# In a process group of its own, so that at the limit everything that a test started goes with it;
# Ctrl-C therefore has to be handed on.
timeout --kill-after=30s "$limit" cargo test --locked --all-features --no-fail-fast "$@" </dev/null &
tests=$!
trap 'kill -INT "$tests"' INT
trap 'kill -TERM "$tests"' TERM
status=0
wait "$tests" || status=$?
if [ "$status" = 124 ] || [ "$status" = 137 ]; then
    echo "test: stopped after $limit; raise it with TEST_LIMIT if nothing hangs" >&2
fi
exit "$status"
