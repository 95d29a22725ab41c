#!/usr/bin/env bash
# Measures this package on one GPU within a time budget, and prints one table.
#
#   launch/gpu_report.sh results/gpu 1200 [--tiny] [--fresh] [PART ...]
#
# The first argument is the folder of the results, the second the time limit of all parts
# in seconds. The parts (default: all) run in this order, the most important first:
#   device           versions, precision, rates of matrix products and of a copy
#   resnet18, resnet18_large, wide_resnet, gan
#                    time, MFU and memory of an update; speed of the training loop
#                    relative to the bare update
#   torch            the classifiers in PyTorch, if it is installed
#   train            configs/nat/cifar10.py:baseline and :nat, full size, for as many
#                    epochs as the time allows, and their report
#   profile          the most expensive operations of updates of ResNet-18 and the GAN
# Each part writes a JSON and a log to the folder of the results. A part that fails does
# not stop the others; its JSON and the table (table.md, printed last) hold the reason.
# The same command again runs only the parts that are not done, and resumes training.
#
# The host needs Python with JAX for its GPU, but neither network nor TensorFlow. Where
# packages are missing, fetch their wheels on a machine with network (`pip download
# --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64
# -d wheels NAME ...`), copy them, and put them on the path (`pip install --no-index
# --no-deps --target site wheels/*.whl; export PYTHONPATH=$PWD/site`). Only `train`
# needs data: folders of arrays in $NAT_JAX_CACHE (see nat_jax/data/cache.py), cifar10
# and cifar100 at least; evaluation sets that are missing there are left out.
#
# Options: --tiny: tiny networks on generated images, to test the script on a CPU.
# --fresh: moves both folders aside and starts anew.
# Environment: WORK: folder of checkpoints and traces (default: the first argument with
# the suffix .work). COMMIT: commit to report for a copy without git history. PYTHON
# (default: python3). CUDA_VISIBLE_DEVICES (default: 0, one GPU). DRY_RUN=1: print the
# commands only.
set -uo pipefail
usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 2; }
[ $# -ge 2 ] || usage
out=${1%/} budget=$2
shift 2
case $budget in *[!0-9]* | '') echo "expected whole seconds, got '$budget'" >&2; exit 2 ;; esac
tiny=() fresh=0 parts=()
for argument in "$@"; do
  case $argument in
    --tiny) tiny=(--tiny) ;;
    --fresh) fresh=1 ;;
    -*) usage ;;
    *) parts+=("$argument") ;;
  esac
done
root=$(cd "$(dirname "$0")/.." && pwd)
work=${WORK:-$out.work}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$work/compiled-programs}
# Without JAX_PLATFORMS, JAX would use the CPU if it found no GPU.
if [ ${#tiny[@]} -eq 0 ]; then export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}; fi

gpu() { # subcommand of tests/bench/gpu.py, further arguments
  "${PYTHON:-python3}" "$root/tests/bench/gpu.py" "$@" --out "$out" --work "$work" \
    ${tiny[@]+"${tiny[@]}"}
}

# Seconds since the start; 0 in a dry run, so that its output is deterministic.
spent() { if [ "${DRY_RUN:-}" = 1 ]; then echo 0; else echo $SECONDS; fi; }

plan() { gpu todo ${parts[@]+"${parts[@]}"}; }

planned=$(plan) || exit 2
if [ "${DRY_RUN:-}" != 1 ]; then
  gpu check || exit
  if [ $fresh = 1 ]; then
    for folder in "$out" "$work"; do
      if [ -e "$folder" ]; then mv "$folder" "$folder.$(date +%s)" || exit; fi
    done
    planned=$(plan)
  fi
  mkdir -p "$out" "$work" || exit
fi
total=0
while read -r _ weight; do total=$((total + ${weight:-0})); done <<< "$planned"

child= bad=()
trap 'kill -TERM ${child:-} 2> /dev/null; wait; exit 130' INT TERM HUP
while read -r part weight; do
  [ -n "$part" ] || continue
  # A part gets the share of the remaining time that its weight is of the remaining
  # weights. It gets SIGTERM `grace` seconds before the end of its share, and SIGKILL at
  # the end.
  share=$(((budget - $(spent) - 3) * weight / total))
  grace=$((share / 10 < 10 ? share / 10 : 10))
  total=$((total - weight))
  command=(
    timeout --kill-after=$grace $((share - grace)) "${PYTHON:-python3}"
    "$root/tests/bench/gpu.py" "$part" --out "$out" --work "$work"
    --seconds $((share - grace)) ${tiny[@]+"${tiny[@]}"})
  if [ "${DRY_RUN:-}" = 1 ]; then
    echo "${command[@]}"
    budget=$((budget - share))
    continue
  fi
  if [ $share -lt 10 ]; then
    echo "== $part: no time left"
    bad+=("$part")
    continue
  fi
  echo "== $part, at most $share s"
  "${command[@]}" > "$out/$part.log" 2>&1 < /dev/null &
  child=$!
  tail -n +1 -s 0.2 -f --pid=$child "$out/$part.log" 2> /dev/null &
  shown=$!
  wait $child
  code=$?
  child=
  wait $shown
  if [ $code -ne 0 ]; then
    gpu failed "$part" --status $code
  fi
  grep -q '"status": "\(done\|skipped\)"' "$out/$part.json" || bad+=("$part")
done <<< "$planned"
[ "${DRY_RUN:-}" != 1 ] || exit 0
echo
gpu table
if [ ${#bad[@]} -gt 0 ]; then
  echo "not done: ${bad[*]} (the same command goes on)" >&2
  exit 1
fi
