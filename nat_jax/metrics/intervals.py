"""95 % intervals: how far a figure would move with other test images.

    low, high = proportion_interval(count=72, n=1000)
    low, high = auroc_interval(positive_scores, negative_scores)

They speak of the choice of test images only. The spread between training seeds is
another matter, and usually the larger one.
"""

import numpy as np
from numpy.typing import ArrayLike

from nat_jax.metrics import detection

LEVEL = 0.95


def proportion_interval(count: int, n: int) -> tuple[float, float]:
  """Wilson's score interval of a share: NCR, PAR, accuracy.

  All p with |count / n - p| <= z sqrt(p (1 - p) / n), z = 1.96. It has a width for a
  share of 0 or 1 too: none of n gives 0 to 3.84 / (n + 3.84).

  Averaged over true shares it covers 95 %; for a single one it may cover more or less,
  and least, 84 %, near p = 0.18 / n (tests/bench/interval_coverage.py).

  Args:
    count: images that count.
    n: images in all.

  Returns:
    (low, high).

  Raises:
    ValueError: n < 1, or a count outside 0..n.

  Reference: Wilson, "Probable Inference, the Law of Succession, and Statistical
  Inference", 1927; Brown, Cai, DasGupta, "Interval Estimation for a Binomial
  Proportion", 2001.
  """
  from scipy import stats  # half a second of imports

  if n < 1 or not 0 <= count <= n:
    raise ValueError(f'expected 0 <= count <= n and n >= 1, got {count} of {n}')
  found = stats.binomtest(count, n).proportion_ci(LEVEL, method='wilson')
  return float(found.low), float(found.high)


def auroc_interval(
    positive_scores: ArrayLike,
    negative_scores: ArrayLike,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
  """Bootstrap interval of the AUROC, positives and negatives resampled apart.

  Scores are sorted once; a draw is then two histograms over their ranks, and
  AUROC = sum_r pos_r (sum_{s < r} neg_s + neg_r / 2) / (p n). Groups that are fully
  apart have an interval of no width, (1, 1) or (0, 0): no draw of theirs overlaps,
  though other images might.

  Args:
    positive_scores: [p], higher means more like a positive.
    negative_scores: [n].
    num_resamples: draws.
    seed: of the draws.

  Returns:
    (low, high), percentiles 2.5 and 97.5.

  Raises:
    ValueError: an empty group, or NaN.

  Reference: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
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
  low, high = np.quantile(
      draws / (2 * pos.size * neg.size), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return float(low), float(high)
