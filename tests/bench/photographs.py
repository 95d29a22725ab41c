"""Vectors of photographs: which confidence, how many negatives, how many photographs?

    for each in pets others strangers; do
      python -m nat_jax.main --mode=embed --backbone NAME --images $each --out $each.npz
    done
    python tests/bench/photographs.py pets.npz others.npz strangers.npz --learn raccoon

`pets.npz` has the classes, `others.npz` negatives, in classes if there are kinds of
them, and `strangers.npz` kinds that are only tested on. Prints the tables of
docs/photographs.md: accuracy, and for each kind of strangers the share that is accepted
where 95 % of the test positives are; means over seeds ± the sample standard deviation.
Each run is configs/embeddings.py with fewer rows. Validation, calibration and test
parts are always whole; where rows are left out, each seed keeps others. With --learn
a last table trains on some vectors of a kind of strangers, and tests on the rest of it.
"""

import argparse
import contextlib
import io
import os
import tempfile

import numpy as np
from paired import text_of
from steps import machine

from nat_jax import data, train
from nat_jax.commands import config_file
from nat_jax.commands.posthoc import posthoc
from nat_jax.schema import presets

ACCEPTED = 'fpr95_id_positive'
SCORES = 'max_softmax', 'energy', 'she', 'knn', 'vim', 'mahalanobis'
NEGATIVES, POSITIVES = (25, 100), (35, 100)  # per run; per class
LEARNT = 0, 10, 40  # vectors of a kind of strangers


def parts(path):
  """(arrays of a file, the part of each row) in the shares of configs/embeddings.py."""
  with np.load(path) as file:
    arrays = dict(file)
  part = np.empty(len(arrays['label']), object)
  for name, split in presets.part_splits().items():
    part[data.arrays(path, split, rows='all', keep_constant=True).row] = name
  return arrays, part.astype(str)


def fewer(folder, name, arrays, part, seed, per_class=0, total=0, kind=None):
  """Writes a file with fewer rows of part 'train', classes only if `per_class`."""
  label, trained = arrays['label'], part == 'train'
  rng, keep = np.random.default_rng(seed), np.ones(len(label), bool)
  if kind is not None:
    keep[trained & (label != kind)] = False
  for group in [label == k for k in np.unique(label)] if per_class else [keep]:
    rows = rng.permutation(np.flatnonzero(group & trained & keep))
    keep[rows[per_class or total or len(rows):]] = False
  path = os.path.join(folder, f'{name}.npz')
  about = {'label': label[keep], 'names': arrays['names']} if per_class else {}
  np.savez(path, vector=arrays['vector'][keep], split=part[keep],
           backbone=arrays['backbone'], **about)
  return path


def learn(folder, others, path, kind, num):
  """(file of the negatives with `num` more of a kind, file of the other strangers).

  The latter always lacks the largest number, max(LEARNT), so that all are tested on the
  same vectors.
  """
  with np.load(path) as file:
    known = dict(file)
  of_kind = np.random.default_rng(0).permutation(np.flatnonzero(
      known['label'] == known['names'].tolist().index(kind)))
  left = np.setdiff1d(np.arange(len(known['label'])), of_kind[:max(LEARNT)])
  files = [os.path.join(folder, f'{name}.npz') for name in ('more', 'rest')]
  np.savez(files[0], backbone=known['backbone'],
           vector=np.concatenate([others[0]['vector'], known['vector'][of_kind[:num]]]),
           split=np.concatenate([others[1], ['train'] * num]))
  np.savez(files[1], vector=known['vector'][left], label=known['label'][left],
           names=known['names'], backbone=known['backbone'])
  return files


def run(folder, method, positives, negatives, strangers, seed, scores=()):
  """{title of a confidence: the evaluations of a run by it}."""
  variant = f'{method}:{positives},{negatives},{strangers}'
  config = config_file.load('embeddings', variant)
  config.seed, config.compare_with, config.run.tensorboard = seed, '', False
  workdir = os.path.join(folder, 'run')
  with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(
      io.StringIO()):
    evals = train.train(config, workdir, overwrite=True)['evals']
    found = {'its own': evals}
    if scores:
      found |= {score: {**one, 'test': evals['test']} for score, one in posthoc(
          workdir, scores=scores)['scores'].items()}
  return found


def table(title, rows, kinds):
  """Prints rows {name: [evaluations of each seed]}."""
  print(f'\n| {title} | accuracy | {" | ".join(kinds)} |')
  print(f'|---|{"--:|" * (1 + len(kinds))}')
  for name, runs in rows.items():
    print(f'| {name} | {text_of([one["test"]["accuracy"] for one in runs])} | '
          + ' | '.join(text_of([one[kind][ACCEPTED] for one in runs]) for kind in kinds)
          + ' |', flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('positives')
  parser.add_argument('negatives')
  parser.add_argument('strangers', help='negatives for the test only')
  parser.add_argument('--learn', default='', help='a kind of strangers')
  parser.add_argument('--seeds', default='0,1,2,3,4', help='two or more')
  args = parser.parse_args()
  seeds = [int(seed) for seed in args.seeds.split(',')]
  pets, others = parts(args.positives), parts(args.negatives)
  strangers = os.path.abspath(args.strangers)
  names = data.read_header(strangers).names
  kinds = [*presets.unseen([(name, {}) for name in names], ())]
  for name, (_, part) in (('positives', pets), ('negatives', others)):
    print(f'{name}: ' + ', '.join(f'{(part == one).sum()} {one}'
                                  for one in presets.SHARES))
  print(f'seeds {args.seeds}; {machine()}', flush=True)

  with tempfile.TemporaryDirectory() as folder:
    def runs(method='nat', per_class=10**6, negative=None, scores=()):
      """{confidence: [evaluations of each seed]}; negative=False: none."""
      found = {}
      for seed in seeds:
        files = (fewer(folder, 'pets', *pets, seed, per_class),
                 '' if negative is False else fewer(
                     folder, 'others', *others, seed, **negative or {}))
        for name, one in run(folder, method, *files, strangers, seed, scores).items():
          found.setdefault(name, []).append(one)
      return found

    plain, nat = runs('baseline', scores=SCORES), runs(scores=SCORES)
    table('plain classifier, by', {name: plain[name] for name in SCORES}, kinds)
    table('NAT, by', {name: nat[name] for name in SCORES}, kinds)
    whole, most = nat['its own'], (others[1] == 'train').sum()
    table('training negatives', {
        'none: noise': runs(negative=False)['its own'],
        **{f'{num}': runs(negative={'total': num})['its own'] for num in NEGATIVES},
        f'{most}': whole}, kinds)
    named = others[0].get('names', ())
    if len(named) > 1:
      table('kind of the training negatives', {
          f'{name}, {((others[0]["label"] == k) & (others[1] == "train")).sum()}':
          runs(negative={'kind': k})['its own'] for k, name in enumerate(named)}, kinds)
    each = {num: {method: runs(method, num)['its own']
                  for method in ('baseline', 'nat')} for num in POSITIVES}
    table('training photographs per class', {
        **{f'{num}, {"NAT" if method == "nat" else "plain"}': found
           for num, one in each.items() for method, found in one.items()},
        'all, plain': plain['its own'], 'all, NAT': whole}, kinds)
    if args.learn:
      rows = {}
      for num in LEARNT:
        more, rest = learn(folder, others, strangers, args.learn, num)
        rows[f'{num} {args.learn}'] = [
            run(folder, 'nat', os.path.abspath(args.positives), more, rest, seed)[
                'its own'] for seed in seeds]
      table('more training negatives', rows, kinds)


if __name__ == '__main__':
  main()
