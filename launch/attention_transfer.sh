#!/usr/bin/env bash
# Attention transfer in one command: teachers, their students, and one report.
#
#   launch/attention_transfer.sh runs/at-cifar10 '0 1 2' configs/at/cifar10.py:small \
#     [--config.KEY=VALUE ...]
#
# For each seed: teacher_baseline, teacher_nat, student_baseline, student_nat and
# student_alone; the students of a seed are taught by the teachers of that seed.
# Finished runs are skipped, interrupted ones are resumed. The report (report.html, .md,
# .csv in the folder of the first argument) has NCR tables and attention maps.
# DRY_RUN=1 prints the commands.
set -uo pipefail
if [ $# -lt 3 ]; then
  sed -n '2,12s/^# \{0,1\}//p' "$0"
  exit 2
fi
out=$1 seeds=$2 config=${3%%:*} size=${3#"${3%%:*}"}
size=${size:+_${size#:}}
shift 3

run() { if [ "${DRY_RUN:-}" = 1 ]; then echo "$@"; else "$@"; fi; }

trap 'exit 130' INT # Ctrl-C saves the current run and does not start the next one
workdirs=() failed=()
train() { # variant, seed, flags
  local workdir=$out/$1-$2
  # A run that SIGTERM stopped exits with 0 but is not finished; eval.json alone may be
  # that of another config, which the run has refused to go on with.
  if run python -m nat_jax.main --config "$config:$1$size" --workdir "$workdir" \
    --config.seed="$2" "${@:3}" &&
    { [ "${DRY_RUN:-}" = 1 ] || [ -e "$workdir/eval.json" ]; }; then
    workdirs+=("$workdir")
  else
    failed+=("$workdir")
  fi
}

for seed in $seeds; do
  for kind in baseline nat; do
    train teacher_$kind "$seed" "$@"
  done
  for kind in baseline nat; do
    train student_$kind "$seed" --config.trainer.teacher="$out/teacher_$kind-$seed" "$@"
  done
  train student_alone "$seed" "$@"
done
[ ${#workdirs[@]} -eq 0 ] ||
  run python -m nat_jax.main --mode=report --workdir "$out" "${workdirs[@]}"
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
