"""A normal distribution on a line, with external negatives on both sides of it.

Data N(4, 0.5), negatives N(13, 1) and N(-6, 2): the demonstration of the paper's
authors, with the networks and settings of AYLIEN/gan-intro.

    python -m nat_jax.main --config configs/gan/gaussian1d.py --workdir runs/gaussian1d

Variants:
  nat  external negatives, whose target is 0 as that of samples; the default, which
       trains `gan` too and compares the two, seed by seed
  gan  the original GAN: no negatives

Measured, 10 seeds (gan, nat; p of a paired permutation test): distance at the end 0.72,
0.41 (p .14); change of the boundary from snapshot to snapshot .052, .025 (p .05). With
these settings neither learns the distribution: none and one of ten seeds come within
ten times the distance of two samples of the data, and nat's samples spread 0.4 times as
far as the data. A minute and a half on two CPU cores that had other work to do.
"""

from nat_jax import presets

VARIANTS = ('nat', 'gan')


def get_config(variant='nat'):
  if variant not in VARIANTS:
    raise ValueError(f'unknown variant {variant!r}; valid: {", ".join(VARIANTS)}')
  return presets.experiment(
      name='gaussian1d',
      variant=variant,
      compare_with='gan' if variant == 'nat' else '',
      trainer={'name': 'points'},
      data={'name': 'gaussian1d'},
      negatives=variant == 'nat',
      steps=5000,
      batch_size=8,
      negatives_per_batch=8,
      noise={'name': 'grid', 'reach': 8.0, 'jitter': 0.01},
      generator={'name': 'toy_generator', 'latent': 1, 'widths': (4,)},
      discriminator={'name': 'toy_discriminator', 'widths': (8, 8, 8)},
      optimizer={'name': 'adam'},
      schedule={'name': 'constant', 'learning_rate': 1e-3},
  )
