"""Detection of near and far negatives, in the form of the OpenOOD benchmark.

    python -m nat_jax.main --mode=sweep --workdir runs/best --seeds 0,1,2 \
      configs/nat/cifar10.py:{baseline,nat,oe,best}_small
    python tests/bench/near_far.py runs/best      # full-size runs too

Prints accuracy, PAR .8 and, for near and for far kinds, the mean over kinds of AUROC,
FPR95 and NCR .8; then the AUROC of each kind. Negatives are the positive class of this
FPR95: the share of positives that is rejected where 95 % of the negatives are. In the
benchmark near kinds of CIFAR-10 are CIFAR-100 and Tiny-ImageNet, far ones MNIST, SVHN,
Textures and Places365; the last two are not in configs/nat/cifar10.py. Numbers in
brackets are of kinds, or of groups with a kind, that the variant trains on: CIFAR-100.

Also for the runs of configs/screen.py, from the best to the worst row by the mean of
the AUROC of near and far kinds.

Numbers are means over seeds, ± the sample standard deviation. Bold ones differ from
`baseline` (from the last row, if there is none) in a two-sided paired t-test over seeds
at 5 %, with Holm's correction over all cells of the table.

Reference: Zhang et al., "OpenOOD v1.5: Enhanced Benchmark for Out-of-Distribution
Detection", 2023.
"""

import argparse

import numpy as np
from negatives import figures_of, table
from steps import machine, sweep

PLAIN = 'baseline'
CIFAR10 = {'near': ('cifar100_test', 'tiny_imagenet'), 'far': ('mnist', 'svhn')}
GROUPS = {  # experiment -> {title: kinds}
    'cifar10': CIFAR10,
    'cifar10_small': CIFAR10,
    'screen_small': {
        'near': ('halves', 'photographs'),
        'far': ('fashion_mnist', 'kmnist', 'notmnist', 'blobs')},
}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('runs', help='folder of the sweep')
  folder = parser.parse_args().runs
  found, seeds = sweep(folder, least=1)
  names = {one[seeds[0]]['name'] for one in found.values()}
  if len(names) != 1 or not names <= set(GROUPS):
    raise SystemExit(f'expected runs of one of {", ".join(GROUPS)}, got '
                     f'{", ".join(found)} of {", ".join(names)}')
  groups = GROUPS[names.pop()]
  kinds = [kind for group in groups.values() for kind in group]
  print(f'seeds {", ".join(map(str, seeds))}; {machine()}')
  tables, seen = ({}, {}), ({}, {})
  for variant, one in found.items():
    evals = [one[seed]['evals'] for seed in seeds]
    rows = [figures_of(each, groups, (), 'fpr95_ood_positive')[0] for each in evals]
    tables[0][variant] = {key: [row[key] for row in rows] for key in rows[0]}
    tables[1][variant] = {kind: [each[kind]['auroc'] for each in evals]
                          for kind in kinds}
    trained = {kind for kind in kinds if evals[0][kind].get('seen_in_training')}
    seen[1][variant] = trained
    seen[0][variant] = {
        column for column in tables[0][variant] for title, group in groups.items()
        if column.endswith(f', {title}') and trained & {*group}}
  ranked = sorted(found, reverse=True, key=lambda variant: sum(
      np.mean(tables[0][variant][f'AUROC, {title}']) for title in groups))
  plain = PLAIN if PLAIN in found else ranked[-1]
  for one, of_kinds in zip(tables, seen, strict=True):
    table({variant: one[variant] for variant in ranked}, of_kinds, plain, 'variant')


if __name__ == '__main__':
  main()
