"""Networks with another output layer, or with a further one, on their features.

    model = WithRotation(SmallConv(num_outputs=6))      # aux['rotation'] [n, 4]
    model = Orthogonal(SmallConv(num_outputs=6), num_outputs=6, scale=20.0)

They share the scope of the network that they hold: its variables keep their names, as
pretrained weights and learning rates by stage need.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nat_jax.models import layers


class WithRotation(nn.Module):
  """A network with a second output layer 'rotation', of four rotations.

  Attributes:
    model: the network.
    axis_name: pmap axis that shares BatchNorm statistics.
  """

  model: nn.Module
  axis_name: str | None = None

  def setup(self):
    self.network = _inside(self)
    nn.share_scope(self, self.network)

  @nn.compact
  def __call__(
      self, images: jax.Array, train: bool, mask: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The outputs of the network; its aux with 'rotation', logits [n, 4]."""
    logits, aux = self.network(images, train, mask)
    rotation = layers.head(4, name='rotation')(aux['features'])
    return logits, {**aux, 'rotation': rotation}


class Orthogonal(nn.Module):
  """A network whose output layer is orthogonal, frozen and of bounded logits.

  o = scale |z W|,  z = f / ||f||,  W'W = 1,

  where f are the features of the network, so that 0 <= o <= scale. W [d, num_outputs]
  is drawn when the network is initialised and stays: it is a batch statistic, which no
  optimiser and no weight decay changes. The network's own output layer has no effect.

  Attributes:
    model: the network, with num_outputs or more features.
    num_outputs: width of the logits.
    scale: with 1 the largest probability of ten classes would be e / (e + 9) = .23.
    axis_name: pmap axis that shares BatchNorm statistics.

  Reference: Zaeemzadeh et al., "Out-of-Distribution Detection Using Union of
  1-Dimensional Subspaces", CVPR 2021, without a scale.
  """

  model: nn.Module
  num_outputs: int
  scale: float
  axis_name: str | None = None

  def setup(self):
    self.network = _inside(self)
    nn.share_scope(self, self.network)

  @nn.compact
  def __call__(
      self, images: jax.Array, train: bool, mask: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The logits [n, num_outputs], and the network's aux with 'embedding', z [n, d].

    Raises:
      ValueError: fewer features than outputs, which cannot be orthogonal then.
    """
    _, aux = self.network(images, train, mask)
    features = aux['features']
    num = features.shape[-1]
    if num < self.num_outputs:
      raise ValueError(
          f'an orthogonal output layer of {self.num_outputs} outputs needs a network '
          f'with as many features or more, got {num}')
    self.variable('batch_stats', 'orthogonal', lambda: nn.initializers.orthogonal()(
        self.make_rng('params'), (num, self.num_outputs)))
    norm = jnp.sqrt(jnp.square(features).sum(-1, keepdims=True) + 1e-12)
    embedding = features / norm
    return self.classify(embedding), {**aux, 'embedding': embedding}

  def classify(self, embedding: jax.Array) -> jax.Array:
    """Embeddings z [n, d] to logits [n, num_outputs]."""
    kernel = self.get_variable('batch_stats', 'orthogonal')
    return self.scale * jnp.abs(embedding @ kernel)


def _inside(outer: Any) -> nn.Module:
  """The network that a module of this file holds, as a part of it."""
  return outer.model.clone(axis_name=outer.axis_name, parent=None, name=None)
