"""Small generators and discriminators without convolutions, for 8x8 digits and points.

    generator = MLPGenerator(latent=32, image_shape=(8, 8, 1))
    discriminator = MLPDiscriminator(image_shape=(8, 8, 1), num_outputs=6)
    generator = ToyGenerator(latent=1, image_shape=(1,))         # points on a line
    discriminator = ToyDiscriminator(image_shape=(1,), num_outputs=1)

Their signatures are those of all GAN networks (see nat_jax.models). The defaults of the
toy networks are those of the NAT paper's 1-D demonstration.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from nat_jax.models import gan_layers, gan_noise, layers

ACTIVATIONS = {'relu': nn.relu, 'softplus': nn.softplus}
# Of the weights of networks of points, with variances 1/n and 2/n for n inputs.
INITIALIZERS = {
    'lecun': nn.initializers.lecun_normal(), 'he': nn.initializers.he_normal()}


class MLPGenerator(nn.Module):
  """Hidden layers with weight norm, BatchNorm and leaky ReLU; tanh at the output.

  Attributes:
    latent: size of z.
    image_shape: any shape.
    num_classes: above 0 the generator is conditional: z is joined by one-hot labels.
    widths: units of each hidden layer.
    norm: normalisation of every weight: 'weight', 'spectral' or 'none'.
    batch_norm: 'batch', 'class', 'virtual' or 'none'; see `gan_layers.batch_norm`. With
      'class' the labels choose scale and bias and are not joined to z.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: pmap axis that shares BatchNorm statistics.
  """

  latent: int
  image_shape: Sequence[int]
  num_classes: int = 0
  widths: Sequence[int] = (128, 128)
  norm: str = 'weight'
  batch_norm: str = 'batch'
  dtype: str = 'float32'
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, z: jax.Array, labels: jax.Array | None = None,
      mask: jax.Array | None = None,
  ) -> jax.Array:
    """z [n, latent] (and labels int32 [n]) to images [n, ...] in [-1, 1]."""
    dtype = layers.compute_dtype(self.dtype)
    x, labels, num_reference = gan_layers.conditional_input(self, z, labels)
    for width in self.widths:
      x = gan_layers.Dense(width, norm=self.norm, dtype=dtype)(x, True)
      x = gan_layers.batch_norm(
          self.batch_norm, x, labels, mask, self.num_classes, dtype, self.axis_name)
      x = nn.leaky_relu(x, 0.2)
    x = gan_layers.Dense(
        math.prod(self.image_shape), norm=self.norm, dtype=dtype)(x, True)
    x = jnp.tanh(x.astype(jnp.float32)).reshape(-1, *self.image_shape)
    return x[num_reference:]


class MLPDiscriminator(nn.Module):
  """Hidden layers with leaky ReLU and dropout, after noise on the input.

  Attributes:
    image_shape: any shape.
    num_outputs: width of the outputs.
    widths: units of each hidden layer.
    norm: normalisation of every weight: 'weight', 'spectral' or 'none'.
    spectral_gain: with norm='spectral', factor of every normalised weight but that of
      the class term of a projection; 64^(1/8) in the authors' code of MMD-GAN.
    batch_norm: BatchNorm after every hidden layer but the first.
    noise: standard deviation of the input noise.
    dropout: dropout rate after each hidden layer.
    kernels: above 0: minibatch discrimination with this many kernels.
    projection: above 0: number of classes; D is conditional by projection.
    dtype: compute dtype, 'float32' or 'bfloat16'.
    axis_name: pmap axis that shares BatchNorm statistics.
  """

  image_shape: Sequence[int]
  num_outputs: int
  widths: Sequence[int] = (128, 128)
  norm: str = 'weight'
  spectral_gain: float = 1.0
  batch_norm: bool = False
  noise: float = 0.1
  dropout: float = 0.3
  kernels: int = 0
  projection: int = 0
  dtype: str = 'float32'
  axis_name: str | None = None

  @property
  def mixes(self) -> bool:
    """Whether the output of an example depends on the other examples of its batch."""
    return self.batch_norm or self.kernels > 0

  @nn.compact
  def __call__(
      self, x: jax.Array, keys: jax.Array | None = None,
      mask: jax.Array | None = None, train: bool = False,
      labels: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images to outputs [n, num_outputs] and {'features': [n, widths[-1]]}.

    Args:
      x: [n, ...] in [-1, 1].
      keys: [n], one per example, for noise and dropout; None: neither is applied.
      mask: [n]; 0 = empty slot, which does not count in the batch's statistics.
      train: whether the power iteration of norm='spectral' updates its state, and
        whether minibatch discrimination compares examples.
      labels: int32 [n], for `projection`; -1: none.
    """
    dtype = layers.compute_dtype(self.dtype)
    x = x.reshape(x.shape[0], -1)
    words = gan_noise.draw(keys, x.shape[1], self.widths)
    x = gan_noise.input_noise(x, words[0], self.noise)
    for i, width in enumerate(self.widths):
      x = gan_layers.Dense(
          width, norm=self.norm, dtype=dtype, spectral_gain=self.spectral_gain)(
              x, train)
      if i and self.batch_norm:
        x = gan_layers.BatchStatsNorm(dtype=dtype, axis_name=self.axis_name)(x, mask)
      x = nn.leaky_relu(x, 0.2)
      x = gan_noise.dropout(x, words[i + 1], self.dropout)
    return _outputs(self, x.astype(jnp.float32), mask, labels, train)


