"""The layers of GANs: normalised weights, and BatchNorm without running statistics.

    x = generator_input(z, labels, latent=100, num_classes=0)
    x = Conv(64, stride=2, norm='spectral', dtype=dtype)(x, train)
    x = BatchStatsNorm(dtype=dtype, axis_name='data')(x, mask)

`norm` chooses how a weight W is normalised, in float32, before it is cast and used:

- 'weight': W = g v / |v| for each output unit; v and the gain g are the parameters.
- 'spectral': W / sigma(W), the largest singular value of W as [inputs, outputs]; a
  fully connected layer can have another norm than 1, its `spectral_gain`.
- 'none': W as it is.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from nat_jax.models import layers
from nat_jax.task import Axis

BATCH_NORMS = ('none', 'batch', 'class', 'virtual')  # of generators
REFERENCE = 64  # examples in the reference batch of virtual batch normalisation
KERNEL_SIZE = 5  # dimension of each kernel of minibatch discrimination
NORMS = ('weight', 'spectral', 'none')
Initializer = Callable[..., jax.Array]  # (key, shape, dtype) -> array
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


def _weight(
    module, shape, norm, train, gain=1.0, kernel_init=nn.linear.default_kernel_init,
    spectral_gain=1.0):
  """The normalised weight [..., outputs] of a module, float32."""
  if norm not in NORMS:
    raise ValueError(f'norm must be one of {", ".join(NORMS)}, got {norm!r}')
  if spectral_gain != 1 and norm != 'spectral':
    raise ValueError(
        f"spectral_gain={spectral_gain} needs norm='spectral', got {norm!r}; set it to "
        '1, or choose this norm')
  if norm == 'weight':
    v = module.param('v', _small_uniform, shape)
    g = module.param('g', nn.initializers.constant(gain), shape[-1:])
    square = jnp.square(v).sum(tuple(range(v.ndim - 1)))
    return v * _row(g * lax.rsqrt(jnp.maximum(square, _EPSILON)), v.ndim)
  kernel = module.param('kernel', kernel_init, shape)
  if norm == 'spectral':
    return spectral_gain * (kernel / _sigma(module, kernel, train))
  return kernel


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
    use_bias: whether b is added.
    kernel_init: initialiser of the weight; 'weight' has its own.
    spectral_gain: with norm='spectral', the largest singular value of the weight that
      is used, above 0.
  """

  features: int
  norm: str = 'weight'
  dtype: Any = jnp.float32
  use_bias: bool = True
  kernel_init: Initializer = nn.linear.default_kernel_init
  spectral_gain: float = 1.0

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """[n, inputs] to [n, features]."""
    weight = _weight(
        self, (x.shape[-1], self.features), self.norm, train,
        kernel_init=self.kernel_init, spectral_gain=self.spectral_gain)
    y = x.astype(self.dtype) @ weight.astype(self.dtype)
    return _bias(self, y) if self.use_bias else y


class Conv(nn.Module):
  """A convolution with 'SAME' padding ((0, 1) for 3x3, even sizes and stride 2).

  Attributes:
    features: number of output channels.
    stride: 1, or 2 to halve the image; with `transpose` 2 doubles it.
    transpose: transposed convolution, whose gain g is initialised to the stride.
    norm: 'weight', 'spectral' or 'none'.
    dtype: of the computation and of the output.
    kernel_size: height and width of the kernel; 3 with `transpose`.
    use_bias: whether a bias is added.
    kernel_init: initialiser of the weight; 'weight' has its own.
  """

  features: int
  stride: int = 1
  transpose: bool = False
  norm: str = 'weight'
  dtype: Any = jnp.float32
  kernel_size: int = 3
  use_bias: bool = True
  kernel_init: Initializer = nn.linear.default_kernel_init

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """[n, h, w, c] to [n, h', w', features]."""
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
    gain = float(self.stride if self.transpose else 1)
    weight = _weight(
        self, shape, self.norm, train, gain, self.kernel_init).astype(self.dtype)
    x = x.astype(self.dtype)
    if self.transpose and self.stride == 2 and jax.default_backend() == 'cpu':
      y = subpixel_conv_transpose(x, weight)
    elif self.transpose:
      y = lax.conv_transpose(
          x, weight, (self.stride,) * 2, 'SAME', dimension_numbers=_DIMENSIONS)
    else:
      y = lax.conv_general_dilated(
          x, weight, (self.stride,) * 2, 'SAME', dimension_numbers=_DIMENSIONS)
    return _bias(self, y) if self.use_bias else y


