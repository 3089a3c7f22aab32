#!/usr/bin/env bash
# Do the tests notice a broken kernel? Makes each mutant of native/cuda/mutants.txt (a barrier deleted, an index shifted, a bound off
# by one, ...), compiles it to PTX and runs its tests on the emulator. Prints a table; fails if a mutant survives that is not
# explained as equivalent, if an explained one is killed, or if one no longer applies or compiles.
#   scripts/mutate_kernels.sh [--build DIR] [--count N] [--tested] [PATTERN]
#     --count N   N mutants that must be noticed, evenly spread over the list: always the same ones, for scripts/test.sh
#     --tested    the same tests have just passed on the kernels as they are: run only the first of their groups on them again, to
#                 see that kernels read from a folder can pass
#     PATTERN     only mutants whose file or title matches this regular expression
set -euo pipefail
cd "$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")"
fail() { echo "mutate_kernels: error: $1" >&2; exit 1; }
build=target/native-test pattern=. limit='' tested=''
while (( $# > 0 )); do
  case $1 in
    --build) build=$2; shift 2 ;;
    --count) limit=${2-}; [[ $limit =~ ^[1-9][0-9]*$ ]] || fail "--count needs a number of mutants, got \"$limit\""; shift 2 ;;
    --tested) tested=yes; shift ;;
    --help) sed -n '2,9s/^# //p' "$0"; exit ;;
    -*) fail "unknown option $1; see --help" ;;
    *) pattern=$1; shift ;;
  esac
done
nvcc=$(command -v nvcc || true)
[[ -n $nvcc ]] || fail "nvcc not found; install the CUDA toolkit 13.0"
[[ -f $build/CMakeCache.txt ]] || cmake -S . -B "$build" -DBIREAL_JNI=OFF > /dev/null
list=native/cuda/mutants.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --build "$build" --parallel "$(nproc)" --target bireal_mutants emulator_cuda > "$work/log" 2>&1 ||
  { tail -20 "$work/log" >&2; fail "the tests do not build"; }
images=$(sed -n 's/^CUDA_IMAGES_DIR:PATH=//p' "$build/CMakeCache.txt")
timeout_s=180

