"""Vectors: a negative-aware classifier on what a pretrained network makes of pictures.

    python -m nat_jax.main --mode=embed --backbone jax:efficientnet_lite0 \\
      --images pets/ --images others/ --out features.npz
    python -m nat_jax.main --config configs/embeddings.py:features.npz \\
      --workdir runs/pets

The file holds vectors and their classes (nat_jax/data/arrays_source.py); a table of
numbers, .csv, will do too. Rows without a class are the negatives; with
`features.npz,negatives.npz` they are all rows of a second file instead. Without
negatives, noise with the mean and the variance of the training positives takes their
place. 60 % of each class are trained on; 10 % are held out for validation, 10 % for
calibration (the threshold of --mode=predict) and 20 % for the test. A file may say in
`split` which rows are `train`, `validation`, `calibration` and `test`; parts without
rows are taken from `train`, in these shares of it.

A third file, as in `features.npz,negatives.npz,strangers.npz` or
`features.npz,,strangers.npz`, holds negatives that are only tested on: each of its
classes is an evaluation set of its own, or all rows are one, where there are no classes
or more than 20. Rows without a class, beside others, are a set with the name of the
file.

`features.npz` trains a negative-aware classifier and, to compare with, the plain one,
`baseline:features.npz`. Training stops early by the validation accuracy, and eval.json
is of the best checkpoint. The network has two hidden layers; --config.model.depth=0
makes it linear. Vectors are standardised by the mean and standard deviation of the
training positives, which are saved with the run.

A few seconds on two CPU cores. docs/embeddings.md is a guide.
"""

import os

from nat_jax import names
from nat_jax.schema import presets

PERIOD = 100  # updates from one evaluation to the next
NOISE = {'name': 'normal_noise', 'num': 2000}
METHODS = {  # -> loss, negatives per batch
    'nat': ('nat', 64),
    'baseline': ('cross_entropy', 0),
}


def get_config(variant='features.npz'):
  from nat_jax import data  # imported here because it imports JAX

  method, _, files = variant.rpartition(':')
  method = method or 'nat'
  if method not in METHODS:
    raise ValueError(names.unknown('variant', method, METHODS))
  path, other, strangers = presets.three(files)
  header = data.read_header(path)
  if len(header.names) < 2:
    data.load({'name': 'arrays', 'path': path, 'rows': 'all'})  # raises if this is why
    raise ValueError(
        f'{path} must hold vectors of at least two classes, named in label (an array, '
        f'or a column of a table), got {len(header.names)} classes; usage: --config '
        'embeddings:FEATURES,NEGATIVES')
  positives = parts_of(path, header, 'labelled')
  evals = {part: {'source': positives[part], 'positive': True, 'part': part}
           for part in ('test', 'validation', 'calibration')}
  given = {'noise': {'source': {**NOISE, 'seed': 1}}}
  if other or (header.label < 0).any():
    negatives = parts_of(
        *((other, alike(path, header, other, data.read_header(other)), 'all')
          if other else (path, header, 'unlabelled')))
    given = {'others': {'source': negatives['train']}}
    evals['others'] = {'source': negatives['test']}
    for part in ('validation', 'calibration'):
      evals[f'{part}_others'] = {'source': negatives[part], 'part': part}
  evals['noise'] = {'source': NOISE}
  if strangers:
    same = {os.path.realpath(strangers)} & {*map(os.path.realpath, (path, other))}
    if same:
      raise ValueError(
          f'{strangers} is trained on too: expected another file of negatives for the '
          'test only')
    found = alike(path, header, strangers, data.read_header(strangers))
    evals |= presets.unseen(kinds_of(strangers, found), evals)
  loss, count = METHODS[method]
  return presets.experiment(
      name=os.path.splitext(os.path.basename(path))[0],
      variant=method,
      compare_with=f'baseline:{files}' if method == 'nat' else '',
      num_classes=len(header.names),
      steps=1000,
      best='validation/accuracy',
      patience=5 * PERIOD,
      model={'name': 'mlp', 'width': 512, 'depth': 2},
      loss={'name': loss},
      optimizer={'name': 'adamw', 'weight_decay': 0.01},
      schedule={'name': 'cosine', 'learning_rate': 1e-3, 'warmup': 50},
      data=dict(
          positives=positives['train'],
          negatives=given,
          mean=(),  # those of the training positives
          std=(),
          backbone=dict(header.backbone),
          batch_size=64,
          negatives_per_batch=count,
      ),
      evals=evals,
      run=dict(log_every=PERIOD, eval_every=PERIOD, checkpoint_every=PERIOD),
  )


def parts_of(path, header, rows):
  """{part: source} of the rows of a file; each class is split by itself."""
  chosen = slice(None)
  if rows != 'all':
    chosen = (header.label >= 0) == (rows == 'labelled')
  named = set() if header.split is None else set(header.split[chosen].tolist())
  if named <= {''}:
    named = set()
  if not named <= {*presets.SHARES}:
    raise ValueError(
        f'{path}: expected {", ".join(presets.SHARES)} in split, in all rows or in '
        f'none, got {", ".join(map(repr, sorted(named)))}')
  return {part: source_of(path, header, rows, split)
          for part, split in presets.part_splits(named).items()}


def source_of(path, header, rows, split='all', classes=None):
  # A unit of a network that is silent for all pictures is no mistake.
  return {'name': 'arrays', 'path': os.path.abspath(path), 'rows': rows, 'split': split,
          'classes': classes, 'keep_constant': bool(header.backbone)}


def kinds_of(path, header):
  """[(kind, source)] of a file of negatives that are for the test only."""
  whole = os.path.splitext(os.path.basename(path))[0]
  label = () if header.label is None else header.label
  kinds = [(name, source_of(path, header, 'labelled', classes=(number,)))
           for number, name in enumerate(header.names) if number in label]
  if not 0 < len(kinds) <= presets.MOST_KINDS:
    return [(whole, source_of(path, header, 'all'))]
  if -1 in label:
    kinds.append((whole, source_of(path, header, 'unlabelled')))
  return kinds


def alike(path, header, other, negatives):
  """The header of the negatives; ValueError if another backbone has made them."""
  for key in {**header.backbone, **negatives.backbone}:
    one, two = (each.backbone.get(key, 'none') for each in (header, negatives))
    if key != 'weights' and one != two:  # which may be one file in two places
      raise ValueError(
          f'{path} and {other} hold vectors of different backbones ({key} is {one} and '
          f'{two}); make both with one --backbone')
  return negatives
