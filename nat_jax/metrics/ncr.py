"""Rates at a fixed confidence threshold: NCR of negatives, PAR of positives; accuracy.

    >>> negative_confidence_rate([0.3, 0.5, 0.7, 0.95])
    {'0.4': 0.75, '0.6': 0.5, '0.8': 0.25, '0.9': 0.25}
    >>> positive_acceptance_rate([0.99, 0.85], thresholds=[0.9])
    {'0.9': 0.5}
    >>> informative(THRESHOLDS, num_classes=2)
    (0.6, 0.8, 0.9)

NCR alone is not enough: it is 0 for a network that is unconfident on all inputs, which
only PAR and the accuracy show.
"""

from collections.abc import Sequence

import chex
import numpy as np
from numpy.typing import ArrayLike

from nat_jax.metrics import checks

# The thresholds of all tables of the NAT paper.
THRESHOLDS = (0.4, 0.6, 0.8, 0.9)


def informative(
    thresholds: Sequence[float], num_classes: int, background: bool = False
) -> tuple[float, ...]:
  """The thresholds t at which NCR_t and PAR_t can differ between networks.

  The largest of K probabilities that sum to 1 is at least 1 / K: at t < 1 / K both
  rates are 1 for every network, and at t = 1 / K for all but exactly uniform
  predictions. With a background output the K class probabilities sum to less than 1,
  and every t is informative.

  Args:
    thresholds: the values of t.
    num_classes: K, the number of classes of the positives.
    background: whether there is a background output besides the K classes.

  Returns:
    The thresholds above 1 / K, in the order given; all of them with `background`.
  """
  return tuple(t for t in thresholds if background or t * num_classes > 1)


def negative_confidence_rate(
    max_prob: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float]:
  """NCR_t, the negative confidence rate: #{negatives with max_prob > t} / n.

  Lower is better.

  Args:
    max_prob: [n] maximum softmax probabilities of negatives. They are compared in their
      own dtype, so that a float32 0.4 is not above 0.4.
    thresholds: the values of t.

  Returns:
    {str(t): NCR_t}.

  Raises:
    ValueError: no samples, NaN, or values outside [0, 1].

  Reference: Li, Jia, Jing, "Negative-Aware Training", ECAI 2020, section 3.
  """
  max_prob = checks.samples('max_prob', max_prob)
  # The tolerance is for softmax in float32, which may round to just above 1.
  if max_prob.min() < 0 or max_prob.max() > 1 + 1e-6:
    raise ValueError(
        'max_prob: expected probabilities between 0 and 1, got '
        f'{max_prob.min():g}..{max_prob.max():g}; are these logits or scores?'
    )
  return {str(t): float(np.mean(max_prob > t)) for t in thresholds}


def positive_acceptance_rate(
    max_prob: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float]:
  """PAR_t, the positive acceptance rate: #{positives with max_prob > t} / n.

  Higher is better. It is the share of positives that are accepted at the threshold at
  which the share NCR_t of negatives is.

  Args:
    max_prob: [n] maximum softmax probabilities of positives.
    thresholds: the values of t.

  Returns:
    {str(t): PAR_t}.

  Raises:
    ValueError: no samples, NaN, or values outside [0, 1].
  """
  return negative_confidence_rate(max_prob, thresholds)


def accuracy(prediction: ArrayLike, label: ArrayLike) -> float:
  """The accuracy: the share of positives whose prediction equals their label.

  Args:
    prediction: [n] integers; a background prediction counts as an error.
    label: [n] integers in 0..c-1.

  Returns:
    The accuracy, between 0 and 1.

  Raises:
    ValueError: no samples, or a negative (label -1), which has no correct class.
  """
  prediction = checks.samples('prediction', prediction)
  label = checks.samples('label', label)
  chex.assert_equal_shape([prediction, label])
  if label.min() < 0:
    raise ValueError('label: expected classes 0..c-1, got a negative (label -1)')
  return float(np.mean(prediction == label))
