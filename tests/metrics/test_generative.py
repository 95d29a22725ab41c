"""Measures of generated images: closed forms, brute force, and honest conventions."""

import json
import math

import numpy as np
import pytest

from nat_jax import metrics


def rng(seed=0):
  return np.random.default_rng(seed)


def random_probs(n, k, seed=0):
  return rng(seed).dirichlet(np.full(k, 0.3), size=n)


def spd(d, seed):
  a = rng(seed).normal(size=(d, d))
  return a @ a.T + 0.1 * np.eye(d)


def distances(x, y):
  return np.array([[math.dist(a, b) for b in y] for a in x])


def kth_other(x, k):
  """The distance of each sample to its k-th nearest other one, by sorting."""
  return np.array([sorted(np.delete(row, i))[k - 1]
                   for i, row in enumerate(distances(x, x))])


# Inception Score and AM score.


@pytest.mark.parametrize('k', [2, 10, 200])
def test_inception_score_of_one_hot_is_the_number_of_classes(k):
  p = np.tile(np.eye(k), (3, 1))
  assert metrics.inception_score(p) == pytest.approx((k, 0), rel=1e-12)
  assert metrics.inception_score(p, splits=3) == pytest.approx((k, 0), rel=1e-12)


def test_inception_score_of_equal_predictions_is_one():
  p = np.tile(random_probs(1, 7), (20, 1))
  assert metrics.inception_score(p) == pytest.approx((1, 0), abs=1e-12)


def test_log_inception_score_is_entropy_of_mean_less_mean_entropy():
  p = random_probs(50, 6)

  def entropy(q):
    return -sum(v * math.log(v) for v in q if v)

  expected = entropy(p.mean(axis=0)) - np.mean([entropy(q) for q in p])
  assert math.log(metrics.inception_score(p)[0]) == pytest.approx(expected, rel=1e-9)


def test_splits_are_scored_apart_and_none_is_dropped():
  # The first half is sure and balanced, the second half constant: 4 and 1.
  p = np.concatenate([np.tile(np.eye(4), (2, 1)), np.full((8, 4), 0.25)])
  assert metrics.inception_score(p, splits=2) == pytest.approx((2.5, 1.5))
  assert metrics.inception_score(np.eye(5), splits=5) == (1.0, 0.0)
  uneven = random_probs(11, 3)
  parts = [uneven[:4], uneven[4:8], uneven[8:]]
  scores = [metrics.inception_score(part)[0] for part in parts]
  assert metrics.inception_score(uneven, splits=3)[0] == pytest.approx(np.mean(scores))


def test_rounded_probabilities_are_taken_as_they_are_meant():
  p = random_probs(50, 6)
  expected = pytest.approx(metrics.inception_score(p)[0], rel=1e-5)
  assert metrics.inception_score(p.astype(np.float32))[0] == expected
  assert metrics.inception_score(p * 1.003)[0] == expected


def test_am_score():
  balanced = np.tile(np.eye(4), (3, 1))
  assert metrics.am_score(balanced, balanced) == 0
  assert metrics.am_score(balanced, np.full((5, 4), 0.25)) == pytest.approx(0)
  # Unsure of everything: the entropy alone.
  flat = np.full((6, 4), 0.25)
  assert metrics.am_score(flat, balanced) == pytest.approx(math.log(4))
  # KL(reference || generated), in that order: shares 1/2, 1/2 against 3/4, 1/4.
  shifted = np.eye(2)[[0, 0, 0, 1]]
  expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
  assert metrics.am_score(shifted, np.eye(2)) == pytest.approx(expected)
  # A class of the reference that never comes.
  assert metrics.am_score(np.eye(2)[[0, 0]], np.eye(2)) == math.inf
  assert metrics.am_score(np.eye(2), np.eye(2)[[0, 0]]) == pytest.approx(math.log(2))


