#!/usr/bin/env bash
# Sets up and runs every check: formatters, banned calls, native tests (also under ASan and UBSan), Java tests with
# -Xcheck:jni, the reference cases. From any folder; leaves everything under target/, what each step says in target/test/.
set -euo pipefail
if [[ ${1:-} == --help ]]; then sed -n '2,3s/^# //p' "$0"; exit; fi
repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
"$repo/scripts/setup.sh"
cd "$repo"
export MAVEN_OPTS="-XX:TieredStopAtLevel=1 ${MAVEN_OPTS:-}"  # a run of Maven ends before the second JIT compiler pays
rm -rf target/test
mkdir -p target/test
fail() { echo "test: error: $1" >&2; exit 1; }
# quietly NAME COMMAND...: into target/test/NAME.log, whose end is shown only where the command fails.
quietly() {
  local log=target/test/$1.log
  shift
  "$@" > "$log" 2>&1 || { tail -n 80 "$log"; fail "'$*' failed; whole log: $log"; }
}
build() { quietly "$1" cmake --build "$2" --parallel "$(nproc)" --target "${@:3}"; }  # NAME FOLDER TARGET...
# gtest NAME PROGRAM: a process for each core, each with its share of the tests.
gtest() {
  local shards shard failed='' pids=()
  shards=$(nproc)
  for (( shard = 0; shard < shards; ++shard )); do
    GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard "$2" --gtest_brief=1 > "target/test/$1-$shard.log" 2> "target/test/$1-$shard.err" &
    pids+=($!)
  done
  for (( shard = 0; shard < shards; ++shard )); do
    wait "${pids[shard]}" || failed+=" target/test/$1-$shard.log"
  done
  [[ ! $failed ]] || { tail -n 60 $failed ${failed//.log/.err}; fail "$2 failed; whole logs:$failed"; }
  grep -hE '^\[  PASSED' target/test/"$1"-*.log | grep -E ' [1-9][0-9]* test' || fail "$2 ran no test"
}

# ---- The steps. Each is a function, runs in a process of its own when the steps that it is declared with below have passed, and
# prints what the reader should see. Maven runs once at a time, and nothing is built in a folder in which another step may build.

unpack() { mvn -q -B generate-resources; }
format() { scripts/format.sh --check; scripts/rules.sh; }
java-classes() {
  mvn -q -B resources:resources compiler:compile@default-compile resources:testResources compiler:testCompile@default-testCompile
}
native-programs() {
  quietly native-cmake cmake -S . -B target/native-test -DBIREAL_JNI=OFF
  build native-programs target/native-test all
  [[ ! -x target/native-test/bireal_cuda_tests ]] || build mutants-build target/native-test bireal_mutants
}
package() {
  # Compiles no C++ again where there is a compiler cache. The class path: else scripts/tool.sh asks Maven for it.
  quietly package mvn -q -B package dependency:build-classpath -Dmdep.outputFile=target/test-classpath.txt -DskipTests
}

native-tests() {
  local isa isas=("" scalar)
  if grep -qw avx512f /proc/cpuinfo; then isas+=(avx2); fi  # elsewhere that is the best, which is tested already
  for isa in "${isas[@]}"; do
    BIREAL_ISA=$isa gtest "native-tests-${isa:-best}" target/native-test/bireal_tests
  done
}
emulator-tests() {
  gtest emulator-ptx target/native-test/native/emulator/ptx/ptx_tests
  gtest emulator-platform target/native-test/native/emulator/platform/emulator_platform_tests
}
# Succeeds where there are kernels to test.
kernels() {
  [[ ! -x target/native-test/bireal_cuda_tests ]] || return 0
  [[ -z ${CI:-} ]] || fail "no nvcc, so no kernels to test: install the CUDA toolkit 13.0, or set CUDA_HOME"
  echo "test: NOT TESTED: $1, because there is no nvcc (CUDA toolkit 13.0)"
  return 1
}
cuda-tests() {
  kernels "the CUDA kernels" || return 0
  gtest cuda-tests target/native-test/bireal_cuda_tests
}
mutants() {
  kernels "that a broken CUDA kernel is noticed" || return 0
  quietly mutants scripts/mutate_kernels.sh --count 60 --tested
  tail -1 target/test/mutants.log
}

sanitized-programs() {
  quietly sanitized-cmake cmake -S . -B target/native-asan -DBIREAL_JNI=OFF -DBIREAL_SANITIZE=address,undefined
  grep -o 'NOT SANITIZED.*' target/test/sanitized-cmake.log || true  # none where the machine runs all
  build sanitized-programs target/native-asan bireal_tests ptx_tests
}
sanitized-tests() {
  gtest asan-tests target/native-asan/bireal_tests
  gtest asan-ptx target/native-asan/native/emulator/ptx/ptx_tests
}

java-tests() {
  local log=target/test/java-tests.log
  mvn -B surefire:test > $log 2>&1 || { grep -vE '^\[INFO\]( |$)' $log | tail -100; fail "Java tests failed; whole log: $log"; }
  grep -E 'Tests run:.*Fail' $log | tail -1
  # The JVM reports a misuse of JNI on stdout and goes on; a report that stands in our natives is a failure.
  if cat $log target/surefire-reports/*-output.txt 2>/dev/null | grep -nE '(WARNING|FATAL ERROR) in native method' -A3 | grep -F 'bireal'; then
    fail "-Xcheck:jni reported our library"
  fi
}
kills() {  # kill -9, full disk, read-only folder
  export BIREAL_JAVA_OPTS=-XX:TieredStopAtLevel=1  # runs so short that compiling them well takes longer than they do
  quietly kill-test scripts/kill_test.sh 8 "$RANDOM"
  quietly disk-test scripts/disk_test.sh
  cat target/test/kill-test.log target/test/disk-test.log
}
reference-cases() { BIREAL_JAVA_OPTS=-XX:TieredStopAtLevel=1 scripts/bireal verify --failures java/test-resources/golden/*.json; }
traffic() {
  kernels "the traffic of a CUDA step" || return 0
  quietly traffic scripts/bench.sh traffic --side 128
  grep -E '^(launches|bytes)' target/test/traffic.log
}
reference-cases-cuda() {
  kernels "reference cases on the CUDA backend" || return 0
  # The largest first, four in a process. Races are looked for in the tests of the kernels, where accesses are counted too; here the
  # races alone would take half as long again.
  ls -S java/test-resources/golden/*.json |
    BIREAL_EMULATOR=race_checks=0,access_counters=0,exit_status=99 BIREAL_JAVA_OPTS="-XX:TieredStopAtLevel=1 -Dbireal.cuda.libraries=target/native-test/emulator -Dbireal.cuda.images=PTX -Dbireal.cuda.algorithms=none -Dbireal.cuda.unmeasured=true" \
      xargs -P "$(nproc)" -n 4 scripts/bireal verify --backend cuda --failures | grep -vE '^(case|-+|)( |$)' ||
    fail "a reference case fails on the CUDA backend"
}

# ---- In which order: STEP and the steps before it. As many at a time as there are cores, and one more beside kills, which waits half
# of its time; of those that can start, the first in this list. Mutants come last: they alone fill all cores to the end.
steps=(unpack format java-classes native-programs package kills java-tests reference-cases reference-cases-cuda traffic cuda-tests
  sanitized-programs sanitized-tests native-tests emulator-tests mutants)
declare -A after=(
  [format]=unpack [java-classes]=format [native-programs]=unpack [package]='java-classes native-programs'
  [kills]=package [java-tests]=package [reference-cases]=package [traffic]=package [reference-cases-cuda]=package
  [cuda-tests]=native-programs [mutants]='cuda-tests package' [sanitized-programs]=native-programs [sanitized-tests]=sanitized-programs
  [native-tests]=native-programs [emulator-tests]=native-programs)

set -m  # each step is a process group, which can be ended as a whole
declare -A pid_of=() began=() passed=()
trap 'for pid in "${pid_of[@]}"; do kill -- "-$pid" 2>/dev/null || true; done' EXIT
can_start() {
  local step
  [[ -z ${pid_of[$1]:-}${passed[$1]:-} ]] || return 1
  for step in ${after[$1]:-}; do [[ -n ${passed[$step]:-} ]] || return 1; done
}
start() {
  began[$1]=$SECONDS
  ("$1") > "target/test/$1.out" 2>&1 &
  pid_of[$1]=$!
}
started=$SECONDS
while (( ${#passed[@]} < ${#steps[@]} )); do
  for step in "${steps[@]}"; do
    waiting=${pid_of[kills]:+1}
    (( ${#pid_of[@]} < $(nproc) + ${waiting:-0} )) || break
    if can_start "$step"; then start "$step"; fi
  done
  status=0
  wait -n -p ended "${pid_of[@]}" || status=$?
  for step in "${!pid_of[@]}"; do [[ ${pid_of[$step]} != "$ended" ]] || break; done
  unset "pid_of[$step]"
  printf '\n== %s (%d s, at %d s)\n' "$step" "$((SECONDS - began[$step]))" "$((SECONDS - started))"
  sed $'s/\e\\[[0-9;]*m//g; /^$/d' "target/test/$step.out"  # Maven ends its colours even where it writes none
  (( status == 0 )) || fail "step $step failed; the others are stopped"
  passed[$step]=yes
done
printf '\n== all passed (%d s)\n' "$((SECONDS - started))"
