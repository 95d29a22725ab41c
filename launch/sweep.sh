#!/usr/bin/env bash
# Trains all configs with all seeds, one after another, and writes one report.
#
#   launch/sweep.sh runs/cifar10_small '0 1 2' configs/nat/cifar10.py:baseline_small \
#     configs/nat/cifar10.py:nat_small [--config.KEY=VALUE ...]
#
# Finished runs are skipped, interrupted ones are resumed, and a run that fails does not
# stop the others. The report (report.html, .md, .csv in the folder of the first
# argument) has means, intervals over seeds, the paper's values and tests of its claims.
# DRY_RUN=1 prints the commands.
set -uo pipefail
if [ $# -lt 3 ]; then
  sed -n '2,10s/^# \{0,1\}//p' "$0"
  exit 2
fi
out=$1 seeds=$2
shift 2
configs=() flags=()
for argument in "$@"; do
  case $argument in --*) flags+=("$argument") ;; *) configs+=("$argument") ;; esac
done

run() { if [ "${DRY_RUN:-}" = 1 ]; then echo "$@"; else "$@"; fi; }

trap 'exit 130' INT # Ctrl-C saves the current run and does not start the next one
workdirs=() failed=()
for seed in $seeds; do
  for config in "${configs[@]}"; do
    name=$(basename "${config%%:*}" .py)
    if [[ $config == *:* ]]; then name+=-${config#*:}; fi
    workdir=$out/${name//\//_}-$seed
    run python -m nat_jax.main --config "$config" --workdir "$workdir" \
      --config.seed="$seed" --config.compare_with= "${flags[@]}"
    # Not by exit status: a run that SIGTERM stopped exits with 0 but is not finished.
    if [ "${DRY_RUN:-}" = 1 ] || [ -e "$workdir/eval.json" ]; then
      workdirs+=("$workdir")
    else
      failed+=("$workdir")
    fi
  done
done
[ ${#workdirs[@]} -eq 0 ] ||
  run python -m nat_jax.main --mode=report --workdir "$out" "${workdirs[@]}"
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
