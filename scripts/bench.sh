#!/usr/bin/env bash
# Speed and memory against the libraries that one would use otherwise; both sides in turn, medians and ratio. --help says more.
set -euo pipefail
repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
usage() {
  cat <<TEXT
usage: scripts/bench.sh conv [--filter REGEX]
       scripts/bench.sh train|eval [--case 224|32] [--rounds N] [--runs N] [--threads N]
       scripts/bench.sh profile [--case 224|32] [--runs N] [--threads N]
       scripts/bench.sh traffic [--side PIXELS] [--width CHANNELS]
conv   each pass of the binary convolution against oneDNN's float32 convolution of the same shape, in the layouts that oneDNN
       prefers; one thread, runs of the two alternate. Results are compared with the reference first.
train  a whole step of Bi-Real Net-18 (forward, loss, backward, Adam), eval: its forward pass in evaluation mode, against the same
       network in libtorch (contiguous and channels_last; the better one counts): images/s and peak memory (VmHWM).
       First both sides compute logits and gradients from the same weights, and must agree.
       Cases: 224x224, width 64, batch 16, 1000 classes; 32x32, width 32, batch 128, 10 classes (default: both; eval: 224).
       Each side runs in a process of its own, in turn, --rounds times (default 3); a process gives the median of --runs steps
       (default: about 5 seconds). --threads: both sides (default: all cores).
profile  our side of train alone, with the mean time of a step by op (replay is the whole of forward and backward).
traffic  memory traffic, launches and bank conflicts of a mixed-precision CUDA step, counted by the emulator for one and two images
       and scaled to a batch of 512 (default: 224x224, width 64; some minutes). Nothing is timed, and no GPU is needed.
BIREAL_ISA=scalar|avx2 caps both sides. Needs a machine that does nothing else. The first run downloads libtorch (100 MB).
TEXT
}
fail() { echo "bench: error: $1" >&2; exit 1; }
case ${1:-} in
  conv | train | eval | profile | traffic) what=$1; shift ;;
  --help) usage; exit 0 ;;
  *) usage >&2; fail "expected conv, train, eval, profile or traffic, got '${1:-}'" ;;
esac
if [[ $what == traffic ]]; then
  cd "$repo"
  [[ -f target/native-test/emulator/libbireal_emulator_control.so ]] || fail "no emulator: run scripts/test.sh once, or 'cmake -S . -B target/native-test -DBIREAL_JNI=OFF' and 'cmake --build target/native-test --target emulator'"
  echo "$(date +%F), commit $(git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || echo unknown), emulated compute capability 8.0"
  exec scripts/tool.sh Traffic "$@"
fi
cases=(224 32) rounds=3 runs= threads=$(nproc) filter=.
[[ $what != eval ]] || cases=(224)
while (( $# > 0 )); do
  case $1 in
    --help) usage; exit 0 ;;
    --filter) [[ $what == conv ]] || fail "$1 is an option of conv" ;;
    --rounds) [[ $what == train || $what == eval ]] || fail "$1 is an option of train and eval" ;;
    --case | --runs | --threads) [[ $what != conv ]] || fail "$1 is an option of train, eval and profile" ;;
    *) usage >&2; fail "unknown option $1" ;;
  esac
  (( $# > 1 )) || fail "$1 needs a value"
  case $1 in
    --filter) filter=$2 ;;
    --case) [[ $2 == 224 || $2 == 32 ]] || fail "--case must be 224 or 32, got '$2'"; cases=("$2") ;;
    *) [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 must be a whole number >= 1, got '$2'" ;;&
    --rounds) rounds=$2 ;;
    --runs) runs=$2 ;;
    --threads) threads=$2 ;;
  esac
  shift 2
done
cd "$repo"
mkdir -p target
log=target/bench.log
build() { "$@" > "$log" 2>&1 || { tail -30 "$log" >&2; fail "the build failed: $*"; }; }
# What is newer than the mark of the last build?
stale() { [[ ! -e $1 || -n $(find java/main java/bench native CMakeLists.txt pom.xml -newer "$1" -print -quit) ]]; }
echo "$(date +%F), commit $(git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || echo unknown), $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $(nproc) cores${BIREAL_ISA:+, BIREAL_ISA=$BIREAL_ISA}"

