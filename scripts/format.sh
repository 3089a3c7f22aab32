#!/usr/bin/env bash
# Formats Java (google-java-format) and C++ (clang-format 14); with --check only says what is not formatted.
set -euo pipefail
cd "$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")"
mapfile -t sources < <(git ls-files 'native/*.h' 'native/*.cpp' 'native/*.cu' 'native/*.cuh')
if [[ ${1:-} == --check ]]; then
  clang-format-14 --dry-run -Werror "${sources[@]}"
  mvn -q -B spotless:check
else
  clang-format-14 -i "${sources[@]}"
  mvn -q -B spotless:apply
fi
