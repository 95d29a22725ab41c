"""Residual GANs on CIFAR-10: SN-GAN, SAGAN, BigGAN; NAT-GAN with SN-GAN's networks.

    python -m nat_jax.main --config configs/gan/cifar10_resnet.py:sagan \\
      --workdir runs/sagan

Variants, each also with `_small`:

    hinge_sn  SN-GAN: the hinge loss and spectral norm in the discriminator, no labels.
              Settings as in the authors' code, but for the generator's batch, which is
              64 and not 128, and for pixels, to which no noise is added: 50,000
              updates of the generator, five of the discriminator for each, Adam 2e-4
              decaying to 0 with b1 = 0 and b2 = 0.9. (In configs/gan/points2d.py and
              digits.py `hinge_sn` has spectral norm in both networks.)
    sagan     SAGAN: self-attention and spectral norm in both networks, labels by
              projection and conditional BatchNorm. The authors have no settings for
              32x32 images: learning rates 1e-4 and 4e-4 with b1 = 0 and one update each
              are those of their code for ImageNet.
    biggan    BigGAN: the labels' embedding and a part of z in every block, with the
              settings of PyTorch-StudioGAN's config for CIFAR-10: 100,000 updates, Adam
              2e-4 with b1 = 0.5, and flips. Orthogonal regularisation with weight 1e-4
              is added.
    nat3      NAT-GAN with SN-GAN's networks and settings and three external negatives
              of CIFAR-100 per batch. Not tuned.

Samples are those of a moving average of the generator, with a decay of .9999, but after
t updates at most (1 + t) / (10 + t), or 1/2 where this is more. StudioGAN's begins with
the 1,000th update, and SN-GAN and SAGAN have none; --config.ema_decay=0 leaves it out.

With `_small` the networks have width 8, for trials on CPUs. Nothing was
trained here; docs/gan_objectives.md has the sizes of the networks.
"""

from nat_jax.schema import gan_recipes, presets


def get_config(variant='hinge_sn'):
  return gan_recipes.resnet(
      'gan_cifar10_resnet',
      variant,
      steps=50_000,
      small_steps=3000,
      positives=presets.tfds('cifar10', 'train'),
      held_out=presets.tfds('cifar10', 'test'),
      negatives={'cifar100': presets.negative('cifar100', 'train')},
      classifier='configs/gan/classifier.py:cifar10',
      independent='configs/gan/classifier.py:cifar100',
  )
