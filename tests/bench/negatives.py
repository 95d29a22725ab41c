"""Which source of negatives is best on kinds never seen? Digits, ten seeds.

    python tests/bench/negatives.py                        # 10 seeds
    python tests/bench/negatives.py --runs runs/negatives  # keeps its runs, and goes on

The variants of configs/negatives.py, which says what each is. Negatives that networks
generate come from one training each, all of the training positives alone: samples of a
GAN (configs/gan/digits.py:am) of which a plain classifier is less than .9 sure, samples
of MO-GAAL (configs/outliers.py) on the 64 pixels, and the training positives as an
AdvGAN (configs/advgan.py) changes them against that classifier.

Synthetic negatives differ between seeds; collected ones and those of networks do not.

First table: accuracy, PAR .8 (positives accepted at .8), and NCR .8, AUROC and FPR95
(at 95 % of the positives accepted) on the digits 8-9 and on the mean of blobs and
permuted pixels, kinds that no variant trains on. Second table: NCR .8 of each kind;
those in brackets are of kinds that the variant trains on. Each number is a mean over
seeds, ± the sample standard deviation; bold ones differ from `none` in a two-sided
paired t-test over seeds at 5 %, with Holm's correction over all cells of the table.
(With ten seeds no p of a sign-flip test is below .002, which so many cells exclude.)
`negatives.png` in the folder of the runs shows each seed.
"""

import argparse
import contextlib
import io
import os
import runpy
import tempfile

import numpy as np
import paired
from matplotlib.figure import Figure
from steps import machine

from nat_jax import data, runs, train
from nat_jax.commands import config_file
from nat_jax.reports import figures
from nat_jax.tasks import generated

CONFIGS = os.path.abspath(os.path.join(
    os.path.dirname(__file__), '..', '..', 'configs'))
KINDS = ('digits_6_7', 'photographs', 'shuffled', 'digits_8_9', 'blobs', 'permuted')
UNSEEN = {'8-9': ('digits_8_9',), 'far': ('blobs', 'permuted')}
SEEN = {  # variant -> kinds that it trains on
    **dict.fromkeys(('few_near', 'many_near', 'mixed', 'mined'), ('digits_6_7',)),
    **dict.fromkeys(('few_unlike', 'many_unlike'), ('photographs',)),
    **dict.fromkeys(('shuffled', 'made'), ('shuffled',)),
    'both': ('digits_6_7', 'shuffled')}
PANELS = ('accuracy', 'NCR .8, 8-9', 'NCR .8, far')  # of the figure


def load(name, variant=None):
  return config_file.load(os.path.join(CONFIGS, f'{name}.py'), variant).to_dict()


def trained(config, workdir):
  """The figures of a training; of a finished run those that it has."""
  config['compare_with'] = ''
  config['run'] |= {'tensorboard': False}
  with contextlib.redirect_stdout(io.StringIO()):
    return train.train(config, workdir)['evals']


def save(name, images, count):
  """Writes `count` of the images, drawn at random, where configs/negatives.py looks."""
  chosen = np.random.default_rng(0).permutation(len(images))[:count]
  np.savez(os.path.join('sources', f'{name}.npz'), image=images[np.sort(chosen)])


def plain_classifier():
  """The workdir of a plain classifier, of a seed of its own."""
  workdir = os.path.join('sources', 'classifier')
  trained(load('negatives', 'none') | {'seed': 1000}, workdir)
  return workdir


def make_advgan(config, count):
  """The training positives as an AdvGAN changes them."""
  workdir = os.path.join('sources', 'advgan')
  attack = load('advgan', 'white')
  attack['target'] = {'name': 'checkpoint', 'workdir': plain_classifier()}
  attack['data']['positives'] = config['data']['positives']
  attack['evals'] = {'test': {'source': config['evals']['test']['source']}}
  trained(attack, workdir)
  with np.load(os.path.join(workdir, 'adversarial.npz')) as file:
    save('advgan', file['image'], count)


def make_gan(config, count):
  """Samples of a GAN that a plain classifier is not sure of."""
  workdir = os.path.join('sources', 'gan')
  gan = load('gan/digits', 'am')
  gan['data']['positives'] = config['data']['positives']
  gan['evals'] = {}
  trained(gan, workdir)
  images = generated.run(
      workdir, count, classifier=plain_classifier(), confidence=(0.0, 0.9),
      like=data.load(config['data']['positives']), settings=config['data'],
      others=runs.OTHERS).image
  save('gan', images, count)