def test_class_kl():
  # KL(real || generated), in that order: mean predictions .5, .5 and .7, .3.
  sample = np.array([[0.9, 0.1], [0.5, 0.5]])
  found = metrics.class_kl(sample, np.eye(2))
  assert found == pytest.approx(0.5 * math.log(0.5 / 0.7) + 0.5 * math.log(0.5 / 0.3))
  assert metrics.am_score(sample, np.eye(2)) > found  # by the entropy
  # One of ten classes has no sample; certainty does not matter.
  real = np.tile(np.eye(10), (3, 1))
  lacking = real[real.argmax(1) != 3] * 0.99 + 0.001
  expected = -sum(0.1 * math.log(10 * x) for x in [0.111] * 9 + [0.001])
  assert metrics.class_kl(lacking, real) == pytest.approx(expected)
  assert metrics.class_kl(np.full((4, 10), 0.1), real) == pytest.approx(0, abs=1e-12)
  assert metrics.class_kl(np.eye(2)[[0, 0]], np.eye(2)) == math.inf


@pytest.mark.parametrize(
    'probs, match',
    [
        (np.ones(3), r'probs.*\[n, d\].*\(3,\)'),
        (np.zeros((0, 3)), r'probs.*\[n, d\].*\(0, 3\)'),
        (np.array([[3.0, -2.0]]), r'probs.*-2\.\.3\b.*logits'),
        (np.array([[0.7, 0.6]]), r'probs.*1\.3\.\.1\.3.*logits'),
        (np.array([[0.5, np.nan]]), 'probs.*NaN.*1 of 1'),
    ],
)
def test_bad_probabilities_are_refused(probs, match):
  with pytest.raises(ValueError, match=match):
    metrics.inception_score(probs)
  with pytest.raises(ValueError, match=match):
    metrics.am_score(np.eye(2), probs)


def test_bad_splits_and_classes_are_refused():
  for splits in (0, 4):
    with pytest.raises(ValueError, match=rf'splits.*1\.\.3\b.*\b{splits}\b'):
      metrics.inception_score(np.eye(3), splits)
  for score in (metrics.am_score, metrics.class_kl):
    with pytest.raises(ValueError, match=r'probs.*\b4\b.*\b3\b'):
      score(np.eye(3), np.eye(4))


# FID.


def test_gaussian_stats_are_numpys():
  x = rng().normal(size=(40, 5)) @ spd(5, 1) + 100
  stats = metrics.gaussian_stats(x.astype(np.float32))
  assert stats.num == 40 and stats.cov.dtype == np.float64
  np.testing.assert_allclose(stats.mean, x.mean(axis=0), rtol=1e-5)
  np.testing.assert_allclose(stats.cov, np.cov(x, rowvar=False), rtol=1e-3)


def test_frechet_distance_of_diagonal_gaussians():
  mean_a, mean_b = rng(1).normal(size=(2, 6))
  std_a, std_b = rng(2).uniform(0, 3, size=(2, 6))
  a = metrics.GaussianStats(mean_a, np.diag(std_a**2), 1)
  b = metrics.GaussianStats(mean_b, np.diag(std_b**2), 1)
  expected = ((mean_a - mean_b) ** 2).sum() + ((std_a - std_b) ** 2).sum()
  assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_full_gaussians():
  # S_b = T S_a T with T = T^T > 0, so that (S_a S_b)^1/2 = S_a T.
  cov, transport = spd(5, 3), spd(5, 4)
  a = metrics.GaussianStats(np.zeros(5), cov, 1)
  b = metrics.GaussianStats(np.ones(5), transport @ cov @ transport, 1)
  expected = 5 + np.trace(a.cov + b.cov - 2 * cov @ transport)
  assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)
  assert metrics.frechet_distance(b, a) == pytest.approx(expected, rel=1e-10)
  # In two dimensions, Tr (S_a S_b)^1/2 = sqrt(Tr S_a S_b + 2 sqrt(det S_a S_b)).
  p, q = spd(2, 5), spd(2, 6)
  root = np.sqrt(np.trace(p @ q) + 2 * np.sqrt(np.linalg.det(p @ q)))
  got = metrics.frechet_distance(
      metrics.GaussianStats(np.zeros(2), p, 1), metrics.GaussianStats(np.zeros(2), q, 1)
  )
  assert got == pytest.approx(np.trace(p) + np.trace(q) - 2 * root, rel=1e-10)


