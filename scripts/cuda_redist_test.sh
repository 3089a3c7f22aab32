#!/usr/bin/env bash
# Opt-in: NVIDIA's own cuBLAS and cuDNN, as 'mvn package -Pcuda-redist' brings them, without a GPU. Every part of them loads by path,
# versions fit, every function that we call is there, and then the only thing missing is the device, which is said and ends with 3.
# The driver is the emulator's stand-in with no device in it (a machine without GPU has none). From any folder.
set -euo pipefail
if [[ ${1:-} == --help ]]; then sed -n '2,4s/^# //p' "$0"; exit; fi
repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
cd "$repo"
fail() { echo "cuda_redist_test: error: $1" >&2; exit 1; }
redist=$repo/target/cuda-redist
stand_in=$repo/target/native-test/emulator/libcuda.so.1
[[ -d $redist ]] || fail "there is no $redist: run 'mvn package -Pcuda-redist' (downloads 2 GB)"
[[ -e $stand_in ]] || fail "there is no $stand_in: run 'cmake --build target/native-test --target emulator'"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$redist"/*.so* "$stand_in" "$work"

# A method of JCuda calls the function of its name, or what the header maps that name to; its cublasGemmEx_new is cublasGemmEx.
check_calls() { # CLASS PREFIX LIBRARY IMPORTS
  nm -D --defined-only "$redist/$3" | awk '{ sub(/@.*/, "", $3); print $3 }' | sort -u > "$work/defined"
  grep -rhoE "$1\.$2[A-Za-z0-9_]+" java/main/bireal/backend/cuda | sed 's/.*\.//; s/_new$//' | sort -u > "$work/called"
  local calls=0 name symbol
  while read -r name; do
    for symbol in "${name}_v2" "$name"; do # the newer one where the natives import it
      ! grep -qx "$symbol" "native/emulator/platform/symbols/$4" || break
    done
    grep -qx "$symbol" "$work/defined" || fail "$3 has no $symbol, which we call"
    calls=$((calls + 1))
  done < "$work/called"
  (( calls > 3 )) || fail "found only $calls calls of $1 in our sources"
  echo "$3: all $calls functions that we call are there; of the $(wc -l < "native/emulator/platform/symbols/$4") that JCuda's natives import" \
    "it lacks $(sort "native/emulator/platform/symbols/$4" | comm -23 - "$work/defined" | wc -l)"
}
check_calls JCublas2 cublas libcublas.so.12 cublas.txt
check_calls JCudnn cudnn libcudnn.so.9 cudnn.txt

export BIREAL_EMULATOR=device_count=0
BIREAL_JAVA_OPTS="-Dbireal.cuda.libraries=$work" scripts/bireal info > "$work/info.log" 2>&1 || { cat "$work/info.log"; fail "bireal info ended with exit code $?"; }
sed -n '/^kernels/,$p' "$work/info.log" | sed "s|$redist/||; s|$repo/||"
for library in cublas.so.12 cublasLt.so.12 nvrtc.so.12 cudnn.so.9 cudnn_{graph,ops,cnn,adv,heuristic,engines_precompiled,engines_runtime_compiled}.so.9; do
  grep -qF "$redist/lib$library" "$work/info.log" || fail "$redist/lib$library was not loaded"
done
grep -q '^cuBLAS 12\.' "$work/info.log" && grep -q '^cuDNN 9\.' "$work/info.log" || fail "the versions are not those of CUDA 12 and cuDNN 9"

refused() { # FOLDER WHAT
  local code=0
  BIREAL_JAVA_OPTS="-Dbireal.cuda.libraries=$1" scripts/bireal verify --backend cuda java/test-resources/golden/birealnet18-tail-bits.json \
    > "$work/verify.log" 2>&1 || code=$?
  cat "$work/verify.log"
  (( code == 3 )) || fail "exit code $code instead of 3"
  grep -q "$2" "$work/verify.log" || fail "the message does not say '$2'"
  ! grep -q '^	at ' "$work/verify.log" || fail "a stack trace"
}
refused "$work" "no usable GPU: CUDA_ERROR_NO_DEVICE"
ldconfig -p | grep -q libcuda.so.1 || refused "$redist" "the NVIDIA driver .* cannot be loaded"
echo "passed"
