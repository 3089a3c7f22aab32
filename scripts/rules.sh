#!/usr/bin/env bash
# Rules of the native rooms that no compiler checks (docs/decisions.md, "house"): prints each line that breaks one.
set -euo pipefail
cd "$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")"
broken=0
# banned REASON PATTERN FILES...
banned() {
  local reason=$1 pattern=$2
  shift 2
  local files
  mapfile -t files < <(git ls-files "$@")
  if (( ${#files[@]} > 0 )) && grep -nHE "$pattern" "${files[@]}"; then
    echo "rules: error: $reason" >&2
    broken=1
  fi
}
banned "jni.h belongs to native/jni" 'include [<"]jni\.h' 'native/core/*' 'native/cpu/*' 'native/ops/*' 'native/testing/*'
banned "the CUDA headers belong to .cu files and native/cuda" 'include [<"]cuda(\.h|_)' 'native/core/*' 'native/cpu/*' 'native/jni/*' 'native/ops/*.cpp' 'native/ops/*.h'
banned "ops do not print, exit, abort or read the environment" '(^|[^_[:alnum:]])(printf|fprintf|exit|abort|getenv) *\(' 'native/ops/*_cpu*.cpp' 'native/ops/*_ref.cpp' 'native/ops/*.cu'
banned "core depends on nothing above it" 'include "(cpu|ops|jni|cuda|testing)/' 'native/core/*'
banned "sources for one instruction set include C headers and our inlined ones only" 'include <(vector|string|algorithm|memory|functional|atomic|cmath)>' 'native/ops/*_avx2.cpp' 'native/ops/*_avx512*.cpp'
# Another op's files: only shared parameter structs, sign_pack, whose reference the fused batch_norm calls, and batch_norm, which binary_conv and conv2d end with and whose sums approx_sign takes in passing.
while IFS=: read -r file line text; do
  op=$(cut -d/ -f3 <<<"$file")
  other=$(sed -E 's|.*include "ops/([a-z0-9_]+)/.*|\1|' <<<"$text")
  case "$op/$other" in
    "$op/$op" | batch_norm/sign_pack | batch_norm/pool2d | binary_conv/batch_norm | conv2d/batch_norm | approx_sign/batch_norm | softmax_xent/finite_norm | adam/weight_binarize | sgd/adam | adam/finite_norm | sgd/finite_norm | finite_norm/adam) ;;
    *) echo "$file:$line:$text"; echo "rules: error: op $op includes files of op $other" >&2; broken=1 ;;
  esac
done < <(git ls-files 'native/ops/*.h' 'native/ops/*.cpp' 'native/ops/*.cu' 'native/ops/*.cuh' | xargs grep -nHE 'include "ops/')
# Every op that Java can run is one that the test of a step's allocations runs.
while read -r name; do
  grep -q "cpu::$name(" native/testing/allocations_test.cpp ||
    { echo "rules: error: native/testing/allocations_test.cpp does not run $name, which native/jni calls" >&2; broken=1; }
done < <(grep -ohE '(cpu|ref)::[a-z0-9_]+\(' native/jni/cpu_ops_jni.cpp | sed -E 's/.*::(.*)\(/\1/' | grep -vE '_plan$|_fixed16$|^default_isa$' | sort -u)
(( broken == 0 )) || exit 1
echo "rules: kept"
