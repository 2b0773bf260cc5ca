#!/usr/bin/env bash
# Everything that must pass. Prints what runs, and how long each part took. A part that fails keeps
# no other from being run; the last line tells of all.
#   scripts/test.sh [PYTEST-OPTIONS]
#
# The tests on a real cluster run on the servers of tests/cluster/rig/servers.py, then, where
# KUBE_LAB_OLDER_ASSETS names a folder of older ones, those marked `every_version` on these. They wait for it more than they compute, so they run beside the others. What
# they say comes when they have ended; meanwhile it is in out/cluster.log. Those of faults, which are
# about time, have the machine to themselves.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS times=() failed=() beside=
log=out/cluster.log
faults=(tests/local/test_{chaos,network,same_bytes,tasks}.py)

begins() { printf '\n== %s (after %d s)\n' "$1" $((SECONDS - started)); }
ended() { # NAME FROM: it took so long
  times+=("$1 $((SECONDS - $2)) s")
}
part() { # NAME COMMAND...
  local name=$1 from=$SECONDS; shift
  begins "$name"
  "$@" || failed+=("$name")
  ended "$name" "$from"
}
pytest=(.venv/bin/python -m pytest --durations=10)
tests() { "${pytest[@]}" "$@"; }
cluster() { # on each of the versions, one after the other
  local running status=0
  trap 'kill "$running" 2>/dev/null && wait "$running"; exit 130' TERM
  "${pytest[@]}" tests/cluster "$@" & running=$!
  wait "$running" || status=1
  if [[ ${KUBE_LAB_OLDER_ASSETS:-} ]]; then
    # One node: to bring the images to a node takes longer than these tests.
    KUBE_LAB_NODES=1 KUBEBUILDER_ASSETS=$KUBE_LAB_OLDER_ASSETS "${pytest[@]}" tests/cluster -m every_version "$@" & running=$!
    wait "$running" || status=1
  else
    echo 'an older Kubernetes: not run; KUBE_LAB_OLDER_ASSETS names no folder of its servers'
  fi
  return "$status"
}
report() {
  if [[ $beside ]]; then # interrupted: the nodes would go on without their tests
    kill "$beside" 2>/dev/null && wait "$beside" 2>/dev/null || true
    [[ ${SHARDWISE_KEEP_CLUSTER:-} ]] || tests/cluster/rig/cluster down || true
  fi
  printf '\n== %d s in all\n' $((SECONDS - started))
  ((${#times[@]} == 0)) || printf '%s\n' "${times[@]}"
  [[ ! -s $log ]] || grep -E '^(cluster|servers|NetworkPolicies|an older Kubernetes): ' "$log" || true
}
trap report EXIT
trap 'exit 130' INT TERM # a pytest that is interrupted ends as if its tests had failed

mkdir -p out
rm -f "$log" # of an earlier run
part check make --no-print-directory check
part data .venv/bin/python -m shardwise.examples.datasets fashion-mnist shakespeare

begins "cluster, beside the next ones"
from=$SECONDS
cluster "$@" >"$log" 2>&1 &
beside=$!
for name in unit chart observability; do
  part $name tests tests/$name "$@"
done
part local tests tests/local "${faults[@]/#/--ignore=}" "$@"
printf '\n== waiting for the cluster (after %d s)\n' $((SECONDS - started))
wait "$beside" || failed+=(cluster)
beside=
ended cluster "$from"
cat "$log"

part "local, with faults" tests "${faults[@]}" "$@"
if ((${#failed[@]})); then
  printf '\nfailed: %s\n' "${failed[*]}"
  exit 1
fi
