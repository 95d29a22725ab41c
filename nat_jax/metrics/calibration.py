"""Calibration: whether a confidence of 0.8 means an accuracy of 0.8.

    >>> expected_calibration_error([0.8, 0.8, 0.8, 0.8], [True, True, True, False])
    0.050000000000000044
"""

import chex
import numpy as np
from numpy.typing import ArrayLike

from nat_jax.metrics import checks


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
