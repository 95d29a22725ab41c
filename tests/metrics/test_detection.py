"""Detection: against counting pairs, scikit-learn, published literals, and edges."""

import numpy as np
import pytest
from sklearn import metrics as sk

from nat_jax import metrics


def _by_counting(pos, neg):
  """The figures from their definitions, in O(n^2)."""
  pos, neg = np.asarray(pos, float), np.asarray(neg, float)
  both = np.concatenate([pos, neg])
  wins = (pos[:, None] > neg).sum() + 0.5 * (pos[:, None] == neg).sum()

  def average_precision(wanted, other, thresholds):
    area, recall = 0.0, 0.0
    for t in thresholds:
      hits, false = (wanted >= t).sum(), (other >= t).sum()
      area += (hits / len(wanted) - recall) * hits / (hits + false)
      recall = hits / len(wanted)
    return area

  def fpr95(wanted, other, thresholds):
    for t in thresholds:
      if 100 * (wanted >= t).sum() >= 95 * len(wanted):
        return (other >= t).mean()

  down = sorted(set(both.tolist()), reverse=True)
  up = sorted(set((-both).tolist()), reverse=True)
  return {
      'auroc': wins / (len(pos) * len(neg)),
      'aupr_in': average_precision(pos, neg, down),
      'aupr_out': average_precision(-neg, -pos, up),
      'fpr95_id_positive': fpr95(pos, neg, down),
      'fpr95_ood_positive': fpr95(-neg, -pos, up),
  }


def _assert_same(actual, expected, atol=1e-12):
  assert list(actual) == list(expected)
  for name, value in actual.items():
    assert type(value) is float
    np.testing.assert_allclose(value, expected[name], atol=atol, err_msg=name)


@pytest.mark.parametrize('sizes', [(1, 1), (1, 7), (20, 3), (60, 100), (100, 40)])
@pytest.mark.parametrize('levels', [None, 1, 2, 5, 30])
def test_against_counting_with_ties(sizes, levels):
  rng = np.random.default_rng(0)
  pos, neg = rng.normal(1, 1, sizes[0]), rng.normal(0, 1, sizes[1])
  if levels:
    pos, neg = np.floor(pos * levels) / levels, np.floor(neg * levels) / levels
  if levels == 1:
    pos, neg = 0 * pos, 0 * neg  # -0.0 among them, which ties with 0.0
  _assert_same(metrics.detection_metrics(pos, neg), _by_counting(pos, neg))


@pytest.mark.parametrize('decimals', [1, 2, 16])
def test_against_scikit_learn(decimals):
  rng = np.random.default_rng(1)
  pos = rng.normal(1, 1, 3000).round(decimals)
  neg = rng.normal(0, 1, 800).round(decimals)
  label = np.r_[np.ones(3000), np.zeros(800)]
  score = np.r_[pos, neg]
  ours = metrics.detection_metrics(pos, neg)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12)  # noqa: E731
  close(ours['auroc'], sk.roc_auc_score(label, score))
  close(ours['aupr_in'], sk.average_precision_score(label, score))
  close(ours['aupr_out'], sk.average_precision_score(1 - label, -score))
  for name, y, s in [
      ('fpr95_id_positive', label, score), ('fpr95_ood_positive', 1 - label, -score)
  ]:
    fpr, tpr, _ = sk.roc_curve(y, s, drop_intermediate=False)
    close(ours[name], fpr[tpr >= 0.95].min())


def test_known_example():
  # 10,000 ID and 2,000 OOD confidences; the figures were computed independently.
  rng = np.random.default_rng(0)
  pos, neg = rng.beta(20, 1, 10000), rng.beta(3, 1.5, 2000)
  figures = metrics.detection_metrics(pos, neg)
  assert round(figures['auroc'], 6) == 0.953022
  assert round(figures['aupr_out'], 6) == 0.892550
  assert figures['fpr95_ood_positive'] == 0.3148
  assert figures['fpr95_id_positive'] == 0.178


