"""The paper's SVHN GANs (Figure 6); external negatives: CIFAR-100.

    python -m nat_jax.main --config configs/gan/svhn.py:nat3 --workdir runs/nat3

Variants as in configs/gan/cifar10.py. Full: 100,000 updates; expected (read off the
paper's figure): generator loss .962 for nat0, .918 for nat3 at the end. Not measured
here. With `_small`: networks a quarter as wide, 3,000 updates; not measured.
"""

from nat_jax.schema import gan_recipes, presets


def get_config(variant='nat3'):
  return gan_recipes.dcgan(
      'gan_svhn',
      variant,
      steps=100_000,
      small_steps=3000,
      positives=presets.tfds('svhn_cropped', 'train'),
      held_out=presets.tfds('svhn_cropped', 'test'),
      negatives={'cifar100': presets.negative('cifar100', 'train')},
      classifier='configs/gan/classifier.py:svhn',
  )
