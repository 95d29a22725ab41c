"""Post-hoc confidences: literal values, brute force, constructed subspaces."""

import numpy as np
import pytest

from nat_jax.metrics import confidences

LOGITS = [[2.0, 1.0, -1.0], [0.0, 0.0, 0.0], [5.0, 4.9, -9.0]]


def test_energy_and_max_logit_literal():
  np.testing.assert_allclose(confidences.max_logit(LOGITS), [2, 0, 5])
  expected = np.log(np.exp(LOGITS).sum(1))
  np.testing.assert_allclose(confidences.energy(LOGITS), expected, rtol=1e-12)
  expected = 10 * np.log(np.exp(np.array(LOGITS) / 10).sum(1))
  np.testing.assert_allclose(confidences.energy(LOGITS, 10), expected, rtol=1e-12)
  large = confidences.energy(np.float32(LOGITS) + 1e4)
  assert large[1] == pytest.approx(1e4 + np.log(3), rel=1e-12)


@pytest.mark.parametrize('temperature', [1.0, 1000.0])
def test_max_softmax_is_the_log_odds_of_the_maximum_probability(temperature):
  p = np.exp(np.array(LOGITS) / temperature)
  p = (p / p.sum(1, keepdims=True)).max(1)
  np.testing.assert_allclose(
      confidences.max_softmax(LOGITS, temperature), np.log(p / (1 - p)), rtol=1e-9)
  sure = confidences.max_softmax([[100.0, 0, 0], [101.0, 0, 0]])  # both round to p = 1
  assert sure[1] - sure[0] == pytest.approx(1)


def test_knn_is_the_distance_to_the_kth_on_the_sphere():
  rng = np.random.default_rng(0)
  train, features = rng.normal(size=(40, 5)), rng.normal(size=(7, 5))
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
  distance = np.linalg.norm(unit(features)[:, None] - unit(train)[None], axis=2)
  expected = -np.sort(distance, axis=1)
  for k in (1, 3, 40):
    np.testing.assert_allclose(
        confidences.knn(features, train, k), expected[:, k - 1], rtol=1e-6)
  np.testing.assert_allclose(
      confidences.knn(1e3 * features, train, 3), expected[:, 2], rtol=1e-6)
  assert np.isfinite(confidences.knn(np.zeros((1, 5)), train, 3)).all()
  with pytest.raises(ValueError, match=r'\bk\b.*1\.\.40\b.*\b50\b'):
    confidences.knn(features, train)


def test_vim_takes_off_what_lies_outside_the_training_subspace():
  """Training features vary by 10 in a plane and by +-0.5 off it, about an origin."""
  rng = np.random.default_rng(0)
  basis = np.linalg.qr(rng.normal(size=(4, 4)))[0]
  plane, off = basis[:2], basis[2:]
  kernel = rng.normal(size=(4, 3))
  origin = rng.normal(size=4)
  bias = -kernel.T @ origin  # origin is where the logits vanish ...
  null = np.linalg.svd(kernel.T)[2][-1]
  origin -= null * (null @ origin)  # ... the one nearest to 0, which is pinv's
  sign = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
  train = origin + np.concatenate([10 * sign @ plane, 10 * sign @ plane])
  train += 0.5 * np.repeat([[1.0, 0], [-1, 0]], 4, axis=0) @ off
  train_logits = train @ kernel + bias
  alpha = train_logits.max(1).sum() / (8 * 0.5)
  features = origin + np.array([[3.0, 1, 0, 0], [3, 1, 0, 2], [3, 1, 3, 4]]) @ basis
  logits = features @ kernel + bias
  found = confidences.vim(features, logits, train, train_logits, kernel, bias, dim=2)
  expected = confidences.energy(logits) - alpha * np.array([0, 2, 5])
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
  np.testing.assert_array_equal(  # half of the width is the default
      confidences.vim(features, logits, train, train_logits, kernel, bias), found)


def test_vim_without_a_residual_is_the_energy():
  train = np.outer(np.arange(1.0, 9), [1, 0, 0, 0])
  kernel, bias = np.eye(4)[:, :3], np.zeros(3)
  logits = train @ kernel
  found = confidences.vim(train, logits, train, logits, kernel, bias, dim=1)
  np.testing.assert_allclose(found, confidences.energy(logits))
  with pytest.raises(ValueError, match=r'dim.*1\.\.3\b.*\b4\b'):
    confidences.vim(train, logits, train, logits, kernel, bias, dim=4)


def test_ash_keeps_the_largest_and_their_sum():
  features = [[4.0, 1, 3, 0, 2], [0, 0, 0, 0, 7]]
  kernel, bias = np.arange(15.0).reshape(5, 3) / 7, [0.5, 0, -1]
  # 2 of 5, sums 10 and 7; where only one is not 0, only that.
  shaped = np.array([[5.0, 0, 5, 0, 0], [0, 0, 0, 0, 7]])
  np.testing.assert_allclose(
      confidences.ash(features, kernel, bias, 60),
      confidences.energy(shaped @ kernel + bias), rtol=1e-12)
  one = np.array([[10.0, 0, 0, 0, 0], [0, 0, 0, 0, 7]])  # at least one stays
  np.testing.assert_allclose(
      confidences.ash(features, kernel, bias, 99),
      confidences.energy(one @ kernel + bias))
  with pytest.raises(ValueError, match='percentile.*0.*100.*100'):
    confidences.ash(features, kernel, bias, 100)


def test_ash_does_not_depend_on_the_numbering_of_features():
  rng = np.random.default_rng(0)
  features = rng.integers(1, 4, (30, 20)) * (rng.random((30, 20)) < 0.2)  # many ties
  features[0] = 0
  kernel, bias = rng.normal(size=(20, 3)), rng.normal(size=3)
  found = confidences.ash(features, kernel, bias)
  for _ in range(5):
    order = rng.permutation(20)
    np.testing.assert_allclose(
        confidences.ash(features[:, order], kernel[order], bias), found,
        rtol=0, atol=1e-12)  # sums of numbers around 10, in another order
  assert found[0] == pytest.approx(confidences.energy(bias[None])[0])
