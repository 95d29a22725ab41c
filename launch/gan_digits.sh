#!/usr/bin/env bash
# The table "GANs of digits" of docs/results.md: every objective of configs/gan/digits.py
# without external negatives, four with 3 and 10 of them per batch, and GANs with an
# encoder, ten seeds each.
#
#   launch/gan_digits.sh runs/gan-digits [--jobs N] [--config.KEY=VALUE ...]
#
# GANs with an encoder are of another task, and their folder ends in -gaan. Finished runs
# are skipped, interrupted ones are resumed. The table is printed by `python
# tests/bench/gan_negatives.py runs/gan-digits runs/gan-digits-gaan`. DRY_RUN=1 prints
# the commands.
set -uo pipefail
if [ $# -lt 1 ]; then
  sed -n '2,11s/^# \{0,1\}//p' "$0"
  exit 2
fi
out=$1
shift

rows=(gan hinge labelgan acgan acganplus am catgan springenberg nat0 natm0 smooth history
  minibatch matching vbn relativistic hinge_sn mmd_sn r1 gp wgan_gp egan acgan_star
  acgan_given acganplus_given projection projection_cbn)
negatives=({gan,catgan,am,nat}{3,10})
encoder=(gaan gaan3 gaan_dist)

sweep() {  # FOLDER FILE VARIANT...: ten seeds of each variant
  local folder=$1 file=$2
  shift 2
  command=(python -m nat_jax.main --mode=sweep --workdir "$folder"
    "${@/#/configs/gan/$file:}" --seeds 0,1,2,3,4,5,6,7,8,9 --config.steps=2000
    ${given[@]+"${given[@]}"})
  if [ "${DRY_RUN:-}" = 1 ]; then echo "${command[@]}"; else "${command[@]}"; fi
}

given=("$@")
sweep "$out" digits.py "${rows[@]}" "${negatives[@]}" && \
  sweep "$out-gaan" gaan.py "${encoder[@]}"
