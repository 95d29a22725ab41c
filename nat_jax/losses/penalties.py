"""Penalties on the discriminator's gradient at its input, added to its loss.

    penalty = registry.build(PENALTIES, {'name': 'gradient', 'weight': 10.0})
    values = penalty(apply, passes, keys)       # [n], one per real example

`apply` maps images to the discriminator's outputs with the parameters that are being
updated, without noise and dropout. The trainer adds the mean of `values` to D's loss.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from nat_jax.losses.gan_terms import check_weight
from nat_jax.task import Pass

# (images -> outputs, passes, keys [n], one per real example) -> [n]
Penalty = Callable[
    [Callable[[jax.Array], jax.Array], Mapping[str, Pass], jax.Array], jax.Array]


def gradient(weight: float = 10.0, target: float = 1.0) -> Penalty:
  """The gradient penalty of WGAN-GP: weight (|grad D(x)| - target)^2.

  x = a real + (1 - a) fake with a ~ U(0, 1); D(x) is the sum of the outputs. It needs
  as many generated as real examples, and a discriminator without BatchNorm, which would
  mix the gradients of the examples.

  Raises:
    ValueError: a weight that is negative or not finite.

  Reference: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.
  """
  check_weight('weight', weight)

  def penalty(apply, passes, keys):
    real, fake = passes['real'].images, passes['fake'].images
    share = jax.vmap(jax.random.uniform)(keys).reshape(-1, *[1] * (real.ndim - 1))
    square = _square_norm(apply, share * real + (1 - share) * fake)
    return weight * jnp.square(jnp.sqrt(square + 1e-12) - target)

  return penalty


def r1(weight: float = 10.0) -> Penalty:
  """The R1 penalty: weight / 2 |grad D(x)|^2 at real x.

  D(x) is the sum of the outputs. It needs a discriminator without BatchNorm, which
  would mix the gradients of the examples.

  Raises:
    ValueError: a weight that is negative or not finite.

  Reference: Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually
  Converge?", ICML 2018.
  """
  check_weight('weight', weight)

  def penalty(apply, passes, keys):
    del keys
    return weight / 2 * _square_norm(apply, passes['real'].images)

  return penalty


def _square_norm(apply, images):
  """|grad_x (sum of the outputs)|^2 for each image, [n]."""
  slopes = jax.grad(lambda x: apply(x).astype(jnp.float32).sum())(images)
  return jnp.square(slopes.reshape(len(slopes), -1)).sum(1)


PENALTIES = {'gradient': gradient, 'r1': r1}
