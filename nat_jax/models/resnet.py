"""ResNets for 32x32 images: a 3x3 stem, no max-pool, post-activation blocks.

    model = resnet18(num_outputs=10)                  # 11,173,962 parameters
    model = resnet(num_outputs=10, blocks=(0, 1, 1), stem_stride=2)   # for a CPU
    logits, aux = model.apply(variables, images, train=False)
    aux['group1'] ... aux['group4'], aux['features']

Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. The
CIFAR stem and PyTorch's initialisation are those of the pytorch-cifar code base.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from nat_jax.models import layers


class BasicBlock(nn.Module):
  """conv-BN-ReLU-conv-BN plus shortcut, then ReLU.

  Where the shape changes, the shortcut is a strided 1x1 convolution with BN.
  """

  width: int
  stride: int
  dtype: jnp.dtype
  axis_name: str | None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
    def conv_norm(x, kernel, stride, name):
      x = layers.conv(
          self.width, kernel, stride, dtype=self.dtype, init=layers.torch_init,
          name=f'conv_{name}')(x)
      return layers.BatchNorm(
          dtype=self.dtype, axis_name=self.axis_name, name=f'norm_{name}')(
              x, use_running_average=not train, mask=mask)

    y = nn.relu(conv_norm(x, 3, self.stride, '1'))
    y = conv_norm(y, 3, 1, '2')
    if x.shape != y.shape:
      x = conv_norm(x, 1, self.stride, 'shortcut')
    return nn.relu(x + y)


class ResNet(nn.Module):
  """Groups of BasicBlocks; each group but the first halves the image.

  Attributes:
    num_outputs: width of the logits.
    blocks: number of blocks of each group.
    width: channels of the stem and the first group; doubled from group to group.
    stem_stride: 2 halves the image before the first group.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: pmap axis that shares BatchNorm statistics.
  """

  num_outputs: int
  blocks: Sequence[int]
  width: int = 64
  stem_stride: int = 1
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, images: jax.Array, train: bool, mask: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images [n, h, w, c] to logits [n, num_outputs] and the named feature maps."""
    dtype = layers.compute_dtype(self.dtype)
    x = layers.conv(
        self.width, stride=self.stem_stride, dtype=dtype, init=layers.torch_init,
        name='stem')(images.astype(dtype))
    x = layers.BatchNorm(dtype=dtype, axis_name=self.axis_name, name='stem_norm')(
        x, use_running_average=not train, mask=mask)
    x = nn.relu(x)
    aux = {}
    for i, num_blocks in enumerate(self.blocks):
      for j in range(num_blocks):
        x = BasicBlock(
            self.width * 2**i, 2 if i > 0 and j == 0 else 1, dtype, self.axis_name,
            name=f'group{i + 1}_block{j + 1}')(x, train, mask)
      aux[f'group{i + 1}'] = x
    aux['features'] = x.astype(jnp.float32).mean((1, 2))
    return layers.head(self.num_outputs)(aux['features']), aux


def resnet18(
    num_outputs: int, dtype: str = 'float32', axis_name: str | None = None,
    width: int = 64,
) -> ResNet:
  """ResNet-18 with the CIFAR stem: four groups of two blocks.

  Args:
    num_outputs: width of the logits.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: pmap axis that shares BatchNorm statistics.
    width: channels of the first group.

  Returns:
    A module whose aux holds 'group1' [n, h, w, width], 'group2' [n, h/2, w/2,
    2 width], 'group3', 'group4' and 'features' [n, 8 width].
  """
  return ResNet(num_outputs, (2, 2, 2, 2), width, 1, dtype, axis_name)


def resnet(
    num_outputs: int, blocks: Sequence[int], width: int = 64, stem_stride: int = 1,
    dtype: str = 'float32', axis_name: str | None = None,
) -> ResNet:
  """A ResNet of any depth.

  With blocks (0, 1, 1) and stem_stride 2 (64 channels at 16x16 from the stem on) a
  training step on a CPU takes a fiftieth of ResNet-18's time: XLA's CPU convolutions
  are slow at full resolution and fast with 64 channels or more.

  Args:
    num_outputs: width of the logits.
    blocks: number of blocks of each group; a first group of 0 blocks is the stem alone.
    width: channels of the stem and the first group.
    stem_stride: 2 halves the image before the first group.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: pmap axis that shares BatchNorm statistics.

  Returns:
    A module whose aux holds 'group1', 'group2', ... and 'features'.
  """
  return ResNet(num_outputs, tuple(blocks), width, stem_stride, dtype, axis_name)
