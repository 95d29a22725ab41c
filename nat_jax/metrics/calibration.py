"""Calibration: whether a confidence of 0.8 means an accuracy of 0.8.

    >>> expected_calibration_error([0.8, 0.8, 0.8, 0.8], [True, True, True, False])
    0.050000000000000044
    >>> round(fit_temperature([[4.0, 0.0]] * 4, [0, 0, 0, 1]), 3)  # log 3 = 4 / T
    3.641
"""

import math

import chex
import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from nat_jax.metrics import checks

TEMPERATURES = (0.01, 100.0)  # between which a temperature is fitted


def expected_calibration_error(
    max_prob: ArrayLike, correct: ArrayLike, num_bins: int = 15
) -> float:
  """The expected calibration error.

  ECE = sum_b n_b / n |accuracy in bin b - mean confidence in bin b|.
  Bins have equal width, ((b-1)/num_bins, b/num_bins], and all of them count. (The loop
  in Outlier Exposure's tools stops one bin short and leaves out the most confident bin,
  which holds most predictions.)

  Args:
    max_prob: [n] maximum probabilities.
    correct: [n] whether each prediction is right, booleans or 0 and 1.
    num_bins: number of bins; the ECE depends on it. 15 is usual.

  Returns:
    The ECE, between 0 and 1.

  Raises:
    ValueError: no samples, NaN, or fewer than one bin.

  Reference: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural
  Networks", ICML 2017.
  """
  max_prob = checks.samples('max_prob', max_prob).astype(np.float64)
  correct = checks.samples('correct', correct).astype(np.float64)
  chex.assert_equal_shape([max_prob, correct])
  if num_bins < 1:
    raise ValueError(f'num_bins: expected 1 or more, got {num_bins}')
  index = np.ceil(max_prob * num_bins).astype(int) - 1
  index = index.clip(0, num_bins - 1)
  surplus = np.bincount(index, weights=correct - max_prob, minlength=num_bins)
  return float(np.abs(surplus).sum() / max_prob.size)


def negative_log_likelihood(
    logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0
) -> float:
  """The mean of -log softmax(o / T)[label].

  Args:
    logits: [n, k].
    labels: [n] integers in 0..k-1.
    temperature: T.
  """
  logits = np.asarray(logits, np.float64) / temperature
  labels = np.asarray(labels)
  chex.assert_rank([logits, labels], [2, 1])
  of_label = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
  return float(np.mean(special.logsumexp(logits, axis=1) - of_label))


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
  """The temperature T that minimises the mean of -log softmax(o / T)[label].

  T is positive, so that it does not change the order of the classes. The loss is convex
  in 1 / T and hence has one minimum in log T, which is searched between .01 and 100.
  Where each label has the largest logit the loss falls as T goes to 0, and no finite T
  minimises it; T is then 1.

  Args:
    logits: [n, k] of images that were not trained on.
    labels: [n] integers in 0..k-1.

  Raises:
    ValueError: no samples, or logits that are not finite.

  Reference: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural
  Networks", ICML 2017.
  """
  from scipy import optimize  # takes a while to import

  logits = np.asarray(logits, np.float64)
  labels = checks.samples('labels', labels)
  if not np.isfinite(logits).all():
    raise ValueError(
        'expected finite logits, got NaN or infinity; did the training diverge?')
  if (logits.argmax(axis=1) == labels).all():
    return 1.0
  low, high = map(math.log, TEMPERATURES)
  found = optimize.minimize_scalar(
      lambda x: negative_log_likelihood(logits, labels, math.exp(x)),
      bounds=(low, high), method='bounded', options={'xatol': 1e-6})
  return math.exp(found.x)
