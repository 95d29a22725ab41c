"""Which GAN is ahead when? Metrics of a sweep's samples at updates during the training.

    python -m nat_jax.main --mode=sweep --workdir runs/gan-mnist-long --seeds 0,1,2 \
      configs/gan/mnist.py:{am,catgan,nat0,nat3}_small --config.steps=6000
    python tests/bench/gan_curves.py runs/gan-mnist-long --every 600

Reads metrics.jsonl of each run; there must be two seeds or more. A table for each
metric has the mean over seeds ± the sample standard deviation; bold: the best mean of a
row. Below it are the updates at which another variant takes the lead.
"""

import argparse
import glob
import itertools
import os

import numpy as np
from paired import text_of
from steps import sweep

from nat_jax import metrics, reports

COLUMNS = ('inception_score', 'am_score', 'fid')


def read(folder, evaluation):
  """Reads the evaluations of a sweep that are made during the training.

  Returns:
    {variant: {metric: {update: [value of each seed]}}}, of the seeds and the updates
    that all runs have.
  """
  evaluations, seeds = sweep(folder)
  found = {variant: {metric: {} for metric in COLUMNS} for variant in evaluations}
  for path in sorted(glob.glob(os.path.join(folder, '*', 'eval.json'))):
    run = reports.load_run(os.path.dirname(path))
    for step, evals in run['history']['eval'] if run['seed'] in seeds else ():
      values = evals.get(evaluation, {})
      for metric in values.keys() & set(COLUMNS):
        found[run['variant']][metric].setdefault(step, {})[run['seed']] = values[metric]
  complete = set.intersection(*(
      {step for step, values in by_step.items() if len(values) == len(seeds)}
      for row in found.values() for by_step in row.values()))
  if not complete:
    raise SystemExit(f'expected evaluations {evaluation!r} in {folder}/*/metrics.jsonl '
                     'at updates that all runs have')
  return {variant: {metric: {step: list(row[metric][step].values())
                             for step in sorted(complete)} for metric in COLUMNS}
          for variant, row in found.items()}


def leaders(found, metric):
  """The best variant by the mean over seeds at each update: [(update, variant)]."""
  best = min if metrics.METRICS[metric].better == 'lower' else max
  return [(step, best(found, key=lambda v, step=step: np.mean(found[v][metric][step])))
          for step in next(iter(found.values()))[metric]]


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('runs', help='folder of a sweep')
  parser.add_argument('--evaluation', default='quick', help='name in the config')
  parser.add_argument('--every', type=int, default=0,
                      help='rows are at multiples of this number of updates; 0: all')
  args = parser.parse_args()
  found = read(args.runs, args.evaluation)
  for metric in COLUMNS:
    about = metrics.METRICS[metric]
    print(f'\n{about.title}, {about.better} is better\n')
    print(f'| updates | {" | ".join(f"`{variant}`" for variant in found)} |')
    print(f'|--:{"|---" * len(found)}|')
    ahead = leaders(found, metric)
    for step, best in ahead:
      if not args.every or step % args.every == 0:
        texts = {variant: text_of(row[metric][step], about.digits)
                 for variant, row in found.items()}
        print(f'| {step:,} | ' + ' | '.join(
            f'**{text}**' if variant == best else text
            for variant, text in texts.items()) + ' |')
    changes = [next(group) for _, group in itertools.groupby(ahead, lambda one: one[1])]
    print('\nBest mean: ' + '; '.join(
        f'{variant} from update {step:,}' for step, variant in changes) + '.')


if __name__ == '__main__':
  main()
