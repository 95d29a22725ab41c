"""The table of detectors of outliers on scikit-learn's breast cancer data.

    python tests/bench/outliers.py                       # 5 seeds
    python tests/bench/outliers.py --freeze-after 100 200 400

357 benign examples and 10 malignant ones, the outliers, scaled to [0, 1]. Every
detector is fitted to all of them without labels, which serve for the AUROC only. GAAL
is trained for three times as many updates as its generators (the authors' recipe), with
their settings; --freeze-after says how many these are, and shows what depends on it.
"""

import argparse

import numpy as np
from steps import machine

from nat_jax import data, metrics
from nat_jax.tasks.outliers import Detector, evaluate, step

BASELINES = {  # name in the table -> name in `evaluate.BASELINES`
    'isolation forest': 'isolation_forest', 'LOF, 20 neighbours': 'lof',
    '10 nearest neighbours': 'knn'}
GENERATORS = {'SO-GAAL': 1, 'MO-GAAL': 10}


def gaal(x, seed, num_generators, updates, freeze_after):
  return Detector(
      num_generators, updates, freeze_after, seed=seed).fit(x).decision_function(x)


def detectors(freeze_after):
  """Name -> (examples, seed) -> scores, high for normal examples."""
  found = {
      title: lambda x, seed, name=name: evaluate.BASELINES[name](
          x, {'seed': seed, 'lof_neighbours': 20, 'neighbours': 10})
      for title, name in BASELINES.items()}
  for stop in freeze_after:
    found[f'uniform negatives (AGPO), {3 * stop} updates'] = (
        lambda x, seed, stop=stop: gaal(x, seed, 1, 3 * stop, 0))
    for name, num in GENERATORS.items():
      found[f'{name}, {stop} of {3 * stop} updates'] = (
          lambda x, seed, num=num, stop=stop: gaal(x, seed, num, 3 * stop, stop))
  return found


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--seeds', type=int, default=5)
  parser.add_argument('--freeze-after', type=int, nargs='+', default=[200])
  args = parser.parse_args()
  if args.seeds < 2:
    parser.error('a standard deviation needs --seeds of 2 or more')
  arrays = data.load({'name': 'breast_cancer', 'outliers': 10})
  x = step.scale(
      arrays.image, {'low': arrays.image.min(0), 'high': arrays.image.max(0)})
  bad = arrays.label == 1
  print(f'{machine()}; seeds 0 to {args.seeds - 1}\n')
  print('| detector | AUROC |\n|---|---|', flush=True)
  for name, score_of in detectors(args.freeze_after).items():
    found = []
    for seed in range(args.seeds):
      score = score_of(x, seed)
      found.append(metrics.detection_metrics(score[~bad], score[bad])['auroc'])
    spread = np.std(found, ddof=1)
    print(f'| {name} | {np.mean(found):.3f} ± {spread:.3f} |', flush=True)


if __name__ == '__main__':
  main()
