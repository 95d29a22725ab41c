"""Which recipe is the best on unseen kinds? Candidates for `best` of nat/cifar10.py.

    python -m nat_jax.main --mode=sweep --workdir runs/screen configs/screen.py:{nat,\
nat64,nat128,nat_mix,nat_general,nat64_general,nat64_shuffled,nat128_shuffled,\
logitnorm,nat_logitnorm,pixmix,nat_pixmix,rotation,nat_rotation,oe,oe_pixmix,oe_shuffled}
    python tests/bench/near_far.py runs/screen

Networks and recipes are those of the small form of configs/nat/cifar10.py, for half as
many updates. All sets are for choosing: positives are those that the other config holds
out for validation, and the kinds of negatives are in none of its test sets, nor does a
candidate train on one of them.

Variants (`CANDIDATES`): some of configs/nat/cifar10.py, and some of them with a recipe
that needs no negatives, such as `oe_pixmix`, with patch-shuffled positives as further
negatives, `oe_shuffled`, or with another number of negatives per batch.

Kinds that share properties with the positives (near): halves of two classes, crops of a
photograph. Other kinds (far): clothes (Fashion-MNIST), characters (KMNIST, notMNIST),
blobs.

Measured: docs/results.md, "The strongest recipe".
"""

from nat_jax import names
from nat_jax.schema import presets, recipes

# Variant -> a variant of `recipes.VARIANTS`, and what is added to it: a recipe, or a
# number of negatives per batch.
CANDIDATES = {
    **{name: (name,) for name in (
        'nat', 'oe', 'nat64', 'logitnorm', 'nat_logitnorm', 'pixmix', 'nat_pixmix',
        'rotation', 'nat_rotation', 'nat_mix', 'nat_general', 'nat128_shuffled')},
    'oe_pixmix': ('oe', 'pixmix'),
    'oe_shuffled': ('oe', 'shuffled'),
    'nat128': ('nat64', '128'),
    'nat64_shuffled': ('nat128_shuffled', '64'),
    'nat64_general': ('nat_general', '64'),
}
FAR = ('fashion_mnist', 'kmnist', 'notmnist')


def get_config(variant='nat'):
  """Returns the config of a candidate; raises ValueError for an unknown one."""
  if variant not in CANDIDATES:
    raise ValueError(names.unknown('variant', variant, CANDIDATES))
  base, *added = CANDIDATES[variant]
  config = recipes.classifier(
      'screen',
      f'{base}_small',
      num_examples=50_000,
      positives=presets.tfds('cifar10', 'train'),
      negatives={'nat': {'cifar100': presets.negative('cifar100', 'train')}},
      evals={},
      normalisation=presets.NORMALISATION['cifar10'],
      augment=presets.CROP_FLIP,
      epochs=(200, 3),
  )
  config.variant = variant
  if 'pixmix' in added:
    config.data.augment = (*config.data.augment, recipes.PIXMIX)
  if 'shuffled' in added:
    config.data.negatives.shuffled = recipes.SHUFFLED
  for number in filter(str.isdecimal, added):
    config.data.negatives_per_batch = int(number)
  validation = config.evals['validation']['source']
  config.evals = {
      'test': {'source': validation, 'positive': True},
      'halves': {'source': {'name': 'class_halves', 'num': 2000}},
      'photographs': {'source': {'name': 'photographs', 'num': 2000}},
      **{name: presets.negative(name, 'test[:20%]', size=32) for name in FAR},
      'blobs': {'source': {'name': 'blobs', 'num': 2000}},
  }
  return config
