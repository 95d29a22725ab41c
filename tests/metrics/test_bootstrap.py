"""Bootstrap intervals: analytic widths, coverage, determinism."""

import numpy as np
import pytest
from sklearn import metrics as sk

from nat_jax import metrics


@pytest.mark.parametrize('count, n', [(72, 1000), (500, 1000), (9000, 10000)])
def test_proportion_interval_is_the_normal_one_for_large_n(count, n):
  p = count / n
  half = 1.96 * np.sqrt(p * (1 - p) / n)
  low, high = metrics.proportion_interval(count, n, num_resamples=20000)
  np.testing.assert_allclose([low, high], [p - half, p + half], atol=0.1 * half)


def test_proportion_interval_of_none_and_all():
  assert metrics.proportion_interval(0, 50) == (0.0, 0.0)
  assert metrics.proportion_interval(50, 50) == (1.0, 1.0)


def test_proportion_interval_covers_the_truth_19_times_in_20():
  rng = np.random.default_rng(0)
  hits = 0
  for seed in range(400):
    low, high = metrics.proportion_interval(rng.binomial(400, 0.3), 400, seed=seed)
    hits += low <= 0.3 <= high
  assert 0.92 < hits / 400 < 0.98


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


def test_intervals_are_fixed_by_the_seed():
  rng = np.random.default_rng(0)
  pos, neg = rng.normal(1, 1, 100), rng.normal(0, 1, 100)
  first = metrics.auroc_interval(pos, neg, seed=3)
  assert metrics.auroc_interval(pos, neg, seed=3) == first
  assert metrics.auroc_interval(pos, neg, seed=4) != first
  # The order in which the images were evaluated has no say.
  assert metrics.auroc_interval(pos[::-1], rng.permutation(neg), seed=3) == first
  share = metrics.proportion_interval(300, 1000, seed=3)
  assert metrics.proportion_interval(300, 1000, seed=3) == share
  assert metrics.proportion_interval(300, 1000, seed=4) != share


def test_bad_counts_are_refused():
  for count, n in [(5, 4), (-1, 4), (0, 0)]:
    with pytest.raises(ValueError, match=f'got {count} of {n}'):
      metrics.proportion_interval(count, n)
