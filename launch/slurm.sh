#!/usr/bin/env bash
# Runs a command with one process per GPU of a Slurm job; JAX connects the processes.
#
#   sbatch --nodes=2 --gpus-per-node=4 --ntasks-per-node=4 launch/slurm.sh \
#     python -m nat_jax.main --config configs/nat/cifar10.py --workdir runs/cifar10
#
# Slurm sends SIGTERM two minutes before the time limit: the run is saved, and resumes
# when the job is queued again. The workdir must be on a disk that all nodes share.
# VENV: the virtual environment (default: .venv here). DRY_RUN=1 prints the command.
#SBATCH --job-name=nat_jax
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --output=%x-%j.log
set -euo pipefail
if [ $# -lt 1 ]; then
  sed -n '2,9s/^# \{0,1\}//p' "$0"
  exit 2
fi
venv=${VENV:-$PWD/.venv}
if [ -x "$venv/bin/python" ]; then export PATH="$venv/bin:$PATH"; fi
export NAT_JAX_DISTRIBUTED=1

run() { if [ "${DRY_RUN:-}" = 1 ]; then echo "$@"; else "$@"; fi; }

# srun does not inherit it from the job since Slurm 22.05.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
run srun --kill-on-bad-exit=1 "$@"
