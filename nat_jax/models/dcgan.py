"""AM-GAN's DCGAN generator and discriminator for 32x32 and 28x28 images.

    generator = DCGANGenerator(latent=100, image_shape=(32, 32, 3))    # 4,743,846
    discriminator = DCGANDiscriminator(image_shape=(32, 32, 3), num_outputs=10)
    images = generator.apply({'params': params}, z)                    # 1,558,868
    outputs, aux = discriminator.apply(variables, images, keys, train=True)

Weight norm on every layer; BatchNorm with batch statistics, also when sampling (sample
in batches of the training size); noise on the discriminator's input and dropout after
each of its layers. Both networks work at 32x32. For 28x28 images the generator crops
its 32x32 output to the central 28x28 and the discriminator pads its input with the
value of black; AM-GAN's code instead pads the training digits to 32x32.

Reference: Zhou et al., "Activation Maximization Generative Adversarial Nets", ICLR
2018; layers as in the authors' second code base, AM-GAN2.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from nat_jax.models import gan_layers, gan_noise, layers


def _margin(image_shape):
  """The pixels that are cropped from, or padded to, each side of a 32x32 image."""
  shape = tuple(image_shape)
  if len(shape) != 3 or shape[:2] not in ((32, 32), (28, 28)):
    raise ValueError(
        'the DCGAN networks take images of 32x32 or 28x28, got image_shape '
        f"{shape}; resize the images, or use generator 'mlp_generator' and "
        "discriminator 'mlp_discriminator'")
  return (32 - shape[0]) // 2


class DCGANGenerator(nn.Module):
  """Linear to 4x4, three transposed convolutions to 32x32, one more to the image.

  Attributes:
    latent: size of z.
    image_shape: (32, 32, c) or (28, 28, c).
    num_classes: above 0 the generator is conditional: it concatenates z with one-hot
      labels.
    width: channels at 32x32; 2, 4 and 8 times as many at 16x16, 8x8 and 4x4. On a CPU
      use 24 or less.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: pmap axis that shares BatchNorm statistics.
  """

  latent: int
  image_shape: Sequence[int]
  num_classes: int = 0
  width: int = 96
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, z: jax.Array, labels: jax.Array | None = None,
      mask: jax.Array | None = None,
  ) -> jax.Array:
    """z [n, latent] (and labels int32 [n]) to images [n, h, w, c] in [-1, 1]."""
    margin = _margin(self.image_shape)
    dtype = layers.compute_dtype(self.dtype)

    def norm_act(x):
      x = gan_layers.BatchStatsNorm(dtype=dtype, axis_name=self.axis_name)(x, mask)
      return nn.leaky_relu(x, 0.2)

    x = gan_layers.generator_input(z, labels, self.latent, self.num_classes)
    x = gan_layers.Dense(16 * 8 * self.width, dtype=dtype)(x)
    x = norm_act(x.reshape(-1, 4, 4, 8 * self.width))
    for factor in (4, 2, 1):
      x = norm_act(gan_layers.Conv(
          factor * self.width, stride=2, transpose=True, dtype=dtype)(x))
    x = gan_layers.Conv(self.image_shape[2], transpose=True, dtype=dtype)(x)
    x = x[:, margin:32 - margin, margin:32 - margin]
    return jnp.tanh(x.astype(jnp.float32))


class DCGANDiscriminator(nn.Module):
  """Four convolutions to 4x4, a mean pool and a linear layer.

  Attributes:
    image_shape: (32, 32, c) or (28, 28, c).
    num_outputs: width of the outputs.
    width: channels at 32x32; 2, 4 and 8 times as many at 16x16, 8x8 and 4x4. On a CPU
      use 16 or less.
    norm: normalisation of every weight: 'weight', 'spectral' or 'none'.
    batch_norm: BatchNorm after the second to the fourth convolution.
    noise: standard deviation of the input noise.
    dropout: dropout rate after each layer.
    black: the value that pads 28x28 images.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: pmap axis that shares BatchNorm statistics.
  """

  image_shape: Sequence[int]
  num_outputs: int
  width: int = 64
  norm: str = 'weight'
  batch_norm: bool = True
  noise: float = 0.1
  dropout: float = 0.3
  black: float = -1.0
  dtype: str = 'float32'
  axis_name: str | None = None

  @property
  def mixes(self) -> bool:
    """Whether the output of an example depends on the other examples of its batch."""
    return self.batch_norm

  @nn.compact
  def __call__(
      self, x: jax.Array, keys: jax.Array | None = None,
      mask: jax.Array | None = None, train: bool = False,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images to outputs [n, num_outputs] and {'features': [n, 8 width]}.

    Args:
      x: [n, h, w, c] in [-1, 1].
      keys: [n], one per example, for noise and dropout; None: neither is applied.
      mask: [n]; 0 = empty slot, which does not count in the batch's statistics.
      train: whether the power iteration of norm='spectral' updates its state.
    """
    margin = _margin(self.image_shape)
    dtype = layers.compute_dtype(self.dtype)
    sides = (margin, margin)
    x = jnp.pad(x, ((0, 0), sides, sides, (0, 0)), constant_values=self.black)
    # Units at each dropout: each halving of the image doubles the channels; the last
    # entry is the pooled vector.
    units = [32 * 32 * self.width // 2**i for i in range(4)] + [8 * self.width]
    words = gan_noise.draw(keys, math.prod(x.shape[1:]), units)
    x = gan_noise.input_noise(x, words[0], self.noise)
    for i, factor in enumerate((1, 2, 4, 8)):
      x = gan_layers.Conv(
          factor * self.width, stride=2 if i else 1, norm=self.norm, dtype=dtype)(
              x, train)
      if i and self.batch_norm:
        x = gan_layers.BatchStatsNorm(dtype=dtype, axis_name=self.axis_name)(x, mask)
      x = nn.leaky_relu(x, 0.2)
      x = gan_noise.dropout(x, words[i + 1], self.dropout)
    # The mean of 16 positions times 4 keeps unit variance, as in AM-GAN's code.
    x = 4 * x.astype(jnp.float32).mean((1, 2))
    x = gan_noise.dropout(x, words[5], self.dropout)
    return gan_layers.Dense(self.num_outputs, norm=self.norm)(x, train), {'features': x}