if [[ $what == conv ]]; then
  if stale target/native-test/op_bench; then
    [[ -d target/dnnl ]] || build mvn -q -B generate-resources
    build cmake -S . -B target/native-test -DBIREAL_JNI=OFF
    build cmake --build target/native-test --parallel --target op_bench
    touch target/native-test/op_bench
  fi
  target/native-test/op_bench --benchmark_filter="^BinaryConvVsOneDnn/.*$filter" --benchmark_format=json > "$log" 2> target/bench.err ||
    { code=$?; cat target/bench.err >&2; fail "op_bench ended with exit code $code"; }
  grep -q BinaryConvVsOneDnn/ "$log" || fail "no benchmark matches --filter '$filter'"
  ! grep '"error_message"' "$log" >&2 || fail "a result differs from the reference"
  awk -F'[:,]' 'function show() { if (name != "") printf "%-40s %10.1f %10.1f %10.1f %8.2f  %s\n", name, v["MAC/cycle"], v["oneDNN"], v["us"], v["ratio"], label }
    BEGIN { printf "%-40s %10s %10s %10s %8s\n", "MAC a cycle, one thread", "bireal", "oneDNN", "us/image", "ratio" }
    { gsub(/[" ]/, "") } $1 == "name" { show(); name = $2; sub(/BinaryConvVsOneDnn\//, "", name); sub(/\/manual_time/, "", name) }
    $1 == "label" { label = $2 ":" $3 } { v[$1] = $2 } END { show() }' "$log"
  exit 0
fi

mark=target/bench-classpath.txt
if stale "$mark"; then
  build mvn -q -B -Pbench test-compile dependency:build-classpath -Dmdep.outputFile="$mark"
fi
java=${JAVA_HOME:+$JAVA_HOME/bin/}java
side() {
  local name=$1
  shift
  # libtorch's own kernels, its oneDNN and its OpenBLAS know other names for the cap.
  local cap=()
  case ${BIREAL_ISA:-} in
    scalar) cap=(ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Nehalem) ;;
    avx2) cap=(ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell) ;;
  esac
  # shellcheck disable=SC2086
  env ${cap[@]+"${cap[@]}"} OMP_NUM_THREADS="$threads" "$java" ${BIREAL_JAVA_OPTS:-} \
    -cp "target/bench-classes:target/classes:$(cat "$mark")" "bireal.bench.$name" "$@" 2> target/bench.err ||
    { code=$?; cat target/bench.err >&2; fail "$name $* ended with exit code $code"; }
}
median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
column() { awk -v side="$1" -v c="$2" '$1 == side { print $c }' "$log"; }
for case in "${cases[@]}"; do
  if [[ $what == profile ]]; then
    echo "profile $case, $threads threads:"
    side BirealSide profile "$case" "$threads" "${runs:-16}" | sed 's/^/  /'
    continue
  fi
  rm -f target/bench-weights.safetensors target/bench-results.safetensors
  side BirealSide check "$case" "$threads" target/bench-weights.safetensors target/bench-results.safetensors
  echo "$what $case: both sides from the same weights:"
  side LibtorchSide check "$case" "$threads" target/bench-weights.safetensors target/bench-results.safetensors | sed 's/^/  /'
  # Runs that take about 5 seconds each on two cores of 2024.
  case $what$case in
    train224) ours=16 theirs=4 ;;
    train32) ours=16 theirs=4 ;;
    eval224) ours=60 theirs=8 ;;
    eval32) ours=100 theirs=10 ;;
  esac
  : > "$log"
  for (( round = 0; round < rounds; ++round )); do
    side BirealSide "$what" "$case" "$threads" "${runs:-$ours}" | sed -n 's/^RESULT/bireal/p' >> "$log"
    for format in contiguous channels_last; do
      side LibtorchSide "$what" "$case" "$threads" "${runs:-$theirs}" "$format" | sed -n "s/^RESULT/$format/p" >> "$log"
    done
  done
  printf '%-28s %12s %14s\n' "$what $case, $threads threads" "images/s" "VmHWM, MiB"
  for name in bireal contiguous channels_last; do
    printf '  %-26s %12.2f %14d   (%s)\n' "$([[ $name == bireal ]] && echo bireal || echo "libtorch, $name")" \
      "$(column $name 2 | median)" "$(column $name 3 | median)" "$(column $name 2 | paste -sd' ')"
  done
  awk -v what="$what" -v ours="$(column bireal 2 | median)" -v a="$(column contiguous 2 | median)" -v b="$(column channels_last 2 | median)" \
    -v mem="$(column bireal 3 | median)" -v ma="$(column contiguous 3 | median)" -v mb="$(column channels_last 3 | median)" 'BEGIN {
      best = a > b ? a : b; memory = a > b ? ma : mb
      printf "  %-26s %12.2f %14.2f   of %s\n", "ratio", ours / best, mem / memory, (a > b ? "contiguous" : "channels_last") }'
done