def test_fid_of_sampled_gaussians_nears_the_closed_form():
  cov_a, cov_b = spd(3, 7), spd(3, 8)
  exact = metrics.frechet_distance(
      metrics.GaussianStats(np.zeros(3), cov_a, 1),
      metrics.GaussianStats(np.full(3, 0.5), cov_b, 1),
  )
  x = rng(1).multivariate_normal(np.zeros(3), cov_a, size=40_000)
  y = rng(2).multivariate_normal(np.full(3, 0.5), cov_b, size=40_000)
  got = metrics.fid(x, metrics.gaussian_stats(y))
  assert exact > 0.5
  assert got == pytest.approx(exact, rel=0.03)


def test_fid_of_a_set_from_itself_is_zero_singular_or_not():
  # More samples than dimensions, fewer, and none of any spread at all.
  for x in (rng().normal(size=(60, 8)), rng().normal(size=(6, 40)), np.ones((3, 4))):
    assert metrics.fid(x, metrics.gaussian_stats(x)) == pytest.approx(0, abs=1e-10)


def test_fid_with_singular_covariances():
  # Collapsed onto one point: |m|^2 + Tr S.
  y = rng().normal(size=(50, 6))
  stats = metrics.gaussian_stats(y)
  point = np.full((5, 6), 2.0)
  expected = ((2 - y.mean(axis=0)) ** 2).sum() + np.trace(stats.cov)
  assert metrics.fid(point, stats) == pytest.approx(expected)
  # Two lines at right angles share nothing: Tr S_a + Tr S_b.
  a = metrics.GaussianStats(np.zeros(2), np.diag([4.0, 0]), 1)
  b = metrics.GaussianStats(np.zeros(2), np.diag([0, 9.0]), 1)
  assert metrics.frechet_distance(a, b) == pytest.approx(13)


def test_fid_rises_with_fewer_samples():
  y = metrics.gaussian_stats(rng(1).normal(size=(4000, 10)))
  few, many = rng(2).normal(size=(30, 10)), rng(3).normal(size=(4000, 10))
  assert metrics.fid(few, y) > 5 * metrics.fid(many, y)


def test_rank_note():
  assert metrics.rank_note(2049, 2048) == ''
  assert metrics.rank_note(2048, 2048).startswith('2048 samples do not fill 2048')
  for num, dim in ((11, 10), (10, 10)):
    cov = metrics.gaussian_stats(rng().normal(size=(num, dim))).cov
    assert (np.linalg.matrix_rank(cov) < dim) == bool(metrics.rank_note(num, dim))


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(bad):
  x = rng().normal(size=(20, 3))
  broken = x.copy()
  broken[4, 1] = bad
  labels = np.zeros(20, int)
  for call in (
      lambda: metrics.gaussian_stats(broken),
      lambda: metrics.kid(broken, x),
      lambda: metrics.prdc(broken, x),
      lambda: metrics.nearest_neighbours(broken, x),
      lambda: metrics.intra_class_diversity(broken, labels, 1),
      lambda: metrics.class_aware_fid(broken, labels, x, labels, 1),
      lambda: metrics.generative_summary({'features': broken}, {'features': x}, 1),
  ):
    with pytest.raises(ValueError, match='features.*NaN.*1 of 20'):
      call()
  with pytest.raises(ValueError, match='reference features.*NaN.*1 of 20'):
    metrics.kid(x, broken)


def test_features_of_other_shapes_are_refused():
  x, wide = rng().normal(size=(20, 3)), rng().normal(size=(20, 4))
  labels = np.zeros(20, int)
  for call in (
      lambda: metrics.fid(x, metrics.gaussian_stats(wide)),
      lambda: metrics.kid(x, wide),
      lambda: metrics.prdc(x, wide),
      lambda: metrics.nearest_neighbours(x, wide),
      lambda: metrics.class_aware_fid(x, labels, wide, labels, 1),
  ):
    with pytest.raises(ValueError, match=r'features.*\b4\b.*\b3\b'):
      call()
  for bad in (np.ones(3), np.ones((2, 3, 4)), np.ones((0, 3)), np.ones((3, 0))):
    with pytest.raises(ValueError, match=r'features.*\[n, d\]'):
      metrics.gaussian_stats(bad)
  with pytest.raises(ValueError, match=r'features.*\b1$'):
    metrics.gaussian_stats(np.ones((1, 3)))


