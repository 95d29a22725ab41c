"""The objectives of classifiers, which the config key `loss` selects by name.

    objective = registry.build(OBJECTIVES, {'name': 'nat'}, num_classes=10)
    loss = objective.per_example(logits, labels)             # [b]
    coeff = example_weights(labels, weight, objective)       # [b]
    batch_loss = jnp.sum(coeff * loss)

An objective is a loss per example, and the rule by which positives (label 0..c-1) and
negatives (label -1) are weighted. To add one, write a function that returns an
`Objective` and give it a line in `OBJECTIVES` of nat_jax/losses/__init__.py.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from nat_jax.losses import negative_aware
from nat_jax.task import GLOBAL, Axis

_EPS = 1e-3  # of the norm of logits, which are about 1 long when training begins


class Objective(NamedTuple):
  """A loss per example and its weighting.

  Attributes:
    per_example: (logits [b, num_outputs], labels [b]) -> [b] float32.
    num_outputs: the width of the logits; one more than the classes where there is a
      background class.
    negative_weight: None: all examples share one mean over the batch. A number
      lambda: mean over the positives + lambda * mean over the negatives.
    uses_negatives: False where negatives do not enter the loss; none are loaded then.
  """

  per_example: Callable[[jax.Array, jax.Array], jax.Array]
  num_outputs: int
  negative_weight: float | None
  uses_negatives: bool


def cross_entropy_objective(num_classes: int) -> Objective:
  """The plain classifier: the mean cross-entropy of the positives.

  J = 1/P sum_pos CE. Negatives in the batch enter neither the sum nor the number P.

  Raises:
    ValueError: fewer than two classes.
  """
  _check_num_classes(num_classes)
  return Objective(negative_aware.cross_entropy, num_classes, 0.0, False)


def nat(num_classes: int, direction: str = 'uniform_first') -> Objective:
  """Negative-Aware Training: one mean over positives and negatives together.

  J = 1/(P + N) [sum_pos CE + sum_neg KL(u || p)].

  Args:
    num_classes: the number of classes c of the positives.
    direction: 'uniform_first' for KL(u || p), 'uniform_second' for KL(p || u).

  Raises:
    ValueError: fewer than two classes, or an unknown direction.

  Reference: Li, Jia, Jing, ECAI 2020, equations 1-4.
  """
  _check_num_classes(num_classes)
  negative_aware.check_direction(direction)
  per_example = functools.partial(negative_aware.nat_loss, direction=direction)
  return Objective(per_example, num_classes, None, True)


def outlier_exposure(num_classes: int, weight: float = 0.5) -> Objective:
  """Outlier Exposure: the mean over positives plus `weight` times that over negatives.

  J = 1/P sum_pos CE + weight/N sum_neg [logsumexp(o) - mean(o)].

  The bracket equals KL(u || p) + log c. The KL is minimised here: its gradient is the
  same, and the loss is 0 rather than weight * log c at the optimum. NAT is Outlier
  Exposure with weight = N/P and the learning rate multiplied by P/(P + N).

  Args:
    num_classes: the number of classes c of the positives.
    weight: lambda; 0.5 in the reference, whatever P and N are.

  Raises:
    ValueError: fewer than two classes, or a negative weight.

  Reference: Hendrycks, Mazeika, Dietterich, "Deep Anomaly Detection with Outlier
  Exposure", ICLR 2019.
  """
  _check_num_classes(num_classes)
  _check_weight(weight)
  return Objective(negative_aware.nat_loss, num_classes, float(weight), weight > 0)


def energy(
    num_classes: int, weight: float = 0.1, m_in: float = -23.0, m_out: float = -5.0
) -> Objective:
  """Energy-regularised Outlier Exposure: squared hinge losses on the energy.

  J = 1/P sum_pos [CE + weight max(0, E - m_in)^2]
      + weight/N sum_neg max(0, m_out - E)^2,   E = -logsumexp(o).

  Negatives are pushed to a high energy (small logits) and positives to a low one; the
  prediction on negatives need not be uniform. Negatives are detected by the energy.

  Args:
    num_classes: the number of classes c of the positives.
    weight: of both hinge losses.
    m_in: positives with an energy above it are penalised. The defaults of both margins
      are the reference's for fine-tuning on CIFAR-10; they depend on the scale of the
      logits.
    m_out: negatives with an energy below it are penalised.

  Raises:
    ValueError: fewer than two classes, a negative weight, or m_in above m_out.

  Reference: Liu, Wang, Owens, Li, "Energy-based Out-of-distribution Detection",
  NeurIPS 2020, and the scripts of its repository.
  """
  _check_num_classes(num_classes)
  _check_weight(weight)
  if not m_in <= m_out:
    raise ValueError(
        'm_in must not exceed m_out, since positives have the lower energy; got '
        f'm_in={m_in}, m_out={m_out}'
    )

  def per_example(logits: jax.Array, labels: jax.Array) -> jax.Array:
    e = -jax.nn.logsumexp(logits.astype(jnp.float32), axis=1)
    pos = weight * jnp.square(jnp.maximum(e - m_in, 0.0))
    neg = jnp.square(jnp.maximum(m_out - e, 0.0))
    return negative_aware.cross_entropy(logits, labels) + jnp.where(
        labels >= 0, pos, neg
    )

  return Objective(per_example, num_classes, float(weight), weight > 0)


def background(num_classes: int) -> Objective:
  """A background class for negatives: the paper's comparison method.

  J = 1/(P + N) sum CE over c + 1 outputs; negatives have the label c.

  Raises:
    ValueError: fewer than two classes.
  """
  _check_num_classes(num_classes)

  def per_example(logits: jax.Array, labels: jax.Array) -> jax.Array:
    labels = jnp.where(labels >= 0, labels, num_classes)
    return negative_aware.cross_entropy(logits, labels)

  return Objective(per_example, num_classes + 1, None, True)


def logit_norm(objective: Objective, temperature: float) -> Objective:
  """LogitNorm: an objective of logits that are divided by their norm.

  l(o / (tau sqrt(||o||^2 + eps^2)), label), eps = 1e-3.

  The loss depends on the direction of the logits only, so that it cannot be decreased
  by longer ones. Only the loss is changed: predictions, scores and training metrics are
  of the plain logits, as in the reference. eps bounds the gradient, also at o = 0.

  Args:
    objective: whose loss per example is l, with or without negatives.
    temperature: tau; 0.04 in the reference on CIFAR-10.

  Raises:
    ValueError: a temperature that is not above 0.

  Reference: Wei, Xie, Cheng, Feng, An, Li, "Mitigating Neural Network Overconfidence
  with Logit Normalization", ICML 2022.
  """
  if not temperature > 0:
    raise ValueError(f'logit_norm must be a temperature above 0, got {temperature}')

  def per_example(logits: jax.Array, labels: jax.Array) -> jax.Array:
    logits = logits.astype(jnp.float32)
    norm = jnp.sqrt(jnp.square(logits).sum(1, keepdims=True) + _EPS**2)
    return objective.per_example(logits / (temperature * norm), labels)

  return objective._replace(per_example=per_example)


def example_weights(
    labels: jax.Array,
    weight: jax.Array,
    objective: Objective,
    axis: Axis = GLOBAL,
) -> jax.Array:
  """The coefficients of the losses per example in the batch loss J.

  J = sum_i coeff_i * per_example_i, with
    coeff_i = weight_i / number of filled slots               one mean (NAT)
    coeff_i = weight_i / number of positives                  positive, with lambda
    coeff_i = lambda * weight_i / number of negatives         negative, with lambda
  The numbers are counted in the global batch; a slot is filled if its weight is above
  0. A weight multiplies the loss of its example and does not change these numbers, so
  that dJ / dweight_i is example i's own share of the loss. Where there are no positives
  (or no negatives) their coefficients are 0, never NaN.

  Args:
    labels: [b] integers, -1 for a negative.
    weight: [b], 0 for an empty slot.
    objective: its `negative_weight` chooses among the formulas above.
    axis: the devices that share the batch. The losses and gradients of their shards
      are to be summed, not averaged.

  Returns:
    [b] float32.
  """
  chex.assert_rank([labels, weight], 1)
  chex.assert_equal_shape([labels, weight])
  weight = weight.astype(jnp.float32)
  if objective.negative_weight is None:
    return _share(weight, axis)
  pos = jnp.where(labels >= 0, weight, 0.0)
  neg = weight - pos
  return _share(pos, axis) + objective.negative_weight * _share(neg, axis)


def _share(weight: jax.Array, axis: Axis) -> jax.Array:
  """`weight` divided by the number of filled slots of the global batch."""
  count = axis.sum((weight > 0).astype(jnp.float32))
  return weight / jnp.where(count > 0, count, 1.0)


def _check_num_classes(num_classes: int) -> None:
  if num_classes < 2:
    raise ValueError(f'a classifier needs at least 2 classes, got {num_classes}')


def _check_weight(weight: float) -> None:
  if not weight >= 0:
    raise ValueError(f'the weight of the negatives must be 0 or more, got {weight}')