def make_gaal(config, count):
  """Samples of MO-GAAL's generators, as pictures."""
  workdir, path = (os.path.join('sources', name) for name in ('gaal', 'pixels.npz'))
  positives = data.load(config['data']['positives']).image
  pixels = positives.reshape(len(positives), -1).astype(np.float32)
  np.savez(path, vector=pixels)
  detector = load('outliers', f'mo:{path}')
  detector['data']['examples']['keep_constant'] = True
  width = pixels.shape[1]
  detector['data'] |= {'low': [0.0] * width, 'high': [255.0] * width}
  trained(detector, workdir)
  _, draw = runs.OTHERS.sampler(workdir, None)
  samples = np.clip(np.round(draw(count, 0)), 0, 255).astype(np.uint8)
  save('gaal', samples.reshape(-1, *positives.shape[1:]), count)


MAKERS = {'advgan': make_advgan, 'gan': make_gan, 'gaal': make_gaal}


def figures_of(found, unseen=UNSEEN, kinds=KINDS, fpr95='fpr95_id_positive'):
  """({column: number} of the first table, of the second) of one run's `evals`."""
  first = {'accuracy': found['test']['accuracy'], 'PAR .8': found['test']['par']['0.8']}
  for name, group in unseen.items():
    for title, key in (('AUROC', 'auroc'), ('FPR95', fpr95)):
      first[f'{title}, {name}'] = np.mean([found[kind][key] for kind in group])
    first[f'NCR .8, {name}'] = np.mean([found[kind]['ncr']['0.8'] for kind in group])
  return first, {kind: found[kind]['ncr']['0.8'] for kind in kinds}


def table(found, seen, plain='none', corner='negatives'):
  """Prints a table of {variant: {column: numbers by seed}}; bold: not as `plain`.

  `seen` has the columns of kinds that a variant trains on, which are in brackets.
  """
  rows = {variant: {
      column: f'({paired.text_of(values)})' if column in seen.get(variant, ())
      else paired.text_of(values) for column, values in row.items()}
          for variant, row in found.items()}
  paired.table(rows, {
      variant: {column: (values, found[plain][column])
                for column, values in row.items()}
      for variant, row in found.items() if variant != plain}, corner)


def draw(found, path, panels=PANELS):
  """A panel for each of the columns `panels`: a dot per seed, and the mean."""
  figure = Figure(figsize=(10, 0.3 * len(found) + 1.2), layout='constrained')
  for i, column in enumerate(panels):
    ax = figure.add_subplot(1, len(panels), i + 1)
    for row, variant in enumerate(found):
      values = found[variant][column]
      ax.plot(values, [row] * len(values), '.', color='tab:blue', alpha=0.4)
      ax.plot(np.mean(values), row, '|', color='black', markersize=14)
    ax.set_yticks(range(len(found)), found if i == 0 else [''] * len(found))
    ax.invert_yaxis()
    ax.set_title(column)
    ax.locator_params(axis='x', nbins=4)
    ax.grid(alpha=0.3)
  figures.save(figure, path)


def of_seed(variant, seed):
  """The config of a variant; its synthetic negatives are drawn by the seed, too."""
  config = load('negatives', variant) | {'seed': seed}
  for one in config['data']['negatives'].values():
    if one['source']['name'] in data.SYNTHETIC:
      one['source']['seed'] = seed
  return config


def study(seeds, variants):
  """Trains all; returns ({variant: {column: numbers}} of each table)."""
  os.makedirs('sources', exist_ok=True)
  config = load('negatives', 'none')
  near, = load('negatives', 'many_near')['data']['negatives'].values()
  count = len(data.load(near['source']).label)
  for name, make in MAKERS.items():
    if name in variants and not os.path.exists(f'sources/{name}.npz'):
      print(f'training the source {name}', flush=True)
      make(config, count)
  tables = {}, {}
  for variant in variants:
    print(f'training {variant}', flush=True)
    rows = [figures_of(trained(of_seed(variant, seed), f'{variant}-{seed}'))
            for seed in range(seeds)]
    for one, found in zip(tables, zip(*rows, strict=True), strict=True):
      one[variant] = {column: [row[column] for row in found] for column in found[0]}
  return tables


def main():
  every = runpy.run_path(os.path.join(CONFIGS, 'negatives.py'))['SOURCES']
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--seeds', type=int, default=10)
  parser.add_argument('--variants', default=','.join(every),
                      help='of configs/negatives.py; `none` among them')
  parser.add_argument('--runs', default='', help="folder of the runs; '': temporary")
  args = parser.parse_args()
  variants = args.variants.split(',')
  if args.seeds < 2 or 'none' not in variants:
    parser.error('expected --seeds of 2 or more, and `none` among --variants')
  print(f'{machine()}; {args.seeds} seeds', flush=True)
  with tempfile.TemporaryDirectory() as folder:
    folder = args.runs or folder
    os.makedirs(folder, exist_ok=True)
    with contextlib.chdir(folder):
      first, second = study(args.seeds, variants)
      table(first, {})
      table(second, SEEN)
      if args.runs:
        draw(first, 'negatives.png')


if __name__ == '__main__':
  main()
