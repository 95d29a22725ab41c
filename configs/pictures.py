"""Your own pictures: a folder per class of positives, and a folder of negatives.

    python -m nat_jax.main --config configs/pictures.py:pets,others --workdir runs/pets

`pets/` holds a folder of pictures for each class, `others/` pictures that are of none
of the classes (flat, or in folders). Pictures of any size and format are resized and
cropped to squares of 32 pixels, or of 224 with --config.data.image_size=224. 60 % of
each folder are trained on; 10 % are held out for validation, 10 % for calibration (the
threshold of --mode=predict) and 20 % for the test. Rejection improves with more
negatives, and with negatives that resemble the positives. With `pets` alone the
negatives are positives with shuffled patches.

A picture that cannot be read ends the program before training, with its name. To skip
such pictures set skip_unreadable=True in all sources that read their folder:
--config.data.positives.skip_unreadable=True, data.negatives.others.source and
evals.NAME.source of every evaluation set.

For other networks and longer training copy this file and change it.
"""

import os

from nat_jax.schema import presets, recipes


def get_config(variant='pets,others'):
  positives, _, negatives = variant.partition(',')
  if not os.path.isdir(positives):
    raise ValueError(
        f'{positives!r} is not a folder of class folders; expected --config '
        f'configs/pictures.py:POSITIVES,NEGATIVES, got {variant!r}')
  classes = [c for c in os.scandir(positives) if c.is_dir() and c.name[0] != '.']

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
  return presets.experiment(
      name=os.path.basename(os.path.abspath(positives)),
      variant='nat',
      num_classes=len(classes),
      steps=2000,
      loss={'name': 'nat'},
      data=dict(
          positives=trained,
          negatives=given,
          image_size=32,
          batch_size=64,
          negatives_per_batch=(4, 12),
          augment=presets.CROP_FLIP,
          **presets.NORMALISATION['cifar10'],
      ),
      evals=evals,
      **recipes.SMALL,
  )
