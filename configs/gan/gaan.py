"""A GAN with an encoder (GAAN) on scikit-learn's digits: no download, two CPU cores.

    python -m nat_jax.main --config configs/gan/gaan.py --workdir runs/gaan-digits

Positives: digits 0-5. Networks and number of updates are those of
configs/gan/digits.py; the encoder has the size of the discriminator. The losses do not
use negatives.

Variants:
  gaan     without a penalty
  gaan_gp  with a gradient penalty of weight 1 on the discriminator
"""

from nat_jax import names
from nat_jax.schema import presets

PENALTIES = {'gaan': [], 'gaan_gp': [{'name': 'gradient', 'weight': 1.0}]}


def digits(split):
  return {'name': 'digits', 'split': split, 'classes': tuple(range(6))}


def get_config(variant='gaan'):
  """Returns the config of a variant; raises ValueError for an unknown variant."""
  if variant not in PENALTIES:
    raise ValueError(names.unknown('variant', variant, PENALTIES))
  widths = (128, 128)
  return presets.experiment(
      task='gaan',
      name='gaan_digits',
      variant=variant,
      num_classes=6,
      steps=5000,
      generator={'name': 'mlp_generator', 'latent': 32, 'widths': widths},
      discriminator={'name': 'mlp_discriminator', 'widths': widths},
      encoder={'name': 'mlp', 'width': 128, 'depth': 2},
      penalties=PENALTIES[variant],
      data=dict(positives=digits('train')),
      measures=dict(
          held_out=digits('test'),
          num_samples=2000,
          features={
              'name': 'checkpoint', 'config': 'configs/gan/classifier.py:digits',
              'workdir': 'runs/classifiers/digits'},
      ),
      run=dict(log_every=250, checkpoint_every=1000, eval_every=1000),
  )
