#!/usr/bin/env bash
# Sets up and runs every check: formatters, banned calls, native tests (also under ASan and UBSan), Java tests with
# -Xcheck:jni, the reference cases. From any folder; leaves everything under target/.
set -euo pipefail
if [[ ${1:-} == --help ]]; then sed -n '2,3s/^# //p' "$0"; exit; fi
repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
"$repo/scripts/setup.sh"
cd "$repo"
started=$SECONDS
step() { echo; echo "== $1 ($((SECONDS - started)) s)"; }
fail() { echo "test: error: $1" >&2; exit 1; }
# build FOLDER TARGET...: says nothing unless it fails.
build() {
  local folder=$1
  shift
  cmake --build "$folder" --parallel "$(nproc)" --target "$@" > target/build.log 2>&1 ||
    { tail -60 target/build.log; fail "building $folder failed; whole log: target/build.log"; }
}
# gtest NAME PROGRAM: a process for each core, each with its share of the tests; what they print goes to target/NAME-N.log.
gtest() {
  local shards shard failed='' pids=()
  shards=$(nproc)
  rm -f target/"$1"-*.log target/"$1"-*.err
  for (( shard = 0; shard < shards; ++shard )); do
    GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard "$2" --gtest_brief=1 > "target/$1-$shard.log" 2> "target/$1-$shard.err" &
    pids+=($!)
  done
  for (( shard = 0; shard < shards; ++shard )); do
    wait "${pids[shard]}" || failed+=" target/$1-$shard.log"
  done
  [[ ! $failed ]] || { tail -n 60 $failed ${failed//.log/.err}; fail "$2 failed; whole logs:$failed"; }
  grep -hE '^\[  PASSED' target/"$1"-*.log | grep -E ' [1-9][0-9]* test' || fail "$2 ran no test"
}

step "format and rules of the house"
scripts/format.sh --check
scripts/rules.sh

step "build"
mvn -q -B package -Dmaven.test.skip=true

step "native tests"
cmake -S . -B target/native-test -DBIREAL_JNI=OFF >/dev/null
build target/native-test all
for isa in "" scalar avx2; do
  BIREAL_ISA=$isa gtest native-tests target/native-test/bireal_tests
done

step "the emulator's own tests"
gtest emulator-ptx target/native-test/native/emulator/ptx/ptx_tests
gtest emulator-platform target/native-test/native/emulator/platform/emulator_platform_tests

step "kernels on the emulator"
if [[ -x target/native-test/bireal_cuda_tests ]]; then
  gtest cuda-tests target/native-test/bireal_cuda_tests
  scripts/mutate_kernels.sh --count 64 --tested > target/mutants.log || { cat target/mutants.log; fail "a broken kernel was not noticed"; }
  tail -1 target/mutants.log
elif [[ -n ${CI:-} ]]; then
  fail "no nvcc, so no kernels to test: install the CUDA toolkit 13.0, or set CUDA_HOME"
else
  echo "test: NOT TESTED: the CUDA kernels, because there is no nvcc (CUDA toolkit 13.0)"
fi

step "native tests under ASan and UBSan"
cmake -S . -B target/native-asan -DBIREAL_JNI=OFF -DBIREAL_SANITIZE=address,undefined >/dev/null
build target/native-asan bireal_tests ptx_tests
gtest asan-tests target/native-asan/bireal_tests
gtest asan-ptx target/native-asan/native/emulator/ptx/ptx_tests

step "Java tests with -Xcheck:jni"
mvn -B verify > target/java-tests.log 2>&1 || { grep -vE '^\[INFO\]( |$)' target/java-tests.log | tail -100; fail "Java tests failed; whole log: target/java-tests.log"; }
grep -E 'Tests run:.*Fail' target/java-tests.log | tail -1
# The JVM reports a misuse of JNI on stdout and goes on; a report that stands in our natives is a failure.
if cat target/java-tests.log target/surefire-reports/*-output.txt 2>/dev/null | grep -nE '(WARNING|FATAL ERROR) in native method' -A3 | grep -F 'bireal'; then
  fail "-Xcheck:jni reported our library"
fi

step "kill -9, full disk, read-only folder; beside them, on another core, reference cases and the traffic of a CUDA step"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
{ scripts/kill_test.sh 8 "$(( RANDOM ))" && scripts/disk_test.sh; } > target/kill-test.log 2>&1 &
killing=$!
scripts/bireal verify --failures java/test-resources/golden/*.json
if [[ -x target/native-test/bireal_cuda_tests ]]; then
  scripts/bench.sh traffic --side 128 > target/traffic.log 2>&1 || { cat target/traffic.log; fail "a step moves more than it may, or was not counted"; }
  grep -E '^(launches|bytes)' target/traffic.log
fi
wait "$killing" || { cat target/kill-test.log; fail "a run was lost, or did not go on to the same bits"; }
cat target/kill-test.log

if [[ -x target/native-test/bireal_cuda_tests ]]; then
  step "reference cases on the CUDA backend, emulated"
  # Races are looked for in the tests of the kernels; here they would take half as long again.
  printf '%s\n' java/test-resources/golden/*.json |
    BIREAL_EMULATOR=race_checks=0,exit_status=99 BIREAL_JAVA_OPTS="-Dbireal.cuda.libraries=target/native-test/emulator -Dbireal.cuda.images=PTX -Dbireal.cuda.algorithms=none -Dbireal.cuda.unmeasured=true" \
      xargs -P "$(nproc)" -n 1 scripts/bireal verify --backend cuda --failures | grep -vE '^(case|-+|)( |$)' ||
    fail "a reference case fails on the CUDA backend"
fi

step "all passed"
