"""The tables of docs/zero_shot.md: GDAN, with and without mismatched pairs, and ridge.

    python tests/bench/zero_shot.py                      # five seeds
    python tests/bench/zero_shot.py --seeds 0,1 --variants gdan,no_mismatch

The variants of configs/zero_shot.py that need no files. A seed is that of the networks
and of the data, so that each seed has other classes, attributes and features. Each run
is trained by the training loop, and evaluated as at the end of a run: U, S and H of
every way to classify, as it is and calibrated, mean ± sample standard deviation over
seeds. Ridge regression depends on the data alone and is printed once.
"""

import argparse
import contextlib
import io
import tempfile
import time

import numpy as np
from negatives import load
from steps import machine

from nat_jax import train
from nat_jax.metrics import METRICS
from nat_jax.tasks.zero_shot.evaluate import CALIBRATED, METHODS, RIDGE
from nat_jax.tasks.zero_shot.report import COLUMNS

VARIANTS = ('gdan', 'no_mismatch', 'cvae')
SHOWN = [name for name in COLUMNS if name != 'constant']


def figures_of(variant, seed, steps=0):
  """The figures of a run, as in eval.json."""
  config = load('zero_shot', variant)
  config |= {'seed': seed, 'steps': steps or config['steps'],
             'run': config['run'] | {'tensorboard': False}}
  config['data'] |= {'source': config['data']['source'] | {'seed': seed}}
  with tempfile.TemporaryDirectory() as workdir, contextlib.redirect_stdout(
      io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    return train.train(config, workdir)['evals']


def cell(values):
  spread = f' ± {np.std(values, ddof=1):.3f}' if len(values) > 1 else ''
  return f'{np.mean(values):.3f}{spread}'


def row(runs, method):
  """The cells of a method, of the evaluations of a variant's seeds."""
  return [cell([one[method][name] for one in runs]) if name in runs[0][method] else '-'
          for name in SHOWN]


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--seeds', default='0,1,2,3,4')
  parser.add_argument('--variants', default=','.join(VARIANTS))
  parser.add_argument('--steps', type=int, default=0, help='0: those of the config')
  args = parser.parse_args()
  seeds, found = [int(seed) for seed in args.seeds.split(',')], {}
  print(f'{machine()}; seeds {args.seeds}', flush=True)
  for variant in args.variants.split(','):
    before = time.perf_counter()
    found[variant] = [figures_of(variant, seed, args.steps) for seed in seeds]
    print(f'{variant}: {len(seeds)} runs in {time.perf_counter() - before:.0f} s',
          flush=True)
  for end in ('', CALIBRATED):
    print(f'\n{"Calibrated" if end else "As it is"}:\n')
    print(f'| variant | method | {" | ".join(METRICS[name].title for name in SHOWN)} |')
    print(f'|---|---|{"---|" * len(SHOWN)}')
    for method in METHODS:
      for variant, runs in found.items():
        if method == RIDGE and variant != next(iter(found)):
          continue
        name = '-' if method == RIDGE else f'`{variant}`'
        print(f'| {name} | {method} | {" | ".join(row(runs, method + end))} |')


if __name__ == '__main__':
  main()
