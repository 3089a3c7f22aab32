#!/usr/bin/env bash
# Sets up, builds, trains configs/quickstart.yaml (Fashion-MNIST) and prints the test accuracy. From any folder; run again,
# it goes on with an unfinished run, or prints the result of a finished one.
set -euo pipefail
if [[ ${1:-} == --help ]]; then sed -n '2,3s/^# //p' "$0"; exit; fi
repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
"$repo/scripts/setup.sh"
cd "$repo"
echo "quickstart: building"
mvn -q -B package -Dmaven.test.skip=true
run=runs/quickstart
if [[ -f $run/config.yaml ]]; then
  echo "quickstart: $run exists; going on with it (remove the folder to start anew)"
  scripts/bireal train configs/quickstart.yaml --resume "$@"
else
  scripts/bireal train configs/quickstart.yaml "$@"
fi
