#!/usr/bin/env bash
# Runs a command as several processes on this machine, to test multi-host runs.
#
#   launch/local.sh 2 python -m nat_jax.main --config configs/digits.py \
#     --workdir runs/digits
#
# On GPUs each process gets one, of CUDA_VISIBLE_DEVICES if that is set; on CPU, and
# with JAX_PLATFORMS=cpu, DEVICES (default 1) devices.
# Ctrl-C or SIGTERM saves the run and stops all processes. When one is lost the others
# end; the same command resumes the run. PORT: of the first process (default 12355).
# GRACE: seconds after which the others are killed (default 10).
# DRY_RUN=1 prints the commands.
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,12s/^# \{0,1\}//p' "$0"
  exit 2
fi
num=$1
shift
export NAT_JAX_DISTRIBUTED=1 NAT_JAX_NUM_PROCESSES=$num
export NAT_JAX_COORDINATOR=127.0.0.1:${PORT:-12355}
gpus=()
if [ "${JAX_PLATFORMS:-}" != cpu ] && command -v nvidia-smi > /dev/null; then
  for ((id = 0; id < num; id++)); do gpus+=("$id"); done
  if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    IFS=, read -ra gpus <<< "$CUDA_VISIBLE_DEVICES"
  fi
  if [ "$num" -gt ${#gpus[@]} ]; then
    echo "expected at most ${#gpus[@]} processes, one for each GPU in" \
      "CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES, got $num; start fewer, add GPUs," \
      "or set JAX_PLATFORMS=cpu" >&2
    exit 2
  fi
fi

pids=()
for ((id = 0; id < num; id++)); do
  own=("NAT_JAX_PROCESS_ID=$id")
  if [ ${#gpus[@]} -gt 0 ]; then
    own+=("CUDA_VISIBLE_DEVICES=${gpus[id]}")
  else
    own+=(JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=${DEVICES:-1}")
  fi
  if [ "${DRY_RUN:-}" = 1 ]; then echo "${own[@]}" "$@"; continue; fi
  env "${own[@]}" "$@" &
  pids+=($!)
done
[ ${#pids[@]} -gt 0 ] || exit 0
# When one process fails the others cannot continue.
status=0 deadline=
trap 'kill -TERM "${pids[@]}" 2> /dev/null || true' INT TERM HUP
while [ ${#pids[@]} -gt 0 ]; do
  sleep 0.1
  for id in "${!pids[@]}"; do
    if kill -0 "${pids[id]}" 2> /dev/null; then continue; fi
    wait "${pids[id]}" && code=0 || code=$?
    unset "pids[id]"
    if [ "$code" -eq 0 ] || [ "$status" -ne 0 ]; then continue; fi
    status=$code deadline=$((SECONDS + ${GRACE:-10}))
    echo "process $id of $num ended with status $code; stopping the others" >&2
  done
  if [ -n "$deadline" ] && [ $SECONDS -ge "$deadline" ]; then
    kill -KILL "${pids[@]}" 2> /dev/null || true
  fi
done
exit $status
