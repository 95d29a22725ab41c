"""Shares at a fixed confidence: NCR of negatives, PAR of positives, and accuracy.

    negative_confidence_rate(max_prob_of_negatives)     # {'0.4': 0.072, ...}
    positive_acceptance_rate(max_prob_of_positives)     # {'0.4': 0.998, ...}
    informative(THRESHOLDS, num_classes=2)              # (0.6, 0.8, 0.9)

Read the two side by side: NCR falls to 0 for a network that is unsure of everything,
and only PAR and the accuracy show it.
"""

from collections.abc import Sequence

import chex
import numpy as np
from numpy.typing import ArrayLike

from nat_jax.metrics import checks

# The paper's, in all of its tables.
THRESHOLDS = (0.4, 0.6, 0.8, 0.9)


def informative(
    thresholds: Sequence[float], num_classes: int, background: bool = False
) -> tuple[float, ...]:
  """The thresholds at which NCR_t and PAR_t can differ from network to network.

  Of K probabilities that sum to 1 the largest is at least 1 / K: at t < 1 / K both
  rates are 1 for every network, at t = 1 / K for all but exactly equal predictions.
  With a background output the K leave a rest, and any t says something.

  Args:
    thresholds: the values of t.
    num_classes: K, the classes of the positives.
    background: whether there are more outputs than classes.

  Returns:
    The thresholds above 1 / K, in their order; all of them with a background output.
  """
  return tuple(t for t in thresholds if background or t * num_classes > 1)


def negative_confidence_rate(
    max_prob: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float]:
  """NCR_t = #{negatives with max_prob > t} / n, strictly above; lower is better.

  Args:
    max_prob: [n] maximum softmax probabilities of negatives. They are compared in the
      dtype they come in, so that a float32 0.4 is not above 0.4.
    thresholds: the values of t.

  Returns:
    From `str(t)` to the share.

  Raises:
    ValueError: no samples, NaN, or numbers that are no probabilities.

  Reference: Li, Jia, Jing, "Negative-Aware Training", ECAI 2020, section 3.
  """
  max_prob = checks.samples('max_prob', max_prob)
  # Some room above 1: softmax in float32 may round to just over it.
  if max_prob.min() < 0 or max_prob.max() > 1 + 1e-6:
    raise ValueError(
        'max_prob: expected probabilities between 0 and 1, got '
        f'{max_prob.min():g}..{max_prob.max():g}; are these logits or scores?'
    )
  return {str(t): float(np.mean(max_prob > t)) for t in thresholds}


def positive_acceptance_rate(
    max_prob: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float]:
  """PAR_t = #{positives with max_prob > t} / n; the higher the better.

  The same count as `negative_confidence_rate`, of the positive test images: the share
  that would be accepted at the threshold at which NCR_t is let through.
  """
  return negative_confidence_rate(max_prob, thresholds)


def accuracy(prediction: ArrayLike, label: ArrayLike) -> float:
  """The share of positives whose prediction is their label.

  Args:
    prediction: [n] integers; a background prediction is a mistake like any other.
    label: [n] integers in 0..c-1.

  Returns:
    The share.

  Raises:
    ValueError: no samples, or a negative (label -1), which has no right answer.
  """
  prediction = checks.samples('prediction', prediction)
  label = checks.samples('label', label)
  chex.assert_equal_shape([prediction, label])
  if label.min() < 0:
    raise ValueError('label: expected classes 0..c-1, got a negative (label -1)')
  return float(np.mean(prediction == label))
