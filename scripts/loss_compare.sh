#!/usr/bin/env bash
# Trains the same short config with two commits and compares the losses: identical to the bit, or by how much and from which step.
set -euo pipefail
repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
usage() {
  cat <<TEXT
usage: scripts/loss_compare.sh A B [CONFIG] [--steps N] [--set key=value]...
A and B are commits, or '.' for the working tree as it is. Each is built in a folder of its own (target/loss_compare/COMMIT,
kept for the next time), trains CONFIG (default configs/quickstart.yaml, as it is in the working tree) for N steps (default 50),
and the lines of both logs are compared as exact numbers. Exit code 0: identical to the bit, 1: not, 2: no answer.
TEXT
}
fail() { echo "loss_compare: error: $1" >&2; exit 2; }
steps=50 overrides=() words=()
while (( $# > 0 )); do
  case $1 in
    --help) usage; exit 0 ;;
    --steps | --set) (( $# > 1 )) || fail "$1 needs a value" ;;&
    --steps) steps=$2; shift 2 ;;
    --set) overrides+=(--set "$2"); shift 2 ;;
    --*) usage >&2; fail "unknown option $1" ;;
    *) words+=("$1"); shift ;;
  esac
done
(( ${#words[@]} == 2 || ${#words[@]} == 3 )) || { usage >&2; exit 2; }
[[ $steps =~ ^[1-9][0-9]{0,8}$ ]] || fail "--steps must be a whole number from 1, got '$steps'"
config=${words[2]:-$repo/configs/quickstart.yaml}
[[ -f $config ]] || fail "no config $config"
config=$(readlink -f "$config")
work=$repo/target/loss_compare

# folder_of COMMIT: where its sources are, checked out if need be.
folder_of() {
  [[ $1 != . ]] || { echo "$repo"; return; }
  local commit
  commit=$(git -C "$repo" rev-parse --verify --quiet "$1^{commit}") || fail "no commit '$1' in $repo; 'git log --oneline' lists them"
  if [[ ! -d $work/$commit ]]; then
    git -C "$repo" worktree prune
    git -C "$repo" worktree add --detach --quiet "$work/$commit" "$commit" || fail "cannot check out $1 into $work/$commit"
  fi
  echo "$work/$commit"
}
# build FOLDER NAME
build() {
  local log=$1/target/loss_compare_build.log
  [[ $1 == "$repo" || ! -f $1/target/loss_compare_built ]] || return 0
  echo "loss_compare: building $2"
  mkdir -p "$1/target"
  (cd "$1" && mvn -q -B package -Dmaven.test.skip=true) > "$log" 2>&1 || { tail -30 "$log" >&2; fail "$2 does not build; the whole log is $log"; }
  touch "$1/target/loss_compare_built"
}
# train FOLDER NAME RUNS: until the log has the last step; what was trained beyond it is not compared.
pid=
train() {
  local log=$3/compared/log.jsonl
  "$1/scripts/bireal" train "$config" ${overrides[@]+"${overrides[@]}"} --set name=compared --set "runs_folder=$3" \
    --set train.log_every_steps=1 > "$3/output" 2>&1 &
  pid=$!
  echo "loss_compare: $2 trains $steps steps"
  until grep -qs "\"event\":\"train\",\"step\":$steps," "$log"; do
    if ! kill -0 "$pid" 2>/dev/null; then
      wait "$pid" && break
      tail -20 "$3/output" >&2
      fail "$2 does not train $(basename "$config")"
    fi
    sleep 0.2
  done
  kill -9 "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  pid=
}

# Both first, so that a word that is no commit costs no build.
a=$(folder_of "${words[0]}")
b=$(folder_of "${words[1]}")
build "$a" "${words[0]}"
build "$b" "${words[1]}"
runs=$(mktemp -d)
trap '[[ -z $pid ]] || kill -9 "$pid" 2>/dev/null || true; rm -rf "$runs"' EXIT
mkdir "$runs/a" "$runs/b"
train "$a" "${words[0]}" "$runs/a"
train "$b" "${words[1]}" "$runs/b"
code=0
"$repo/scripts/tool.sh" LossCompare "$runs/a/compared/log.jsonl" "$runs/b/compared/log.jsonl" "$steps" || code=$?
exit "$code"
