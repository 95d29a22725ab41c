"""Confidences from logits: literals, a background output, and ranking without ties."""

import numpy as np
import pytest

from nat_jax import metrics


def test_literal_values():
  logits = np.log([[1.0, 2.0, 3.0, 4.0], [5.0, 2.0, 2.0, 1.0]])
  scores = metrics.scores_from_logits(logits, num_classes=4)
  np.testing.assert_allclose(scores['max_prob'], [0.4, 0.5], rtol=1e-14)
  np.testing.assert_allclose(scores['score'], [np.log(2 / 3), 0.0], atol=1e-14)
  np.testing.assert_array_equal(scores['prediction'], [3, 0])
  assert scores['max_prob'].dtype == scores['score'].dtype == np.float64
  assert scores['prediction'].dtype == np.int32


def test_background_takes_its_share_but_is_no_class():
  logits = np.log([[1.0, 2.0, 3.0, 4.0], [1.0, 5.0, 2.0, 2.0]])
  scores = metrics.scores_from_logits(logits, num_classes=3)
  np.testing.assert_allclose(scores['max_prob'], [0.3, 0.5], rtol=1e-14)
  np.testing.assert_allclose(scores['score'], [np.log(3 / 7), 0.0], atol=1e-14)
  np.testing.assert_array_equal(scores['prediction'], [3, 1])


def test_uniform_logits_are_exactly_one_over_k():
  scores = metrics.scores_from_logits(np.full((1, 10), 7.3), num_classes=10)
  assert scores['max_prob'][0] == 0.1
  assert metrics.negative_confidence_rate(scores['max_prob'], [0.1]) == {'0.1': 0.0}


def test_score_is_the_log_odds_of_max_prob():
  logits = np.random.default_rng(0).normal(size=(500, 6)) * 4
  for num_classes in (6, 5):
    scores = metrics.scores_from_logits(logits, num_classes)
    p = scores['max_prob']
    np.testing.assert_allclose(scores['score'], np.log(p / (1 - p)), rtol=1e-6)
    np.testing.assert_array_equal(np.argsort(p), np.argsort(scores['score']))


def test_adding_a_constant_changes_nothing():
  logits = np.random.default_rng(1).integers(-99, 99, size=(20, 5)) / 8
  plain = metrics.scores_from_logits(logits, 5)
  for shift in (-1e6, 1e6):
    moved = metrics.scores_from_logits(logits + shift, 5)
    for name in plain:
      np.testing.assert_array_equal(moved[name], plain[name])


def test_no_ties_where_float32_softmax_saturates():
  # Gaps from 18.5 on round to 1.0 in float32, from 38.5 on in float64.
  gaps = np.array([18.5, 20.0, 30.0, 39.0, 60.0, 1e4], np.float32)
  logits = np.stack([gaps, np.zeros_like(gaps)], axis=1)
  e = np.exp(logits - logits.max(axis=1, keepdims=True))
  assert (e[:, 0] / e.sum(axis=1) == np.float32(1)).all()
  scores = metrics.scores_from_logits(logits, 2)
  np.testing.assert_allclose(scores['score'], gaps, rtol=1e-7)
  pos, neg = scores['score'][3:], scores['score'][:3]
  assert metrics.detection_metrics(pos, neg)['auroc'] == 1.0
  pos, neg = scores['max_prob'][3:].astype('f4'), scores['max_prob'][:3].astype('f4')
  assert metrics.detection_metrics(pos, neg)['auroc'] == 0.5


def test_an_overwhelming_background_still_ranks():
  logits = np.array([[0.0, -1.0, 1e3], [0.0, -1.0, 2e3]])
  scores = metrics.scores_from_logits(logits, num_classes=2)
  np.testing.assert_allclose(scores['score'], [-1e3, -2e3])
  np.testing.assert_array_equal(scores['prediction'], [2, 2])


@pytest.mark.parametrize(
    'logits, num_classes, match',
    [
        ([[0.0, np.nan]], 2, 'logits.*NaN or infinity'),
        ([[0.0, np.inf]], 2, 'logits.*NaN or infinity'),
        ([[0.0, 1.0]], 3, r'\b3\b.*\b2\b'),
        ([[0.0]], 1, r'\b1 classes.*\b1 outputs'),
    ],
)
def test_bad_arguments_say_what_is_wrong(logits, num_classes, match):
  with pytest.raises(ValueError, match=match):
    metrics.scores_from_logits(np.array(logits), num_classes)
