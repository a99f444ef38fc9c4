#!/usr/bin/env bash
# Installs what tests and benches take from npm: the browser players and a second S3 server. Takes a moment
# when nothing is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in players plain_s3; do
    stamp=tests/$tool/node_modules/.headwater-installed
    if ! cmp -s "tests/$tool/package-lock.json" "$stamp"; then
        # Chromium comes from the system; a test tool must not download another.
        (cd "tests/$tool" && PUPPETEER_SKIP_DOWNLOAD=1 npm ci --no-audit --no-fund </dev/null)
        cp "tests/$tool/package-lock.json" "$stamp"
    fi
done