def subpixel_conv_transpose(x: jax.Array, weight: jax.Array) -> jax.Array:
  """A transposed 3x3 convolution of stride 2, as four convolutions and a pixel shuffle.

  It equals lax.conv_transpose with 'SAME' padding, whose gradient XLA's CPU backend
  computes with a naive loop: this form is 3 to 6 times as fast on CPUs.

      y[2i] = x[i-1] w[0] + x[i] w[2],   y[2i+1] = x[i] w[1]      along each axis

  Args:
    x: [n, h, w, c].
    weight: [3, 3, c, outputs].

  Returns:
    [n, 2h, 2w, outputs].
  """
  n, h, w, _ = x.shape
  taps = {'even': (slice(0, 3, 2), (1, 0)), 'odd': (slice(1, 2), (0, 0))}

  def phase(rows, columns):  # The pixels of even or odd rows and columns.
    (i, above), (j, left) = taps[rows], taps[columns]
    return lax.conv_general_dilated(
        x, weight[i, j], (1, 1), (above, left), dimension_numbers=_DIMENSIONS)

  y = jnp.stack([
      jnp.stack([phase(rows, columns) for columns in taps], 3) for rows in taps], 2)
  return y.reshape(n, 2 * h, 2 * w, weight.shape[-1])


class BatchStatsNorm(layers.BatchNorm):
  """BatchNorm with the statistics of the batch, in training and in sampling.

  It is a class and not a function because its name is in parameters and checkpoints.
  """

  momentum: float | None = None
  epsilon: float = 1e-3

  def per_example(
      self, x: jax.Array, scale: jax.Array, bias: jax.Array, mask: jax.Array | None
  ) -> jax.Array:
    """Normalises x [n, ..., c] with a scale and a bias [n, c] for each example."""
    rows = (len(x),) + (1,) * (x.ndim - 2) + (x.shape[-1],)
    x = x.astype(jnp.float32)
    mean, var = (_row(one, x.ndim) for one in self._in_two_passes(x, mask))
    y = (x - mean) * lax.rsqrt(var + self.epsilon)
    return (y * scale.reshape(rows) + bias.reshape(rows)).astype(self.dtype)


class ClassBatchNorm(BatchStatsNorm):
  """Conditional BatchNorm: a scale and a bias of their own for each class.

  Attributes:
    num_classes: K.

  Reference: de Vries et al., "Modulating early visual processing by language", NeurIPS
  2017; in generators: Miyato, Koyama, "cGANs with Projection Discriminator", ICLR 2018.
  """

  num_classes: int = 0

  @nn.compact
  def __call__(
      self, x: jax.Array, labels: jax.Array, mask: jax.Array | None = None,
  ) -> jax.Array:
    """x [n, ..., c] with labels int32 [n] to [n, ..., c] in `dtype`."""
    shape = self.num_classes, x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, shape, jnp.float32)[labels]
    bias = self.param('bias', nn.initializers.zeros, shape, jnp.float32)[labels]
    return self.per_example(x, scale, bias, mask)