# By class.


def two_classes(n=400, seed=0):
  labels = np.arange(n) % 2
  centre = np.array([[-3.0, 0, 0], [3, 0, 0]])[labels]
  return centre + rng(seed).normal(size=(n, 3)), labels


def test_cafd_sees_classes_that_change_places_and_fid_does_not():
  x, labels = two_classes(seed=1)
  y, y_labels = two_classes(seed=2)
  swapped = 1 - labels
  assert metrics.fid(x, metrics.gaussian_stats(y)) < 0.1
  right = metrics.class_aware_fid(x, labels, y, y_labels, 2)
  wrong = metrics.class_aware_fid(x, swapped, y, y_labels, 2)
  assert right.distance < 0.1
  assert wrong.distance == pytest.approx(36, rel=0.05)
  assert wrong.num_left_out == 0 and wrong.fewest == 200
  by_hand = [
      metrics.fid(x[labels == c], metrics.gaussian_stats(y[y_labels == c]))
      for c in range(2)
  ]
  np.testing.assert_allclose(right.per_class, by_hand)
  assert right.distance == pytest.approx(np.mean(by_hand))


def test_cafd_of_few_samples_is_the_distance_of_their_gaussians():
  """Three and five samples of seven dimensions, where no covariance is formed."""
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(3, 7)), 2 + rng.normal(size=(5, 7))
  got = metrics.class_aware_fid(x, [0] * 3, y, [0] * 5, 1).distance
  expected = metrics.frechet_distance(
      metrics.gaussian_stats(x), metrics.gaussian_stats(y))
  np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_cafd_leaves_out_and_counts_classes_without_two_samples():
  y, y_labels = two_classes()
  # Class 1 once only, class 2 in neither.
  x = np.concatenate([y[y_labels == 0], y[y_labels == 1][:1]])
  labels = np.array([0] * 200 + [1])
  got = metrics.class_aware_fid(x, labels, y, y_labels, 3)
  assert got.distance == pytest.approx(0, abs=1e-10)
  assert np.isnan(got.per_class).tolist() == [False, True, True]
  assert (got.num_left_out, got.fewest) == (2, 200)
  two = metrics.class_aware_fid(x[-2:], [1, 1], y[:4], y_labels[:4], 2)
  assert (two.num_left_out, two.fewest) == (1, 2)
  none = metrics.class_aware_fid(x[-1:], labels[-1:], y, y_labels, 3)
  assert math.isnan(none.distance)
  assert (none.num_left_out, none.fewest) == (3, 0)


def test_diversity_against_a_loop():
  x, labels = two_classes(21)
  x[labels == 1] *= 2
  got = metrics.intra_class_diversity(x, labels, 3)
  for c in range(2):
    d = distances(x[labels == c], x[labels == c])
    pairs = d[np.triu_indices(len(d), 1)]
    assert got[c] == pytest.approx(pairs.mean())
  assert math.isnan(got[2])
  one = metrics.intra_class_diversity(x[:1], labels[:1], 2)
  assert np.isnan(one).all()


def test_diversity_ratio():
  y, labels = two_classes(60)
  shrunk = np.where(labels[:, None] == 0, 0.5, 2.0) * y
  mean, ratio = metrics.diversity_ratio(shrunk, labels, y, labels, 3)
  np.testing.assert_allclose(ratio, [0.5, 2, np.nan])
  assert mean == pytest.approx(1.25)
  # One picture a class; and a reference without spread, which has no ratio.
  alike = np.eye(3)[labels]
  mean, ratio = metrics.diversity_ratio(alike, labels, y, labels, 2)
  assert mean == pytest.approx(0, abs=1e-12)
  mean, ratio = metrics.diversity_ratio(y, labels, alike, labels, 2)
  assert math.isnan(mean) and np.isnan(ratio).all()


