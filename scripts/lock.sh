#!/usr/bin/env bash
# Write the lock file from a fresh environment: the newest releases that pyproject.toml admits.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet torch==2.13.0
"$folder/bin/pip" install --quiet -e '.[operator,trainer,compression,dev]'
{
  echo "# Versions that this project is tested with. Written by \`make lock\`; used by pip's -c."
  "$folder/bin/pip" freeze --exclude-editable | grep -v '^shardwise' | sed 's/^\(torch==[0-9.]*\)+.*/\1/'
} >requirements/lock.txt
