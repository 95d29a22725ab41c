"""95 % confidence intervals over the test images, for one trained network.

    >>> low, high = proportion_interval(count=72, n=1000)
    >>> round(low, 4), round(high, 4)
    (0.0576, 0.0897)
    >>> auroc_interval([0.9, 0.8], [0.2, 0.1])
    (1.0, 1.0)

They cover the choice of test images only. The spread over training seeds is not in
them, and is usually larger.
"""

import numpy as np
from numpy.typing import ArrayLike

from nat_jax.metrics import checks, detection

LEVEL = 0.95


def proportion_interval(count: int, n: int) -> tuple[float, float]:
  """Wilson's score interval of a share, such as NCR, PAR or accuracy.

  All p with |count / n - p| <= z sqrt(p (1 - p) / n), z = 1.96. Its width is above 0
  for shares of 0 and 1 too: 0 of n gives the interval from 0 to 3.84 / (n + 3.84).

  Its coverage is 95 % on average over true shares p. For a single p it may be higher or
  lower, at least 83.6 %, near p = 0.18 / n (tests/bench/interval_coverage.py).

  Args:
    count: number of images for which the property holds.
    n: number of images.

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


def accepted_interval(
    positive_scores: ArrayLike, scores: ArrayLike, recall: float = detection.RECALL
) -> tuple[float, float]:
  """The interval of the share of images that are accepted, such as FPR95.

  The threshold is that which keeps the share `recall` of the positives. It is itself
  estimated, so that Wilson's interval of the share alone would be too narrow. Both
  errors are put together by the method of variance estimates recovery:

      low = p - sqrt((p - l)^2 + (p - p_-)^2),  high = p + sqrt((h - p)^2 + (p_+ - p)^2)

  with the share p, its Wilson interval (l, h), and the shares p_- and p_+ at the
  thresholds that keep as many positives as the ends of Wilson's interval of `recall`.

  Args:
    positive_scores: [p] of the positives of the threshold; higher means more like one.
    scores: [n] of the other images.
    recall: least share of accepted positives.

  Returns:
    (low, high), between 0 and 1.

  Raises:
    ValueError: an empty group, or NaN.

  Reference: Zou, Donner, "Construction of Confidence Limits about Effect Measures",
  Statistics in Medicine 27, 2008; coverage: tests/bench/interval_coverage.py.
  """
  scores = np.sort(checks.samples('scores', scores))
  num_positives = np.size(positive_scores)

  def share(kept: float) -> float:
    threshold = detection.threshold_at_recall(positive_scores, kept)
    return float(1 - np.searchsorted(scores, threshold) / scores.size)

  p = share(recall)
  low, high = proportion_interval(round(p * scores.size), scores.size)
  least, most = proportion_interval(round(recall * num_positives), num_positives)
  return (max(0.0, p - float(np.hypot(p - low, p - share(least)))),
          min(1.0, p + float(np.hypot(high - p, share(most) - p))))


def auroc_interval(
    positive_scores: ArrayLike,
    negative_scores: ArrayLike,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
  """The bootstrap percentile interval of the AUROC.

  Positives and negatives are resampled separately. Scores are ranked once; each
  resample is two histograms of ranks, and
  AUROC = sum_r pos_r (sum_{s < r} neg_s + neg_r / 2) / (p n). Where the two groups are
  fully separated the interval is (1, 1) or (0, 0), of width 0, since no resample of
  them overlaps, though other images might.

  Args:
    positive_scores: [p], higher means more like a positive.
    negative_scores: [n].
    num_resamples: number of resamples.
    seed: of the resampling.

  Returns:
    (low, high), the percentiles 2.5 and 97.5.

  Raises:
    ValueError: an empty group, or NaN.

  Reference: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
  """
  pos, neg, num_ranks = detection.joint_ranks(positive_scores, negative_scores)
  pos, neg = np.sort(pos), np.sort(neg)  # makes the histograms faster
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