# A block of the list: "file", "compile" (the .cu files whose PTX it is in) and "test" (a gtest filter), then its mutants, each
# "mutant TITLE", "- OLD TEXT", "+ NEW TEXT" and, where nothing can notice it, "= EXPLANATION". OLD TEXT stands once in the file, or
# "mutant[N]" says which one is meant.
files=() compiles=() tests=() titles=() nths=() olds=() news=() excuses=()
file='' compile='' filter='' number=0
while IFS= read -r line || [[ -n $line ]]; do
  number=$((number + 1))
  case $line in
    '' | '#'*) ;;
    'file '*) file=${line#file }; compile=$(basename "$file" .cu) ;;
    'compile '*) compile=${line#compile } ;;
    'test '*) filter=${line#test } ;;
    'mutant '* | 'mutant['*)
      title=${line#mutant} nth=1
      if [[ $title == '['* ]]; then nth=${title#[}; nth=${nth%%]*}; title=${title#*]}; else nth=only; fi
      files+=("$file"); compiles+=("$compile"); tests+=("$filter"); titles+=("${title# }"); nths+=("$nth")
      olds+=(''); news+=(''); excuses+=('') ;;
    '- '*) olds[-1]=${line#- } ;;
    '+ '* | '+') news[-1]=${line#+}; news[-1]=${news[-1]# } ;;
    '= '*) excuses[-1]=${line#= } ;;
    *) fail "$list:$number: not understood: $line" ;;
  esac
done < "$list"

# compile_ptx SOURCE_ROOT NAME OUT: as native/cuda/compile_kernels.cmake does. SOURCE_ROOT is searched before native/.
compile_ptx() {
  local source
  source=$(ls native/ops/*/"$2".cu)
  [[ -f $1/${source#native/} ]] && source=$1/${source#native/}
  local sm=75
  [[ $2 == *_sm80* ]] && sm=80
  "$nvcc" -ptx -arch=compute_$sm -O3 --fmad=false -lineinfo -std=c++17 -I"$1" -Inative "$source" -o "$3"
}

# run_tests FOLDER FILTER LOG: ends with the first check that fails, by a signal.
run_tests() {
  (ulimit -c 0; BIREAL_PTX_DIR=$1 exec timeout "$timeout_s" "$build/bireal_mutants" --gtest_filter="$2" --gtest_break_on_failure) > "$3" 2>&1
}

# What noticed it: the emulator's finding, the test that was running, or the clock.
reason() {
  local line
  if [[ $1 == 124 ]]; then echo "did not end in $timeout_s s"; return; fi
  line=$(grep -m1 -oE '(out of bounds|misaligned access|read-only memory|uninitialised read|memory race|race between blocks|non-coherent read|divergent barrier|wrong mask|inactive lane|asynchronous copy|deadlock|runaway kernel|trap): ' "$2" | head -1 || true)
  [[ -n $line ]] && { echo "emulator: ${line%: }"; return; }
  sed -n 's/^\[ RUN  *\] //p' "$2" | tail -1 | grep . || echo "exit $1"
}

# mutate INDEX: writes "killed REASON", "survived" or "broken REASON" to $work/INDEX.result.
mutate() {
  local i=$1 file=${files[$1]} old=${olds[$1]} text rest count=0 head='' place
  local root=$work/$i/source ptx=$work/$i/ptx
  mkdir -p "$root/$(dirname "${file#native/}")" "$ptx"
  text=$(cat "$file"; printf x); text=${text%x}
  rest=$text
  while [[ $rest == *"$old"* ]]; do count=$((count + 1)); rest=${rest#*"$old"}; done
  place=${nths[$i]}
  if [[ $place == only ]]; then
    (( count == 1 )) || { echo "broken stands $count times in $file: $old" > "$work/$i.result"; return; }
    place=1
  fi
  (( place <= count )) || { echo "broken stands $count times in $file, not $place: $old" > "$work/$i.result"; return; }
  rest=$text
  while (( place > 0 )); do
    head+=${rest%%"$old"*}
    rest=${rest#*"$old"}
    place=$((place - 1))
    (( place > 0 )) && head+=$old
  done
  printf '%s' "$head${news[$i]}$rest" > "$root/${file#native/}"
  ln -s "$images"/*.ptx "$ptx"
  # One .cu file after the other: most are noticed in the first, and nvcc is half of what a mutant takes.
  local name status=0
  for name in ${compiles[$i]}; do
    rm "$ptx/$name.ptx"
    compile_ptx "$root" "$name" "$ptx/$name.ptx" > "$work/$i.nvcc" 2>&1 ||
      { echo "broken does not compile: $(grep -m1 error "$work/$i.nvcc")" > "$work/$i.result"; return; }
    { run_tests "$ptx" "${tests[$i]}" "$work/$i.log"; } 2> /dev/null || status=$?  # bash tells of the signal
    (( status == 0 )) || break
  done
  if (( status == 0 )); then echo survived; else echo "killed $(reason "$status" "$work/$i.log")"; fi > "$work/$i.result"
  rm -rf "${work:?}/$i"
}

chosen=()
for i in "${!titles[@]}"; do
  [[ "${files[$i]} ${titles[$i]}" =~ $pattern ]] && chosen+=("$i")
done
(( ${#chosen[@]} > 0 )) || fail "no mutant matches $pattern"
if [[ -n $limit ]]; then
  noticeable=()
  for i in "${chosen[@]}"; do [[ -n ${excuses[$i]} ]] || noticeable+=("$i"); done
  (( limit <= ${#noticeable[@]} )) || fail "--count $limit: there are only ${#noticeable[@]} mutants that must be noticed"
  chosen=()
  for (( j = 0; j < limit; ++j )); do chosen+=("${noticeable[$((j * ${#noticeable[@]} / limit))]}"); done
fi

# The kernels as they are must pass, or every mutant would count as killed.
original() {
  run_tests "$images" "$1" "$2.log" && grep -qE 'PASSED  \] [1-9]' "$2.log" && : > "$2.passed"
}

jobs=0
in_turn() {  # COMMAND...: in the background, at most one for each core at a time
  while (( jobs >= $(nproc) )); do wait -n || true; jobs=$((jobs - 1)); done
  "$@" &
  jobs=$((jobs + 1))
}
mapfile -t filters < <(for i in "${chosen[@]}"; do echo "${tests[$i]}"; done | sort -u)
[[ ! $tested ]] || filters=("${filters[0]}")
for j in "${!filters[@]}"; do in_turn original "${filters[$j]}" "$work/original$j"; done
for i in "${chosen[@]}"; do in_turn mutate "$i"; done
wait
for j in "${!filters[@]}"; do
  [[ -f $work/original$j.passed ]] ||
    { tail -30 "$work/original$j.log" >&2; fail "the tests fail on the kernels as they are, or there are none: ${filters[$j]}"; }
done

killed=0 equivalent=0 wrong=0 last=''
for i in "${chosen[@]}"; do
  [[ ${files[$i]} == "$last" ]] || printf '\n%s\n' "${files[$i]}"
  last=${files[$i]}
  result=$(cat "$work/$i.result")
  case "$result/${excuses[$i]}" in
    killed*/) killed=$((killed + 1)); verdict="killed    ${result#killed }" ;;
    survived/?*) equivalent=$((equivalent + 1)); verdict="survived  equivalent: ${excuses[$i]}" ;;
    survived/) wrong=$((wrong + 1)); verdict="SURVIVED  and is not explained" ;;
    killed*) wrong=$((wrong + 1)); verdict="KILLED    though explained as equivalent: ${excuses[$i]}" ;;
    *) wrong=$((wrong + 1)); verdict="BROKEN    ${result#broken }" ;;
  esac
  printf '  %-66s %s\n' "${titles[$i]}" "$verdict"
done
printf '\n%d mutants: %d killed, %d explained as equivalent, %d wrong\n' "${#chosen[@]}" "$killed" "$equivalent" "$wrong"
(( wrong == 0 ))
