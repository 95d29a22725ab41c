"""Intervals: coverage of small shares, literal values, widths, determinism."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from nat_jax import metrics


def coverage(n, p):
  """The exact share of samples of n images whose interval holds the true share p."""
  counts = np.arange(n + 1)
  counts = counts[stats.binom.pmf(counts, n, p) > 1e-12]
  low, high = np.transpose([metrics.proportion_interval(int(k), n) for k in counts])
  return (stats.binom.pmf(counts, n, p) * ((low <= p) & (p <= high))).sum()


# Where NCR lives. Percentiles of a bootstrap cover .63, .39, .18 and .63 of the first.
@pytest.mark.parametrize('n, p', [
    (100, 0.01), (100, 0.005), (100, 0.002), (1000, 0.001), (1000, 0.01), (1000, 0.1),
    (1000, 0.5), (1000, 0.995)])
def test_a_share_is_covered(n, p):
  assert 0.9 < coverage(n, p) < 0.99


def test_small_shares_are_covered_19_times_in_20():
  grid = np.linspace(0.0001, 0.02, 100)
  assert 0.94 < np.mean([coverage(100, p) for p in grid]) < 0.97


def test_proportion_interval_by_hand():
  # Wilson 1927: (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
  np.testing.assert_allclose(
      metrics.proportion_interval(1, 10), (0.017876, 0.404150), atol=1e-6)
  z2 = stats.norm.ppf(0.975) ** 2
  np.testing.assert_allclose(metrics.proportion_interval(0, 50), (0, z2 / (50 + z2)))
  np.testing.assert_allclose(metrics.proportion_interval(50, 50), (50 / (50 + z2), 1))


@pytest.mark.parametrize('count, n', [(72, 1000), (500, 1000), (9000, 10000)])
def test_proportion_interval_is_the_normal_one_for_large_n(count, n):
  p = count / n
  half = 1.96 * np.sqrt(p * (1 - p) / n)
  np.testing.assert_allclose(
      metrics.proportion_interval(count, n), [p - half, p + half], atol=0.11 * half)


def test_auroc_interval_against_resampling_and_scikit_learn():
  rng = np.random.default_rng(0)
  pos, neg = rng.normal(1, 1, 80).round(1), rng.normal(0, 1, 50).round(1)
  draws = []
  for _ in range(1000):
    p, n = rng.choice(pos, 80), rng.choice(neg, 50)
    draws.append(sk.roc_auc_score(np.r_[np.ones(80), np.zeros(50)], np.r_[p, n]))
  expected = np.quantile(draws, [0.025, 0.975])
  actual = metrics.auroc_interval(pos, neg, num_resamples=4000)
  np.testing.assert_allclose(actual, expected, atol=0.012)


def test_auroc_interval_has_the_analytic_width():
  # Hanley and McNeil 1982; exact for the exponential model drawn from here.
  rng = np.random.default_rng(1)
  p, n, a = 500, 300, 0.8
  pos, neg = rng.exponential(a / (1 - a), p), rng.exponential(1.0, n)
  q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
  var = (a * (1 - a) + (p - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (p * n)
  low, high = metrics.auroc_interval(pos, neg)
  np.testing.assert_allclose(high - low, 2 * 1.96 * np.sqrt(var), rtol=0.15)
  assert low < metrics.detection_metrics(pos, neg)['auroc'] < high


def test_auroc_interval_of_separated_and_of_equal_scores():
  assert metrics.auroc_interval([2.0, 3.0], [0.0, 1.0]) == (1.0, 1.0)
  assert metrics.auroc_interval(np.ones(5), np.ones(9)) == (0.5, 0.5)
  assert metrics.auroc_interval([np.inf], [-np.inf]) == (1.0, 1.0)


def test_auroc_interval_is_fixed_by_the_seed():
  rng = np.random.default_rng(0)
  pos, neg = rng.normal(1, 1, 100), rng.normal(0, 1, 100)
  first = metrics.auroc_interval(pos, neg, seed=3)
  assert metrics.auroc_interval(pos, neg, seed=3) == first
  assert metrics.auroc_interval(pos, neg, seed=4) != first
  # The order in which the images were evaluated has no say.
  assert metrics.auroc_interval(pos[::-1], rng.permutation(neg), seed=3) == first


def test_bad_counts_are_refused():
  for count, n in [(5, 4), (-1, 4), (0, 0)]:
    with pytest.raises(ValueError, match=f'{count} of {n}'):
      metrics.proportion_interval(count, n)


def test_a_share_at_an_estimated_threshold_is_covered():
  """Wilson's interval, as if the threshold were known, covers half of these."""
  rng, found, true = np.random.default_rng(0), np.zeros(2), stats.norm.sf(0.3551)
  for _ in range(200):
    positives, negatives = rng.normal(2, 1, 300), rng.normal(0, 1, 2000)
    count = int((negatives >= metrics.threshold_at_recall(positives)).sum())
    for k, (low, high) in enumerate((
        metrics.proportion_interval(count, 2000),
        metrics.accepted_interval(positives, negatives))):
      found[k] += low <= true <= high
  assert found[0] < 0.6 * 200 and 0.87 * 200 < found[1] < 0.99 * 200


def test_a_share_at_an_estimated_threshold_by_hand():
  positives, others = np.arange(100.0), np.arange(-50.0, 50)
  low, high = metrics.accepted_interval(positives, others)
  wilson = metrics.proportion_interval(45, 100)  # 5 to 49
  least, most = metrics.proportion_interval(95, 100)  # from 11, from 2 on
  assert 100 * least < 89 and 97 < 100 * most < 98
  assert low == pytest.approx(0.45 - np.hypot(0.45 - wilson[0], 0.45 - 0.39))
  assert high == pytest.approx(0.45 + np.hypot(wilson[1] - 0.45, 0.48 - 0.45))
  assert metrics.accepted_interval([9.0, 8], [1.0, 0]) == (
      0, metrics.proportion_interval(0, 2)[1])
