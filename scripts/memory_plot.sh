#!/usr/bin/env bash
# Trains for a given time and watches the memory of the process: is it flat? Writes memory.csv and a plot (PNG, SVG).
set -euo pipefail
repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
usage() {
  cat <<TEXT
usage: scripts/memory_plot.sh [--minutes M] [--every SECONDS] [--config FILE] [--out FOLDER] [--growth-mib X] [--set key=value]...
Trains CONFIG (default configs/quickstart.yaml) for M minutes (default 120), samples /proc and the Java heap every SECONDS
(default 15), and writes FOLDER/memory.csv, memory.png and memory.svg (default FOLDER: target/memory).
Fails if resident memory grows by more than X MiB (default 16): median of the last quarter against that of the second one.
Java's heap is fixed and touched at once (-Xms = -Xmx, AlwaysPreTouch), so that what grows is a leak and not a heap that
fills for the first time; BIREAL_JAVA_OPTS replaces these options.
TEXT
}
fail() { echo "memory_plot: error: $1" >&2; exit 1; }
minutes=120 every=15 config=$repo/configs/quickstart.yaml out=$repo/target/memory growth_mib=16
overrides=()
while (( $# > 0 )); do
  case $1 in
    --minutes | --every | --config | --out | --growth-mib | --set) (( $# > 1 )) || fail "$1 needs a value" ;;&
    --minutes) minutes=$2 ;;
    --every) every=$2 ;;
    --config) config=$2 ;;
    --out) out=$2 ;;
    --growth-mib) growth_mib=$2 ;;
    --set) overrides+=(--set "$2") ;;
    --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown option $1" ;;
  esac
  shift 2
done
for number in "$minutes" "$every" "$growth_mib"; do
  [[ $number =~ ^[0-9]+$ ]] || fail "expected a whole number, got '$number'"
done
(( minutes * 60 >= every * 16 )) || fail "$minutes minutes give fewer than 16 samples, one every $every s; raise --minutes or lower --every"
jstat=${JAVA_HOME:+$JAVA_HOME/bin/}jstat
type -P "$jstat" >/dev/null || fail "no $jstat, which reads the size of the Java heap: install a JDK, or set JAVA_HOME"
mkdir -p "$out"
out=$(readlink -f "$out")
runs=$(mktemp -d "$out/runs.XXXXXX")
csv=$out/memory.csv
export BIREAL_JAVA_OPTS=${BIREAL_JAVA_OPTS--Xms512m -Xmx512m -XX:+AlwaysPreTouch}
# More epochs than fit into any time; the run is stopped by SIGTERM and saves its checkpoint.
"$repo/scripts/bireal" train "$config" ${overrides[@]+"${overrides[@]}"} --set name=memory --set "runs_folder=$runs" --set train.epochs=100000 \
  > "$out/train.log" 2>&1 &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; rm -rf "$runs"' EXIT
log=$runs/memory/log.jsonl
while [[ ! -s $log ]]; do
  kill -0 "$pid" 2>/dev/null || { cat "$out/train.log" >&2; fail "the training ended before its first step"; }
  sleep 0.5
done
echo "seconds,step,rss_mib,peak_rss_mib,native_mib,heap_used_mib,heap_committed_mib,collections,threads" > "$csv"
started=$(date +%s)
end=$((started + minutes * 60))
echo "memory_plot: process $pid, $minutes minutes, a sample every $every s into $csv"
samples=0
while now=$(date +%s); (( now < end )); do
  heap=$("$jstat" -gc "$pid" 2>/dev/null | awk 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
    NR == 2 { used = $at["S0U"] + $at["S1U"] + $at["EU"] + $at["OU"]; all = $at["S0C"] + $at["S1C"] + $at["EC"] + $at["OC"]
      printf "%.3f %.3f %d", used / 1024, all / 1024, $at["YGC"] + $at["FGC"] }') || true
  state=$(awk '/^VmRSS/ { rss = $2 } /^VmHWM/ { peak = $2 } /^Threads/ { threads = $2 }
    END { printf "%.3f %.3f %d", rss / 1024, peak / 1024, threads }' "/proc/$pid/status" 2>/dev/null) || true
  if [[ -z $heap || -z $state ]] || ! kill -0 "$pid" 2>/dev/null; then
    tail -20 "$out/train.log" >&2
    fail "the training ended by itself after $samples samples; its output is $out/train.log"
  fi
  read -r used committed collections <<<"$heap"
  read -r rss peak threads <<<"$state"
  step=$(tail -n 1 "$log" | sed -nE 's/.*"step":([0-9]+).*/\1/p')
  echo "$((now - started)),$step,$rss,$peak,$(awk -v r="$rss" -v c="$committed" 'BEGIN { printf "%.3f", r - c }'),$used,$committed,$collections,$threads" >> "$csv"
  samples=$((samples + 1))
  sleep "$every"
done
kill -TERM "$pid"
code=0
wait "$pid" || code=$?
(( code == 143 )) || { tail -20 "$out/train.log" >&2; fail "the training ended with exit code $code after SIGTERM, expected 143"; }
"$repo/scripts/tool.sh" Plot "$out/memory" "Memory of a training process, $(basename "$config" .yaml)" "seconds" "MiB" \
  "$csv:seconds:rss_mib:resident" "$csv:seconds:native_mib:resident without Java heap" "$csv:seconds:heap_used_mib:Java heap used"
# Medians of quarters: the first one is left out, there the JIT still compiles.
median() { sed 1d "$csv" | awk -F, -v from="$1" -v to="$2" -v n="$samples" 'NR > n * from && NR <= n * to { print $3 }' | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
before=$(median 0.25 0.5)
after=$(median 0.75 1)
grown=$(awk -v a="$after" -v b="$before" 'BEGIN { printf "%.2f", a - b }')
steps=$(tail -n 1 "$csv" | cut -d, -f2)
verdict="$samples samples in $minutes minutes, $steps steps; resident memory: median $before MiB in the second quarter, $after MiB in the last: $grown MiB"
awk -v g="$grown" -v x="$growth_mib" 'BEGIN { exit !(g <= x) }' || fail "memory grows: $verdict, allowed are $growth_mib; see $csv"
echo "memory_plot: flat: $verdict"