def test_class_histogram():
  assert metrics.class_histogram([0, 2, 2, 0], 4).tolist() == [0.5, 0, 0.5, 0]
  for bad, match in (
      ([0, 4], r'labels.*0\.\.3\b.*0\.\.4\b'),
      ([0, -1], r'labels.*0\.\.3\b.*-1\.\.0\b'),
      ([0.0, 1.0], 'labels.*integer.*float64'),
      ([[0, 1]], r'labels.*\(1, 2\)'),
      (np.zeros(0, int), 'labels'),
  ):
    with pytest.raises(ValueError, match=match):
      metrics.class_histogram(bad, 4)


def test_bad_labels_are_refused():
  x, labels = two_classes(10)
  for bad, match in (
      (labels[:9], r'\b10\b.*\(9,\)'), (labels - 1, r'0\.\.1\b.*-1\.\.0\b')):
    with pytest.raises(ValueError, match=match):
      metrics.class_aware_fid(x, bad, x, labels, 2)
    with pytest.raises(ValueError, match=f'reference labels.*{match}'):
      metrics.class_aware_fid(x, labels, x, bad, 2)
    with pytest.raises(ValueError, match=match):
      metrics.intra_class_diversity(x, bad, 2)


# KID.


def test_kid_against_a_loop():
  x, y = rng(1).normal(size=(9, 4)), rng(2).normal(size=(9, 4)) + 0.5

  def kernel(a, b):
    return (sum(p * q for p, q in zip(a, b, strict=True)) / 4 + 1) ** 3

  def within(z):
    return np.mean([kernel(z[i], z[j]) for i in range(9) for j in range(9) if i != j])

  expected = within(x) + within(y) - 2 * np.mean([kernel(a, b) for a in x for b in y])
  # All of both sets, whatever the draws.
  mean, std = metrics.kid(x, y, subsets=3, subset_size=1000)
  assert (mean, std) == (pytest.approx(expected, rel=1e-10), 0)


def test_kid_is_unbiased():
  same = [
      metrics.kid(rng(i).normal(size=(20, 3)), rng(1000 + i).normal(size=(30, 3)),
                  subsets=2, subset_size=20)[0]
      for i in range(300)
  ]
  error = np.std(same) / np.sqrt(len(same))
  assert min(same) < 0 < max(same)
  assert abs(np.mean(same)) < 3 * error
  # Each of 20 samples paired with itself too would be seen.
  itself = (np.square(rng().normal(size=(999, 3))).mean(axis=1) + 1) ** 3
  assert 6 * error < itself.mean() / 20


def test_kid_rises_with_the_distance_and_is_reproducible():
  x, y = rng(1).normal(size=(120, 3)), rng(2).normal(size=(90, 3))
  near, far = (
      metrics.kid(x + shift, y, subsets=20, subset_size=50) for shift in (0.3, 1.0)
  )
  assert 0 < near[0] < far[0] and far[1] > 0
  assert metrics.kid(x, y, subset_size=50) == metrics.kid(x, y, subset_size=50)
  assert metrics.kid(x, y, subset_size=50) != metrics.kid(x, y, subset_size=50, seed=1)
  # Cut to the smaller set: 90 of 120 against all 90.
  assert metrics.kid(x, y, subset_size=999) == metrics.kid(x, y, subset_size=90)
  for bad, match in (
      ({'subsets': 0}, r'\b0 subsets'), ({'subset_size': 1}, r'subsets.*\b1\b')):
    with pytest.raises(ValueError, match=match):
      metrics.kid(x, y, **bad)


# Precision, recall, density, coverage; neighbours.


