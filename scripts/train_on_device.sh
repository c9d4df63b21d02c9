#!/usr/bin/env bash
# Train on a machine with a GPU that is there for minutes, and bring back the weights alone.
#
#   scripts/train_on_device.sh DATA OUT MINUTES
#
# DATA     a data folder, or one that holds part-01, part-02, ... as scripts/pack_patients.py makes them
# OUT      what is kept between calls; called again with the same OUT it goes on. OUT/back is what to bring back:
#          the weights in files under 16 MiB, and README.txt with the scores and how to join them
# MINUTES  the whole call ends by then, the evaluation included
#
# Variables, with what they are by default:
#   TOTAL=MINUTES     minutes of training that the schedule is for, over all calls: with TOTAL=25 and three calls of 10
#                     MINUTES the learning rate falls over all three
#   SPLIT             DATA/split.json where that is there, else drawn
#   SPACING=1.25  FEATURES=16,32,64,128,192  CROP=96,112,96 (the least)  STEPS=6000 (wanted at least)
#                     (35 MiB of weights; 24,48,96,144,192: 48 MiB)
#   RECIPE="--dice-over regions --mix-share 0.5 --scanner-share 0.3"     more options of `a2fseg train`
#   EVALUATION=1.5    minutes kept for the evaluation on the validation patients; 0 leaves it out
#   EPOCH=200         steps between two checkpoints: what an end in between may cost
#   DEVICE=cuda       cpu tries everything out on a machine without a GPU, where the CUDA tests cannot run
#   PRECISION=bf16  PYTHON=python3  PART_BYTES=16000000
set -euo pipefail

began=$SECONDS
if [ $# -ne 3 ]; then
  echo "usage: $0 DATA OUT MINUTES" >&2
  exit 2
fi
here="$(cd "$(dirname "$0")/.." && pwd)"
data="$(cd "$1" && pwd)"
mkdir -p "$2"
out="$(cd "$2" && pwd)"
minutes=$3
: "${TOTAL:=$minutes}" "${SPACING:=1.25}" "${FEATURES:=16,32,64,128,192}" "${CROP:=96,112,96}" "${STEPS:=6000}"
: "${RECIPE=--dice-over regions --mix-share 0.5 --scanner-share 0.3}" "${EVALUATION:=1.5}" "${EPOCH:=200}"
: "${DEVICE:=cuda}" "${PRECISION:=bf16}" "${PYTHON:=python3}" "${PART_BYTES:=16000000}"
for number in "$minutes" "$TOTAL" "$EVALUATION"; do
  if ! [[ "$number" =~ ^[0-9]+([.][0-9]+)?$ ]]; then
    echo "$number: expected minutes, such as 9 or 1.5 (MINUTES, TOTAL, EVALUATION)" >&2
    exit 2
  fi
done
if [[ "$out/" == "$data/"* ]]; then
  echo "$out lies in $data, whose folders are patients. Give an OUT elsewhere." >&2
  exit 2
fi
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

# Seconds that are left of the call, less some minutes; timeout takes no fewer than 1.
left() { awk -v m="$minutes" -v keep="$1" -v used=$((SECONDS - began)) 'BEGIN {s = int(60 * (m - keep) - used); print (s < 1 ? 1 : s)}'; }
say() { echo "[$((SECONDS - began)) s] $*"; }
# Ends the call after a step that failed with a status, the minutes kept behind it given: its time was up, or else.
ended() {
  if [ "$1" = 124 ] || { [ "$1" = 137 ] && [ "$(left "$2")" -le 1 ]; }; then
    say "the call's time is up; call again with the same OUT to go on"
    return
  fi
  [ "$1" != 137 ] || echo "killed before the time was up: has the machine run out of memory?" >&2
  exit "$1"
}

# 1. The CUDA tests, once a machine: what fails there makes every later minute worthless.
if [ "$DEVICE" = cpu ]; then
  say "on the CPU: the CUDA tests cannot run"
elif ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "torch finds no CUDA device here. With DEVICE=cpu everything else can be tried out." >&2
  exit 1
elif [ ! -e "$out/cuda_tests_passed" ]; then
  if ! (cd "$here" && timeout "$(left 0)" "$PYTHON" -m pytest -o addopts= -q -m cuda tests/test_cuda.py) 2>&1 | tee "$out/cuda_tests.txt"; then
    echo "the CUDA tests failed, see $out/cuda_tests.txt; touch $out/cuda_tests_passed to train in spite of that" >&2
    exit 1
  fi
  touch "$out/cuda_tests_passed"
fi

# 2. One folder of links to the patients of all parts.
rm -rf "$out/patients"  # links alone; of patients that are no longer there as well
mkdir "$out/patients"
for place in "$data"/part-*/ "$data/"; do
  [ "$place" = "$data/" ] && [ -d "$data/part-01" ] && continue
  [ -d "$place" ] || continue
  if ! find -L "$place" -mindepth 1 -maxdepth 1 -type d -exec ln -sn -t "$out/patients" {} +; then
    echo "$place: a patient of the same name lies in another part. Pack all patients at once." >&2
    exit 1
  fi
done
: "${SPLIT:=$([ -e "$data/split.json" ] && echo "$data/split.json" || true)}"
split=(${SPLIT:+--split "$SPLIT"})
say "$(find "$out/patients" -mindepth 1 -maxdepth 1 | wc -l) patients in $data"

# 3. Preprocessing by all cores, then crops that fill the device; both once.
timeout -k 5 "$(left 0)" "$PYTHON" "$here/scripts/fill_cache.py" "$out/patients" --cache "$out/cache" "${split[@]}" \
  --spacing "$SPACING" || { ended $? 0 && exit 0; }
say "preprocessed"
if [ ! -s "$out/fit.txt" ]; then
  seconds="$(awk -v t="$TOTAL" -v e="$EVALUATION" 'BEGIN {print int(60 * (t - e))}')"
  timeout -k 5 "$(left 0)" "$PYTHON" "$here/scripts/fit_to_device.py" --features "$FEATURES" --spacing "$SPACING" \
    --smallest "$CROP" --seconds "$seconds" --steps "$STEPS" --device "$DEVICE" --precision "$PRECISION" \
    > "$out/fit.txt.new" || { ended $? 0 && exit 0; }
  # The schedule's time: what is left of the call, or of all calls, less 6 % for checkpoints and curves, which it does
  # not count. Kept, because a resumed run has the same options.
  awk -v t="$TOTAL" -v e="$EVALUATION" -v used=$((SECONDS - began)) 'BEGIN {s = int(0.94 * (60 * (t - e) - used) - 5); print (s < 10 ? 10 : s) "s"}' > "$out/budget.txt"
  mv "$out/fit.txt.new" "$out/fit.txt" # last: with it all of this is done
fi
read -ra fit < "$out/fit.txt"
read -ra recipe <<< "$RECIPE"

# 4. Training. Stopped at the end of the call, it goes on from its last checkpoint in the next one.
run="$out/run"
resume=()
[ -e "$run/last.ckpt" ] && resume=(--resume)
if [ ! -e "$out/finished" ]; then
  say "training${resume:+ goes on}: ${fit[*]}, $(cat "$out/budget.txt") in all"
  status=0
  timeout -s INT -k 20 "$(left "$EVALUATION")" "$PYTHON" -m a2fseg_cli train "$out/patients" -o "$run" --preset tiny \
    --spacing "$SPACING" --features "$FEATURES" "${fit[@]}" --iterations "$EPOCH" "${recipe[@]}" "${split[@]}" \
    --time-budget "$(cat "$out/budget.txt")" --cache "$out/cache" --device "$DEVICE" --precision "$PRECISION" "${resume[@]}" || status=$?
  case $status in
    0) touch "$out/finished" && say "trained to the end" ;;
    *) ended "$status" "$EVALUATION" ;;
  esac
