#!/usr/bin/env bash
# Installs what a Debian 12 machine lacks for building and testing. Safe to run twice; from any folder. Needs root or
# sudo only where something is missing. Brings: g++, CMake, ccache, GoogleTest, Google Benchmark, clang-format, Fashion-MNIST,
# and a JDK and Maven where there are none. Maven brings the rest (oneDNN among it) at the first build.
set -euo pipefail
if [[ ${1:-} == --help ]]; then sed -n '2,4s/^# //p' "$0"; exit; fi

fail() { echo "setup: error: $1" >&2; exit 1; }

# package and a file that proves it: asking the file system is quicker than asking dpkg, and also accepts other sources.
wanted=(
  "g++:$(type -P g++ || echo missing)"
  "cmake:$(type -P cmake || echo missing)"
  "ccache:$(type -P ccache || echo missing)"
  "make:$(type -P make || echo missing)"
  "git:$(type -P git || echo missing)"
  "maven:$(type -P mvn || echo missing)"
  "libgtest-dev:/usr/include/gtest/gtest.h"
  "libbenchmark-dev:/usr/include/benchmark/benchmark.h"
  "clang-format-14:/usr/bin/clang-format-14"
  "dataset-fashion-mnist:/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz"
)
missing=()
for entry in "${wanted[@]}"; do
  [[ -e ${entry#*:} ]] || missing+=("${entry%%:*}")
done
# A JDK, not a JRE: javac is needed.
if [[ -n ${JAVA_HOME:-} ]]; then
  [[ -x $JAVA_HOME/bin/javac ]] || fail "JAVA_HOME is $JAVA_HOME, which has no bin/javac; correct or unset it"
elif ! type -P javac >/dev/null; then
  missing+=(openjdk-17-jdk-headless)
fi

if (( ${#missing[@]} > 0 )); then
  echo "setup: installing ${missing[*]}"
  as_root=()
  if (( EUID != 0 )); then
    type -P sudo >/dev/null || fail "needs root or sudo to install: ${missing[*]}"
    as_root=(sudo)
  fi
  type -P apt-get >/dev/null || fail "this machine has no apt-get; install by hand: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq || fail "'apt-get update' failed; look at the network and the package sources"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "installing ${missing[*]} failed; the lines above say why"
fi

version=$("${JAVA_HOME:+$JAVA_HOME/bin/}javac" -version 2>&1)
[[ $version =~ javac\ ([0-9]+) ]] || fail "cannot read the version of javac: $version"
(( BASH_REMATCH[1] >= 17 )) || fail "javac is version ${BASH_REMATCH[1]}; install a JDK from 17 to 25, or set JAVA_HOME"
echo "setup: ready ($version)"
