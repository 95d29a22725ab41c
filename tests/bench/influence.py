"""Which half of the negatives to keep, by influence: digits, several seeds.

    python tests/bench/influence.py                       # 3 seeds, 300 updates
    python tests/bench/influence.py --seeds 10 --loo 40

configs/digits.py:nat with an MLP, since the exact method excludes BatchNorm; negatives
are the digits 6 and 7. The influence of every example on the soft NCR_0.8 of the first
half of the digit 8 (`chosen_8`), a kind that is not trained on, selects the half of the
negatives that is kept:
  all      every negative
  exact    the most helpful half, exact method
  tracin   the most helpful half, by the output layer at checkpoints
  random   a random half, another one for each seed
  worst    the least helpful half, exact method
The second half of the digit 8 (`digit_8`), the digit 9 and noise are in neither the
training nor the selection.

The first table compares the values themselves: TracIn with the exact method, and the
exact method with true leave-one-out of `--loo` examples drawn at random (each trained
again without it). Each number is a mean over seeds, ± the sample standard deviation.
"""

import argparse
import contextlib
import io
import json
import os
import tempfile

import numpy as np
from scipy import stats
from steps import machine

from nat_jax import data, influence, runs, train
from nat_jax.commands import config_file
from nat_jax.influence import classifiers
from nat_jax.runtime import parallel
from nat_jax.tasks import TASKS
from nat_jax.tasks.classify import inputs

CONFIG = os.path.join(os.path.dirname(__file__), '..', '..', 'configs', 'digits.py')
NEGATIVES, TARGET = 'digits_6_7', 'ncr@0.8:chosen_8'
SHOWN = ('chosen_8', 'digit_8', 'digit_9', 'noise', 'digits_6_7')
ARMS = ('all', 'exact', 'tracin', 'random', 'worst')


def make_config(seed, args, keep=''):
  config = config_file.load(CONFIG, 'nat').to_dict()
  evals = config['evals']
  source = evals.pop('digits_8_9')['source']
  for name, k, split in (('chosen_8', 8, 'all[:50%]'), ('digit_8', 8, 'all[50%:]'),
                         ('digit_9', 9, 'all')):
    evals[name] = {'source': {**source, 'classes': (k,), 'split': split}}
  evals['chosen_8']['part'] = 'validation'
  config |= {'model': {'name': 'mlp'}, 'steps': args.steps, 'seed': seed,
             'compare_with': ''}
  config['schedule']['learning_rate'] = args.rate
  config['data']['keep'] = keep
  config['run'] |= {'tensorboard': False, 'keep': 1000, 'eval_every': 0,
                    'checkpoint_every': max(1, args.steps // 20)}
  return config


def trained(config, workdir):
  """Figures of a training."""
  with contextlib.redirect_stdout(io.StringIO()):
    found = train.train(config, workdir)['evals']
  return {'accuracy': found['test']['accuracy'],
          **{f'NCR_0.8 {name}': found[name]['ncr']['0.8'] for name in SHOWN},
          'AUROC digit_9': found['digit_9']['auroc']}


def halves(exact, tracin, seed):
  """Arm -> the negatives that are kept, rows of their source; None: all."""
  size = len(exact)
  order = np.argsort(-exact, kind='stable')
  rng = np.random.default_rng(seed)
  return {'all': None, 'exact': order[:size // 2], 'worst': order[-(size // 2):],
          'tracin': np.argsort(-tracin, kind='stable')[:size // 2],
          'random': rng.permutation(size)[:size // 2]}


def leave_one_out(workdir, rows):
  """By how much the soft metric is worse after a training without each example."""
  run = runs.restore(workdir, None, 'classify')
  given = TASKS['classify'].load(run.config, run.mesh.devices.size)
  target = influence.targets.parse(TARGET, run.config)
  shown = inputs.load_evals(run.config, {}, ['validation'])[target.set].arrays
  update = parallel.wrap_step(run.trainer.step, run.mesh, scan=False)
  start = train.initial_state(run.config, run.trainer, run.mesh)
  index = np.stack([given.stream.index(step) for step in range(run.step)])
  batches = data.gather(given.pool, index)

  def metric(row):
    # Not quite 0, so that the numbers that means divide by stay.
    weight = np.where(index == row, np.float32(1e-12), batches['weight'])
    state, _ = update(parallel.copy(start), {}, (), {**batches, 'weight': weight})
    return classifiers.differentiate(run, state, target, shown)[0]

  return np.array([metric(row) for row in rows]) - metric(-2)


def agreement(one, other):
  return {'Spearman': stats.spearmanr(one, other).statistic,
          'Kendall': stats.kendalltau(one, other).statistic}


def study(seed, args, folder):
  """(agreement of the methods, figures of each arm) of one seed."""
  workdir = os.path.join(folder, f'{seed}-all')
  figures = {'all': trained(make_config(seed, args), workdir)}
  exact, tracin = (influence.influence(workdir, TARGET, method)
                   for method in influence.METHODS)
  assert exact.difference == 0, exact.difference
  agree = {f'TracIn, {name}': agreement(exact.value[part.here], tracin.value[part.here])
           for name, part in exact.sets.items()}
  if args.loo:
    rows = np.random.default_rng(seed).permutation(len(exact.value))[:args.loo]
    agree[f'leave-one-out, {args.loo} examples'] = agreement(
        exact.value[rows], leave_one_out(workdir, rows))
  part = exact.sets[NEGATIVES]
  kept = halves(exact.value[part.here], tracin.value[part.here], seed)
  for arm, rows in kept.items():
    if rows is None:
      continue
    path = os.path.join(folder, f'{seed}-{arm}.json')
    with open(path, 'w') as file:
      json.dump({NEGATIVES: {'size': part.size, 'rows': sorted(rows.tolist())}}, file)
    figures[arm] = trained(
        make_config(seed, args, path), os.path.join(folder, f'{seed}-{arm}'))
  return agree, figures


def text(values):
  return f'{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}'


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument('--steps', type=int, default=300)
  parser.add_argument('--rate', type=float, default=0.1, help='learning rate')
  parser.add_argument('--loo', type=int, default=20, help='0: none')
  args = parser.parse_args()
  if args.seeds < 2:
    parser.error('a standard deviation needs --seeds of 2 or more')
  print(f'{machine()}; {args.seeds} seeds, {args.steps} updates, learning rate '
        f'{args.rate}\n')
  with tempfile.TemporaryDirectory() as folder:
    agree, figures = zip(
        *(study(seed, args, folder) for seed in range(args.seeds)), strict=True)
  print('| exact method against | Spearman | Kendall |\n|---|---|---|')
  for name in agree[0]:
    cells = [text([one[name][key] for one in agree]) for key in ('Spearman', 'Kendall')]
    print(f'| {name} | {" | ".join(cells)} |')
  names = list(figures[0]['all'])
  print(f'\n| negatives | {" | ".join(names)} |\n|---{"|---" * len(names)}|')
  for arm in ARMS:
    cells = [text([one[arm][name] for one in figures]) for name in names]
    print(f'| {arm} | {" | ".join(cells)} |')
  print('\nexact minus random, by seed: ' + '; '.join(
      f'{name} ' + ', '.join(f'{one["exact"][name] - one["random"][name]:+.3f}'
                             for one in figures) for name in names))


if __name__ == '__main__':
  main()
