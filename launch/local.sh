#!/usr/bin/env bash
# Several processes on this machine, as a multi-host run in small: to test one.
#
#   launch/local.sh 2 python -m nat_jax.main --config configs/digits.py \
#     --workdir runs/digits
#
# On CPU each process gets DEVICES (default 1) devices; on GPUs one GPU each.
# Ctrl-C or SIGTERM stops all of them, saved. PORT: of the first process (default 12355).
# DRY_RUN=1 prints the commands.
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,9s/^# \{0,1\}//p' "$0"
  exit 2
fi
num=$1
shift
export NAT_JAX_DISTRIBUTED=1 NAT_JAX_NUM_PROCESSES=$num
export NAT_JAX_COORDINATOR=127.0.0.1:${PORT:-12355}

pids=()
for ((id = 0; id < num; id++)); do
  own=("NAT_JAX_PROCESS_ID=$id")
  if command -v nvidia-smi > /dev/null; then
    own+=("CUDA_VISIBLE_DEVICES=$id")
  else
    own+=(JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=${DEVICES:-1}")
  fi
  if [ "${DRY_RUN:-}" = 1 ]; then echo "${own[@]}" "$@"; continue; fi
  env "${own[@]}" "$@" &
  pids+=($!)
done
[ ${#pids[@]} -gt 0 ] || exit 0
trap 'kill -TERM "${pids[@]}" 2> /dev/null || true' INT TERM
status=0
for pid in "${pids[@]}"; do
  # A signal ends `wait` early: wait again until the process itself is gone.
  while true; do wait "$pid" && code=0 || code=$?; kill -0 "$pid" 2> /dev/null || break; done
  [ "$code" -eq 0 ] || status=$code
done
exit $status
