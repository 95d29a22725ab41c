"""Thresholds: the promises they keep, risk-coverage curves, costs."""

import numpy as np
import pytest
from scipy import stats

from nat_jax import metrics
from nat_jax.metrics import selective


@pytest.mark.parametrize('distribution', ['continuous', 'ties'])
def test_tolerance_bound_keeps_its_promise_in_simulated_splits(distribution):
  """In 1,000 samples of 200 positives: the true share above each threshold."""
  scores = np.random.default_rng(0).random((1000, 200))
  accept = 0.95
  if distribution == 'ties':
    scores = np.floor(scores * 50) / 50
  tolerance = np.array([selective.tolerance_threshold(s, accept) for s in scores])
  marginal = np.array([selective.conformal_threshold(s, accept) for s in scores])
  accepted = 1 - tolerance  # the share of uniform (or of rounded) scores that reach it
  assert np.mean(accepted >= accept) >= 0.95
  if distribution == 'continuous':
    # The exact probability is .9736; the conformal threshold keeps it in about half.
    assert np.mean(accepted >= accept) == pytest.approx(0.9736, abs=0.02)
    assert 0.3 < np.mean(1 - marginal >= accept) < 0.7
    assert np.mean(1 - marginal) == pytest.approx(1 - 10 / 201, abs=0.003)


@pytest.mark.parametrize('n', [59, 60, 93, 500, 12345])
@pytest.mark.parametrize('accept', [0.95, 0.99, 0.5])
def test_tolerance_rank_is_the_largest_that_keeps_the_promise(n, accept):
  k = selective.tolerance_rank(n, accept)

  def kept(k):  # P(the share of new positives below the k-th score <= 1 - accept)
    return stats.beta.cdf(1 - accept, k, n - k + 1)

  assert k == 0 or kept(k) >= 0.95
  assert kept(k + 1) < 0.95


def test_smallest_samples():
  for accept, n in ((0.95, 59), (0.99, 299), (0.9, 29), (0.5, 5)):
    assert selective.smallest_sample(accept) == n
    assert selective.tolerance_rank(n, accept) == 1
    assert selective.tolerance_rank(n - 1, accept) == 0
  assert selective.smallest_sample(0.95, 0.99) == 90


def test_too_few_positives_are_told_what_they_allow():
  scores = np.arange(58.0)
  with pytest.raises(ValueError, match=r'^58 positives.*95 %.*at least 59;.*0.949$'):
    selective.tolerance_threshold(scores, 0.95)
  assert selective.tolerance_threshold(scores, 0.949) == 0
  assert selective.tolerance_threshold(np.arange(59.0), 0.95) == 0


def test_conformal_threshold():
  scores = np.random.default_rng(0).permutation(np.arange(1.0, 20))  # 1..19
  assert selective.conformal_threshold(scores, 0.95) == 1
  assert selective.conformal_threshold(scores, 0.9) == 2
  assert selective.conformal_threshold(scores[:18], 0.95) is None


def test_risk_coverage_literal():
  coverage, risk = selective.risk_coverage([4, 3, 2, 1], [True, False, True, False])
  np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
  np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 2])
  _, tied = selective.risk_coverage([5, 1, 1, 1, 1], [True, False, True, True, False])
  np.testing.assert_allclose(tied, [0, 0.25, 1 / 3, 0.375, 0.4])


def test_aurc_is_that_of_the_definition_and_best_where_errors_come_last():
  rng = np.random.default_rng(0)
  scores, correct = rng.normal(size=300), rng.random(300) < 0.8
  order = np.argsort(-scores)
  expected = np.mean([np.mean(~correct[order[:i]]) for i in range(1, 301)])
  assert selective.risk_coverage(scores, correct)[1].mean() == pytest.approx(expected)
  best = selective.risk_coverage(correct + 0.1 * rng.random(300), correct)[1].mean()
  worst = selective.risk_coverage(1.0 - correct, correct)[1].mean()
  assert best < expected < worst


def test_cheapest_threshold_is_the_best_of_all():
  rng = np.random.default_rng(0)
  scores = rng.normal(1, 1, 80)
  correct = rng.random(80) < 1 / (1 + np.exp(-scores))
  negatives = [rng.normal(-1, 1, 50), rng.normal(0, 1, 30)]
  costs = selective.Costs(error=5, refusal=1, negative_share=0.3)

  def cost(t):
    wrong = np.mean((scores >= t) & ~correct)
    passed = np.mean([np.mean(s >= t) for s in negatives])
    return 0.7 * (5 * wrong + np.mean(scores < t)) + 0.3 * 5 * passed

  found = selective.cheapest_threshold(scores, correct, negatives, costs)
  tried = [cost(t) for t in np.linspace(-4, 5, 5001)]
  assert found['cost'] == pytest.approx(cost(found['threshold']))
  assert found['cost'] <= min(tried) + 1e-12
  assert found['accepted'] == np.mean(scores >= found['threshold'])
  free = selective.cheapest_threshold(
      scores, correct, negatives, costs._replace(error=0))
  assert free['accepted'] == 1 and free['cost'] == 0
  never = selective.cheapest_threshold(
      scores, np.zeros(80), [], costs._replace(refusal=0.1))
  assert (never['threshold'], never['accepted'], never['cost']) == (
      None, 0, pytest.approx(0.1))
  assert never['negative_share'] == 0


@pytest.mark.parametrize('score', selective.LOGIT_SCORES)
def test_scores_of_logits(score):
  logits = np.random.default_rng(0).normal(size=(20, 5))
  found = selective.LOGIT_SCORES[score](logits, 4, 2.0)
  p = np.exp(logits[:, :4]) / np.exp(logits[:, :4]).sum(1, keepdims=True)
  expected = {
      'gen': -((p * (1 - p)) ** 0.1).sum(1),
      'max_probability': metrics.scores_from_logits(logits / 2, 4)['score'],
      'max_logit': logits[:, :4].max(1),
      'energy': np.log(np.exp(logits[:, :4]).sum(1))}
  np.testing.assert_allclose(found, expected[score])
