"""NCR, PAR and accuracy: strictly above, monotone, and honest about bad input."""

import numpy as np
import pytest

from nat_jax import metrics


def test_literal_values():
  max_prob = np.array([0.3, 0.45, 0.65, 0.7, 0.85, 0.95, 0.99, 1.0])
  expected = {'0.4': 7 / 8, '0.6': 6 / 8, '0.8': 4 / 8, '0.9': 3 / 8}
  assert metrics.negative_confidence_rate(max_prob) == expected
  assert metrics.positive_acceptance_rate(max_prob) == expected


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_equal_to_the_threshold_is_not_above_it(dtype):
  for t in metrics.THRESHOLDS:
    at = dtype(t)
    above = np.nextafter(at, dtype(2))
    max_prob = np.array([at, at, at, above], dtype)
    assert metrics.negative_confidence_rate(max_prob, [t]) == {str(t): 0.25}


def test_never_rises_with_the_threshold_and_is_zero_at_one():
  logits = np.random.default_rng(0).normal(size=(400, 10)) * 20
  max_prob = metrics.scores_from_logits(logits, 10)['max_prob']
  assert max_prob.max() == 1.0
  thresholds = [0.0, 0.0999, *np.linspace(0.1, 0.99, 50).tolist(), 1.0]
  rates = list(metrics.negative_confidence_rate(max_prob, thresholds).values())
  assert rates[:2] == [1.0, 1.0]
  assert rates[-1] == 0.0
  assert all(a >= b for a, b in zip(rates, rates[1:], strict=False))


def test_thresholds_that_say_something():
  """At t <= 1 / K both rates are 1 for every network without a background output."""
  thresholds = (0.1, 0.2, 0.4, 0.5, 0.6)
  for num_classes, kept in ((2, (0.6,)), (3, (0.4, 0.5, 0.6)), (5, (0.4, 0.5, 0.6)),
                            (10, (0.2, 0.4, 0.5, 0.6)), (11, thresholds)):
    assert metrics.informative(thresholds, num_classes) == kept
    assert metrics.informative(thresholds, num_classes, background=True) == thresholds
  logits = np.random.default_rng(0).normal(size=(300, 2))
  rates = [metrics.negative_confidence_rate(
      metrics.scores_from_logits(x, 2)['max_prob'], thresholds)
           for x in (logits, np.c_[logits, logits[:, 0]])]  # and with a background
  assert [rates[0][str(t)] for t in (0.1, 0.2, 0.4)] == [1, 1, 1] > [rates[0]['0.6']]
  assert rates[1]['0.4'] < 0.9


def test_order_of_the_images_does_not_matter():
  max_prob = np.random.default_rng(0).uniform(size=100)
  shuffled = np.random.default_rng(1).permutation(max_prob)
  rate = metrics.negative_confidence_rate
  assert rate(shuffled) == rate(max_prob)


def test_accuracy():
  # The third is a prediction of background (class 3 of 0..2): a mistake.
  assert metrics.accuracy(np.array([0, 2, 3, 1]), np.array([0, 2, 1, 2])) == 0.5
  assert metrics.accuracy([1], [1]) == 1.0


@pytest.mark.parametrize(
    'max_prob, match',
    [
        ([], 'max_prob'),
        ([0.5, np.nan], 'max_prob.*NaN.*1 of 2'),
        ([0.5, 3.2], r'max_prob.*0 and 1\b.*0\.5\.\.3\.2'),
        ([-0.5, 0.2], r'max_prob.*0 and 1\b.*-0\.5\.\.0\.2'),
    ],
)
def test_bad_probabilities_are_refused(max_prob, match):
  with pytest.raises(ValueError, match=match):
    metrics.negative_confidence_rate(np.array(max_prob))


def test_accuracy_of_negatives_is_refused():
  with pytest.raises(ValueError, match='label.*-1'):
    metrics.accuracy([0, 1], [0, -1])
  with pytest.raises(ValueError, match='prediction'):
    metrics.accuracy([], [])
  with pytest.raises(AssertionError):
    metrics.accuracy([0, 1], [0])
