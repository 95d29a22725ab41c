"""The paper's Tiny-ImageNet GANs (Table 4): classes 1-100; the last 20 are negatives.

    python -m nat_jax.main --config configs/gan/tiny_imagenet.py --workdir runs/nat3

The images are those of Tiny-ImageNet's training set at 32x32, classes in the order of
its wnids. They are not in the tfds catalogue: prepare a builder named tiny_imagenet32,
or write them into the array cache under that name (nat_jax/data/cache.py).

Variants as in configs/gan/cifar10.py. Full: 1,000,000 updates (the paper's curves end
at 500,000). Expected (paper): IS 11.78 and FID 24.38 for nat3, 5.91 and 43.85 for am.
Not measured here. With `_small`: networks a quarter as wide, 3,000 updates; not
measured.
"""

from nat_jax.schema import gan_recipes, presets

FIRST, LAST = tuple(range(100)), tuple(range(180, 200))


def get_config(variant='nat3'):
  return gan_recipes.dcgan(
      'gan_tiny_imagenet',
      variant,
      steps=1_000_000,
      small_steps=3000,
      num_classes=100,
      positives=presets.tfds('tiny_imagenet32', 'train', classes=FIRST),
      negatives={
          'last_20': presets.negative('tiny_imagenet32', 'train', classes=LAST)},
      classifier='configs/gan/classifier.py:tiny_imagenet',
  )
