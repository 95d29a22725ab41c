"""EfficientNet-Lite0: depthwise convolutions, small enough to fine-tune on a CPU.

    model = efficientnet_lite0(num_outputs=10)         # 3,383,818 parameters
    logits, aux = model.apply(variables, images, train=False)

An EfficientNet-B0 without squeeze-and-excitation and with ReLU6 instead of swish. It is
timm's `tf_efficientnet_lite0` (strided convolutions are padded as in TensorFlow), whose
weights `models.weights` loads.

Reference: Tan, Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", ICML 2019; Liu, "Higher accuracy on vision models with EfficientNet-Lite",
TensorFlow blog, 2020.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from nat_jax.models import layers

GROUPS = (  # blocks, side of the depthwise kernels, stride, expansion, channels
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))
STEM, TOP = 32, 1280  # channels
EPSILON = 1e-3  # of BatchNorm, as in TensorFlow


class Depthwise(nn.Module):
  """A convolution of each channel by itself, without bias, padded as 'SAME'.

  It is a sum of shifted images, one for each of the `side` x `side` weights. As a
  convolution with as many groups as channels XLA's CPU backend took 4 to 33 times as
  long, and 2 to 29 times for the gradients (tests/bench/depthwise.py).
  """

  side: int
  stride: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[n, h, w, c] to [n, ceil(h / stride), ceil(w / stride), c]."""
    kernel = self.param(
        'kernel', layers.he_init, (self.side, self.side, 1, x.shape[-1]), jnp.float32)
    out = [-(-length // self.stride) for length in x.shape[1:3]]
    spans = [(length - 1) * self.stride + 1 for length in out]
    pads = [max(span + self.side - 1 - length, 0)
            for span, length in zip(spans, x.shape[1:3], strict=True)]
    x = jnp.pad(x.astype(jnp.float32), (
        (0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)))
    total = sum(
        x[:, i:i + spans[0]:self.stride, j:j + spans[1]:self.stride]
        * kernel[i:i + 1, j:j + 1]
        for i in range(self.side) for j in range(self.side))
    return total.astype(self.dtype)


class Block(nn.Module):
  """A 1x1 convolution to more channels, a depthwise one, and a 1x1 one to few.

  Each has a BN, the first two also ReLU6. The input is added if the shape allows it.
  With expansion 1 the first convolution is left out.
  """

  side: int
  stride: int
  expansion: int
  channels: int
  dtype: jnp.dtype
  axis_name: str | None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
    def norm(x, name):
      return layers.BatchNorm(
          epsilon=EPSILON, dtype=self.dtype, axis_name=self.axis_name,
          name=f'norm_{name}')(x, use_running_average=not train, mask=mask)

    def conv(channels, name):
      return layers.conv(channels, 1, dtype=self.dtype, name=f'conv_{name}')

    y = x
    if self.expansion > 1:
      y = nn.relu6(norm(conv(self.expansion * x.shape[-1], 'expand')(y), 'expand'))
    y = Depthwise(self.side, self.stride, self.dtype, name='conv_depth')(y)
    y = nn.relu6(norm(y, 'depth'))
    y = norm(conv(self.channels, 'project')(y), 'project')
    return x + y if x.shape == y.shape else y


class EfficientNetLite(nn.Module):
  """A stem, groups of blocks, and a 1x1 convolution to 1,280 channels.

  Attributes:
    num_outputs: width of the logits.
    groups: of each, as GROUPS.
    frozen: number of stages (the stem, then the groups, the last with the 1x1
      convolution behind it) that are not trained: they pass no gradient, and their
      BatchNorm uses running statistics.
    dtype: compute dtype, 'float32' or 'bfloat16'; depthwise sums are in float32.
    axis_name: pmap axis that shares BatchNorm statistics.
  """

  num_outputs: int
  groups: Sequence[tuple[int, int, int, int, int]] = GROUPS
  frozen: int = 0
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, images: jax.Array, train: bool, mask: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images [n, h, w, c] to logits [n, num_outputs] and the named feature maps.

    Of EfficientNet-Lite0 they are 'group1' [n, h/2, w/2, 16] to 'group7' [n, h/32,
    w/32, 320], and 'features' [n, 1280], the mean over positions of the last
    convolution.
    """
    dtype = layers.compute_dtype(self.dtype)

    def norm(x, name, stage):
      return nn.relu6(layers.BatchNorm(
          epsilon=EPSILON, dtype=dtype, axis_name=self.axis_name, name=name)(
              x, use_running_average=not (train and self.frozen <= stage), mask=mask))

    x = nn.Conv(
        STEM, (3, 3), strides=2, padding='SAME', use_bias=False, dtype=dtype,
        kernel_init=layers.he_init, name='stem')(images.astype(dtype))
    x = layers.end_of_stage(norm(x, 'stem_norm', 0), 0, self.frozen)
    aux, last = {}, len(self.groups)
    for i, (blocks, side, stride, expansion, channels) in enumerate(self.groups, 1):
      for j in range(blocks):
        x = Block(
            side, 1 if j else stride, expansion, channels, dtype, self.axis_name,
            name=f'group{i}_block{j + 1}')(x, train and self.frozen <= i, mask)
      aux[f'group{i}'] = layers.end_of_stage(x, i, self.frozen)
      x = aux[f'group{i}'] if i < last else x  # the last stage has one more layer
    x = norm(layers.conv(TOP, 1, dtype=dtype, name='top')(x), 'top_norm', last)
    x = layers.end_of_stage(x, last, self.frozen)
    aux['features'] = x.astype(jnp.float32).mean((1, 2))
    return layers.head(self.num_outputs)(aux['features']), aux


def efficientnet_lite0(
    num_outputs: int, dtype: str = 'float32', axis_name: str | None = None,
    frozen: int = 0,
) -> EfficientNetLite:
  """EfficientNet-Lite0: sixteen blocks in seven groups; see `EfficientNetLite`."""
  return EfficientNetLite(num_outputs, GROUPS, frozen, dtype, axis_name)