fi
weights="$run/best.safetensors"
[ -e "$weights" ] || weights="$run/last.safetensors"
if [ ! -e "$weights" ]; then
  say "no weights yet: they come with the first validation, after 4 epochs of $EPOCH steps"
  exit 0
fi

# 5. What is brought back: weights in parts, and one text.
back="$out/back"
rm -rf "$back"
mkdir "$back"
name="$(basename "$weights")"
split -b "$PART_BYTES" -d -a 2 "$weights" "$back/$name.part-"
{
  echo "Join: cat $name.part-* > $name && sha256sum -c SHA256SUMS"
  echo "a2fseg train --preset tiny --spacing $SPACING --features $FEATURES ${fit[*]} --iterations $EPOCH $RECIPE"
  echo "of $(cat "$out/budget.txt") of training$([ -e "$out/finished" ] || echo ", not finished")"
  tail -n 1 "$run/metrics.csv"
} > "$back/README.txt"
(cd "$run" && sha256sum "$name") > "$back/SHA256SUMS"
cp "$run/metrics.csv" "$back"

# 6. The evaluation on the validation patients, as far as the time reaches; the weights are safe already.
if [ "$name" = last.safetensors ]; then
  say "no patients for validation, so nothing to evaluate"
elif [ "$EVALUATION" != 0 ]; then
  timeout -k 10 "$(left 0)" "$PYTHON" -m a2fseg_cli evaluate "$out/patients" --split "$run/split.json:validation" \
    --all-subsets --weights "$weights" --metrics dice -o "$out/scores" --overwrite --device "$DEVICE" --precision "$PRECISION" \
    2>&1 | tee "$out/evaluation.txt" || say "the evaluation failed or did not end in time, see $out/evaluation.txt"
  cat "$out/evaluation.txt" >> "$back/README.txt"
fi
say "bring back: $back ($(find "$back" -type f | wc -l) files, $(du -sk "$back" | cut -f1) KiB)"
