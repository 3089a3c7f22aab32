#!/usr/bin/env bash
# Kills a run of three stages with SIGKILL at random moments and restarts it, KILLS times (default 200), then lets it end: checkpoint files and
# log must equal those of an uninterrupted run, to the bit. A run that ends before is compared, too, and begun anew. Usage: scripts/kill_test.sh [KILLS] [SEED]
set -euo pipefail
if [[ ${1:-} == -* ]]; then sed -n '2,3s/^# //p' "$0"; [[ $1 == --help ]]; exit; fi
repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
kills=${1:-200}
RANDOM=${2:-1}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Checkpoints every 2 steps, so that many kills fall into the writing of one. A kill comes some 30 steps after the last: 8 of them
# are enough for all three stages.
cat > "$work/kill.yaml" <<YAML
name: whole
threads: 1
runs_folder: $work
model: {network: birealnet, depth: 18, width: 8, classes: 4, stem: cifar}
data: {dataset: synthetic, image_size: 16, mean: [0.5], std: [0.25], synthetic_train_images: 320, synthetic_test_images: 64, synthetic_classes: 4}
optimizer: {lr: 2.0e-3, reference_batch: 8}
train: {epochs: 2, batch: 8, micro_batch: 8, checkpoint_every_steps: 2, log_every_steps: 3}
stages:
  real: {model: {network: realnet, nonlinearity: clip}}
  binary: {start: {from: previous}, optimizer: {type: sgd, form: caffe}}
  retrain_bn: {start: {from: previous, binary_weights: sign}, optimizer: {frozen: ["*conv*"]}}
YAML
bireal=("$repo/scripts/bireal" train "$work/kill.yaml")
milliseconds() { echo $(( $(date +%s%N) / 1000000 )); }
started=$(milliseconds)
"${bireal[@]}" > "$work/whole.log" 2>&1 &
pid=$!
until [[ -d $work/whole/checkpoints/step_00000002 ]] || ! kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
first=$(( $(milliseconds) - started ))
wait "$pid" || { cat "$work/whole.log"; exit 1; }
part=("${bireal[@]}" --set name=part)
same() {
  diff -r "$work/whole/checkpoints" "$work/part/checkpoints" || { echo "kill_test: FAILED: the checkpoints differ"; exit 1; }
  diff "$work/whole/log.jsonl" "$work/part/log.jsonl" || { echo "kill_test: FAILED: the logs differ"; exit 1; }
}
resume() { resume=(); [[ ! -f $work/part/config.yaml ]] || resume=(--resume); }
killed=0 advanced=0 ended=0 newest=
while (( killed < kills )); do
  resume
  "${part[@]}" "${resume[@]}" > "$work/part.log" 2>&1 &
  pid=$!
  # From JVM start to well into training, on a machine of any speed.
  delay=$(( RANDOM % (first * 5 / 2) ))
  sleep "$(printf '%d.%03d' $((delay / 1000)) $((delay % 1000)))"
  if ! kill -9 "$pid" 2>/dev/null; then
    wait "$pid" || { echo "kill_test: the run failed by itself after $killed kills:"; cat "$work/part.log"; exit 1; }
    same
    ended=$((ended + 1))
    rm -r "$work/part"
    newest=
    continue
  fi
  wait "$pid" 2>/dev/null || true
  killed=$((killed + 1))
  before=$newest
  newest=$(ls "$work/part/checkpoints" 2>/dev/null | grep -E '^step_[0-9]+$' | tail -1) || true
  [[ $newest == "$before" ]] || advanced=$((advanced + 1))
  (( killed % 20 )) || echo "kill_test: $killed kills, newest checkpoint $newest"
done
# A kill that comes before the first step tests nothing.
(( advanced > 0 )) || { echo "kill_test: FAILED: none of $killed kills came while it trained"; exit 1; }
resume
"${part[@]}" "${resume[@]}" > "$work/part.log" 2>&1 || { cat "$work/part.log"; exit 1; }
same
echo "kill_test: passed: $killed kills, $advanced of them while it trained; checkpoints and log of $((ended + 1)) runs are bit-identical to an uninterrupted run's"
