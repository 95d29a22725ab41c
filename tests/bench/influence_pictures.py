"""Half of the negatives of CIFAR-10, chosen by TracIn or at random: the small form.

    C=configs/nat/cifar10.py:nat_small
    python -m nat_jax.main --config $C --workdir runs/tracin/value \
      --config.run.keep=9 --config.compare_with=
    python tests/bench/influence_pictures.py choose runs/tracin
    for half in helpful random; do
      python -m nat_jax.main --mode=sweep --workdir runs/tracin/$half --seeds 0,1,2 $C \
        --config.data.keep=runs/tracin/$half.json
    done
    python tests/bench/influence_pictures.py table runs/tracin

The value of each negative is that for the soft NCR_.8 of the negatives that are held
out for validation, by the gradients of the output layer at all checkpoints of a run.
The table has the means over seeds, ± the sample standard deviation; bold ones differ
from the random half in a two-sided paired t-test over seeds at 5 %, with Holm's
correction over all cells of the table.
"""

import argparse
import os

import numpy as np
import paired
from steps import machine, sweep

from nat_jax import influence
from nat_jax.runtime import files

NEGATIVES, TARGET = 'cifar100', 'ncr@0.8:validation_cifar100'
HALVES = ('helpful', 'random')
KINDS = ('cifar100_test', 'tiny_imagenet', 'ilsvrc', 'svhn', 'noise')


def choose(folder):
  """Writes helpful.json and random.json, files for `data.keep`."""
  found = influence.influence(os.path.join(folder, 'value'), TARGET, 'tracin')
  part = found.sets[NEGATIVES]
  value, half = found.value[part.here], len(part.rows) // 2
  chosen = {'helpful': np.argsort(-value, kind='stable')[:half],
            'random': np.random.default_rng(0).permutation(len(value))[:half]}
  for name, places in chosen.items():
    files.write_json(os.path.join(folder, f'{name}.json'), {
        NEGATIVES: {'size': part.size, 'rows': sorted(part.rows[places].tolist())}})
    print(f'{name}: {half} of {len(value)} negatives, mean value '
          f'{value[places].mean():.3g}, {np.mean(value[places] > 0):.3f} above 0; '
          f'checkpoints {found.checkpoints}')


def table(folder):
  """Prints accuracy, PAR, NCR and AUROC of the runs with each half."""
  rows = {}
  for half in HALVES:
    found, seeds = sweep(os.path.join(folder, half))
    evals = [found['nat'][seed]['evals'] for seed in seeds]
    rows[half] = {
        'accuracy': [one['test']['accuracy'] for one in evals],
        'PAR .8': [one['test']['par']['0.8'] for one in evals],
        **{f'NCR .8, {kind}': [one[kind]['ncr']['0.8'] for one in evals]
           for kind in KINDS},
        **{f'AUROC, {kind}': [one[kind]['auroc'] for one in evals] for kind in KINDS}}
  print(f'seeds {", ".join(map(str, seeds))}; {machine()}')
  helpful, random = rows.values()
  paired.table(
      {half: {key: paired.text_of(values) for key, values in row.items()}
       for half, row in rows.items()},
      {'helpful': {key: (helpful[key], random[key]) for key in helpful}}, 'negatives')


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('what', choices=('choose', 'table'))
  parser.add_argument('runs', help='folder of the runs')
  args = parser.parse_args()
  {'choose': choose, 'table': table}[args.what](args.runs)


if __name__ == '__main__':
  main()
