#!/usr/bin/env bash
# Checkpoints on a full disk and in a read-only folder, with real ones: a small tmpfs and a read-only mount, in a mount
# namespace of their own (root, or a kernel that lets users make namespaces). Usage: scripts/disk_test.sh
set -euo pipefail
repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
fail() { echo "disk_test: FAILED: $1" >&2; exit 1; }

if [[ ${1:-} != --inside ]]; then
  [[ $# == 0 ]] || { sed -n '2,3s/^# //p' "$0"; [[ $1 == --help ]]; exit; }
  namespace=(unshare --mount)
  (( EUID == 0 )) || namespace=(unshare --user --map-root-user --mount)
  "${namespace[@]}" mount -t tmpfs tmpfs /mnt 2>/dev/null ||
    fail "cannot mount a tmpfs here (tried: ${namespace[*]} mount -t tmpfs): run it as root with CAP_SYS_ADMIN, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)"
  exec "${namespace[@]}" "$0" --inside
fi

work=$(mktemp -d)
disk=$work/disk
pid=
trap '[[ -z $pid ]] || kill -9 "$pid" 2>/dev/null || true; cd /; umount -l "$disk" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir "$disk"
# A checkpoint of the network below is 2.3 MB; three at rest and one in the making fit.
mount -t tmpfs -o size=12m tmpfs "$disk"
cat > "$work/disk.yaml" <<YAML
name: whole
threads: 1
runs_folder: $disk
model: {network: birealnet, depth: 18, width: 8, classes: 4, stem: cifar}
data: {dataset: synthetic, image_size: 16, mean: [0.5], std: [0.25], synthetic_train_images: 640, synthetic_test_images: 64, synthetic_classes: 4}
optimizer: {lr: 2.0e-3, reference_batch: 8}
train: {epochs: 3, batch: 8, micro_batch: 8, checkpoint_every_steps: 20, log_every_steps: 1}
YAML
bireal=("$repo/scripts/bireal" train "$work/disk.yaml")
output=$work/output

# wait_for WHAT COMMAND...: until the command succeeds; the run must be alive meanwhile.
wait_for() {
  local what=$1
  shift
  for (( i = 0; i < 1200; i++ )); do
    "$@" >/dev/null 2>&1 && return
    kill -0 "$pid" 2>/dev/null || { cat "$output"; fail "the run ended before $what"; }
    sleep 0.05
  done
  cat "$output"
  fail "no $what within a minute"
}
# start ARGUMENT...: a run that is stopped (SIGSTOP) once it has a checkpoint.
start() {
  : > "$output"  # here, not in the child, which may come later than the first look for its checkpoint
  "${bireal[@]}" "$@" > "$output" 2>&1 &
  pid=$!
  wait_for "its first checkpoint" grep -q '^checkpoint ' "$output"
  kill -STOP "$pid"
}
# ended CODE PART...: the run's exit code, and what its output must contain.
ended() {
  local expected=$1 code=0
  shift
  wait "$pid" || code=$?
  pid=
  (( code == expected )) || { cat "$output"; fail "exit code $code, expected $expected"; }
  for part in "$@"; do
    grep -qF -- "$part" "$output" || { cat "$output"; fail "the output does not say '$part'"; }
  done
}
fill() { dd if=/dev/zero of="$disk/filler" bs=1k 2>/dev/null && fail "the disk did not fill up"; true; }
same() {
  diff -r "$work/whole/checkpoints/step_00000240" "$disk/$1/checkpoints/step_00000240" || fail "$1: the final checkpoint differs"
  diff "$work/whole/log.jsonl" "$disk/$1/log.jsonl" || fail "$1: the log differs"
}

"${bireal[@]}" > "$output" 2>&1 || { cat "$output"; fail "the undisturbed run"; }
mv "$disk/whole" "$work/whole"

echo "disk_test: full disk, on_checkpoint_failure: stop"
start --set name=stop
fill
kill -CONT "$pid"
ended 1 "was not written" "No space left on device" "$disk/stop" "the newest good checkpoint is" "make room" "go on with: scripts/bireal train $work/disk.yaml --set name=stop --resume"
good=$(ls "$disk/stop/checkpoints" | grep -E '^step_[0-9]+$' | tail -1)
rm "$disk/filler"
"$repo/scripts/bireal" eval "$work/disk.yaml" --weights "$disk/stop/checkpoints/$good" > "$output" 2>&1 ||
  { cat "$output"; fail "$good is damaged"; }
"${bireal[@]}" --set name=stop --resume > "$output" 2>&1 || { cat "$output"; fail "the resume"; }
same stop
rm -r "$disk/stop"

echo "disk_test: full disk for a while, on_checkpoint_failure: continue"
start --set name=continue --set train.on_checkpoint_failure=continue
fill
kill -CONT "$pid"
wait_for "a warning" grep -q 'warning: step .*the checkpoint was not written' "$output"
wait_for "a log line that failed" grep -q 'warning: step .*a log line was not written' "$output"
rm "$disk/filler"
ended 1 "No space left on device" "continue is trained" "NOT WRITTEN" "bireal: error: the last checkpoint is good, but before it writing failed"
same continue
rm -r "$disk/continue"

echo "disk_test: full disk to the end, on_checkpoint_failure: continue"
start --set name=lost --set train.on_checkpoint_failure=continue
fill
kill -CONT "$pid"
ended 1 "bireal: error: step 240 is lost: the newest good checkpoint is $disk/lost" "go on with"
rm "$disk/filler"
"${bireal[@]}" --set name=lost --set train.on_checkpoint_failure=continue --resume > "$output" 2>&1 || { cat "$output"; fail "the resume"; }
same lost
rm -r "$disk/lost"

echo "disk_test: read-only folder"
start --set name=readonly
checkpoints=$disk/readonly/checkpoints
mount --bind "$checkpoints" "$checkpoints"
mount -o remount,ro,bind "$checkpoints"
kill -CONT "$pid"
ended 1 "was not written" "Read-only file system" "$checkpoints" "the newest good checkpoint is"
code=0
"${bireal[@]}" --set name=readonly --resume > "$output" 2>&1 || code=$?
(( code == 2 )) && grep -qF "Read-only file system" "$output" && grep -qF "$checkpoints" "$output" ||
  { cat "$output"; fail "a resume in a read-only folder: exit code $code"; }
umount "$checkpoints"
"${bireal[@]}" --set name=readonly --resume > "$output" 2>&1 || { cat "$output"; fail "the resume"; }
same readonly
echo "disk_test: passed: old checkpoints stay good, messages name the place, and every run ends in the same bits"