class VirtualBatchNorm(nn.Module):
  """Virtual batch normalisation: by a fixed reference batch and the example itself.

  The first `num` examples are the reference batch, with mean m and variance v. Example
  i is normalised by the mean and the variance of these and itself, so that it does not
  depend on the other examples: with w = 1 / (num + 1) and x_i's mean over positions,
  mean_i = (1 - w) m + w mean(x_i), and var_i in the same way from squared distances to
  mean_i. The reference batch is normalised by m and v.

  Attributes:
    num: examples of the reference batch.
    epsilon: added to the variance.
    dtype: of the output.

  Reference: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016,
  section 3.5.
  """

  num: int = REFERENCE
  epsilon: float = 1e-3
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[num + n, ..., c] to [num + n, ..., c] in `dtype`."""
    scale = self.param('scale', nn.initializers.ones, x.shape[-1:], jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, x.shape[-1:], jnp.float32)
    x = x.astype(jnp.float32)
    positions = tuple(range(1, x.ndim - 1))
    w = jnp.where(jnp.arange(len(x)) < self.num, 0, 1 / (self.num + 1))
    w = w.reshape((-1,) + (1,) * (x.ndim - 1))
    first = x[:self.num]
    m, v = (_row(fn(first, (0, *positions)), x.ndim) for fn in (jnp.mean, jnp.var))
    mean = (1 - w) * m + w * x.mean(positions, keepdims=True)
    var = (1 - w) * (v + jnp.square(m - mean)) + w * jnp.square(
        x - mean).mean(positions, keepdims=True)
    y = (x - mean) * lax.rsqrt(var + self.epsilon)
    return (y * _row(scale, x.ndim) + _row(bias, x.ndim)).astype(self.dtype)


class MinibatchDiscrimination(nn.Module):
  """Appends to each example how close it is to the others of its batch.

      o_b(i) = sum_{j != i} exp(-|M_ib - M_jb|_1),   M_i = x_i T in [kernels, size]

  Empty slots do not count. Over devices j runs over the global batch. In evaluation
  an example is taken to be alone, and all o_b are 0: what is evaluated together is no
  batch of data or of generated examples, and may be too much to compare.

  Attributes:
    kernels: B, number of appended features.
    size: dimension of each kernel.
    axis_name: pmap axis of the devices that share the batch.

  Reference: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016,
  section 3.2.
  """

  kernels: int
  size: int = KERNEL_SIZE
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, x: jax.Array, mask: jax.Array | None = None, train: bool = True
  ) -> jax.Array:
    """x [n, d] to float32 [n, d + kernels].

    Args:
      x: [n, d].
      mask: [n], above 0: a filled slot.
      train: False: in evaluation.
    """
    axis = Axis(None if self.is_initializing() else self.axis_name)
    x = x.astype(jnp.float32)
    weight = self.param(
        'kernel', nn.initializers.lecun_normal(), (x.shape[1], self.kernels * self.size)
    )
    if not train:
      return jnp.concatenate([x, jnp.zeros((len(x), self.kernels))], 1)
    mine = (x @ weight).reshape(-1, self.kernels, self.size)
    others = axis.gather(mine)
    filled = axis.gather(jnp.ones(len(x)) if mask is None else mask) > 0
    place = axis.first(len(x)) + jnp.arange(len(x))
    pairs = filled[None] & (place[:, None] != jnp.arange(len(others))[None])
    near = jnp.exp(-jnp.abs(mine[:, None] - others[None]).sum(-1))
    return jnp.concatenate([x, jnp.where(pairs[..., None], near, 0).sum(1)], 1)


class Projection(nn.Module):
  """The class term of a projection discriminator, <V_y, features>.

  Attributes:
    num_classes: K.
    norm: normalisation of V [K, d]: 'spectral' or 'none'.

  Reference: Miyato, Koyama, "cGANs with Projection Discriminator", ICLR 2018.
  """

  num_classes: int
  norm: str = 'none'

  @nn.compact
  def __call__(
      self, features: jax.Array, labels: jax.Array, train: bool = False
  ) -> jax.Array:
    """features [n, d] and labels int32 [n] (-1: none, 0 is returned) to [n, 1]."""
    features = features.astype(jnp.float32)
    weight = _weight(self, (self.num_classes, features.shape[1]), self.norm, train)
    chosen = jax.nn.one_hot(labels, self.num_classes) @ weight
    return (features * chosen).sum(1, keepdims=True)


def batch_norm(
    kind: str, x: jax.Array, labels: jax.Array | None, mask: jax.Array | None,
    num_classes: int, dtype: Any, axis_name: str | None,
) -> jax.Array:
  """Applies a batch normalisation of generators to x; call it in a compact method.

  Args:
    kind: 'none'; 'batch', by the statistics of the batch; 'class', with scale and bias
      of the example's class; 'virtual', by a reference batch (see `with_reference`).
    x: [n, ..., c].
    labels: int32 [n], for 'class'.
    mask: [n], above 0: a filled slot.
    num_classes, dtype, axis_name: of the generator.

  Raises:
    ValueError: an unknown kind, or 'class' without classes.
  """
  if kind not in BATCH_NORMS:
    raise ValueError(
        f'generator.batch_norm must be one of {", ".join(BATCH_NORMS)}, got {kind!r}')
  if kind == 'class':
    if not num_classes:
      raise ValueError(
          "generator.batch_norm='class' needs a generator of classes: set "
          "trainer.labels='predefined', or choose batch_norm='batch'")
    return ClassBatchNorm(
        num_classes=num_classes, dtype=dtype, axis_name=axis_name)(x, labels, mask)
  if kind == 'virtual':
    return VirtualBatchNorm(dtype=dtype)(x)
  if kind == 'batch':
    return BatchStatsNorm(dtype=dtype, axis_name=axis_name)(x, mask)
  return x


def with_reference(
    kind: str, z: jax.Array, labels: jax.Array | None, num_classes: int
) -> tuple[jax.Array, jax.Array | None, int]:
  """Puts the reference batch before the input of a generator, if its `kind` needs one.

  The reference batch is normal noise that is always the same, with each class in turn.

  Returns:
    (z [r + n, latent], labels [r + n] or None, r), where the first r outputs of the
    generator are to be removed.
  """
  if kind != 'virtual':
    return z, labels, 0
  fixed = jax.random.normal(jax.random.key(0), (REFERENCE, z.shape[1]), z.dtype)
  if labels is not None and num_classes:
    labels = jnp.concatenate([jnp.arange(REFERENCE) % num_classes, labels])
  return jnp.concatenate([fixed, z]), labels, REFERENCE


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


def conditional_input(
    generator: nn.Module, z: jax.Array, labels: jax.Array | None
) -> tuple[jax.Array, jax.Array | None, int]:
  """The input of a generator that has the attribute `batch_norm`.

  With batch_norm='class' the labels choose scale and bias and are not joined to z. With
  'virtual' the reference batch stands before z.

  Args:
    generator: with `latent`, `num_classes` and `batch_norm`.
    z: [n, latent] noise.
    labels: int32 [n], needed if num_classes > 0.

  Returns:
    (input [r + n, ...], labels [r + n] or None, r), where the first r outputs of the
    generator are to be removed.

  Raises:
    ValueError: z of another size, or no labels although num_classes > 0.
  """
  kind, num_classes = generator.batch_norm, generator.num_classes
  z, labels, num = with_reference(kind, z, labels, num_classes)
  joined = 0 if kind == 'class' else num_classes
  if joined != num_classes and labels is None:
    raise ValueError(f'a generator of {num_classes} classes needs labels [n], got None')
  return generator_input(z, labels, generator.latent, joined), labels, num


def outputs(
    discriminator: nn.Module, features: jax.Array, labels: jax.Array | None,
    train: bool,
) -> jax.Array:
  """The output layer of a discriminator that has the attribute `projection`.

  Call it in a compact method.

  Args:
    discriminator: with `num_outputs`, `norm` and `projection`, and with `spectral_gain`
      if it has that attribute, which the class term of a projection does not use.
    features: float32 [n, d].
    labels: int32 [n], for projection > 0; -1: none. None: no example has a class.
    train: whether the power iteration of norm='spectral' updates its state.

  Returns:
    float32 [n, num_outputs].
  """
  norm = discriminator.norm
  found = Dense(
      discriminator.num_outputs, norm=norm,
      spectral_gain=getattr(discriminator, 'spectral_gain', 1.0))(features, train)
  if discriminator.projection:
    if labels is None:  # as while the parameters are initialised
      labels = jnp.full(len(features), -1)
    found += Projection(
        discriminator.projection, 'spectral' if norm == 'spectral' else 'none')(
            features, labels, train)
  return found
