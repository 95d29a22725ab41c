"""Networks for small images and for tests: a small convolutional net and an MLP.

    model = SmallConv(num_outputs=6)
    variables = model.init(key, images, train=False)
    logits, aux = model.apply(variables, images, train=False)
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from nat_jax.models import layers


class SmallConv(nn.Module):
  """3x3 convolutions with BatchNorm and ReLU, each halving the image, then a mean pool.

  On 8x8 digits this is as accurate as variants with a first block at full resolution or
  a flattened output (0.99 to 1.00 after 600 steps with batches of 64), and up to 2.5
  times as fast on a CPU.

  Attributes:
    num_outputs: width of the logits.
    widths: channels of each block.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: pmap axis that shares BatchNorm statistics.
  """

  num_outputs: int
  widths: Sequence[int] = (32, 64)
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, images: jax.Array, train: bool, mask: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images [n, h, w, c] to logits [n, num_outputs] and the named feature maps.

    The feature maps are the outputs of the blocks, 'group1' [n, h/2, w/2, widths[0]],
    'group2', ..., and 'features' [n, widths[-1]], the pooled output of the last block.
    """
    dtype = layers.compute_dtype(self.dtype)
    x = images.astype(dtype)
    aux = {}
    for i, width in enumerate(self.widths):
      x = layers.conv(width, stride=2, dtype=dtype)(x)
      x = layers.BatchNorm(dtype=dtype, axis_name=self.axis_name)(
          x, use_running_average=not train, mask=mask)
      x = nn.relu(x)
      aux[f'group{i + 1}'] = x
    aux['features'] = x.astype(jnp.float32).mean((1, 2))
    return layers.head(self.num_outputs)(aux['features']), aux


class MLP(nn.Module):
  """Fully connected layers with ReLU on the flattened image, without BatchNorm.

  Attributes:
    num_outputs: width of the logits.
    width: units of each hidden layer.
    depth: number of hidden layers.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: not used; every model accepts it.
  """

  num_outputs: int
  width: int = 128
  depth: int = 2
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, images: jax.Array, train: bool, mask: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images [n, h, w, c], or vectors [n, d], to logits [n, num_outputs] and
    {'features': [n, width]}, of depth 0 the flattened images."""
    del train, mask  # No layer mixes examples.
    dtype = layers.compute_dtype(self.dtype)
    x = images.reshape(images.shape[0], -1).astype(dtype)
    for _ in range(self.depth):
      x = nn.relu(nn.Dense(self.width, dtype=dtype, kernel_init=layers.he_init)(x))
    features = x.astype(jnp.float32)
    return layers.head(self.num_outputs)(features), {'features': features}
