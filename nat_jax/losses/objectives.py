"""What a classifier is trained to minimise: the thing a config selects.

    objective = registry.build(OBJECTIVES, {'name': 'nat'}, num_classes=10)
    loss = objective.per_example(logits, labels)             # [b]
    coeff = example_weights(labels, weight, objective)       # [b]
    batch_loss = jnp.sum(coeff * loss)

An objective is a loss per example, and the rule by which positives (label 0..c-1)
and negatives (label -1) share the batch. A new one is a function that returns an
`Objective`, and its line in the table.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from nat_jax.losses import negative_aware
from nat_jax.task import GLOBAL, Axis


class Objective(NamedTuple):
  """A loss per example and its weighting.

  Attributes:
    per_example: (logits [b, num_outputs], labels [b]) -> [b] float32.
    num_outputs: the width of the logits; one more than the classes where there is a
      background class.
    negative_weight: None: all examples share one mean over the batch. A number
      lambda: mean over the positives + lambda * mean over the negatives.
    uses_negatives: False where the negatives of a batch have no say in the loss.
  """

  per_example: Callable[[jax.Array, jax.Array], jax.Array]
  num_outputs: int
  negative_weight: float | None
  uses_negatives: bool


def cross_entropy_objective(num_classes: int) -> Objective:
  """The plain classifier: mean cross-entropy of the positives.

  J = 1/P sum_pos CE. Negatives in the batch count for nothing, not even in the mean.

  Raises:
    ValueError: fewer than two classes.
  """
  _check_num_classes(num_classes)
  return Objective(negative_aware.cross_entropy, num_classes, 0.0, False)


def nat(num_classes: int, direction: str = 'uniform_first') -> Objective:
  """Negative-Aware Training: one mean over positives and negatives.

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
  """Outlier Exposure: a mean of each group, the negatives' times `weight`.

  J = 1/P sum_pos CE + weight/N sum_neg [logsumexp(o) - mean(o)].

  The bracket is KL(u || p) + log c: we minimise the KL, which has the same gradient,
  and read 0 rather than weight * log c at the optimum. NAT is this objective with
  weight = N/P and the learning rate times P/(P + N).

  Args:
    num_classes: the number of classes c of the positives.
    weight: lambda; 0.5 in the reference, whatever the sizes of the groups.

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
  """Energy-regularised Outlier Exposure: hinges on the size of the logits.

  J = 1/P sum_pos [CE + weight max(0, E - m_in)^2]
      + weight/N sum_neg max(0, m_out - E)^2,   E = -logsumexp(o).

  Negatives get a high energy (small logits), positives a low one; the prediction on
  negatives is not made flat. The energy is the score to detect them by.

  Args:
    num_classes: the number of classes c of the positives.
    weight: of both hinges.
    m_in: the energy that positives are to stay below. Both margins are the
      reference's for fine-tuning on CIFAR-10, and belong to the scale of the logits.
    m_out: the energy that negatives are to stay above.

  Raises:
    ValueError: fewer than two classes, a negative weight, or margins in the wrong
      order.

  Reference: Liu, Wang, Owens, Li, "Energy-based Out-of-distribution Detection",
  NeurIPS 2020, and the scripts of its repository.
  """
  _check_num_classes(num_classes)
  _check_weight(weight)
  if not m_in <= m_out:
    raise ValueError(
        f'm_in must not exceed m_out: positives have the lower energy; got m_in={m_in},'
        f' m_out={m_out}'
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
  """Negatives as one more class: the baseline that the paper compares NAT with.

  J = 1/(P + N) sum CE over c + 1 outputs; the negatives' label is c.

  Raises:
    ValueError: fewer than two classes.
  """
  _check_num_classes(num_classes)

  def per_example(logits: jax.Array, labels: jax.Array) -> jax.Array:
    labels = jnp.where(labels >= 0, labels, num_classes)
    return negative_aware.cross_entropy(logits, labels)

  return Objective(per_example, num_classes + 1, None, True)


def example_weights(
    labels: jax.Array,
    weight: jax.Array,
    objective: Objective,
    axis: Axis = GLOBAL,
) -> jax.Array:
  """The coefficients with which the losses per example make the batch loss.

  J = sum_i coeff_i * per_example_i, with
    coeff_i = weight_i / number of filled slots               one mean (NAT)
    coeff_i = weight_i / number of positives                  positive, with lambda
    coeff_i = lambda * weight_i / number of negatives         negative, with lambda
  The numbers are those of the global batch; a slot is filled if its weight is above 0.
  A weight multiplies the loss of its example and changes no number: the derivative with
  respect to it is the example's own part of the batch loss. A group without examples
  gives coefficients of 0, never NaN.

  Args:
    labels: [b] integers, -1 for a negative.
    weight: [b], 0 for an empty slot.
    objective: whose weighting is meant.
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
  count = axis.sum((weight > 0).astype(jnp.float32))
  return weight / jnp.where(count > 0, count, 1.0)


def _check_num_classes(num_classes: int) -> None:
  if num_classes < 2:
    raise ValueError(f'a classifier needs at least 2 classes, got {num_classes}')


def _check_weight(weight: float) -> None:
  if not weight >= 0:
    raise ValueError(f'the weight of the negatives must be 0 or more, got {weight}')
