"""WRN-d-k, the wide residual network with pre-activation blocks.

    model = wide_resnet(num_outputs=10, depth=40, widen=2)     # 2,243,546 parameters
    logits, aux = model.apply(variables, images, train=False)
    aux['group1'], aux['group2'], aux['group3'], aux['features']

Reference: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016. Attention
transfer compares the groups' outputs ("Paying More Attention to Attention", ICLR 2017).
Convolutions are initialised He-normal and BatchNorm scales with 1 (the
attention-transfer code draws the scales from [0, 1)). There is no dropout.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from nat_jax.models import layers


class PreActivationBlock(nn.Module):
  """BN-ReLU-conv-BN-ReLU-conv plus shortcut.

  Where the channels change, the shortcut is a 1x1 convolution of the pre-activated
  input; elsewhere it is the input itself.
  """

  width: int
  stride: int
  dtype: jnp.dtype
  axis_name: str | None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
    def norm_relu(x, name):
      norm = layers.BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name=name)
      return nn.relu(norm(x, use_running_average=not train, mask=mask))

    pre = norm_relu(x, 'norm_1')
    if x.shape[-1] != self.width:
      x = layers.conv(
          self.width, 1, self.stride, dtype=self.dtype, name='conv_shortcut')(pre)
    y = layers.conv(self.width, 3, self.stride, dtype=self.dtype, name='conv_1')(pre)
    y = norm_relu(y, 'norm_2')
    return x + layers.conv(self.width, dtype=self.dtype, name='conv_2')(y)


class WideResNet(nn.Module):
  """Three groups of pre-activation blocks, of 16, 32 and 64 times `widen` channels.

  Attributes:
    num_outputs: width of the logits.
    num_blocks: blocks of each group.
    widen: factor k on the channels of the groups.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: pmap axis that shares BatchNorm statistics.
  """

  num_outputs: int
  num_blocks: int
  widen: int = 1
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, images: jax.Array, train: bool, mask: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images [n, h, w, c] to logits [n, num_outputs] and the named feature maps."""
    dtype = layers.compute_dtype(self.dtype)
    x = layers.conv(16, dtype=dtype, name='stem')(images.astype(dtype))
    aux = {}
    for i in range(3):
      for j in range(self.num_blocks):
        x = PreActivationBlock(
            16 * 2**i * self.widen, 2 if i > 0 and j == 0 else 1, dtype,
            self.axis_name, name=f'group{i + 1}_block{j + 1}')(x, train, mask)
      aux[f'group{i + 1}'] = x
    x = layers.BatchNorm(dtype=dtype, axis_name=self.axis_name, name='norm')(
        x, use_running_average=not train, mask=mask)
    aux['features'] = nn.relu(x).astype(jnp.float32).mean((1, 2))
    return layers.head(self.num_outputs)(aux['features']), aux


def wide_resnet(
    num_outputs: int, depth: int = 16, widen: int = 1, dtype: str = 'float32',
    axis_name: str | None = None,
) -> WideResNet:
  """Builds the wide residual network WRN-`depth`-`widen`.

  Args:
    num_outputs: width of the logits.
    depth: number of layers, 6 n + 4 for n blocks in each of the three groups.
    widen: factor on the channels.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: pmap axis that shares BatchNorm statistics.

  Returns:
    A module whose aux holds the groups' outputs before the last BatchNorm and ReLU,
    'group1' [n, h, w, 16 widen], 'group2' [n, h/2, w/2, 32 widen], 'group3', and
    'features' [n, 64 widen] after the pool.

  Raises:
    ValueError: the depth is not 6 n + 4.
  """
  if depth < 10 or (depth - 4) % 6:
    raise ValueError(
        f'wide_resnet: depth must be 6 n + 4 (10, 16, 22, ..., 40), got {depth}')
  return WideResNet(num_outputs, (depth - 4) // 6, widen, dtype, axis_name)
