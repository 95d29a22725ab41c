"""Does a confidence of 0.8 mean right four times in five?

    expected_calibration_error(max_prob, prediction == label)
"""

import chex
import numpy as np
from numpy.typing import ArrayLike

from nat_jax.metrics import checks


def expected_calibration_error(
    max_prob: ArrayLike, correct: ArrayLike, num_bins: int = 15
) -> float:
  """ECE = sum_b n_b / n |accuracy in b - mean confidence in b|.

  Bins are of equal width, ((b-1)/num_bins, b/num_bins], all of them counted. (In
  Outlier Exposure's tools the loop stops one short, so that the most confident bin,
  where a network is wrong if it is, never counts.)

  Args:
    max_prob: [n] probabilities.
    correct: [n] booleans, or 0 and 1.
    num_bins: 15, as usual; the figure depends on it.

  Returns:
    A number between 0 and 1.

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
