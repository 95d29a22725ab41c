"""Expected calibration error: literals, and the bin that others forget."""

import numpy as np
import pytest

from nat_jax import metrics


def test_literal_value():
  # Five bins: (0.2, 0.4] holds 0.3 right; (0.8, 1] holds 0.9, 0.9, 1.0 with two right.
  max_prob = np.array([0.3, 0.9, 0.9, 1.0])
  correct = np.array([True, True, False, True])
  expected = (1 * abs(1 - 0.3) + 3 * abs(2 / 3 - 2.8 / 3)) / 4
  ece = metrics.expected_calibration_error(max_prob, correct, num_bins=5)
  np.testing.assert_allclose(ece, expected, rtol=1e-12)


def test_the_most_confident_bin_counts():
  wrong = np.full(100, 0.999)
  ece = metrics.expected_calibration_error(wrong, np.zeros(100))
  np.testing.assert_allclose(ece, 0.999, rtol=1e-12)
  # Among 900 that are as right as they say; alone in their bin, they stay visible.
  rest = np.full(900, 0.5)
  max_prob, correct = np.r_[rest, wrong], np.r_[np.arange(900) % 2, np.zeros(100)]
  ece = metrics.expected_calibration_error(max_prob, correct)
  np.testing.assert_allclose(ece, 0.0999, rtol=1e-12)


def test_bins_are_closed_above_and_the_ends_are_inside():
  # 0.5 belongs to (0.25, 0.5]: it does not cancel against 0.6, which is in the next.
  ece = metrics.expected_calibration_error([0.5, 0.6], [1, 0], num_bins=4)
  np.testing.assert_allclose(ece, (0.5 + 0.6) / 2)
  assert metrics.expected_calibration_error([0.0, 1.0], [0, 1]) == 0.0
  assert metrics.expected_calibration_error([0.0, 1.0], [1, 0]) == 1.0


def test_against_a_loop_over_bins():
  rng = np.random.default_rng(0)
  max_prob = rng.uniform(size=1000)
  correct = rng.uniform(size=1000) < max_prob**2
  for num_bins in (1, 10, 15):
    expected = 0.0
    for b in range(num_bins):
      inside = (max_prob > b / num_bins) & (max_prob <= (b + 1) / num_bins)
      if inside.any():
        gap = abs(correct[inside].mean() - max_prob[inside].mean())
        expected += inside.mean() * gap
    ece = metrics.expected_calibration_error(max_prob, correct, num_bins)
    np.testing.assert_allclose(ece, expected, rtol=1e-9)


def test_calibrated_confidences_have_little_error():
  rng = np.random.default_rng(0)
  max_prob = rng.uniform(size=200_000)
  correct = rng.uniform(size=200_000) < max_prob
  assert metrics.expected_calibration_error(max_prob, correct) < 0.01


def test_bad_arguments_say_what_is_wrong():
  with pytest.raises(ValueError, match='max_prob'):
    metrics.expected_calibration_error([], [])
  with pytest.raises(ValueError, match='max_prob.*NaN.*1 of 1'):
    metrics.expected_calibration_error([np.nan], [1])
  with pytest.raises(ValueError, match='num_bins.*0'):
    metrics.expected_calibration_error([0.5], [1], num_bins=0)
  with pytest.raises(AssertionError):
    metrics.expected_calibration_error([0.5, 0.5], [1])


@pytest.mark.parametrize('factor', [0.3, 1.0, 2.5])
def test_temperature_is_the_best_of_a_dense_grid(factor):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 5, 400)
  logits = factor * (rng.normal(size=(400, 5)) + 1.5 * np.eye(5)[labels])
  found = metrics.fit_temperature(logits, labels)
  grid = np.exp(np.linspace(np.log(0.05), np.log(20), 2001))
  losses = [metrics.negative_log_likelihood(logits, labels, t) for t in grid]
  assert abs(np.log(found / grid[np.argmin(losses)])) <= np.log(grid[1] / grid[0])
  assert metrics.negative_log_likelihood(logits, labels, found) <= min(losses)
  # Logits that are twice as large need twice the temperature.
  assert metrics.fit_temperature(2 * logits, labels) == pytest.approx(
      2 * found, rel=1e-4)


def test_temperature_of_a_network_without_errors_is_1():
  """Its likelihood has no maximum."""
  assert metrics.fit_temperature(np.eye(3) * 0.1, [0, 1, 2]) == 1.0


def test_temperature_of_noise_stays_within_its_bounds():
  logits = np.array([[9.0, 0.0], [9.0, 0.0]])
  assert metrics.fit_temperature(logits, [1, 1]) == pytest.approx(100, rel=1e-3)
