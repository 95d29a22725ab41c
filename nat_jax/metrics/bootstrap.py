"""95% bootstrap intervals: how far a figure would move with other test images.

    low, high = proportion_interval(count=72, n=1000)
    low, high = auroc_interval(positive_scores, negative_scores)

They speak of the choice of test images only. The spread between training seeds is
another matter, and usually the larger one.
"""

import numpy as np
from numpy.typing import ArrayLike

from nat_jax.metrics import detection

LEVEL = 0.95


def proportion_interval(
    count: int, n: int, num_resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
  """Interval of a share: NCR, PAR, accuracy.

  n images drawn with replacement hold Binomial(n, count / n) of those counted, so
  the draws need no images. A share of 0 or 1 has an interval of no width: it holds
  none of what would change it (3 / n is a fair bound there).

  Args:
    count: images that count.
    n: images in all.
    num_resamples: draws.
    seed: of the draws; equal seeds give equal intervals.

  Returns:
    (low, high), percentiles 2.5 and 97.5.

  Raises:
    ValueError: n < 1, or a count outside 0..n.

  Reference: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
  """
  if n < 1 or not 0 <= count <= n:
    raise ValueError(f'expected 0 <= count <= n and n >= 1, got {count} of {n}')
  rng = np.random.default_rng(seed)
  return _percentiles(rng.binomial(n, count / n, size=num_resamples) / n)


def auroc_interval(
    positive_scores: ArrayLike,
    negative_scores: ArrayLike,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
  """Interval of the AUROC, positives and negatives resampled apart.

  Scores are sorted once; a draw is then two histograms over their ranks, and
  AUROC = sum_r pos_r (sum_{s < r} neg_s + neg_r / 2) / (p n).

  Args:
    positive_scores: [p], higher means more like a positive.
    negative_scores: [n].
    num_resamples: draws.
    seed: of the draws.

  Returns:
    (low, high), percentiles 2.5 and 97.5.

  Raises:
    ValueError: an empty group, or NaN.
  """
  pos, neg, num_ranks = detection.joint_ranks(positive_scores, negative_scores)
  pos, neg = np.sort(pos), np.sort(neg)  # histograms of sorted ranks are faster
  rng = np.random.default_rng(seed)

  def histogram(ranks: np.ndarray) -> np.ndarray:
    drawn = rng.integers(ranks.size, size=ranks.size, dtype=np.int32)
    return np.bincount(ranks[drawn], minlength=num_ranks)

  draws = np.empty(num_resamples)
  for i in range(num_resamples):
    pos_count, neg_count = histogram(pos), histogram(neg)
    twice_beaten = 2 * np.cumsum(neg_count) - neg_count
    draws[i] = (pos_count * twice_beaten).sum()
  return _percentiles(draws / (2 * pos.size * neg.size))


def _percentiles(draws: np.ndarray) -> tuple[float, float]:
  low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return float(low), float(high)
