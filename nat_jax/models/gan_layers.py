"""The layers of GANs: normalised weights, and BatchNorm without running statistics.

    x = generator_input(z, labels, latent=100, num_classes=0)
    x = Conv(64, stride=2, norm='spectral', dtype=dtype)(x, train)
    x = BatchStatsNorm(dtype=dtype, axis_name='data')(x, mask)

`norm` chooses how a weight W is normalised, in float32, before it is cast and used:

- 'weight': W = g v / |v| for each output unit; v and the gain g are the parameters.
- 'spectral': W / sigma(W), the largest singular value of W as [inputs, outputs].
- 'none': W as it is.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from nat_jax.models import layers

NORMS = ('weight', 'spectral', 'none')
_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
_EPSILON = 1e-12


def _small_uniform(key, shape, dtype=jnp.float32):
  """AM-GAN's initialiser, uniform with standard deviation 0.01.

  The direction of a short v changes fast under Adam.
  """
  bound = 0.01 * 3 ** 0.5
  return jax.random.uniform(key, shape, dtype, -bound, bound)


def _row(vector, ndim):
  return vector.reshape((1,) * (ndim - 1) + (-1,))


def _unit(vector):
  return vector / (jnp.linalg.norm(vector) + _EPSILON)


def _weight(module, shape, norm, train, gain=1.0):
  """The normalised weight [..., outputs] of a module, float32."""
  if norm not in NORMS:
    raise ValueError(f'norm must be one of {", ".join(NORMS)}, got {norm!r}')
  if norm == 'weight':
    v = module.param('v', _small_uniform, shape)
    g = module.param('g', nn.initializers.constant(gain), shape[-1:])
    square = jnp.square(v).sum(tuple(range(v.ndim - 1)))
    return v * _row(g * lax.rsqrt(jnp.maximum(square, _EPSILON)), v.ndim)
  kernel = module.param('kernel', nn.linear.default_kernel_init, shape)
  return kernel / _sigma(module, kernel, train) if norm == 'spectral' else kernel


def _sigma(module, kernel, train):
  """Largest singular value of kernel, by one power iteration from the last u.

  No gradient flows through u and v. u is updated if `train` is set and 'batch_stats' is
  mutable.

  flax.linen.SpectralNorm gives the same values at full float32 precision, but it
  multiplies at the precision of the layer that it wraps: sigma then has a relative
  error of about 5e-4 in bfloat16 (TPU) and 4e-5 in TF32 (GPU) for 288x64 matrices.
  """
  u = module.variable('batch_stats', 'u', lambda: jax.random.normal(
      module.make_rng('params'), kernel.shape[-1:]))
  matrix = kernel.reshape(-1, kernel.shape[-1])
  with jax.default_matmul_precision('highest'):  # float32 on GPUs and TPUs too
    constant = lax.stop_gradient(matrix)
    right = u.value
    left = _unit(constant @ right)
    right = _unit(left @ constant)
    sigma = left @ matrix @ right
  keep = train and module.is_mutable_collection('batch_stats')
  if keep and not module.is_initializing():
    u.value = right
  return jnp.maximum(sigma, _EPSILON)


def _bias(module, y):
  bias = module.param('bias', nn.initializers.zeros, y.shape[-1:])
  return y + _row(bias, y.ndim).astype(y.dtype)


class Dense(nn.Module):
  """A fully connected layer, x W + b.

  Attributes:
    features: number of outputs.
    norm: 'weight', 'spectral' or 'none'.
    dtype: of the computation and of the output.
  """

  features: int
  norm: str = 'weight'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """[n, inputs] to [n, features]."""
    weight = _weight(self, (x.shape[-1], self.features), self.norm, train)
    return _bias(self, x.astype(self.dtype) @ weight.astype(self.dtype))


class Conv(nn.Module):
  """A 3x3 convolution with 'SAME' padding ((0, 1) for even sizes with stride 2).

  Attributes:
    features: number of output channels.
    stride: 1, or 2 to halve the image; with `transpose` 2 doubles it.
    transpose: transposed convolution, whose gain g is initialised to the stride.
    norm: 'weight', 'spectral' or 'none'.
    dtype: of the computation and of the output.
  """

  features: int
  stride: int = 1
  transpose: bool = False
  norm: str = 'weight'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """[n, h, w, c] to [n, h', w', features]."""
    shape = (3, 3, x.shape[-1], self.features)
    gain = float(self.stride if self.transpose else 1)
    weight = _weight(self, shape, self.norm, train, gain).astype(self.dtype)
    x = x.astype(self.dtype)
    if self.transpose and self.stride == 2 and jax.default_backend() == 'cpu':
      y = subpixel_conv_transpose(x, weight)
    elif self.transpose:
      y = lax.conv_transpose(
          x, weight, (self.stride,) * 2, 'SAME', dimension_numbers=_DIMENSIONS)
    else:
      y = lax.conv_general_dilated(
          x, weight, (self.stride,) * 2, 'SAME', dimension_numbers=_DIMENSIONS)
    return _bias(self, y)


def subpixel_conv_transpose(x: jax.Array, weight: jax.Array) -> jax.Array:
  """A transposed 3x3 convolution of stride 2, as a 2x2 convolution and a pixel shuffle.

  It equals lax.conv_transpose with 'SAME' padding, whose gradient XLA's CPU backend
  computes with a naive loop: this form is 3 to 6 times as fast on CPUs.

      y[2i] = x[i-1] w[0] + x[i] w[2],   y[2i+1] = x[i] w[1]      along each axis

  Args:
    x: [n, h, w, c].
    weight: [3, 3, c, outputs].

  Returns:
    [n, 2h, 2w, outputs].
  """
  n, h, w, c = x.shape
  outputs = weight.shape[-1]

  def phases(weight, axis):  # The 3 taps as [even or odd, 2 taps].
    first, middle, last = jnp.split(weight, 3, axis)
    even = jnp.concatenate([first, last], axis)
    odd = jnp.concatenate([jnp.zeros_like(middle), middle], axis)
    return jnp.stack([even, odd], -2)

  weight = phases(phases(weight, 0), 1)  # [2, 2, c, 2 (rows), 2 (columns), outputs]
  y = lax.conv_general_dilated(
      x, weight.reshape(2, 2, c, 4 * outputs), (1, 1), ((1, 0), (1, 0)),
      dimension_numbers=_DIMENSIONS)[:, :h, :w]
  y = y.reshape(n, h, w, 2, 2, outputs).transpose(0, 1, 3, 2, 4, 5)
  return y.reshape(n, 2 * h, 2 * w, outputs)


class BatchStatsNorm(layers.BatchNorm):
  """BatchNorm with the statistics of the batch, in training and in sampling.

  It is a class and not a function because its name is in parameters and checkpoints.
  """

  momentum: float | None = None
  epsilon: float = 1e-3


def generator_input(
    z: jax.Array, labels: jax.Array | None, latent: int, num_classes: int,
) -> jax.Array:
  """The input of a generator: z [n, latent], with one-hot labels where it has classes.

  Args:
    z: [n, latent] noise.
    labels: int32 [n], needed if num_classes > 0.
    latent: size of z that the generator expects.
    num_classes: 0: the generator is unconditional, and z is returned as it is.

  Returns:
    [n, latent + num_classes].

  Raises:
    ValueError: z of another size, or no labels although num_classes > 0.
  """
  if z.ndim != 2 or z.shape[1] != latent:
    raise ValueError(f'z must be [n, {latent}] (latent), got shape {z.shape}')
  if not num_classes:
    return z
  if labels is None:
    raise ValueError(f'a generator of {num_classes} classes needs labels [n], got None')
  return jnp.concatenate([z, jax.nn.one_hot(labels, num_classes, dtype=z.dtype)], 1)
