"""The table of docs/time_series.md: scores of anomalies in generated series.

    python tests/bench/time_series.py                          # three seeds
    python tests/bench/time_series.py --variants official --out runs/official

Trains the variants of configs/time_series.py, which says what each is. A seed is that
of the series (mixture, noise and anomalies) and that of the training. Thresholds are
quantiles of scores of normal validation data. AUROC; F1, precision, recall and false
alarms (share of normal time steps that are flagged; apart: of those more than a window
away from anomalies) at the threshold; AUROC by kind of anomalies: mean ± sample
standard deviation over seeds. The row `raw` has no standardisation: .2 R + .8 (1 - D).
--out keeps the runs, and a second call goes on.
"""

import argparse
import os
import tempfile
import time

import numpy as np
from negatives import load, trained
from steps import machine

from nat_jax import metrics
from nat_jax.runtime import results
from nat_jax.tasks.time_series import evaluate

TITLES = {
    'dr': 'DR', 'residual': 'R alone', 'one_minus_d': '1 - D alone',
    'raw': 'DR, raw, lambda = .8'}
UNTRAINED = {
    'untrained_dr': 'DR', 'untrained_residual': 'R alone',
    'untrained_one_minus_d': '1 - D alone'}
COLUMNS = {'auroc': 'AUROC', 'f1': 'F1', 'precision': 'precision', 'recall': 'recall',
           'false_alarms': 'false alarms', 'false_alarms_apart': 'apart'}


def one_run(variant, seed, workdir):
  """The figures of each score of a variant, on the series of a seed."""
  config = load('time_series', variant)
  config['seed'] = seed
  for part in ('series', 'test'):
    config['data'][part]['seed'] = seed
  figures = trained(config, workdir)
  arrays = results.read_arrays(workdir, evaluate.TEST, config['steps'])
  normal = arrays['label'] == 0
  raw = .2 * arrays['residual'] + .8 * arrays['one_minus_d']
  return figures | {'raw': {
      'auroc': metrics.detection_metrics(-raw[normal], -raw[~normal])['auroc']}}


def study(variants, seeds, out):
  """{variant: [figures of each seed]}."""
  found = {}
  for variant in variants:
    for seed in seeds:
      before = time.perf_counter()
      found.setdefault(variant, []).append(
          one_run(variant, seed, os.path.join(out, f'{variant}-{seed}')))
      seconds = time.perf_counter() - before
      print(f'{variant}, seed {seed}: {seconds:.0f} s', flush=True)
  return found


def cell(values):
  if None in values:
    return '-'
  spread = f' ± {np.std(values, ddof=1):.3f}' if len(values) > 1 else ''
  return f'{np.mean(values):.3f}{spread}'.replace('0.', '.')


def rows(found):
  """(heading, figures of each seed) for each row of the table."""
  first = next(iter(found.values()))
  for name, title in UNTRAINED.items():
    yield f'untrained, {title}', [one[name] for one in first]
  for variant, runs in found.items():
    for name, title in TITLES.items():
      yield f'{variant}, {title}', [one[name] for one in runs]
  yield 'PCA of windows, 8 components', [one['pca'] for one in first]


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--variants', default='madgan,nat,nat_swapped')
  parser.add_argument('--out', default='', help="folder of the runs; '': temporary")
  args = parser.parse_args()
  seeds = [int(x) for x in args.seeds.split(',')]
  print(f'{machine()}; seeds {args.seeds}', flush=True)
  with tempfile.TemporaryDirectory() as folder:
    found = study(args.variants.split(','), seeds, args.out or folder)
  kinds = list(next(iter(found.values()))[0]['pca']['kind_auroc'])
  print(f'\n| score | {" | ".join([*COLUMNS.values(), *kinds])} |')
  print(f'|---{"|---" * (len(COLUMNS) + len(kinds))}|')
  for heading, runs in rows(found):
    values = [[one.get(name) for one in runs] for name in COLUMNS]
    values += [[one.get('kind_auroc', {}).get(kind) for one in runs] for kind in kinds]
    print(f'| {heading} | {" | ".join(map(cell, values))} |')


if __name__ == '__main__':
  main()
