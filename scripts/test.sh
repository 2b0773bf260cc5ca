#!/usr/bin/env bash
# Everything that must pass, in the order in which it fails fastest. Prints what runs, and how long
# each part took. A part that fails keeps no other from being run; the last line tells of all.
#   scripts/test.sh [PYTEST-OPTIONS]
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS times=() failed=()

part() { # NAME COMMAND...
  local name=$1 from=$SECONDS; shift
  printf '\n== %s (after %d s)\n' "$name" $((from - started))
  "$@" || failed+=("$name")
  times+=("$name $((SECONDS - from)) s")
}
report() {
  printf '\n== %d s in all\n' $((SECONDS - started))
  ((${#times[@]} == 0)) || printf '%s\n' "${times[@]}"
}
trap report EXIT

part check make --no-print-directory check
part data .venv/bin/python -m shardwise.examples.datasets fashion-mnist shakespeare
for folder in unit chart observability local; do
  part $folder .venv/bin/python -m pytest --durations=10 "tests/$folder" "$@"
done
# Prometheus on the cluster is a target of its own, `make cluster-prometheus`: as it stands it has not
# been seen to pass yet, and it takes ten minutes.
part cluster .venv/bin/python -m pytest --durations=10 tests/cluster \
  --ignore=tests/cluster/test_prometheus.py "$@"
if ((${#failed[@]})); then
  printf '\nfailed: %s\n' "${failed[*]}"
  exit 1
fi
