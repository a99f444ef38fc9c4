#!/usr/bin/env bash
# Builds the documentation and fails on any warning. `[HLS] §4.4` in a module's doc cites
# docs/specs.md; rustdoc takes such a key for a link of its own and warns, so a name in brackets
# passes when, and only when, it is an item or a key of docs/specs.md.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# The readers are those who work on it, so private items are documented, and may be linked to.
export RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links --force-warn rustdoc::broken_intra_doc_links'
if ! cargo doc --locked --no-deps --document-private-items --color=never "$@" >"$log" 2>&1 </dev/null; then
    # By paragraph, without the warnings about keys.
    awk -v RS= -v ORS='\n\n' '/(^|\n)error/' "$log" >&2
    exit 1
fi

keys=$(sed -n 's/^| `\[\([A-Z0-9-]*\)\]` |.*/\1/p' docs/specs.md)
# What a warning is about, and on the next line where: "name file:line:column".
unknown=$(sed -n '/^warning: unresolved link to `/{s/.*`\(.*\)`/\1/;N;s/\n *--> */ /;p}' "$log" |
    while read -r name where; do
        grep -qxF "$name" <<<"$keys" || printf '%s: [%s] is neither an item nor a key of docs/specs.md\n' "$where" "$name"
    done)
if [ -n "$unknown" ]; then
    printf '%s\n' "$unknown" >&2
    exit 1
fi
