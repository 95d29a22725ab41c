#!/usr/bin/env bash
# Runs a command on a Cloud TPU VM: installs nat_jax, then joins the hosts of the slice.
#
# From your own machine, with the repository copied to all hosts of the slice:
#   gcloud compute tpus tpu-vm ssh NAME --zone ZONE --worker=all --command='
#     cd nat_jax && launch/tpu_vm.sh python -m nat_jax.main \
#       --config configs/nat/cifar10.py --workdir /mnt/shared/runs/cifar10'
#
# The workdir must be a folder that all hosts share: a mounted disk or gs://BUCKET/PATH.
# VENV: the virtual environment (default ~/nat_jax_venv). DRY_RUN=1 prints the commands.
set -euo pipefail
if [ $# -lt 1 ]; then
  sed -n '2,10s/^# \{0,1\}//p' "$0"
  exit 2
fi
venv=${VENV:-$HOME/nat_jax_venv}
cd "$(dirname "$0")/.."

run() { if [ "${DRY_RUN:-}" = 1 ]; then echo "$@"; else "$@"; fi; }

if [ ! -x "$venv/bin/python" ]; then
  # Not with the Python of the image, which is usually older than nat_jax needs.
  run python3 -m pip install --quiet uv
  run python3 -m uv venv --quiet --seed --python 3.12 "$venv"
fi
run "$venv/bin/pip" install --quiet -e '.[tpu,gcs]'
export PATH="$venv/bin:$PATH" NAT_JAX_DISTRIBUTED=1
run exec "$@"
