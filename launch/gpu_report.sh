#!/usr/bin/env bash
# What one GPU does with this package, within a time budget, as one table.
#
#   launch/gpu_report.sh results/gpu 1200 [--tiny] [--fresh] [PART ...]
#
# The second argument is the time that everything may take, in seconds. Parts, all of
# them by default, in the order in which they are worth their time:
#   device           versions, precision, rates of matrix products and of a copy
#   resnet18, resnet18_large, wide_resnet, gan
#                    time, MFU and memory of an update, and the loop's share of it
#   torch            the classifiers in PyTorch, where it is installed
#   train            configs/nat/cifar10.py:baseline and :nat, full size, for as many
#                    epochs as there is time for, and their report
#   profile          the largest costs of ResNet-18's update
# Each part leaves a JSON and a log in the first argument, and no part keeps another from
# running: what fails is told in its JSON and in the table (table.md, printed last). The
# same command again goes on: what is done is not repeated, training resumes.
#
# A bare host will do: Python with JAX for its GPU, no network, no TensorFlow. Where
# packages are missing, fetch their wheels on a machine with network (`pip download
# --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64
# -d wheels NAME ...`), copy them, and put them on the path (`pip install --no-index
# --no-deps --target site wheels/*.whl; export PYTHONPATH=$PWD/site`). `train` alone
# needs data: folders of arrays in $NAT_JAX_CACHE (see nat_jax/data/cache.py), cifar10
# and cifar100 at least; evaluation sets that are not there are left out.
#
# --tiny: tiny networks on generated images, to try the script on a CPU. --fresh: moves
# both folders aside and begins anew. WORK: folder of checkpoints and traces (default:
# the first argument with .work behind it). COMMIT: of a copy without its history.
# PYTHON (default python3). CUDA_VISIBLE_DEVICES (default 0: one GPU).
# DRY_RUN=1 prints the commands.
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
# Without it JAX would go on on the CPU where it finds no GPU.
if [ ${#tiny[@]} -eq 0 ]; then export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda,cpu}; fi

gpu() { # what, further arguments
  "${PYTHON:-python3}" "$root/tests/bench/gpu.py" "$@" --out "$out" --work "$work" \
    ${tiny[@]+"${tiny[@]}"}
}

# A dry run takes no time, whatever the clock says.
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
  # A part has its weight's share of the time left; what it does not use is the others'.
  # So many seconds before its end it is told to stop, and killed at the end.
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
  if [ $share -lt 20 ]; then
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
