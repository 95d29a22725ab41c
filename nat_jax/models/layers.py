"""The layers that models share: masked BatchNorm, convolutions, the output layer.

    x = conv(64, stride=2, dtype=dtype)(x)
    x = BatchNorm(dtype=dtype, axis_name='data')(x, use_running_average=False, mask=m)
    logits = head(10)(features)

Given both a mask and an axis_name, flax's BatchNorm takes the mean of per-device means,
which is wrong where devices hold unequal numbers of filled slots (flax 0.12.8). The one
here adds up sums and counts over the devices, and divides once.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}

# PyTorch's default for Conv2d and Linear: uniform within 1 / sqrt(fan_in).
torch_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
# Normal with variance 2 / fan_in, which keeps the scale of activations through ReLU.
he_init = nn.initializers.variance_scaling(2.0, 'fan_in', 'normal')


def compute_dtype(name: str) -> Any:
  """Returns the dtype called `name`, 'float32' or 'bfloat16'; else ValueError."""
  if name not in DTYPES:
    raise ValueError(f'model dtype must be one of {sorted(DTYPES)}, got {name!r}')
  return DTYPES[name]


def conv(
    features: int, kernel: int = 3, stride: int = 1, *,
    dtype: Any = jnp.float32, init: Any = he_init, name: str | None = None,
) -> nn.Conv:
  """A convolution without bias (a BatchNorm follows), padded by kernel // 2.

  The padding is equal on all sides, as in PyTorch; flax's 'SAME' pads a strided
  convolution of an even-sized image at its right and bottom only.
  """
  return nn.Conv(
      features, (kernel, kernel), strides=stride, padding=kernel // 2,
      use_bias=False, dtype=dtype, kernel_init=init, name=name)


def end_of_stage(x: jax.Array, stage: int, frozen: int) -> jax.Array:
  """x, the output of a stage; of the first `frozen` stages without its gradient."""
  return jax.lax.stop_gradient(x) if stage < frozen else x


def head(num_outputs: int, name: str = 'head') -> nn.Dense:
  """The output layer: PyTorch's kernel initialisation, zero bias, always float32.

  In bfloat16 logits near 10 are multiples of 1/16, and their softmax would have ties;
  the layer is too small for float32 to cost time.
  """
  return nn.Dense(num_outputs, dtype=jnp.float32, kernel_init=torch_init, name=name)


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but the last, with statistics of filled slots.

      mean = sum_i m_i x_i / sum_i m_i,   var = sum_i m_i (x_i - mean)^2 / sum_i m_i
      y = (x - mean) / sqrt(var + epsilon) * scale + bias
      running <- momentum * running + (1 - momentum) * batch

  Sums and counts run over the examples and positions of all devices. Statistics,
  parameters and arithmetic are float32. The variance is biased, in the running
  statistics too (as in flax; PyTorch's running variance is unbiased).

  Attributes:
    momentum: share of the running statistics that an update keeps; None: no running
      statistics, and those of the batch are always used.
    epsilon: added to the variance.
    dtype: of the output.
    axis_name: the pmap axis over which statistics are summed; None for one device and
      under jit, where the layer sees the global batch.
  """

  momentum: float | None = 0.9
  epsilon: float = 1e-5
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, x: jax.Array, mask: jax.Array | None = None, *,
      use_running_average: bool | None = None,
  ) -> jax.Array:
    """Normalises x.

    Args:
      x: [n, ..., c].
      mask: [n], bool or float; above 0: a filled slot. None: all slots are filled. A
        batch without a filled slot is normalised by the running statistics and
        does not change them; with momentum=None the output is finite.
      use_running_average: True: normalise by the running statistics (evaluation);
        False: by those of the batch. Must be None if, and only if, momentum is None.

    Returns:
      [n, ..., c] in `dtype`.

    Raises:
      ValueError: `use_running_average` is None with a momentum, or given without.
    """
    if (use_running_average is None) != (self.momentum is None):
      raise ValueError(
          'use_running_average must be True or False with a momentum, and None without '
          f'one; got {use_running_average} and momentum {self.momentum}')
    c = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (c,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (c,), jnp.float32)
    x = x.astype(jnp.float32)
    row = (1,) * (x.ndim - 1) + (c,)
    if self.momentum is None:
      mean, var = self._in_two_passes(x, mask)
    else:
      mean, var = self._running(x, mask, use_running_average)
    gain = scale * jax.lax.rsqrt(var + self.epsilon)
    y = (x - mean.reshape(row)) * gain.reshape(row) + bias.reshape(row)
    return y.astype(self.dtype)

  def _in_two_passes(self, x, mask):
    """Mean and variance [c] of the batch; one pass, E[x^2] - E[x]^2, loses digits."""
    n, c = len(x), x.shape[-1]
    x = x.reshape(n, -1, c)
    filled = jnp.ones(n, bool) if mask is None else mask > 0

    def mean(values):
      total = jnp.where(filled[:, None], values.sum(1), 0).sum(0)
      return self._over_devices(total) / jnp.maximum(count, 1)

    count = self._over_devices(filled.sum() * float(x.shape[1]))
    center = mean(x)
    return center, mean(jnp.square(x - center.reshape(1, 1, c)))

  def _running(self, x, mask, use_running_average):
    """Mean and variance [c]: the running ones, or the batch's, which update them."""
    c = x.shape[-1]
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, c, jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, c, jnp.float32)
    if use_running_average:
      return running_mean.value, running_var.value
    # One pass over x and one psum. E[d^2] - E[d]^2 loses digits where the mean of d is
    # large compared with its spread, hence d = x - running mean and not d = x. In the
    # first updates, whose running mean is 0 still, inputs must be normalised.
    shift = running_mean.value
    mean, var = self._in_one_pass(
        x - shift.reshape((1,) * (x.ndim - 1) + (c,)), mask, running_var.value)
    mean = shift + mean
    if not self.is_initializing():
      # Written so that an unchanged mean stays unchanged to the last bit.
      rate = 1 - self.momentum
      running_mean.value = shift + rate * (mean - shift)
      running_var.value += rate * (var - running_var.value)
    return mean, var

  def _in_one_pass(self, d, mask, empty_var):
    """Mean and variance [c] of d [n, ..., c]; 0 and empty_var if nothing is filled."""
    n, c = d.shape[0], d.shape[-1]
    d = d.reshape(n, -1, c)
    # Sum over positions first, then over examples: the mask is applied to [n, c] only.
    sums, squares = d.sum(1), jnp.square(d).sum(1)
    filled = jnp.ones(n)
    if mask is not None:
      some = (mask > 0)[:, None]  # where, since an empty slot may hold NaN (0 * NaN)
      sums, squares = jnp.where(some, sums, 0), jnp.where(some, squares, 0)
      filled = (mask > 0).astype(jnp.float32)
    # Written as a product so that XLA's CPU backend uses a faster matrix product.
    totals = (filled[:, None] * sums).sum(0), (filled[:, None] * squares).sum(0)
    total, total_squares, count = self._over_devices(
        (*totals, d.shape[1] * filled.sum()))
    divisor = jnp.where(count > 0, count, 1)
    mean = total / divisor
    var = jnp.maximum(total_squares / divisor - jnp.square(mean), 0)
    return mean, jnp.where(count > 0, var, empty_var)

  def _over_devices(self, sums):
    if self.axis_name is None or self.is_initializing():
      return sums
    return jax.lax.psum(sums, self.axis_name)