@pytest.mark.parametrize('k', [1, 5])
def test_prdc_against_loops(k, monkeypatch):
  # Blocks of a few rows, so that more than one is needed.
  monkeypatch.setattr(metrics.manifold, 'BLOCK_MIB', 0.002)
  # Far from the origin, where |x|^2 + |y|^2 - 2 x.y has no digits left.
  x = rng(1).normal(size=(41, 3)) * 0.8 + 1e7
  y = rng(2).normal(size=(33, 3)) + 1e7
  within_real = distances(x, y) < kth_other(y, k)
  within_fake = distances(x, y) < kth_other(x, k)[:, None]
  got = metrics.prdc(x, y, k)
  assert got == {
      'precision': pytest.approx(np.mean([row.any() for row in within_real])),
      'recall': pytest.approx(np.mean([row.any() for row in within_fake.T])),
      'density': pytest.approx(within_real.sum() / (k * 41)),
      'coverage': pytest.approx(np.mean([row.any() for row in within_real.T])),
      'num_samples': 41,
      'num_reference': 33,
  }
  assert 0.3 < got['recall'] < 1 and 0.3 < got['coverage'] < 1


def test_prdc_on_the_edge_of_a_ball_is_outside():
  y = np.arange(4.0)[:, None]  # every r_i is 1
  x = np.array([[-1.0], [4.0], [6.0], [8.0]])  # s_j = 5, 2, 2, 2
  got = metrics.prdc(x, y, 1)
  assert (got['precision'], got['density'], got['coverage']) == (0, 0, 0)
  assert got['recall'] == 1  # 0, 1, 2, 3 are 1, 2, 3, 4 from -1
  assert metrics.prdc(x[1:], y, 1)['recall'] == 0.25  # 3 is 1 from 4, and 2 is 2


@pytest.mark.parametrize('dim', [1, 3, 64])
def test_prdc_of_exact_copies(dim):
  """The k-th neighbour of a copied image is on the edge of its ball, so outside."""
  y = np.float32(rng(1).normal(size=(300, dim)))
  assert metrics.prdc(y[::-1], y)['density'] == 1
  # Of every image another copy is in its own set: no distance is below a radius of 0.
  twice = metrics.prdc(y, np.concatenate([y, y]), k=1)
  assert [twice[name] for name in ('precision', 'density', 'coverage')] == [0, 0, 0]
  assert twice['recall'] == 1
  one = metrics.prdc(np.repeat(y[:1], 50, axis=0), y)
  assert one['density'] == sum(  # balls that hold the one image
      math.dist(y[0], other) < radius
      for other, radius in zip(y, kth_other(y, 5), strict=True)) / 5


def test_prdc_of_dropped_modes_and_of_rubbish():
  modes = 20 * np.eye(4)
  y = modes[np.arange(400) % 4] + rng(1).normal(size=(400, 4))
  x = modes[np.arange(400) % 2] + rng(2).normal(size=(400, 4))
  half = metrics.prdc(x, y)
  assert half['precision'] > 0.9
  assert 0.4 < half['recall'] <= 0.5 and 0.4 < half['coverage'] <= 0.5
  assert half['density'] == pytest.approx(1, abs=0.4)
  far = metrics.prdc(x + 1000, y)
  assert far == {**dict.fromkeys(far, 0), 'num_samples': 400, 'num_reference': 400}
  same = metrics.prdc(y, y)
  assert [same[name] for name in ('precision', 'recall', 'coverage')] == [1] * 3


def test_memorisation_of_points_on_a_line():
  train, held_out = np.array([[0.0], [10], [20]]), np.array([[1.0], [12], [24]])
  # Held-out points are 1, 2 and 4 from a training point: the median is 2.
  found = metrics.memorisation(
      np.array([[0.5], [11], [20], [13]]), train, held_out, share=0.5)
  assert found == {'repeats': 3 / 4, 'nearer_training': 2 / 4}  # two ties
  # Copies count, also if as many held-out points are copies.
  also = metrics.memorisation(
      train, train, np.concatenate([held_out, train]), share=0.5)
  assert also['repeats'] == 1
  copies = metrics.memorisation(train, train, held_out)
  assert copies == {'repeats': 1, 'nearer_training': 1}
  assert metrics.memorisation(held_out, train, held_out)['nearer_training'] == 0


