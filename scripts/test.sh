#!/usr/bin/env bash
# Everything that must pass, in the order in which it fails fastest. Prints what ran where.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
step() { printf '\n== %s (after %d s)\n' "$1" $((SECONDS - started)); }

step "format, lint, types, architecture, generated files"
make --no-print-directory check
step "data of the examples"
.venv/bin/python -m shardwise.examples.datasets fashion-mnist shakespeare
step "unit, chart, local and cluster tests"
.venv/bin/python -m pytest "$@"
printf '\nall of it took %d s\n' $((SECONDS - started))
