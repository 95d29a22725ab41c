"""ResNet-50 for large images: a 7x7 stem, a max-pool, four groups of bottleneck blocks.

    model = resnet50(num_outputs=10)                   # 23,528,522 parameters
    logits, aux = model.apply(variables, images, train=False)

It is version 1.5, with the stride on the 3x3 convolution, as in torchvision and timm,
whose weights `models.weights` loads.

Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from nat_jax.models import layers


class Bottleneck(nn.Module):
  """1x1, 3x3 and 1x1 convolutions with BN, plus a shortcut, then ReLU.

  The last convolution has 4 `width` channels. Where the shape changes, the shortcut is
  a strided 1x1 convolution with BN.
  """

  width: int
  stride: int
  dtype: jnp.dtype
  axis_name: str | None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
    def conv_norm(x, width, kernel, stride, name):
      x = layers.conv(width, kernel, stride, dtype=self.dtype, name=f'conv_{name}')(x)
      return layers.BatchNorm(
          dtype=self.dtype, axis_name=self.axis_name, name=f'norm_{name}')(
              x, use_running_average=not train, mask=mask)

    y = nn.relu(conv_norm(x, self.width, 1, 1, '1'))
    y = nn.relu(conv_norm(y, self.width, 3, self.stride, '2'))
    y = conv_norm(y, 4 * self.width, 1, 1, '3')
    if x.shape != y.shape:
      x = conv_norm(x, 4 * self.width, 1, self.stride, 'shortcut')
    return nn.relu(x + y)


class BottleneckResNet(nn.Module):
  """Groups of Bottleneck blocks; each group but the first halves the image.

  Attributes:
    num_outputs: width of the logits.
    blocks: number of blocks of each group.
    width: channels of the stem; of the groups' 3x3 convolutions, doubled from group to
      group.
    frozen: number of stages (the stem, then the groups) that are not trained: they pass
      no gradient, and their BatchNorm uses running statistics.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: pmap axis that shares BatchNorm statistics.
  """

  num_outputs: int
  blocks: Sequence[int] = (3, 4, 6, 3)
  width: int = 64
  frozen: int = 0
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, images: jax.Array, train: bool, mask: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images [n, h, w, c] to logits [n, num_outputs] and the named feature maps.

    They are 'group1' [n, h/4, w/4, 4 width], 'group2' [n, h/8, w/8, 8 width], ... and
    'features' [n, 32 width], the mean of the last.
    """
    dtype = layers.compute_dtype(self.dtype)

    x = layers.conv(self.width, 7, 2, dtype=dtype, name='stem')(images.astype(dtype))
    x = layers.BatchNorm(dtype=dtype, axis_name=self.axis_name, name='stem_norm')(
        x, use_running_average=not (train and self.frozen < 1), mask=mask)
    x = nn.max_pool(nn.relu(x), (3, 3), (2, 2), ((1, 1), (1, 1)))
    x = layers.end_of_stage(x, 0, self.frozen)
    aux = {}
    for i, num_blocks in enumerate(self.blocks):
      for j in range(num_blocks):
        x = Bottleneck(
            self.width * 2**i, 2 if i > 0 and j == 0 else 1, dtype, self.axis_name,
            name=f'group{i + 1}_block{j + 1}')(x, train and self.frozen < i + 2, mask)
      x = aux[f'group{i + 1}'] = layers.end_of_stage(x, i + 1, self.frozen)
    aux['features'] = x.astype(jnp.float32).mean((1, 2))
    return layers.head(self.num_outputs)(aux['features']), aux


def resnet50(
    num_outputs: int, dtype: str = 'float32', axis_name: str | None = None,
    width: int = 64, frozen: int = 0,
) -> BottleneckResNet:
  """ResNet-50: groups of 3, 4, 6 and 3 blocks; see `BottleneckResNet`."""
  return BottleneckResNet(num_outputs, (3, 4, 6, 3), width, frozen, dtype, axis_name)
