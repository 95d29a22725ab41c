"""A normal distribution on a line, with external negatives on both sides of it.

Data N(4, 0.5), negatives N(13, 1) and N(-6, 2): the demonstration of the paper's
authors.

    python -m nat_jax.main --config configs/gan/gaussian1d.py --workdir runs/gaussian1d

Variants:
  nat       external negatives, with D's target 0 (as for samples), and the networks and
            settings of AYLIEN/gan-intro; the default, which trains `gan` too and
            compares the two with paired tests over seeds
  gan       the original GAN: no negatives
  nat_wide  the networks and batch sizes of rings2d and DCGAN's b1 of 0.5 for Adam,
            which learn the distribution better; trains `gan_wide` too and compares
  gan_wide  the original GAN with the networks and settings of nat_wide

Measured (docs/results.md), 10 seeds, for gan and nat, p with Holm's correction:
distance at the end .55 and .39 (p 1); change of the boundary between snapshots .051 and
.024 (p .2); neither learns the distribution. For gan_wide and nat_wide, seeds 10 to 19:
distance at step 500 1.01 and .30 (p .04), at the end .40 and .16 (p .3); change of the
boundary .019 and .007 (p .02); 6 and 8 of ten seeds converge. Each takes one to two
minutes on two CPU cores shared with other work.
"""

from nat_jax import names
from nat_jax.schema import presets

VARIANTS = {  # -> the variant it is compared with
    'nat': 'gan', 'gan': '', 'nat_wide': 'gan_wide', 'gan_wide': ''}
GAN_INTRO = {
    'batch_size': 8,
    'negatives_per_batch': 8,
    'noise': {'name': 'grid', 'reach': 8.0, 'jitter': 0.01},
    'generator': {'name': 'toy_generator', 'latent': 1, 'widths': (4,)},
    'discriminator': {'name': 'toy_discriminator', 'widths': (8, 8, 8)},
    'optimizer': {'name': 'adam'},
}
WIDE = {**presets.POINTS, 'optimizer': {'name': 'adam', 'b1': 0.5}}


def get_config(variant='nat'):
  if variant not in VARIANTS:
    raise ValueError(names.unknown('variant', variant, VARIANTS))
  return presets.experiment(
      name='gaussian1d',
      variant=variant,
      compare_with=VARIANTS[variant],
      task='points',
      data={'name': 'gaussian1d'},
      negatives=variant.startswith('nat'),
      steps=5000,
      schedule={'name': 'constant', 'learning_rate': 1e-3},
      **(WIDE if variant.endswith('_wide') else GAN_INTRO),
  )
