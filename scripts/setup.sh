#!/usr/bin/env bash
# Make the virtual environment with everything in it: the operator, the trainer, the tools.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PYTHON:=python3.11}" "${VENV:=.venv}" "${TORCH:=torch==2.13.0}" "${TORCH_INDEX_URL:=}"
command -v "$PYTHON" >/dev/null || PYTHON=python3

as_root() { if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi; }

# A fresh Debian has Python without its venv module.
if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
  as_root apt-get update -qq
  DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends python3-venv
fi
[[ -x $VENV/bin/python ]] || "$PYTHON" -m venv "$VENV"
pip=("$VENV/bin/python" -m pip --disable-pip-version-check)

# torch first and by itself, from the index with its CPU build where one is named.
"${pip[@]}" install --quiet ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} -c requirements/lock.txt "$TORCH"
"${pip[@]}" install --quiet -c requirements/lock.txt hatchling
"${pip[@]}" install --quiet --no-build-isolation -c requirements/lock.txt -e '.[operator,trainer,compression,dev]'
"$VENV/bin/shardwise" --version
