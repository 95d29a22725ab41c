"""Error against the number of labels: the table of docs/semi_supervised.md.

    python tests/bench/semi_supervised.py                       # six seeds
    python tests/bench/semi_supervised.py --runs runs/few       # keeps its runs
    python tests/bench/semi_supervised.py --form open --labels 5

The variants of configs/semi_supervised.py, which says what each is. First table: error
in per cent on the test positives. Second table, at the largest number of labels: PAR .8
(share of test positives with a maximum probability above .8), and AUROC and NCR .8 on
negatives that no variant was trained on. Each number is a mean over seeds, ± the sample
standard deviation; a seed chooses the labelled examples, the same for all variants.
"""

import argparse
import contextlib
import os
import runpy
import tempfile

import numpy as np
from negatives import CONFIGS, load, trained
from steps import machine


def study(variants, labels, seeds, form):
  """{(variant, labels): [evaluations of each seed]}; seed after seed."""
  found = {}
  for seed in seeds:
    for num in labels:
      for variant in variants:
        name = '_'.join(filter(None, [variant, str(num), form]))
        config = load('semi_supervised', name) | {'seed': seed}
        config['run']['eval_every'] = 0
        print(f'training {name} seed {seed}', flush=True)
        figures = trained(config, f'{name}-{seed}')
        found.setdefault((variant, num), []).append(figures)
  return found


def cell(values, digits):
  spread = f' ± {np.std(values, ddof=1):.{digits}f}' if len(values) > 1 else ''
  return f'{np.mean(values):.{digits}f}{spread}'


def table(title, rows):
  """Prints {variant: {column: text}}."""
  columns = list(next(iter(rows.values())))
  print(f'\n| {title} | {" | ".join(columns)} |\n|---{"|---" * len(columns)}|')
  for variant, row in rows.items():
    print(f'| {variant} | {" | ".join(row.values())} |')


def errors(found, variant, labels):
  """The first table's row of a variant."""
  return {f'{num} per class': cell(
      [100 * (1 - one['test']['accuracy']) for one in found[variant, num]], 1)
          for num in labels}


def detection(runs):
  """The second table's row, of the evaluations of a variant's runs."""
  row = {'PAR .8': cell([one['test']['par']['0.8'] for one in runs], 3)}
  for kind in (name for name, one in runs[0].items() if not one['positive']):
    row[f'AUROC {kind}'] = cell([one[kind]['auroc'] for one in runs], 3)
    row[f'NCR .8 {kind}'] = cell([one[kind]['ncr']['0.8'] for one in runs], 3)
  return row


def main():
  every = runpy.run_path(os.path.join(CONFIGS, 'semi_supervised.py'))['VARIANTS']
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--seeds', default='0,1,2,3,4,5')
  parser.add_argument('--labels', default='1,2,5', help='of each class')
  parser.add_argument('--variants', default=','.join(every))
  parser.add_argument('--form', default='', choices=('', 'open', 'small'))
  parser.add_argument('--runs', default='', help="folder of the runs; '': temporary")
  args = parser.parse_args()
  seeds, labels = ([int(x) for x in text.split(',')]
                   for text in (args.seeds, args.labels))
  variants = args.variants.split(',')
  print(f'{machine()}; {len(seeds)} seeds', flush=True)
  with tempfile.TemporaryDirectory() as folder:
    folder = args.runs or folder
    os.makedirs(folder, exist_ok=True)
    with contextlib.chdir(folder):
      found = study(variants, labels, seeds, args.form)
  table('test error, %', {one: errors(found, one, labels) for one in variants})
  table(f'{max(labels)} labels per class',
        {one: detection(found[one, max(labels)]) for one in variants})


if __name__ == '__main__':
  main()
