"""Segmentation of generated scenes with a rare class: no download, two CPU cores.

    python -m nat_jax.main --config configs/segment.py --workdir runs/segment

60 scenes of 16 x 16 pixels with four classes, of which three scenes show the rare one,
told by its texture only. Half of the scenes show something of no class, the void.

Variants:
  real            real pairs only
  weighted        cross-entropy with balanced factors of the classes
  copy_paste      regions of the rare class are pasted into other scenes, with pixels
  gan             they are pasted into masks, of which a generator makes scenes
                  (conditional GAN and L1 distance); the default
  l1              as gan, without the discriminator
  nat             as real; the predictions in the void are trained to be uniform
  copy_paste_nat  both

VARIANT:FOLDER takes pictures and masks of FOLDER/train and FOLDER/test, each with
images/ and masks/ of equal names, in place of the scenes; --config.num_classes=K says
how many classes there are, --config.data.void=V which number the void has.

Rare IoU, mean of seeds 0, 1, 2: real .015, weighted .090, l1 .071, gan .125,
copy_paste .556 (docs/segmentation.md). Half a minute on two CPU cores. Weights and
networks of the GAN were chosen by the texture that it makes of training masks, and by
the rare IoU on the set 'validation'.
"""

import os

from nat_jax import names
from nat_jax.schema import presets

STEPS = 600
GENERATOR = {'name': 'unet', 'widths': (16, 32)}
DISCRIMINATOR = {'name': 'patch_discriminator', 'widths': (32, 32)}
GAN = dict(generator=GENERATOR, discriminator=DISCRIMINATOR)
NAT = dict(loss={'name': 'nat'})
VARIANTS = {  # -> differences of the config, settings of `data`
    'real': ({}, {}),
    'weighted': ({}, {'class_weights': 'balanced'}),
    'copy_paste': ({}, {'pasted_per_batch': 16}),
    'gan': (GAN, {'pasted_per_batch': 16}),
    'l1': (dict(generator=GENERATOR), {'pasted_per_batch': 16}),
    'nat': (NAT, {}),
    'copy_paste_nat': (NAT, {'pasted_per_batch': 16}),
}


def scenes(num, seed, num_rare=None, kinds=('blank', 'noise')):
  """Scenes of which one in twenty shows the rare class."""
  return {'name': 'scenes', 'num': num, 'seed': seed, 'kinds': kinds,
          'num_rare': num // 20 if num_rare is None else num_rare}


def sources(folder):
  """(source of the training pairs, evaluation sets)."""
  if folder:
    root = os.path.abspath(folder)
    train, test = ({'name': 'masks', 'path': os.path.join(root, part)}
                   for part in ('train', 'test'))
    return train, {'test': {'source': test}}
  evals = {'test': {'source': scenes(1000, 10_001), 'seen': True},
           'validation': {'source': scenes(500, 10_002), 'part': 'validation'}}
  for kind in ('blank', 'noise', 'plain', 'stripes'):
    evals[kind] = {'source': scenes(300, 10_003, kinds=(kind,)),
                   'seen': kind in ('blank', 'noise')}
  return scenes(60, 0), evals


def get_config(variant='gan'):
  """Returns the config of a variant; raises ValueError for an unknown variant."""
  base, _, folder = variant.partition(':')
  if base not in VARIANTS:
    raise ValueError(names.unknown('variant', base, VARIANTS))
  differences, settings = VARIANTS[base]
  pairs, evals = sources(folder)
  return presets.experiment(
      task='segment',
      name=os.path.basename(os.path.abspath(folder)) if folder else 'scenes',
      variant=base,
      trainer=dict(
          name='segment', adversarial_weight=3.0, l1_weight=10.0,
          synthetic_from=STEPS // 3 if 'generator' in differences else 0),
      steps=STEPS,
      segmenter={'name': 'unet', 'widths': (8, 16)},
      schedule={'name': 'linear', 'learning_rate': 3e-3},
      gan_schedule={'name': 'linear', 'learning_rate': 2e-3},
      data=dict(pairs=pairs, **settings),
      evals=evals,
      run=dict(log_every=100, checkpoint_every=200),
      **differences,
  )