def test_memorisation_of_a_generator_that_has_learned_the_distribution():
  draw = np.random.default_rng(0).normal
  x, train, held_out = draw(size=(2000, 3)), draw(size=(900, 3)), draw(size=(600, 3))
  found = metrics.memorisation(x, train, held_out)
  assert abs(found['nearer_training'] - 0.5) < 0.05 and found['repeats'] < 0.03
  half = metrics.memorisation(np.concatenate([x[:500], train[:500]]), train, held_out)
  assert half['repeats'] > 0.49
  # Two thirds of the repeated images are among as many as were held out.
  assert half['nearer_training'] == pytest.approx(
      0.5 * 0.5 + 0.5 * (2 / 3 + 1 / 3 * 0.5), abs=0.05)
  some = metrics.memorisation(x, train, held_out, max_samples=300)
  assert some != found and abs(some['nearer_training'] - 0.5) < 0.1


def test_prdc_of_a_random_part():
  x, y = rng(1).normal(size=(60, 2)), rng(2).normal(size=(40, 2))
  part = metrics.prdc(x, y, max_samples=50)
  assert (part['num_samples'], part['num_reference']) == (50, 40)
  assert part == metrics.prdc(x, y, max_samples=50)
  assert part != metrics.prdc(x, y, max_samples=50, seed=1)
  assert metrics.prdc(x, y, max_samples=60) == metrics.prdc(x, y)
  for k in (0, 40):
    with pytest.raises(ValueError, match=rf'\bk\b.*\b{k}\b'):
      metrics.prdc(x, y, k)
  with pytest.raises(ValueError, match=r'\bk = 5\b.*\b5\b.*\b5\b'):
    metrics.prdc(x, y, 5, max_samples=5)


def test_nearest_neighbours():
  x, y = rng(1).normal(size=(12, 3)) + 1e4, rng(2).normal(size=(30, 3)) + 1e4
  x[3] = y[7]
  distance, index = metrics.nearest_neighbours(x, y, num=4)
  all_distances = distances(x, y)
  np.testing.assert_array_equal(index, all_distances.argsort(axis=1)[:, :4])
  np.testing.assert_allclose(distance, np.sort(all_distances, axis=1)[:, :4])
  assert (index[3, 0], distance[3, 0]) == (7, 0)  # a copy, to the last digit
  assert metrics.nearest_neighbours(x, y)[0].shape == (12, 3)
  for num in (0, 31):
    with pytest.raises(ValueError, match=rf'num.*1\.\.30\b.*\b{num}\b'):
      metrics.nearest_neighbours(x, y, num)


# The summary.


@pytest.fixture(scope='module')
def sets():
  x, x_labels = two_classes(80, seed=1)
  y, y_labels = two_classes(100, seed=2)
  sample = {'features': x, 'probs': random_probs(80, 2, 1), 'labels': x_labels}
  real = {'features': y, 'probs': random_probs(100, 2, 2), 'labels': y_labels}
  return sample, real


ALWAYS = {
    'num_samples', 'num_reference', 'fid', 'kid', 'kid_std', 'precision', 'recall',
    'density', 'coverage',
}
OF_PROBS = {
    'inception_score', 'inception_score_std', 'reference_inception_score', 'am_score',
    'class_kl',
}
OF_LABELS = {'class_shares', 'cafd', 'cafd_left_out', 'diversity', 'diversity_left_out'}
NO_MEASURE = {
    'num_samples', 'num_reference', 'kid_std', 'inception_score_std', 'cafd_left_out',
    'diversity_left_out',
}


