"""The paper's CIFAR-10 GANs (Table 4, Figure 6); external negatives: CIFAR-100.

    python -m nat_jax.main --config configs/gan/cifar10.py:nat3 --workdir runs/nat3

Variants: am, catgan, catgan1, catgan3, catgan10, nat0, nat1, nat3, nat10, and any other
objective of nat_jax/schema/gan_recipes.py; natm0 and natm3 have a marginal-entropy term
in the generator's loss.

Full: 1,000,000 updates, as in AM-GAN's code (the paper's curves end at 700,000).
Expected (paper): IS 9.26 and FID 14.58 for nat3, 8.88 and 13.49 for am, by the original
Inception network: give its weights with
--config.measures.features="{'name': 'inception', 'path': 'FILE'}". Generator loss of
nat0 at 35,000 and 70,000 updates: 1.200 and 1.177. Not measured here: it needs a GPU.
With `_small`: networks a quarter as wide, 3,000 updates. 1,200 updates take 8 to 9
minutes on one CPU core; the samples are then still blurred (docs/results.md).
"""

from nat_jax.schema import gan_recipes, presets


def get_config(variant='nat3'):
  return gan_recipes.dcgan(
      'gan_cifar10',
      variant,
      steps=1_000_000,
      small_steps=3000,
      positives=presets.tfds('cifar10', 'train'),
      held_out=presets.tfds('cifar10', 'test'),
      negatives={'cifar100': presets.negative('cifar100', 'train')},
      classifier='configs/gan/classifier.py:cifar10',
      independent='configs/gan/classifier.py:cifar100',
  )
