#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: is the CUDA backend right there, and how fast? --help says more.
set -euo pipefail
repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
usage() {
  cat <<TEXT
usage: scripts/gpu_check.sh [--no-build] [--batch N] [--steps N] [--smoke]
Runs the tests of the kernels, the contract and step tests of the backend and the reference cases on the device, then times every
op of a training step of Bi-Real Net-18 (224x224) against its floor in bytes and operations, whole steps in fp32 and mixed
precision, and, where python3 has torch, the same network in PyTorch. The table comes last. About 8 minutes at most, without the build.
--no-build  take what is built (mvn package, target/native-test); needs no network
--batch N   images of a step (default 512; what does not fit is not measured, and the table says how many images do)
--steps N   timed steps (default 10)
--smoke     no GPU: everything on the emulator with a tiny network and few tests, to see that this script runs; its figures mean nothing
Exit code: 0 right and not slow, 1 WRONG, 2 usage or build, 3 a library or the GPU is MISSING, 4 SLOW (right, but an op needs more than
twice its floor, or PyTorch is faster). Logs: target/gpu-check.
TEXT
}
fail() { echo "gpu_check: error: $2" >&2; exit "$1"; }
build=1 batch= steps= smoke=
while (( $# > 0 )); do
  case $1 in
    --help) usage; exit 0 ;;
    --no-build) build= ;;
    --smoke) smoke=1 ;;
    --batch | --steps)
      [[ ${2:-} =~ ^[1-9][0-9]{0,5}$ ]] || fail 2 "$1 must be a whole number from 1 to 999999, got '${2:-}'"
      [[ $1 == --batch ]] && batch=$2 || steps=$2
      shift ;;
    *) usage >&2; fail 2 "unknown option $1" ;;
  esac
  shift
done
cd "$repo"
logs=target/gpu-check
mkdir -p "$logs"
started=$SECONDS
step() { echo; echo "== $1 ($((SECONDS - started)) s)"; }

