"""BigGAN's generator for 32x32 and 128x128 images.

    generator = BigGANGenerator(latent=80, image_shape=(32, 32, 3), num_classes=10,
                                attention=16)
    variables = generator.init(key, z, labels)
    images = generator.apply(variables, z, labels)               # in [-1, 1]

It goes with this discriminator:

    ResNetDiscriminator(..., width=96, attention=16, wide=True, projection=K,
                        initializer='orthogonal')

BigGAN's orthogonal regularisation is `optimizer.orthogonal` of a config, and its
truncation of z at sampling `measures.truncation`. BatchNorm uses the statistics of the
batch, also when sampling (sample in batches of the training size).

Reference: Brock, Donahue, Simonyan, "Large Scale GAN Training for High Fidelity Natural
Image Synthesis", ICLR 2019.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from nat_jax.models import gan_layers, gan_resnet, layers

INITIALIZER = 'orthogonal'


class ConditionBatchNorm(gan_layers.BatchStatsNorm):
  """BatchNorm whose scale 1 + c A and bias c B are linear in a condition c.

  A and B have spectral norm and no biases.
  """

  @nn.compact
  def __call__(
      self, x: jax.Array, condition: jax.Array, mask: jax.Array | None = None
  ) -> jax.Array:
    """x [n, ..., c] with the condition [n, d] to [n, ..., c] in `dtype`."""
    scale, bias = (
        gan_layers.Dense(
            x.shape[-1], norm='spectral', use_bias=False, name=name,
            kernel_init=gan_resnet.initializers_of(INITIALIZER)[0])(condition, True)
        for name in ('scale', 'bias'))
    return self.per_example(x, 1 + scale, bias, mask)


class BigGANGenerator(nn.Module):
  """A residual generator with a part of z, and the class, in every block.

  z is cut into as many equal parts as there are blocks, and one more. The first is the
  input of the linear layer. The part of a block is joined to the embedding of the
  class, which all blocks share, and conditions the block's BatchNorm. All weights but
  the embedding have spectral norm.

  Attributes:
    latent: size of z, a multiple of 4 for 32x32 images and of 6 for 128x128 images.
    image_shape: (32, 32, c) or (128, 128, c).
    num_classes: 0: the generator is unconditional, without an embedding.
    width: multiplies the channels, as of `ResNetGenerator`. On a CPU use 8 or less.
    shared: dimension of the embedding.
    attention: as of `ResNetGenerator`.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: pmap axis that shares BatchNorm statistics.
  """

  latent: int
  image_shape: Sequence[int]
  num_classes: int = 0
  width: int = 96
  shared: int = 128
  attention: int = 0
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, z: jax.Array, labels: jax.Array | None = None,
      mask: jax.Array | None = None,
  ) -> jax.Array:
    """z [n, latent] (and labels int32 [n]) to images [n, h, w, c] in [-1, 1]."""
    layout = gan_resnet.layout_of(self.image_shape, self.attention)
    dtype = layers.compute_dtype(self.dtype)
    conv = gan_resnet.make_conv('spectral', dtype, True, INITIALIZER)
    first, *conditions = self._conditions(z, labels, len(layout.generator))
    x = gan_resnet.from_noise(
        first, layout.generator[0] * self.width, 'spectral', dtype, INITIALIZER)
    for factor, condition in zip(layout.generator[1:], conditions, strict=True):

      def norm(x, condition=condition):
        return ConditionBatchNorm(dtype=dtype, axis_name=self.axis_name)(
            x, condition, mask)

      x = gan_resnet.up_block(x, factor * self.width, norm, conv)
      if x.shape[1] == self.attention:
        x = gan_resnet.SelfAttention('spectral', dtype, INITIALIZER)(x, True)
    x = gan_layers.BatchStatsNorm(dtype=dtype, axis_name=self.axis_name)(x, mask)
    return gan_resnet.to_image(x, self.image_shape[2], 'spectral', INITIALIZER)

  def _conditions(self, z, labels, num):
    """[the input of the linear layer, the condition of each block]."""
    if self.latent % num:
      raise ValueError(
          f'generator.latent must be a multiple of {num} for images of '
          f'{self.image_shape[0]}x{self.image_shape[1]}, whose {num - 1} blocks and '
          f'first layer share z, got {self.latent}')
    # Of no classes, as this one joins the classes to each part of z.
    z = gan_layers.generator_input(z, None, self.latent, 0)
    first, *parts = jnp.split(z, num, 1)
    if not self.num_classes:
      return [first, *parts]
    if labels is None:
      raise ValueError(
          f'a generator of {self.num_classes} classes needs labels [n], got None')
    embedding = self.param(
        'embedding', gan_resnet.initializers_of(INITIALIZER)[0],
        (self.num_classes, self.shared))
    return [first, *(jnp.concatenate([embedding[labels], part], 1) for part in parts)]
