"""Your own pictures: a folder per class of positives, and a folder of negatives.

    python -m nat_jax.main --config configs/pictures.py:pets,others --workdir runs/pets
    python -m nat_jax.main --config configs/pictures.py:scans.csv --workdir runs/scans

`pets/` holds a folder of pictures for each class, `others/` pictures that are of none
of the classes (flat, or in folders). Pictures of any size and format are resized and
cropped to squares of 32 pixels, or of 224 with --config.data.image_size=224; network
and augmentation go by this size. 60 % of each folder are trained on; 10 % are held out
for validation, 10 % for calibration (the threshold of --mode=predict) and 20 % for the
test. Either may also hold folders `train`, `val` and `test` with these, as in
`pets/train/cat/`; parts without a folder are taken from `train`. With `pets` alone the
negatives are positives with shuffled patches. Rejection improves with more negatives,
and with negatives that resemble the positives.

`pets,others,strangers` (or `pets,,strangers`) also tests on `strangers/`, pictures of
kinds that are not trained on: each of two or more folders in it is an evaluation set of
its own; otherwise, or if there are more than 20, all of it is one.

`scans.csv` lists pictures in the columns path,label,split,group, of which the last two
may be left out: rows without a label are negatives, pictures of a group (a patient, a
camera) stay in one part. `tfds/NAME` instead of a folder is the split 'train' of a data
set of tensorflow_datasets, of which the same shares are taken (a folder of this name is
written ./tfds/NAME). docs/pictures.md describes all of this.

`pets,others` trains a negative-aware classifier and, to compare with, the plain one,
`baseline:pets,others`, which does not use the negatives (its workdir is
runs/pets-baseline). Validation accuracy is computed every 100 updates. Training stops
when it has been below its best value for 1,000 updates (--config.patience=0: never).
eval.json is of the checkpoint with the best value, of equal values the newest. It is
also evaluated on 500 test pictures with noise, blur, low contrast and JPEG artefacts.
Classes of unequal size: --config.data.class_weights=balanced.

Pictures are decoded once, to a cache on disk if it has room, and streamed from there.
One that cannot be read ends the program before training, with its name;
--config.data.skip_unreadable=True skips such pictures, with a warning.

For other networks and longer training copy this file and change it.
"""

import csv
import os

from nat_jax import names
from nat_jax.schema import presets, recipes

PERIOD = 100  # updates from one evaluation to the next
METHODS = {  # -> loss, negatives per batch
    'nat': ('nat', (4, 12)),
    'baseline': ('cross_entropy', 0),
}
NOISE = {'source': {'name': 'normal_noise', 'num': 1000}}
TFDS = 'tfds/'
READ = {'skip_unreadable': False, 'lazy': 'auto'}  # for all sources of pictures


def get_config(variant='pets,others'):
  method, _, sources = variant.rpartition(':')
  method = method or 'nat'
  if method not in METHODS:
    raise ValueError(names.unknown('variant', method, METHODS))
  positives, negatives, strangers = presets.three(sources)
  if positives.lower().endswith('.csv'):
    classes, shown, others = of_table(positives, negatives)
  else:
    classes, shown, others = of_folders(positives, negatives)
  given, evals = {'shuffled': recipes.SHUFFLED}, {}
  if others:
    given = {'others': {'source': others['train']}}
  for part in ('test', 'validation', 'calibration'):
    evals[part] = {'source': shown[part], 'positive': True, 'part': part}
    if others:
      name = 'others' if part == 'test' else f'{part}_others'
      evals[name] = {'source': others[part], 'part': part}
  loss, count = METHODS[method]
  evals |= {**presets.corrupted(evals['test']['source']), 'noise': NOISE}
  if strangers:
    evals |= presets.unseen(kinds_of(strangers, (positives, negatives)), evals)
  return presets.experiment(
      name=os.path.basename(os.path.abspath(positives)).removesuffix('.csv'),
      variant=method,
      compare_with=f'baseline:{sources}' if method == 'nat' else '',
      num_classes=classes,
      steps=2000,
      best='validation/accuracy',
      patience=10 * PERIOD,
      loss={'name': loss},
      eval_batch_size=128,
      data=dict(
          positives=shown['train'],
          negatives=given,
          image_size=32,
          batch_size=64,
          negatives_per_batch=count,
          augment=[{'name': 'standard'}],
          **presets.NORMALISATION['cifar10'],
      ),
      evals=evals,
      **{**recipes.SMALL,
         'model': {'name': 'fast', 'widths': None},  # more groups for larger images
         'run': {**recipes.SMALL['run'], 'placement': 'streamed',
                 'eval_every': PERIOD, 'checkpoint_every': PERIOD}},
  )


