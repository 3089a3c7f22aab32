#!/usr/bin/env bash
# Runs a main class of java/test/bireal/tools (plots, fuzzers); compiles first if a source is newer. From any folder.
# Usage: scripts/tool.sh CLASS [ARGUMENT]... BIREAL_JAVA_OPTS holds options for the JVM.
set -euo pipefail
repo=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
if (( $# == 0 )) || [[ $1 == --help ]]; then
  sed -n '2,3s/^# //p' "$0"
  ls "$repo/java/test/bireal/tools" | sed -n 's/^/  /; s/\.java$//p'
  exit 0
fi
classpath=$repo/target/test-classpath.txt
if [[ ! -f $classpath || -n $(find "$repo/java" "$repo/pom.xml" -newer "$classpath" -print -quit) ]]; then
  # -o: a tool needs nothing that the build did not; where that is untrue the second line fetches it.
  (cd "$repo" && { mvn -q -B -o test-compile dependency:build-classpath -Dmdep.outputFile="$classpath" >/dev/null 2>&1 ||
    mvn -q -B test-compile dependency:build-classpath -Dmdep.outputFile="$classpath" >&2; })
fi
tool=$1
shift
libraries=()
[[ ! -d $repo/target/cuda-redist ]] || libraries=("-Dbireal.cuda.libraries=$repo/target/cuda-redist")  # as scripts/bireal
# shellcheck disable=SC2086
exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" ${libraries[@]+"${libraries[@]}"} ${BIREAL_JAVA_OPTS:-} \
  -cp "$repo/target/test-classes:$repo/target/classes:$(cat "$classpath")" "bireal.tools.$tool" "$@"