# Where everything runs: the device, or the emulator, which is told so in every process.
filter='*' tests=CudaBackendTest,CudaStepsTest cases=(java/test-resources/golden/*.json)
if [[ $smoke ]]; then
  unset BIREAL_TEST_CUDA
  batch=${batch:-2} steps=${steps:-1} filter='SignPack*' tests='CudaBackendTest#memory*'
  cases=(java/test-resources/golden/birealnet18-tail-bits.json)
  export BIREAL_JAVA_OPTS="${BIREAL_JAVA_OPTS:-} -Dbireal.cuda.libraries=$repo/target/native-test/emulator -Dbireal.cuda.images=PTX -Dbireal.cuda.algorithms=none -Dbireal.cuda.unmeasured=true"
else
  export BIREAL_TEST_CUDA=libcuda.so.1
fi
batch=${batch:-512} steps=${steps:-10}
libraries=()
[[ ! -d target/cuda-redist || $smoke ]] || libraries=("-Dbireal.cuda.libraries=$repo/target/cuda-redist")

if [[ $build ]]; then
  step "build"
  {
    # A first use of what runs later, so that Maven has all it needs offline.
    mvn -q -B package -Dmaven.test.skip=true && mvn -q -B test-compile surefire:test -Dtest=RngTest &&
      { scripts/tool.sh GpuBench list || (( $? == 3 )); } &&
      cmake -S . -B target/native-test -DBIREAL_JNI=OFF &&
      cmake --build target/native-test --parallel "$(nproc)" --target bireal_cuda_tests emulator
  } > "$logs/build.log" 2>&1 || { tail -30 "$logs/build.log" >&2; fail 2 "the build failed; whole log: $logs/build.log"; }
fi
native=target/native-test/bireal_cuda_tests
[[ -x $native ]] || fail 2 "there is no $native: run without --no-build, on a machine with nvcc (CUDA toolkit 13.0)"

step "device and libraries"
code=0
scripts/tool.sh GpuBench list > "$logs/device.log" 2>&1 || code=$?
cat "$logs/device.log"
(( code != 3 )) || fail 3 "MISSING: see above; nothing was tested"
(( code == 0 )) || fail 2 "GpuBench list ended with exit code $code"

wrong=() summary=() slow='' unfinished=''
# check LIMIT NAME LOG COMMAND...: what fails is wrong; what does not end within LIMIT seconds (code 124) is slow, unless something
# had failed by then. The rest still runs.
check() {
  local limit=$1 name=$2 log=$logs/$3 seconds=$SECONDS result=passed code=0
  shift 3
  step "$name"
  timeout "$limit" "$@" > "$log" 2>&1 || code=$?
  if (( code == 124 )) && ! grep -qE 'FAILED|FAILURE|ERROR' "$log"; then
    unfinished=1
    result="did not end in $limit s (log: $log)"
    slow="${slow:+$slow, and }$name did not end in $limit s"
  elif (( code != 0 )); then
    result="FAILED (exit code $code, log: $log)"
    wrong+=("$name")
  fi
  (( code == 0 )) || tail -25 "$log"
  summary+=("$(printf '%-36s %5d s  %s' "$name" $((SECONDS - seconds)) "$result")")
  echo "$result"
}
ran_some() { "$@" && grep -qE 'PASSED  \] [1-9]' "$logs/native.log"; }
export -f ran_some
export logs
check 90 "tests of the kernels" native.log bash -c 'ran_some "$@"' _ "$native" --gtest_brief=1 --gtest_filter="$filter"
check 100 "contract and steps of the backend" java.log mvn -o -B surefire:test -Dtest="$tests" ${libraries[@]+"${libraries[@]}"}
check 80 "reference cases" verify.log scripts/bireal verify --failures --backend cuda "${cases[@]}"

step "speed"
code=0
timeout 110 scripts/tool.sh GpuBench "$([[ $smoke ]] && echo smoke || echo run)" "$batch" "$steps" > "$logs/bench.log" 2>&1 || code=$?
case $code in
  0) ;;
  4) slow="${slow:+$slow, and }an op needs more than twice its floor" ;;
  124) unfinished=1; slow="${slow:+$slow, and }the timing of the ops did not end in 110 s" ;;
  *) tail -25 "$logs/bench.log"; wrong+=("speed (exit code $code, log: $logs/bench.log)") ;;
esac
if python3 -c 'import torch' 2>/dev/null; then
  step "PyTorch"
  options=(--batch "$batch" --steps "$steps")
  [[ ! $smoke ]] || options+=(--smoke)
  timeout 100 python3 scripts/gpu_pytorch.py "${options[@]}" > "$logs/pytorch.log" 2>&1 ||
    { tail -5 "$logs/pytorch.log"; echo "gpu_check: PyTorch ended with an error or took too long; what it measured counts"; }
else
  echo "PyTorch: not compared, because python3 has no torch" > "$logs/pytorch.log"
fi

step "ops of a step"
grep -v '^RESULT' "$logs/bench.log" || true
step "result"
cat "$logs/device.log"
[[ ! $smoke ]] || echo "EMULATED: no GPU ran anything; all times below are those of an interpreter"
printf '%s\n' "${summary[@]}"
echo
printf '%-29s %19s %12s %12s\n' "Bi-Real Net-18, training step" "speed" "time" "memory"
cat "$logs/bench.log" "$logs/pytorch.log" | sed -n 's/^RESULT //p; /^PyTorch:/p'
best() { sed -n "s/^RESULT $1 .* \([0-9.]*\) images\/s.*/\1/p" "$logs/$2" | sort -g | tail -1; }
ours=$(best 'bireal mixed' bench.log) theirs=$(best 'pytorch' pytorch.log)
if [[ $ours && $theirs ]]; then
  awk -v a="$ours" -v b="$theirs" 'BEGIN { printf "mixed against the fastest of PyTorch: %.2f times\n", a / b; exit a < b }' || slow="${slow:+$slow, and }PyTorch is faster"
fi
if (( ${#wrong[@]} > 0 )); then
  printf 'WRONG: %s\n' "${wrong[@]}"
  exit 1
fi
if [[ $slow && ( ! $smoke || $unfinished ) ]]; then
  echo "SLOW: $slow"
  exit 4
fi
echo "RIGHT$([[ $smoke ]] || echo ', and nothing is slow')"