class ToyGenerator(nn.Module):
  """A generator of points: hidden layers and a linear or bounded output.

  Attributes:
    latent: size of z.
    image_shape: (d,), the dimension of a point.
    num_classes: above 0 the generator is conditional: z is joined by one-hot labels.
    widths: units of each hidden layer.
    activation: 'softplus' or 'relu'.
    norm: normalisation of every weight: 'none', 'weight' or 'spectral'.
    batch_norm: as of `MLPGenerator`.
    initializer: of the weights, 'lecun' or 'he'; not used with norm='weight'.
    bound: above 0: the points are bound (2 sigmoid(x) - 1) of the output x; 0: x.
    axis_name: pmap axis that shares BatchNorm statistics.
  """

  latent: int
  image_shape: Sequence[int]
  num_classes: int = 0
  widths: Sequence[int] = (4,)
  activation: str = 'softplus'
  norm: str = 'none'
  batch_norm: str = 'none'
  initializer: str = 'lecun'
  bound: float = 0.0
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, z: jax.Array, labels: jax.Array | None = None,
      mask: jax.Array | None = None,
  ) -> jax.Array:
    """z [n, latent] (and labels int32 [n]) to points [n, d]."""
    if self.activation not in ACTIVATIONS:
      raise ValueError(
          f'activation must be one of {sorted(ACTIVATIONS)}, got {self.activation!r}')
    init = _initializer(self.initializer)
    x, labels, num_reference = gan_layers.conditional_input(self, z, labels)
    for width in self.widths:
      x = gan_layers.Dense(width, norm=self.norm, kernel_init=init)(x, True)
      x = gan_layers.batch_norm(
          self.batch_norm, x, labels, mask, self.num_classes, x.dtype, self.axis_name)
      x = ACTIVATIONS[self.activation](x)
    x = gan_layers.Dense(
        _dimension(self.image_shape), norm=self.norm, kernel_init=init)(x, True)
    x = self.bound * jnp.tanh(x / 2) if self.bound else x
    return x[num_reference:]


class IdentityGenerator(nn.Module):
  """A generator of points: two layers of d units with ReLU, at first the identity.

  Before training it returns noise in [0, 1]^d as it is.

  Attributes:
    latent: size of z, which is d.
    image_shape: (d,), the dimension of a point.
    axis_name: not used; every generator accepts it.

  Reference: Liu et al., "Generative Adversarial Active Learning for Unsupervised
  Outlier Detection", arXiv:1809.10816, the authors' code.
  """

  latent: int
  image_shape: Sequence[int]
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, z: jax.Array, labels: jax.Array | None = None,
      mask: jax.Array | None = None,
  ) -> jax.Array:
    """z [n, d], 0 or above, to points [n, d]."""
    del labels, mask  # No layer mixes examples.
    for _ in range(2):
      z = nn.relu(nn.Dense(_dimension(self.image_shape), kernel_init=_eye)(z))
    return z


def _eye(key, shape, dtype=jnp.float32):
  del key
  return jnp.eye(*shape, dtype=dtype)


class ToyDiscriminator(nn.Module):
  """A discriminator of points: hidden layers with ReLU, without noise and dropout.

  Attributes:
    image_shape: (d,), the dimension of a point.
    num_outputs: width of the outputs.
    widths: units of each hidden layer.
    norm: normalisation of every weight: 'none', 'weight' or 'spectral'.
    spectral_gain, kernels, projection: as of `MLPDiscriminator`.
    initializer: of the hidden layers' weights, as of `ToyGenerator`.
    axis_name: pmap axis of the devices that share the batch.
  """

  image_shape: Sequence[int]
  num_outputs: int = 1
  widths: Sequence[int] = (8, 8, 8)
  norm: str = 'none'
  spectral_gain: float = 1.0
  kernels: int = 0
  projection: int = 0
  initializer: str = 'lecun'
  axis_name: str | None = None

  @property
  def mixes(self) -> bool:
    """Whether the output of an example depends on the other examples of its batch."""
    return self.kernels > 0

  @nn.compact
  def __call__(
      self, x: jax.Array, keys: jax.Array | None = None,
      mask: jax.Array | None = None, train: bool = False,
      labels: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Points [n, d] to outputs [n, num_outputs] and {'features': [n, d']}."""
    del keys  # Nothing is random.
    _dimension(self.image_shape)
    init = _initializer(self.initializer)
    for width in self.widths:
      x = nn.relu(gan_layers.Dense(
          width, norm=self.norm, kernel_init=init,
          spectral_gain=self.spectral_gain)(x, train))
    return _outputs(self, x, mask, labels, train)


def _outputs(discriminator, features, mask, labels, train):
  """The output layer of a discriminator: (outputs [n, num_outputs], aux)."""
  if discriminator.kernels:
    features = gan_layers.MinibatchDiscrimination(
        discriminator.kernels, axis_name=discriminator.axis_name)(
            features, mask, train)
  outputs = gan_layers.outputs(discriminator, features, labels, train)
  return outputs, {'features': features}


def _initializer(name):
  if name not in INITIALIZERS:
    raise ValueError(
        f'initializer must be one of {sorted(INITIALIZERS)}, got {name!r}')
  return INITIALIZERS[name]


def _dimension(image_shape):
  """The dimension d of points of image_shape (d,)."""
  if len(image_shape) != 1:
    raise ValueError(
        'the toy networks are for points, image_shape (d,), got '
        f"{tuple(image_shape)}; for images use generator 'mlp_generator' and "
        "discriminator 'mlp_discriminator'")
  return image_shape[0]
