"""Penalties on the discriminator's gradient at its input, added to its loss.

    penalty = registry.build(PENALTIES, {'name': 'gradient', 'weight': 10.0})
    values = penalty(score, passes, keys)       # [n], one per real example

`score` maps images [n, ...] to s(x), float32 [n], with the parameters that are being
updated, without noise and dropout. s(x) is the score of D's outputs for x that the
objective names (`GanObjective.score`): the output of a D with one output, the log-odds
of real with a fake class. A gradient of the outputs themselves would be one of numbers
that the losses do not read, such as a constant added to all logits of a softmax. The
trainer adds the mean of `values` to D's loss.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from nat_jax.losses.gan_terms import check_weight
from nat_jax.task import Pass

# (images -> scores [n], passes, keys [n], one per real example) -> [n]
Penalty = Callable[
    [Callable[[jax.Array], jax.Array], Mapping[str, Pass], jax.Array], jax.Array]


def gradient(weight: float = 10.0, target: float = 1.0) -> Penalty:
  """The gradient penalty of WGAN-GP: weight (|grad s(x)| - target)^2.

  x = a real + (1 - a) fake with a ~ U(0, 1); s(x) is D's score. It needs as many
  generated as real examples, and a discriminator without BatchNorm, which would mix the
  gradients of the examples.

  Raises:
    ValueError: a weight that is negative or not finite.

  Reference: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.
  """
  check_weight('weight', weight)

  def penalty(score, passes, keys):
    real, fake = passes['real'].images, passes['fake'].images
    share = jax.vmap(jax.random.uniform)(keys).reshape(-1, *[1] * (real.ndim - 1))
    square = _square_norm(score, share * real + (1 - share) * fake)
    return weight * jnp.square(jnp.sqrt(square + 1e-12) - target)

  return penalty


def r1(weight: float = 10.0) -> Penalty:
  """The R1 penalty: weight / 2 |grad s(x)|^2 at real x; s(x) is D's score.

  It needs a discriminator without BatchNorm, which would mix the gradients of the
  examples.

  Raises:
    ValueError: a weight that is negative or not finite.

  Reference: Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually
  Converge?", ICML 2018.
  """
  check_weight('weight', weight)

  def penalty(score, passes, keys):
    del keys
    return weight / 2 * _square_norm(score, passes['real'].images)

  return penalty


def _square_norm(score, images):
  """|grad s(x)|^2 for each image x, [n]."""
  # The sum over examples: the score of one does not depend on the others.
  slopes = jax.grad(lambda x: score(x).sum())(images)
  return jnp.square(slopes.reshape(len(slopes), -1)).sum(1)


PENALTIES = {'gradient': gradient, 'r1': r1}
