#!/usr/bin/env bash
# Every row of docs/gan_objectives.md in one command: a sweep, and the report.
#
#   launch/gan_objectives.sh runs/points2d [--config.KEY=VALUE ...]
#
# Finished runs are skipped, interrupted ones are resumed. The report (report.html, .md,
# .csv in that folder) has the table, and figures/last_samples.png the figure.
# DRY_RUN=1 prints the command.
set -uo pipefail
if [ $# -lt 1 ]; then
  sed -n '2,9s/^# \{0,1\}//p' "$0"
  exit 2
fi
out=$1
shift

rows=(gan negatives smooth history minibatch matching bn vbn relativistic hinge
  hinge_sn_d hinge_sn mmd mmd_sn r1 gp gan_5 gp_5 wgan_gp_5)
classes=(labelgan am catgan nat0 acgan acgan_star acgan_plus projection projection_cbn)
costly=(egan gaan_gp_5)

file=configs/gan/points2d.py
names=("${rows[@]/#/$file:g8_}" "${classes[@]/#/$file:g8_}"
  "${rows[@]/#/$file:g25_}" "${classes[@]/#/$file:g25_}" "${costly[@]/#/$file:g25_}"
  "${rows[@]/#/$file:swiss_}")
command=(python -m nat_jax.main --mode=sweep --workdir "$out" "${names[@]}" "$@")
if [ "${DRY_RUN:-}" = 1 ]; then echo "${command[@]}"; else exec "${command[@]}"; fi