def of_folders(positives, negatives):
  """(number of classes, {part: source} of positives, of negatives) of folders."""
  if is_tfds(positives):
    classes = num_classes(positives)
  else:
    inner = presets.part_folders(positives)
    classes = len(class_folders(
        os.path.join(positives, inner['train']) if inner else positives))
  if classes < 2:
    raise ValueError(
        f'{positives!r} has no class folders: expected a folder with a folder of '
        f'pictures for each of at least two classes, got {classes} folder(s); '
        'usage: --config pictures:POSITIVES,NEGATIVES')
  if negatives and not (is_tfds(negatives) or os.path.isdir(negatives)):
    raise ValueError(
        f'there is no folder of negatives {negatives!r}; usage: --config '
        f'pictures:POSITIVES,NEGATIVES, where NEGATIVES holds pictures of none of the '
        f'classes or is {TFDS}NAME')
  if _within(negatives, positives):
    raise ValueError(
        f'the folder of negatives {negatives!r} is {positives!r}, or in it: its '
        'pictures would be of a class and of none; move them elsewhere')
  return classes, sources_of(positives), sources_of(negatives) if negatives else {}


def kinds_of(path, trained_on):
  """[(kind, source)] of a folder of negatives that are for the test only.

  That none of its pictures is trained on is checked by folder only: not the pictures
  that a table lists, nor links in the folder.
  """
  if path in trained_on:
    raise ValueError(
        f'{path!r} is trained on too: expected other negatives for the test')
  if is_tfds(path):
    num_classes(path)  # raises where there is no such set
    name = path.removeprefix(TFDS)
    return [(name, presets.tfds(name, 'train'))]
  if not os.path.isdir(path):
    raise ValueError(
        f'there is no folder {path!r} of negatives for the test only; usage: --config '
        'pictures:POSITIVES,NEGATIVES,STRANGERS')
  for other in trained_on:
    if _within(path, other) or _within(other, path):
      raise ValueError(
          f'{path!r} holds pictures that are trained on, since one of it and {other!r} '
          'is in the other: expected a folder apart')
  from nat_jax import data  # imported here because it imports JAX

  # Raises for empty folders, for pictures beside folders, for parts that differ.
  kinds = data.list_pictures(path).names
  path = os.path.abspath(path)
  source = {'name': 'folder', 'path': path, 'split': 'all', **READ}
  if not 1 < len(kinds) <= presets.MOST_KINDS:
    return [(os.path.basename(path), source)]
  if presets.part_folders(path):
    return [(kind, {**source, 'classes': (k,)}) for k, kind in enumerate(kinds)]
  # By its own folder, since numbers change when another kind is added.
  return [(kind, {**source, 'path': os.path.join(path, kind)})
          for kind in presets.inner_folders(path)]


def _within(inner, outer):
  """Whether a folder is another one or below it."""
  if not (os.path.isdir(inner) and os.path.isdir(outer)):
    return False
  inner, outer = map(os.path.realpath, (inner, outer))
  return os.path.commonpath([inner, outer]) == outer


def sources_of(path):
  """{part: source} of a folder or a data set of tfds."""
  if is_tfds(path):
    return {part: presets.tfds(path.removeprefix(TFDS), split)
            for part, split in presets.part_splits(whole='train').items()}
  splits = presets.part_splits(presets.part_folders(path))
  return {part: {'name': 'folder', 'path': os.path.abspath(path), 'split': split,
                 **READ} for part, split in splits.items()}


def of_table(path, negatives):
  """(number of classes, {part: source} of positives, of negatives) of a table."""
  if negatives:
    raise ValueError(
        f'a table holds the negatives too, in rows without a label: got {negatives!r} '
        f'beside {path!r}; usage: --config pictures:TABLE.csv')
  if not os.path.isfile(path):
    raise ValueError(f'there is no file {path!r}; usage: --config pictures:TABLE.csv')
  with open(path, encoding='utf-8-sig', newline='', errors='replace') as file:
    # Only counted here: nat_jax.data checks the table when it reads it.
    rows = csv.DictReader(file, skipinitialspace=True)
    rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
    labels = {(row.get('label') or '').strip() for row in rows}
  classes = labels - {''}
  if len(classes) < 2:
    from nat_jax.data import table_source  # imports JAX, which is not needed otherwise

    table_source.read_rows(path)  # raises if the cause is another mistake in the file
    raise ValueError(
        f'{path!r} must have at least two classes in the column label, got '
        f'{sorted(classes)}')

  def sources(negatives):
    return {part: {'name': 'table', 'path': os.path.abspath(path), 'part': part,
                   'negatives': negatives, **READ} for part in presets.SHARES}

  return len(classes), sources(False), sources(True) if '' in labels else {}


def is_tfds(path):
  return path.startswith(TFDS)  # a folder of this name is written ./tfds/...


def num_classes(path):
  """The number of classes of a data set of tfds; it need not be prepared."""
  import tensorflow_datasets as tfds  # does not import TensorFlow

  name = path.removeprefix(TFDS)
  try:
    return tfds.builder(name).info.features['label'].num_classes
  except (tfds.core.DatasetNotFoundError, AttributeError, KeyError) as error:
    raise ValueError(
        f'{name!r} is no data set of tfds with classes ({str(error).splitlines()[0]}); '
        'see https://www.tensorflow.org/datasets/catalog. A folder of this name is '
        f'written ./{path}') from None


def class_folders(path):
  """The names of the folders in a folder; hidden ones are left out."""
  if not os.path.isdir(path):
    raise ValueError(
        f'there is no folder {path!r}; usage: --config pictures:POSITIVES,NEGATIVES, '
        f'where POSITIVES holds a folder of pictures for each class or is {TFDS}NAME, '
        'or --config pictures:TABLE.csv')
  return presets.inner_folders(path)
