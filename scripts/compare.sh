#!/usr/bin/env bash
# Trains the Fashion-MNIST twins of the published recipes and compares them: one table and one plot of accuracy by epoch.
set -euo pipefail
repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
usage() {
  cat <<TEXT
usage: scripts/compare.sh [--epochs E] [--width W] [--seeds "S ..."] [--runs FOLDER] [--out FOLDER] [--set KEY=VALUE]...
Trains the real-valued twin, ReActNet, Bi-Real Net and XNOR-Net, 18 layers, for E epochs each (default 2; even: ReActNet's
two steps have E/2 each), W channels in the first stage (default 16), once for each seed (default "0 1"). Runs that are
complete are skipped and others resumed, so it can be stopped at any time and started again with the same options.
Writes OUT/comparison.md (the table), comparison.png and comparison.svg (default: docs), and puts the table into
OUT/results.md, if there is one, between its two compare.sh marks. Runs lie below RUNS (default: runs/compare).
TEXT
}
fail() { echo "compare: error: $1" >&2; exit 1; }
epochs=2 width=16 seeds="0 1" runs=$repo/runs/compare out=$repo/docs
overrides=() options=()
while (( $# > 0 )); do
  case $1 in
    --epochs | --width | --seeds | --runs | --out | --set) (( $# > 1 )) || fail "$1 needs a value" ;;&
    --epochs) epochs=$2 ;;
    --width) width=$2 ;;
    --seeds) seeds=$2 ;;
    --runs) runs=$2 ;;
    --out) out=$2 ;;
    --set) overrides+=(--set "$2") ;;
    --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown option $1" ;;
  esac
  options+=("$1" "'$2'")
  shift 2
done
[[ $epochs =~ ^[1-9][0-9]*$ ]] && (( epochs % 2 == 0 )) || fail "--epochs must be an even number, got '$epochs'"
[[ $width =~ ^[1-9][0-9]*$ ]] || fail "--width must be a whole number, got '$width'"
[[ $seeds =~ ^[0-9]+( [0-9]+)*$ ]] || fail "--seeds must be whole numbers with a blank between, got '$seeds'"
mkdir -p "$runs" "$out"
runs=$(readlink -f "$runs") out=$(readlink -f "$out")
cd "$repo"

# train NAME CONFIG SEED [--set ...]: to its end, whatever there is of it.
train() {
  local name=$1_seed$3 config=configs/$2.yaml seed=$3 resume=()
  shift 3
  if [[ -f $runs/$name.complete ]]; then
    echo "compare: $name is complete"
    return
  fi
  [[ -f $runs/$name/config.yaml ]] && resume=(--resume)
  echo "compare: $name${resume[*]:+ (resumed)}, $(date -u '+%F %T') UTC"
  scripts/bireal train "$config" ${overrides[@]+"${overrides[@]}"} --set "name=$name" --set "seed=$seed" --set "runs_folder=$runs" \
    --set "model.width=$width" "$@" ${resume[@]+"${resume[@]}"}
  touch "$runs/$name.complete"
}
names() { local list=(); for seed in $seeds; do list+=("$runs/$1_seed$seed"); done; (IFS=,; echo "${list[*]}"); }

# Built now: an error there should not come after an hour of training.
code=0
scripts/tool.sh Comparison > /dev/null || code=$?
(( code == 2 )) || fail "scripts/tool.sh Comparison does not run (exit code $code)"

for seed in $seeds; do
  train real fashion_real18 "$seed" --set "train.epochs=$epochs"
  train bireal fashion_bireal18 "$seed" --set "train.epochs=$epochs"
  train react fashion_react18 "$seed" --set "train.epochs=$((epochs / 2))" --set "teacher.weights=$runs/real_seed$seed" \
    --set "teacher.model.width=$width"
  # Drops after the same shares of the run as published: 30/58 and 40/58.
  train xnor fashion_xnor18 "$seed" --set "train.epochs=$epochs" \
    --set "schedule.milestones=[$(awk -v e="$epochs" 'BEGIN { printf "%.2f, %.2f", e * 30 / 58, e * 40 / 58 }')]"
done

table=$(scripts/tool.sh Comparison "$out/comparison" "Fashion-MNIST, 18 layers, width $width, mean of $(wc -w <<< "$seeds") seeds" \
  "real-valued twin (ReLU)=$(names real)" "ReActNet, two steps=$(names react)" "Bi-Real Net=$(names bireal)" "XNOR-Net=$(names xnor)")
{
  echo "Fashion-MNIST, width $width, seeds $seeds. $(date -u +%F) · $(scripts/bireal --version) · $(nproc) cores of $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1) · \`scripts/compare.sh${options[*]:+ ${options[*]}}\`"
  echo
  echo "$table"
  echo
  echo "![Test accuracy by epoch](comparison.png)"
} > "$out/comparison.md"
if [[ -f $out/results.md ]] && grep -qx '<!-- compare.sh -->' "$out/results.md"; then
  awk -v file="$out/comparison.md" '/^<!-- compare.sh -->$/ { print; while ((getline line < file) > 0) print line; skip = 1 }
    /^<!-- end of compare.sh -->$/ { skip = 0 } !skip { if (!/^<!-- compare.sh -->$/) print }' "$out/results.md" > "$out/results.md.new"
  mv "$out/results.md.new" "$out/results.md"
fi
cat "$out/comparison.md"