def test_summary_agrees_with_the_single_measures(sets):
  sample, real = sets
  figures, conventions = metrics.generative_summary(
      sample, real, 2, splits=4, k=3, kid_subsets=5, kid_subset_size=40, seed=3
  )
  assert set(figures) == ALWAYS | OF_PROBS | OF_LABELS
  assert set(conventions) == set(figures) - NO_MEASURE
  x, y = sample['features'], real['features']
  score = metrics.inception_score(sample['probs'], 4)
  assert (figures['inception_score'], figures['inception_score_std']) == score
  of_real = metrics.inception_score(real['probs'], 4)[0]
  assert figures['reference_inception_score'] == of_real
  assert figures['am_score'] == metrics.am_score(sample['probs'], real['probs'])
  assert figures['class_kl'] == metrics.class_kl(sample['probs'], real['probs'])
  assert figures['fid'] == metrics.fid(x, metrics.gaussian_stats(y))
  mmd = metrics.kid(x, y, subsets=5, subset_size=40, seed=3)
  assert (figures['kid'], figures['kid_std']) == mmd
  near = metrics.prdc(x, y, 3)
  assert {name: figures[name] for name in near if name in figures} == near
  cafd = metrics.class_aware_fid(x, sample['labels'], y, real['labels'], 2)
  assert (figures['cafd'], figures['cafd_left_out']) == (cafd.distance, 0)
  ratio, _ = metrics.diversity_ratio(x, sample['labels'], y, real['labels'], 2)
  assert (figures['diversity'], figures['diversity_left_out']) == (ratio, 0)
  assert figures['class_shares'] == [0.5, 0.5]
  assert json.loads(json.dumps(figures)) == figures


def test_conventions_name_samples_splits_reference_and_k(sets):
  sample, real = sets
  _, said = metrics.generative_summary(
      sample, real, 3, splits=4, kid_subset_size=40, max_samples=90
  )
  assert said['inception_score'] == (
      '80 samples, mean over 4 splits, classifier of 2 classes.'
  )
  assert said['fid'] == '80 samples against 100 of the reference, 3 feature dimensions.'
  assert '100 subsets of 40' in said['kid']
  assert said['coverage'] == 'k = 5, 80 samples against 90 of the reference.'
  assert 'Mean over 2 of 3 classes' in said['cafd'] and 'has 40.' in said['cafd']
  assert 'mean over 2 of 3 classes' in said['diversity']
  for sentence in said.values():
    assert sentence.endswith('.') and sentence == sentence.strip()
  # Fewer samples than dimensions are said to be.
  wide = {**sample, 'features': rng().normal(size=(80, 90))}
  _, said = metrics.generative_summary(
      wide, {**real, 'features': rng(1).normal(size=(100, 90))}, 2, kid_subsets=1
  )
  assert '80 samples do not fill 90 feature dimensions' in said['fid']
  assert '40 samples do not fill 90 feature dimensions' in said['cafd']


def test_summary_leaves_out_what_it_has_no_arrays_for(sets):
  sample, real = sets
  bare = {'features': sample['features'], 'probs': None}
  figures, _ = metrics.generative_summary(bare, real, 2)
  assert set(figures) == ALWAYS
  figures, said = metrics.generative_summary(sample, {'features': real['features']}, 2)
  assert set(figures) == ALWAYS | {
      'inception_score', 'inception_score_std', 'class_shares'
  }
  assert 'no splits' in said['inception_score']
  with pytest.raises(ValueError, match='features'):
    metrics.generative_summary({'probs': sample['probs']}, real, 2)


@pytest.mark.parametrize('part', ['probs', 'labels'])
def test_summary_refuses_arrays_of_other_lengths(sets, part):
  sample, real = sets
  short = {**sample, part: sample[part][:-1]}
  with pytest.raises(ValueError, match=f'^{part}.*80.*79'):
    metrics.generative_summary(short, real, 2)
  short = {**real, part: real[part][:-1]}
  with pytest.raises(ValueError, match=f'^reference {part}.*100.*99'):
    metrics.generative_summary(sample, short, 2)


def test_summary_of_a_collapsed_generator_is_finite_and_says_so(sets):
  _, real = sets
  point = {
      'features': np.zeros((30, 3)), 'probs': np.tile([0.9, 0.1], (30, 1)),
      'labels': np.zeros(30, int),
  }
  figures, _ = metrics.generative_summary(point, real, 2)
  assert all(np.isfinite(value).all() for value in figures.values())
  assert figures['inception_score'] == pytest.approx(1)
  assert figures['recall'] == 0
  assert figures['diversity'] == pytest.approx(0, abs=1e-12)
  assert (figures['class_shares'], figures['cafd_left_out']) == ([1, 0], 1)
