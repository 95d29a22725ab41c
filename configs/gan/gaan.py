"""A GAN with an encoder (GAAN) of scikit-learn's digits: no download, two CPU cores.

    python -m nat_jax.main --config configs/gan/gaan.py --workdir runs/gaan-digits

Positives: digits 0-5, as in configs/gan/digits.py, whose networks and updates it has.
The encoder has the discriminator's size. Its losses take no negatives.

Variants:
  gaan     without a penalty
  gaan_gp  with the gradient penalty of weight 1
"""

from nat_jax.schema import presets

PENALTIES = {'gaan': [], 'gaan_gp': [{'name': 'gradient', 'weight': 1.0}]}


def get_config(variant='gaan'):
  if variant not in PENALTIES:
    raise ValueError(f'unknown variant {variant!r}; valid: {", ".join(PENALTIES)}')
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
      data=dict(positives={
          'name': 'digits', 'split': 'all', 'classes': tuple(range(6))}),
      measures=dict(
          num_samples=2000,
          features={
              'name': 'checkpoint', 'config': 'configs/gan/classifier.py:digits',
              'workdir': 'runs/classifiers/digits'},
      ),
      run=dict(log_every=250, checkpoint_every=1000, eval_every=1000),
  )
