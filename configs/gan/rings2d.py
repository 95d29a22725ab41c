"""A ring in a plane, between a wider ring and a blob of external negatives.

The data and both sets of negatives are outer rings of scikit-learn's make_circles, of
2000 points each: data x4 (noise .08), negatives x8 (noise .08) and x0.7 (noise .5), as
in the demonstration of the paper's authors. They do not publish the networks; those
here are our own.

    python -m nat_jax.main --config configs/gan/rings2d.py --workdir runs/rings2d

Variants:
  nat        external negatives, with D's target 0 (as for samples); the default, which
             trains `gan` too and compares the two with paired tests over seeds
  nat_light  nat with negatives of weight 0.1; the authors say that a lower weight may
             be needed here
  gan        the original GAN: no negatives

Measured (docs/results.md), 40 seeds, for gan and nat: sliced distance at step 2000 .62
and .26 (p .002, with Holm's correction), at the end .24 and .22 (p 1); change of the
boundary between snapshots .048 and .014 (p .002). All seeds converge. Ten seeds take
one to two minutes on two CPU cores shared with other work.
"""

from nat_jax import names
from nat_jax.schema import presets

WEIGHTS = {'nat': None, 'nat_light': 0.1, 'gan': None}  # None: one mean with samples


def get_config(variant='nat'):
  if variant not in WEIGHTS:
    raise ValueError(names.unknown('variant', variant, WEIGHTS))
  return presets.experiment(
      name='rings2d',
      variant=variant,
      compare_with='' if variant == 'gan' else 'gan',
      task='points',
      data={'name': 'rings2d'},
      negatives=variant != 'gan',
      steps=5000,
      negative_weight=WEIGHTS[variant],
      optimizer={'name': 'adam'},
      schedule={'name': 'constant', 'learning_rate': 1e-3},
      **presets.POINTS,
  )
