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


@pytest.fixture(scope='module')
def fitted():
  """Seven features after ReLU: 320, 50 and 30 training positives of three classes, and
  30 other images. Feature 6 is 0 for all training positives."""
  rng = np.random.default_rng(1)
  labels = np.repeat([0, 1, 2], [320, 50, 30])
  means = rng.normal(size=(3, 7)) + 1
  mixed = rng.normal(size=(7, 7)) / 2
  train = np.maximum(means[labels] + rng.normal(size=(400, 7)) @ mixed, 0)
  x = np.maximum(rng.normal(size=(30, 7)) * 2, 0)
  train[:, 6] = 0
  kernel, bias = means.T, -(means**2).sum(1) / 2  # the likeliest: the nearest mean
  return dict(x=x, train=train, labels=labels, kernel=kernel, bias=bias,
              logits=x @ kernel + bias, train_logits=train @ kernel + bias)


def test_react_golden(fitted):
  x, kernel, bias = fitted['x'], fitted['kernel'], fitted['bias']
  values = np.sort(fitted['train'].ravel())  # 2,800 of them: place 2519.1 from 0
  limit = values[2519] + 0.1 * (values[2520] - values[2519])
  golden = []
  for features in x:
    o = [sum(min(f, limit) * w for f, w in zip(features, row, strict=True)) + b
         for row, b in zip(kernel.T, bias, strict=True)]
    golden.append(np.log(sum(np.exp(one) for one in o)))
  found = confidences.react(x, fitted['train'], kernel, bias)
  np.testing.assert_allclose(found, golden, rtol=1e-12)
  assert (x > limit).any() and not np.allclose(found, confidences.energy(x @ kernel))
  np.testing.assert_allclose(  # nothing is clipped
      confidences.react(x / 1e3, fitted['train'], kernel, bias, 100),
      confidences.energy(x / 1e3 @ kernel + bias))
  with pytest.raises(ValueError, match=r'percentile.*0 to 100.*\b101\b'):
    confidences.react(x, fitted['train'], kernel, bias, 101)


def test_she_golden(fitted):
  labels, guesses = fitted['labels'], fitted['train_logits'].argmax(1)
  for k in range(3):
    assert 0 < (guesses == labels)[labels == k].mean() < 1
  golden = []
  for features, o in zip(fitted['x'], fitted['logits'], strict=True):
    k = max(range(3), key=lambda j: o[j])
    stored = [fitted['train'][i] for i in range(400) if labels[i] == guesses[i] == k]
    golden.append(sum(features[j] * sum(one[j] for one in stored) / len(stored)
                      for j in range(7)))
  args = [fitted[key] for key in ('x', 'logits', 'train', 'train_logits')]
  np.testing.assert_allclose(confidences.she(*args, labels), golden, rtol=1e-10)


def test_she_of_classes_without_correct_or_without_any_examples():
  train = np.array([[1.0, 0], [3, 0], [0, 4]])
  found = confidences.she(
      [[1.0, 2], [1, 2], [1, 2]], np.eye(3), train,
      [[1.0, 0, 0], [0, 1, 0], [1, 0, 0]], [0, 0, 1])
  # Class 0: the first alone is correct. Class 1: none is, all count. Class 2: none.
  np.testing.assert_array_equal(found, [1, 8, 0])


def test_gen_golden():
  logits = np.random.default_rng(2).normal(size=(20, 6)) * 3
  for top in (1, 4, 6, 100):
    golden = []
    for o in logits:
      p = sorted((np.exp(one) / np.exp(o).sum() for one in o), reverse=True)
      golden.append(-sum(one**0.1 * (1 - one)**0.1 for one in p[:top]))
    np.testing.assert_allclose(
        confidences.gen(logits, 0.1, top), golden, rtol=1e-12, err_msg=str(top))
  for wrong in ({'gamma': 0}, {'gamma': 1}, {'top': 0}):
    with pytest.raises(ValueError, match='gamma.*top'):
      confidences.gen(logits, **wrong)


