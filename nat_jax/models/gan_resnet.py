"""Residual GAN networks for 32x32 and 128x128 images: SN-GAN's and SAGAN's pairs.

    generator = ResNetGenerator(latent=128, image_shape=(32, 32, 3))
    discriminator = ResNetDiscriminator(image_shape=(32, 32, 3), num_outputs=1)
    variables = generator.init(key, z)
    images = generator.apply(variables, z)                       # in [-1, 1]
    outputs, aux = discriminator.apply(variables, images, train=True,
                                       mutable=['batch_stats'])

With the defaults the pair is SN-GAN's: spectral norm in the discriminator alone. The
pair of SAGAN has self-attention in both networks, spectral norm in the generator too,
conditional BatchNorm and a projection discriminator:

    ResNetGenerator(..., num_classes=K, attention=32, norm='spectral',
                    batch_norm='class')
    ResNetDiscriminator(..., attention=32, wide=True, projection=K)

The layers are those of the authors' code bases. Two things differ: BatchNorm uses the
statistics of the batch also when sampling (sample in batches of the training size), and
the output layer of the discriminator for 32x32 images has a bias.

References: Miyato et al., "Spectral Normalization for Generative Adversarial Networks",
ICLR 2018; Miyato, Koyama, "cGANs with Projection Discriminator", ICLR 2018; Zhang et
al., "Self-Attention Generative Adversarial Networks", ICML 2019.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from nat_jax import names
from nat_jax.models import gan_layers, layers

_glorot = nn.initializers.glorot_uniform()
_orthogonal = nn.initializers.orthogonal()
# Of all weights, and of the 3x3 convolutions in residual branches.
INITIALIZERS = {
    'glorot': (_glorot, nn.initializers.variance_scaling(2.0, 'fan_avg', 'uniform')),
    'orthogonal': (_orthogonal, _orthogonal),
}


class Layout(NamedTuple):
  """The blocks of a pair for one size of images; channels are multiples of the width.

  Attributes:
    generator: channels at 4x4, and after each block; a block doubles the image.
    discriminator: channels after each block.
    halvings: the first blocks of the discriminator, each of which halves the image.
  """

  generator: tuple[int, ...]
  discriminator: tuple[int, ...]
  halvings: int


LAYOUTS = {
    32: Layout((4, 4, 4, 4), (2, 2, 2, 2), 2),
    128: Layout((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16), 5),
}


def layout_of(image_shape: Sequence[int], attention: int) -> Layout:
  """Returns the layout for images [h, w, c] with self-attention at a size of features.

  Raises:
    ValueError: images of another size, or an `attention` that is neither 0 nor a size
      of features between blocks.
  """
  shape = tuple(image_shape)
  if len(shape) != 3 or shape[0] != shape[1] or shape[0] not in LAYOUTS:
    raise ValueError(
        'the residual GAN networks take images of 32x32 or 128x128, got image_shape '
        f"{shape}; resize the images (data.image_size), or use generator "
        "'mlp_generator' and discriminator 'mlp_discriminator'")
  layout = LAYOUTS[shape[0]]
  sides = [shape[0] >> i for i in range(layout.halvings, 0, -1) if shape[0] >> i > 4]
  if attention and attention not in sides:
    raise ValueError(
        f'attention must be 0 (none) or {" or ".join(map(str, sides))}, the height of '
        f'features between blocks for images of {shape[0]}x{shape[0]}, got {attention}')
  return layout


def _squares(x):
  """The 2x2 squares of x [n, h, w, c], as [n, h / 2, 2, w / 2, 2, c]."""
  n, h, w, c = x.shape
  return x.reshape(n, h // 2, 2, w // 2, 2, c)


def halve(x: jax.Array) -> jax.Array:
  """The mean of each 2x2 square, [n, h, w, c] to [n, h / 2, w / 2, c]."""
  return _squares(x).mean((2, 4))


def double(x: jax.Array) -> jax.Array:
  """Repeats each pixel 2x2 times, [n, h, w, c] to [n, 2 h, 2 w, c]."""
  n, h, w, c = x.shape
  x = jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c))
  return x.reshape(n, 2 * h, 2 * w, c)


class SelfAttention(nn.Module):
  """Self-attention over the positions of an image, y = x + gamma o.

      A = softmax(f(x) g(x)^T),   o = v(A h(x))

  f and g are 1x1 convolutions to c / 8 channels and h to c / 2, v is one back to c,
  without biases; g(x) and h(x) are the maxima of 2x2 squares. gamma is one number, 0 at
  the start, when y = x.

  Attributes:
    norm: normalisation of the weights: 'spectral', 'weight' or 'none'.
    dtype: compute dtype; the softmax is float32.
    initializer: 'glorot' or 'orthogonal'.

  Reference: Zhang et al., "Self-Attention Generative Adversarial Networks", ICML 2019,
  with the pooling of the authors' code.
  """

  norm: str = 'spectral'
  dtype: Any = jnp.float32
  initializer: str = 'glorot'

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """x [n, h, w, c], h and w even, to [n, h, w, c]."""
    n, h, w, c = x.shape

    def conv(x, features):
      return gan_layers.Conv(
          max(features, 1), norm=self.norm, dtype=self.dtype, kernel_size=1,
          use_bias=False, kernel_init=initializers_of(self.initializer)[0])(x, train)

    def pooled(x):
      return _squares(x).max((2, 4)).reshape(n, h * w // 4, -1)

    queries = conv(x, c // 8).reshape(n, h * w, -1)
    keys, values = pooled(conv(x, c // 8)), pooled(conv(x, c // 2))
    scores = jnp.einsum('nqc,nkc->nqk', queries, keys).astype(jnp.float32)
    seen = nn.softmax(scores).astype(self.dtype) @ values
    gamma = self.param('gamma', nn.initializers.zeros, ())
    return x + gamma.astype(x.dtype) * conv(seen.reshape(n, h, w, -1), c)


def up_block(
    x: jax.Array, features: int, norm: Callable[[jax.Array], jax.Array],
    conv: Callable[..., jax.Array],
) -> jax.Array:
  """A residual block of a generator, which doubles the image; in a compact method.

      BatchNorm, ReLU, double, conv 3x3, BatchNorm, ReLU, conv 3x3
      plus  double, conv 1x1

  Args:
    x: [n, h, w, c].
    features: channels of the output.
    norm: x -> batch normalised x, a new layer for each call.
    conv: (x, features, kernel_size) -> the convolution, a new layer for each call.

  Returns:
    [n, 2 h, 2 w, features].
  """
  y = double(nn.relu(norm(x)))
  y = nn.relu(norm(conv(y, features, 3)))
  # A 1x1 convolution commutes with doubling, and costs a quarter before it.
  return conv(y, features, 3) + double(conv(x, features, 1))


def down_block(
    x: jax.Array, hidden: int, features: int, conv: Callable[..., jax.Array],
    halves: bool, first: bool = False,
) -> jax.Array:
  """A residual block of a discriminator; call it in a compact method.

      ReLU, conv 3x3, ReLU, conv 3x3, halve
      plus  conv 1x1, halve

  Args:
    x: [n, h, w, c].
    hidden: channels after the first convolution.
    features: channels of the output.
    conv: (x, features, kernel_size) -> the convolution, a new layer for each call.
    halves: whether the image is halved. If not, and c = features, the second branch is
      x itself.
    first: x is the image, and there is no ReLU before the first convolution.

  Returns:
    [n, h', w', features].
  """
  y = conv(x if first else nn.relu(x), hidden, 3)
  y = conv(nn.relu(y), features, 3)
  if halves:
    # A 1x1 convolution commutes with the mean, and costs a quarter after it.
    y, x = halve(y), halve(x)
  if halves or x.shape[-1] != features:
    x = conv(x, features, 1)
  return y + x


def initializers_of(name: str) -> tuple[Any, Any]:
  """Returns the entry of INITIALIZERS; ValueError: an unknown name."""
  if name not in INITIALIZERS:
    raise ValueError(names.unknown('initializer', name, INITIALIZERS))
  return INITIALIZERS[name]


def make_conv(
    norm: str, dtype: Any, train: bool, initializer: str = 'glorot'
) -> Callable[..., jax.Array]:
  """Returns conv(x, features, kernel_size) for `up_block` and `down_block`."""
  shortcut, branch = initializers_of(initializer)

  def conv(x, features, kernel_size):
    return gan_layers.Conv(
        features, norm=norm, dtype=dtype, kernel_size=kernel_size,
        kernel_init=shortcut if kernel_size == 1 else branch)(x, train)

  return conv


def from_noise(
    z: jax.Array, channels: int, norm: str, dtype: Any, initializer: str = 'glorot'
) -> jax.Array:
  """The first layer of a generator, linear: [n, d] to [n, 4, 4, channels]."""
  x = gan_layers.Dense(
      16 * channels, norm=norm, dtype=dtype,
      kernel_init=initializers_of(initializer)[0])(z, True)
  return x.reshape(-1, 4, 4, channels)


def to_image(
    x: jax.Array, channels: int, norm: str, initializer: str = 'glorot'
) -> jax.Array:
  """The last layers of a generator after BatchNorm: ReLU, conv 3x3, tanh, float32."""
  x = gan_layers.Conv(
      channels, norm=norm, dtype=x.dtype, kernel_init=initializers_of(initializer)[0])(
          nn.relu(x), True)
  return jnp.tanh(x.astype(jnp.float32))


class ResNetGenerator(nn.Module):
  """Linear to 4x4, a residual block for each doubling, BatchNorm, conv 3x3, tanh.

  Attributes:
    latent: size of z.
    image_shape: (32, 32, c) or (128, 128, c).
    num_classes: above 0 the generator is conditional, see `batch_norm`.
    width: 4 times as many channels at all sizes for 32x32 images; for 128x128 images
      16, 16, 8, 4, 2 times and as many from 4x4 to 128x128. On a CPU use 8 or less.
    norm: normalisation of every weight: 'none', 'spectral' or 'weight'.
    batch_norm: 'batch', 'class', 'virtual' or 'none'; see `gan_layers.batch_norm`. With
      'class' the labels choose scale and bias in the blocks; otherwise they are joined
      to z.
    attention: the height of the features that self-attention is applied to, such as 16
      for 32x32 images; 0: none. SAGAN: 32 for 128x128 images; BigGAN: 64.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: pmap axis that shares BatchNorm statistics.
  """

  latent: int
  image_shape: Sequence[int]
  num_classes: int = 0
  width: int = 64
  norm: str = 'none'
  batch_norm: str = 'batch'
  attention: int = 0
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, z: jax.Array, labels: jax.Array | None = None,
      mask: jax.Array | None = None,
  ) -> jax.Array:
    """z [n, latent] (and labels int32 [n]) to images [n, h, w, c] in [-1, 1]."""
    layout = layout_of(self.image_shape, self.attention)
    dtype = layers.compute_dtype(self.dtype)
    conv = make_conv(self.norm, dtype, True)
    x, labels, num_reference = gan_layers.conditional_input(self, z, labels)

    def norm(x, kind=self.batch_norm):
      return gan_layers.batch_norm(
          kind, x, labels, mask, self.num_classes, dtype, self.axis_name)

    first, *factors = layout.generator
    x = from_noise(x, first * self.width, self.norm, dtype)
    for factor in factors:
      x = up_block(x, factor * self.width, norm, conv)
      if x.shape[1] == self.attention:
        x = SelfAttention(self.norm, dtype)(x, True)
    # The last BatchNorm is that of all classes.
    x = norm(x, 'batch' if self.batch_norm == 'class' else self.batch_norm)
    return to_image(x, self.image_shape[2], self.norm)[num_reference:]


class ResNetDiscriminator(nn.Module):
  """Residual blocks, ReLU, the sum over positions and a linear layer.

  Attributes:
    image_shape: (32, 32, c) or (128, 128, c).
    num_outputs: width of the outputs.
    width: twice as many channels in all blocks for 32x32 images; for 128x128 images as
      many and 2, 4, 8, 16, 16 times in the six blocks. On a CPU use 8 or less.
    norm: normalisation of every weight: 'spectral', 'weight' or 'none'.
    attention: the height of the features that self-attention is applied to, such as 16
      for 32x32 images; 0: none. SAGAN: 32 for 128x128 images; BigGAN: 64.
    wide: the first convolution of a block has the channels of the second, as in SAGAN,
      and not those of the input, as in SN-GAN.
    projection: above 0: number of classes; D is conditional by projection.
    initializer: of the blocks: 'glorot', or 'orthogonal' as in BigGAN.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: not used; every discriminator accepts it.
  """

  image_shape: Sequence[int]
  num_outputs: int
  width: int = 64
  norm: str = 'spectral'
  attention: int = 0
  wide: bool = False
  projection: int = 0
  initializer: str = 'glorot'
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, x: jax.Array, keys: jax.Array | None = None,
      mask: jax.Array | None = None, train: bool = False,
      labels: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images to outputs [n, num_outputs] and {'features': [n, channels]}.

    Args:
      x: [n, h, w, c] in [-1, 1].
      keys, mask: not used, as nothing is random and no example sees another.
      train: whether the power iteration of norm='spectral' updates its state.
      labels: int32 [n], for `projection`; -1: none.
    """
    del keys, mask
    layout = layout_of(self.image_shape, self.attention)
    dtype = layers.compute_dtype(self.dtype)
    conv = make_conv(self.norm, dtype, train, self.initializer)
    x = x.astype(dtype)
    for i, factor in enumerate(layout.discriminator):
      features = factor * self.width
      hidden = features if self.wide or not i else x.shape[-1]
      halves = i < layout.halvings
      x = down_block(x, hidden, features, conv, halves, first=not i)
      if halves and x.shape[1] == self.attention:
        x = SelfAttention(self.norm, dtype, self.initializer)(x, train)
    features = nn.relu(x).astype(jnp.float32).sum((1, 2))
    return gan_layers.outputs(self, features, labels, train), {'features': features}
