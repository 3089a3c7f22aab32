#!/usr/bin/env bash
# Damages every kind of file that bireal reads and lets bireal read it, for minutes: java/test/bireal/tools/Fuzz.java.
# Usage: scripts/fuzz.sh [--minutes M] [--seed S] [TARGET]..., or --help
set -euo pipefail
# A small heap: what asks for memory on the word of a damaged file ends in OutOfMemoryError.
export BIREAL_JAVA_OPTS=${BIREAL_JAVA_OPTS--Xmx192m -Xss512k}
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/tool.sh" Fuzz "$@"