def test_gen_has_no_ties_near_one():
  """1 - p is 2 e^-gap, which is far below the spacing of float64 near 1."""
  gap = np.array([50.0, 51, 200])
  logits = np.stack([gap, 0 * gap, 0 * gap], axis=1)
  golden = -(2 * np.exp(-gap)) ** 0.1 - 2 * np.exp(-gap) ** 0.1
  np.testing.assert_allclose(confidences.gen(logits), golden, rtol=1e-12)
  assert np.isfinite(confidences.gen([[1e5, 0, 0], [0, 0, 0]])).all()


def distances(x, train, labels, classes):
  """Squared Mahalanobis distances [n, classes] as in the paper, with 1 / m."""
  means = [train[labels == k].mean(0) for k in classes]
  sigma = sum(np.outer(t - means[k], t - means[k])
              for t, k in zip(train, labels, strict=True)) / len(train)
  inverse = np.linalg.pinv(sigma, hermitian=True)
  return np.array([[(one - mean) @ inverse @ (one - mean) for mean in means]
                   for one in x])


def test_mahalanobis_golden(fitted):
  x, train, labels = fitted['x'], fitted['train'], fitted['labels']
  golden = -distances(x, train, labels, range(3)).min(1)
  np.testing.assert_allclose(
      confidences.mahalanobis(x, train, labels), golden, rtol=1e-8)
  background = distances(x, train, 0 * labels, [0])[:, 0]
  np.testing.assert_allclose(
      confidences.mahalanobis(x, train, labels, relative=True), golden + background,
      rtol=1e-8, atol=1e-8)


def test_mahalanobis_depends_on_no_scale_no_origin_and_no_names_of_classes(fitted):
  """Rounding to float32 at an origin of 100 leaves five digits."""
  x, train, labels = fitted['x'][:, :6], fitted['train'][:, :6], fitted['labels']
  for relative in (False, True):
    found = confidences.mahalanobis(x, train, labels, relative)
    scale = 10.0 ** np.arange(-2, 4)
    np.testing.assert_allclose(
        confidences.mahalanobis(x * scale, train * scale, 7 - 3 * labels, relative),
        found, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(
        confidences.mahalanobis(
            np.float32(x + 100), np.float32(train + 100), labels, relative),
        found, rtol=1e-3, atol=1e-3)


def test_mahalanobis_with_fewer_samples_than_dimensions():
  """Shrunk: in 40 dimensions 30 samples still tell 25 of the same law from others."""
  rng = np.random.default_rng(3)
  labels = np.arange(30) % 3
  means = 3 * rng.normal(size=(3, 40))
  law = lambda k: means[k] + rng.normal(size=(len(k), 40))  # noqa: E731
  train, same = law(labels), law(np.arange(25) % 3)
  other = 3 * rng.normal(size=(25, 40))
  centred = train - np.stack([train[labels == k].mean(0) for k in range(3)])[labels]
  # Ledoit and Wolf, section 3.3, by their letters.
  s = centred.T @ centred / 30
  m = np.trace(s) / 40
  d2 = ((s - m * np.eye(40)) ** 2).sum() / 40
  b2 = min(sum(((np.outer(t, t) - s) ** 2).sum() for t in centred) / 40 / 30**2, d2)
  sigma = b2 / d2 * m * np.eye(40) + (1 - b2 / d2) * s
  centres = [train[labels == k].mean(0) for k in range(3)]
  centre = train.mean(0)
  sigma_0 = sigma + sum(np.outer(c - centre, c - centre) for c in centres) / 3
  form = lambda d, a: d @ np.linalg.inv(a) @ d  # noqa: E731
  for x in (same, other):
    golden = np.array([-min(form(one - c, sigma) for c in centres) for one in x])
    np.testing.assert_allclose(
        confidences.mahalanobis(x, train, labels), golden, rtol=1e-8)
    np.testing.assert_allclose(
        confidences.mahalanobis(x, train, labels, relative=True),
        golden + [form(one - centre, sigma_0) for one in x], rtol=1e-8)
  for relative in (False, True):
    good, bad = (confidences.mahalanobis(x, train, labels, relative)
                 for x in (same, other))
    assert (good[:, None] > bad).mean() > 0.95


def test_mahalanobis_of_constant_features_is_zero():
  for relative in (False, True):
    for num in (5, 50):
      np.testing.assert_array_equal(confidences.mahalanobis(
          np.ones((2, 3)), np.zeros((num, 3)), np.zeros(num, int), relative), 0)
