"""U, S and H by hand, and the choice of the constant of calibrated stacking."""

import numpy as np
import pytest

from nat_jax import metrics

# Classes 0 and 1 are seen, 2 is unseen.
SEEN = np.array([True, True, False])
LABEL = np.array([0, 0, 0, 0, 1, 2, 2])
SCORES = np.array([
    [3, 1, 2], [3, 1, 2], [1, 3, 2], [2, 0, 2.5],  # class 0: half are right
    [0, 1, 0],  # class 1: right
    [2, 0, 1.5], [0, 0, 1]], float)  # class 2: half are right


def test_accuracies_are_means_over_classes():
  found = metrics.generalised(SCORES, LABEL, SEEN)
  assert found['accuracy_seen'] == pytest.approx(0.75)
  assert found['accuracy_unseen'] == pytest.approx(0.5)
  assert found['harmonic_mean'] == pytest.approx(2 * 0.75 * 0.5 / 1.25)
  assert found['accuracy_unseen_only'] == 1.0
  assert found['class_accuracies'] == [0.5, 1.0, 0.5]


def test_the_constant_is_taken_from_the_seen_classes():
  found = metrics.generalised(SCORES, LABEL, SEEN, constant=0.6)
  assert found['accuracy_unseen'] == 1.0  # 2 - .6 < 1.5
  assert found['accuracy_seen'] == pytest.approx(0.75)
  assert metrics.generalised(SCORES, LABEL, SEEN, 1e9)['accuracy_seen'] == 0.0
  assert metrics.generalised(SCORES, LABEL, SEEN, 1e9)['harmonic_mean'] == 0.0


def test_a_class_without_rows_does_not_count():
  found = metrics.generalised(SCORES[:4], LABEL[:4], np.array([True, True, True]))
  assert found['accuracy_seen'] == 0.5
  np.testing.assert_array_equal(found['class_accuracies'], [0.5, np.nan, np.nan])


def test_the_chosen_constant_is_the_best():
  rng = np.random.default_rng(0)
  seen = np.arange(8) < 5
  label = np.arange(400) % 8
  scores = rng.normal(size=(400, 8)) + 2 * np.eye(8)[label] + 3 * seen
  constant, value = metrics.choose_constant(scores, label, seen)
  assert metrics.generalised(
      scores, label, seen, constant)['harmonic_mean'] == pytest.approx(value)
  every = [metrics.generalised(scores, label, seen, one)['harmonic_mean']
           for one in np.linspace(-5, 10, 1000)]
  assert value >= max(every) - 0.01
  assert constant == pytest.approx(3, abs=0.6)
  # A constant that is added to the scores of seen classes is found and taken away.
  moved, same = metrics.choose_constant(scores + 7 * seen, label, seen)
  assert moved == pytest.approx(constant + 7) and same == pytest.approx(value)