def test_fpr95_by_hand():
  # 19 of 20 positives are at least 95%: the lowest may be lost, the next may not.
  pos, neg = np.arange(1, 21), np.array([0.5, 1.5, 2.0, 2.5])
  figures = metrics.detection_metrics(pos, neg)
  assert figures['fpr95_id_positive'] == 0.5  # threshold 2: 2.0 and 2.5 pass it
  assert figures['fpr95_ood_positive'] == 0.1  # threshold 2.5: 1 and 2 are flagged
  assert metrics.detection_metrics(pos[:19], neg)['fpr95_id_positive'] == 0.75


def test_fpr95_on_a_straight_piece_of_the_roc_curve():
  # Every vertex lies on the diagonal; scikit-learn by default drops all but the ends.
  same = metrics.detection_metrics(np.arange(40), np.arange(40))
  assert same['fpr95_id_positive'] == same['fpr95_ood_positive'] == 0.95


def test_extremes():
  perfect = metrics.detection_metrics([2.0, 3.0], [0.0, 1.0])
  assert list(perfect.values()) == [1.0, 1.0, 1.0, 0.0, 0.0]
  inverted = metrics.detection_metrics([0.0, 1.0], [2.0, 3.0])
  assert inverted['auroc'] == 0.0
  assert inverted['fpr95_id_positive'] == inverted['fpr95_ood_positive'] == 1.0
  equal = metrics.detection_metrics(np.ones(3), np.ones(1))
  assert list(equal.values()) == [0.5, 0.75, 0.25, 1.0, 1.0]


def test_only_the_order_of_scores_counts():
  rng = np.random.default_rng(2)
  pos, neg = rng.normal(1, 1, 50).round(1), rng.normal(0, 1, 60).round(1)
  plain = metrics.detection_metrics(pos, neg)
  shuffled = metrics.detection_metrics(rng.permutation(pos), rng.permutation(neg))
  assert shuffled == plain
  # Energies around -600: a library that puts a sigmoid over scores ties them all.
  assert metrics.detection_metrics(pos - 600, neg - 600) == plain
  assert metrics.detection_metrics(pos**3, neg**3) == plain
  low = metrics.detection_metrics(pos.astype(np.float32), neg.astype(np.float32))
  assert low == plain


def test_infinite_scores_are_ordered_like_any_other():
  pos, neg = [np.inf, np.inf, 1.0, -np.inf], [np.inf, 0.0, -np.inf]
  expected = metrics.detection_metrics([9.0, 9.0, 1.0, -9.0], [9.0, 0.0, -9.0])
  assert metrics.detection_metrics(pos, neg) == expected


def test_swapping_the_groups_mirrors_the_figures():
  rng = np.random.default_rng(3)
  pos, neg = rng.normal(1, 1, 70).round(1), rng.normal(0, 1, 30).round(1)
  there = metrics.detection_metrics(pos, neg)
  back = metrics.detection_metrics(-neg, -pos)
  np.testing.assert_allclose(there['auroc'], back['auroc'], rtol=1e-12)
  np.testing.assert_allclose(there['aupr_in'], back['aupr_out'], rtol=1e-12)
  assert there['fpr95_id_positive'] == back['fpr95_ood_positive']


@pytest.mark.parametrize(
    'pos, neg, match',
    [
        ([], [1.0], 'positive_scores'),
        ([1.0], [], 'negative_scores'),
        ([1.0, np.nan], [1.0], 'positive_scores.*NaN.*1 of 2'),
        ([1.0], [np.nan], 'negative_scores.*NaN.*1 of 1'),
    ],
)
def test_bad_scores_are_refused(pos, neg, match):
  for fn in (metrics.detection_metrics, metrics.auroc_interval):
    with pytest.raises(ValueError, match=match):
      fn(np.array(pos), np.array(neg))
