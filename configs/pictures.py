"""Your own pictures: a folder per class of positives, and a folder of negatives.

    python -m nat_jax.main --config configs/pictures.py:pets,others --workdir runs/pets

`pets/` holds a folder of pictures for each class, `others/` pictures that are of none
of the classes (flat, or in folders). Pictures of any size and format are resized and
cropped to squares of 32 pixels, or of 224 with --config.data.image_size=224. 60 % of
each folder are trained on; 10 % are held out for validation, 10 % for calibration (the
threshold of --mode=predict) and 20 % for the test. Rejection improves with more
negatives, and with negatives that resemble the positives. With `pets` alone the
negatives are positives with shuffled patches.

`pets,others` trains a negative-aware classifier and, to compare with, the plain one,
`baseline:pets,others`, which does not use the negatives (its workdir is
runs/pets-baseline). Validation accuracy is computed every 100 updates. Training stops
when it has been below its best value for 1,000 updates (--config.patience=0: never).
eval.json is of the checkpoint with the best value, of equal values the newest. It is
also evaluated on 500 test pictures with noise, blur, low contrast and JPEG artefacts.
Classes of unequal size: --config.data.class_weights=balanced.

A picture that cannot be read ends the program before training, with its name. To skip
such pictures set skip_unreadable=True in all sources that read their folder:
--config.data.positives.skip_unreadable=True, data.negatives.others.source and
evals.NAME.source of every evaluation set.

For other networks and longer training copy this file and change it.
"""

import os

from nat_jax import names
from nat_jax.schema import presets, recipes

PERIOD = 100  # updates from one evaluation to the next
METHODS = {  # -> loss, negatives per batch
    'nat': ('nat', (4, 12)),
    'baseline': ('cross_entropy', 0),
}


def get_config(variant='pets,others'):
  method, _, folders = variant.rpartition(':')
  method = method or 'nat'
  if method not in METHODS:
    raise ValueError(names.unknown('variant', method, METHODS))
  positives, _, negatives = folders.partition(',')
  classes = class_folders(positives)
  if len(classes) < 2:
    raise ValueError(
        f'{positives!r} has no class folders: expected a folder with a folder of '
        f'pictures for each of at least two classes, got {len(classes)} folder(s); '
        'usage: --config pictures:POSITIVES,NEGATIVES')
  loss, count = METHODS[method]

  def folder(path, split):
    return {'name': 'folder', 'path': os.path.abspath(path),
            'split': split, 'skip_unreadable': False}

  given, tested = {'shuffled': recipes.SHUFFLED}, {}
  if negatives:
    given = {'others': {'source': folder(negatives, 'all[:80%]')}}
    tested = {'others': {'source': folder(negatives, 'all[80%:]')}}
  trained, given, evals = presets.hold_out(
      folder(positives, 'all[:80%]'),
      given,
      {
          'test': {'source': folder(positives, 'all[80%:]'), 'positive': True},
          **tested,
          'noise': {'source': {'name': 'normal_noise', 'num': 1000}},
      },
      percent=10)
  evals |= presets.corrupted(evals['test']['source'])
  return presets.experiment(
      name=os.path.basename(os.path.abspath(positives)),
      variant=method,
      compare_with=f'baseline:{folders}' if method == 'nat' else '',
      num_classes=len(classes),
      steps=2000,
      best='validation/accuracy',
      patience=10 * PERIOD,
      loss={'name': loss},
      data=dict(
          positives=trained,
          negatives=given,
          image_size=32,
          batch_size=64,
          negatives_per_batch=count,
          augment=presets.CROP_FLIP,
          **presets.NORMALISATION['cifar10'],
      ),
      evals=evals,
      **{**recipes.SMALL, 'run': {
          **recipes.SMALL['run'], 'eval_every': PERIOD, 'checkpoint_every': PERIOD}},
  )


def class_folders(path):
  """The names of the folders in a folder; hidden ones are left out."""
  if not os.path.isdir(path):
    raise ValueError(
        f'there is no folder {path!r}; usage: --config pictures:POSITIVES,NEGATIVES, '
        'where POSITIVES holds a folder of pictures for each class')
  return [each.name for each in os.scandir(path)
          if each.is_dir() and each.name[0] != '.']
