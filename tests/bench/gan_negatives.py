"""Do external negatives help a GAN? Objectives on digits with 0, 3 and 10 of them.

    launch/gan_digits.sh runs/gan-digits
    python tests/bench/gan_negatives.py runs/gan-digits runs/gan-digits-gaan

Reads the runs of sweeps of GANs, one folder or more. The first table has the mean over
seeds of each variant, ± the sample standard deviation; bold cells differ from `nat0`.
The second one has the mean difference of each variant with external negatives from its
objective without any; bold cells differ from 0. Differences are tested by two-sided
paired t-tests over seeds at 5 %, with Holm's correction over all cells of a table.
"""

import argparse
import re

import numpy as np
from paired import table, text_of
from steps import machine, sweep

PLAIN = 'nat0'
COLUMNS = {  # title -> (key in eval.json, digits)
    'IS': ('inception_score', 2), 'AM score': ('am_score', 3), 'FID': ('fid', 2),
    'KID': ('kid', 3), 'CAFD': ('cafd', 2), 'class KL': ('class_kl', 3),
    'precision': ('precision', 2), 'recall': ('recall', 2), 'density': ('density', 2),
    'coverage': ('coverage', 2), 'largest class': ('class_shares', 2),
    'repeats': ('repeats', 3), 'nearer training': ('nearer_training', 3)}


def read(folders):
  """Reads the seeds that all variants of some sweeps have.

  A figure that a run does not have, such as one of an older version, has no column.

  Returns:
    ({variant: {title: [numbers by seed]}}, {title: text} of held-out real images, their
    number).
  """
  sweeps = [sweep(folder) for folder in folders]
  found = {variant: row for runs, _ in sweeps for variant, row in runs.items()}
  seeds = sorted(set.intersection(*(set(one) for _, one in sweeps)))
  samples = [one[seed]['evals']['samples'] for one in found.values() for seed in seeds]
  columns = {title: what for title, what in COLUMNS.items()
             if all(what[0] in one for one in samples)}
  held_out = samples[0].get('held_out', {})
  real = {title: [held_out.get(key)] for title, (key, _) in columns.items()}
  return (
      {variant: {title: [float(np.max(one[seed]['evals']['samples'][key]))
                         for seed in seeds] for title, (key, _) in columns.items()}
       for variant, one in found.items()},
      {title: '' if None in value else text_of(value, COLUMNS[title][1])
       for title, value in real.items()},
      held_out.get('num_samples', 'no'))


def plain(variant, found):
  """The name of a variant's objective without negatives, such as 'nat0' of 'nat10'."""
  stems = {name.removesuffix('0'): name for name in found}
  fitting = [stem for stem in stems
             if re.fullmatch(re.escape(stem) + r'[1-9]\d*', variant)]
  return stems[max(fitting, key=len)] if fitting else None


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('runs', nargs='+', help='folders of sweeps')
  found, real, num_real = read(parser.parse_args().runs)
  if PLAIN not in found:
    raise SystemExit(f'expected the variant {PLAIN} among {", ".join(found)}')
  print(f'{len(found[PLAIN]["IS"])} seeds; {machine()}')
  texts = {
      variant: {title: text_of(values, COLUMNS[title][1])
                for title, values in row.items()} for variant, row in found.items()}
  table(texts | {f'{num_real} real images, held out': real},
        {variant: {title: (row[title], found[PLAIN][title]) for title in row}
         for variant, row in found.items() if variant != PLAIN})
  changes, pairs = {}, {}
  for variant, row in found.items():
    without = found.get(plain(variant, found))
    if without is None:
      continue
    pairs[variant] = {title: (row[title], without[title]) for title in row}
    changes[variant] = {title: text_of(np.subtract(*pair), COLUMNS[title][1], '+')
                        for title, pair in pairs[variant].items()}
  if changes:
    table(changes, pairs)


if __name__ == '__main__':
  main()
