"""Which source of negatives is best on kinds never seen? Runs of CIFAR-10 or MNIST.

    python -m nat_jax.main --mode=sweep --workdir runs/cifar --seeds 0,1,2 \
      configs/nat/cifar10.py:{baseline,noise,shuffled,halves,ilsvrc,near}_small
    python tests/bench/negatives_pictures.py runs/cifar

Prints the two tables of tests/bench/negatives.py for the runs of a sweep: of kinds that
no variant trains on, and NCR .8 of each kind, in brackets where the variant trains on
that kind. Bold numbers differ from `baseline` in a two-sided paired t-test over seeds
at 5 %, with Holm's correction over all cells of the table. `negatives.png` in the
folder of the runs shows each seed.
"""

import argparse
import os

from negatives import draw, figures_of, table
from steps import machine, sweep

PLAIN = 'baseline'
# Experiment -> ({title: kinds that no variant trains on}, {variant: kinds that it
# trains on}, the kinds).
STUDIES = {
    'cifar10_small': (
        {'Tiny-ImageNet': ('tiny_imagenet',), 'SVHN': ('svhn',)},
        {'near': ('cifar100_test',), 'ilsvrc': ('ilsvrc',), 'noise': ('noise',)},
        ('cifar100_test', 'tiny_imagenet', 'ilsvrc', 'svhn', 'noise')),
    'mnist_small': (
        {'characters': ('kmnist', 'notmnist'), 'clothes': ('fashion_mnist',)},
        {'letters': ('letters',)},
        ('letters', 'kmnist', 'notmnist', 'fashion_mnist', 'noise')),
}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('runs', help='folder of the sweep')
  folder = parser.parse_args().runs
  found, seeds = sweep(folder)
  names = {one[seeds[0]]['name'] for one in found.values()}
  if PLAIN not in found or len(names) != 1 or not names <= set(STUDIES):
    raise SystemExit(
        f'expected runs of one of {", ".join(STUDIES)}, {PLAIN} among them, got '
        f'{", ".join(found)} of {", ".join(names)}')
  unseen, seen, kinds = STUDIES[names.pop()]
  print(f'{len(seeds)} seeds; {machine()}')
  tables = {}, {}
  for variant, one in found.items():
    rows = [figures_of(one[seed]['evals'], unseen, kinds) for seed in seeds]
    for part, values in zip(tables, zip(*rows, strict=True), strict=True):
      part[variant] = {key: [row[key] for row in values] for key in values[0]}
  table(tables[0], {}, PLAIN)
  table(tables[1], seen, PLAIN)
  draw(tables[0], os.path.join(folder, 'negatives.png'),
       ('accuracy', *(f'NCR .8, {title}' for title in unseen)))


if __name__ == '__main__':
  main()
