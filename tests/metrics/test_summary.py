"""Summaries: the keys of eval.json, their agreement with the single metrics."""

import json

import numpy as np
import pytest

from nat_jax import metrics

FIGURES = {
    'ncr', 'par', 'auroc', 'aupr_in', 'aupr_out',
    'fpr95_id_positive', 'fpr95_id_positive_interval', 'fpr95_ood_positive', 'n',
    'ncr_interval',
}


@pytest.fixture(scope='module')
def data():
  rng = np.random.default_rng(0)
  labels = rng.integers(5, size=300)
  pos = 4 * np.eye(5)[labels] + rng.normal(size=(300, 5))
  neg = 1.5 * rng.normal(size=(120, 5))
  scores = metrics.scores_from_logits
  return labels, scores(pos, 5), scores(neg, 5)


def test_negative_summary(data):
  _, pos, neg = data
  summary = metrics.negative_summary(pos, neg)
  assert set(summary) == FIGURES | {'auroc_interval'}
  assert summary['n'] == 120
  assert summary['ncr'] == metrics.negative_confidence_rate(neg['max_prob'])
  assert summary['par'] == metrics.positive_acceptance_rate(pos['max_prob'])
  figures = metrics.detection_metrics(pos['score'], neg['score'])
  assert {name: summary[name] for name in figures} == figures
  for t, (low, high) in summary['ncr_interval'].items():
    count = round(120 * summary['ncr'][t])
    assert (low, high) == metrics.proportion_interval(count, 120)
    assert low < summary['ncr'][t] < high
  assert summary['fpr95_id_positive_interval'] == list(
      metrics.accepted_interval(pos['score'], neg['score']))
  low, high = summary['auroc_interval']
  assert (low, high) == metrics.auroc_interval(pos['score'], neg['score'])
  assert low < summary['auroc'] < high


def test_positive_summary(data):
  labels, pos, _ = data
  summary = metrics.positive_summary(pos, labels)
  assert set(summary) == {'accuracy', 'ece', 'par', 'n', 'accuracy_interval'}
  correct = pos['prediction'] == labels
  assert summary['accuracy'] == correct.mean()
  assert summary['n'] == 300
  assert summary['par'] == metrics.positive_acceptance_rate(pos['max_prob'])
  ece = metrics.expected_calibration_error(pos['max_prob'], correct)
  assert summary['ece'] == ece
  low, high = summary['accuracy_interval']
  assert (low, high) == metrics.proportion_interval(int(correct.sum()), 300)
  assert low < summary['accuracy'] < high


def test_without_bootstrap_and_with_other_thresholds(data):
  _, pos, neg = data
  summary = metrics.negative_summary(pos, neg, bootstrap=False, thresholds=(0.5,))
  assert set(summary) == FIGURES
  assert list(summary['ncr']) == list(summary['par']) == ['0.5']


def test_survives_json_to_the_last_digit(data):
  labels, pos, neg = data
  for summary in (
      metrics.negative_summary(pos, neg), metrics.positive_summary(pos, labels)
  ):
    assert json.loads(json.dumps(summary)) == summary


def test_a_single_image_and_none(data):
  labels, pos, neg = data
  one = {name: values[:1] for name, values in neg.items()}
  assert metrics.negative_summary(pos, one)['n'] == 1
  none = {name: values[:0] for name, values in neg.items()}
  with pytest.raises(ValueError, match='max_prob'):
    metrics.negative_summary(pos, none)
  with pytest.raises(ValueError, match='prediction'):
    metrics.positive_summary(none, labels[:0])


def test_the_threshold_is_that_of_fpr95():
  """Also with ties, and where 95 % of n is no whole number."""
  rng = np.random.default_rng(0)
  for n in (1, 2, 7, 20, 21, 60, 100, 333):
    pos, neg = (rng.integers(low, 8, size).astype(float)
                for low, size in ((0, n), (-4, 50)))
    threshold = metrics.threshold_at_recall(pos)
    assert np.mean(pos >= threshold) >= 0.95 > np.mean(pos > threshold)
    assert np.mean(neg >= threshold) == pytest.approx(
        metrics.detection_metrics(pos, neg)['fpr95_id_positive'])


def test_class_summary():
  """Against counts by hand: a background prediction, and a class without images."""
  scores = {'score': np.arange(20.0), 'prediction': np.array(
      [0, 0, 0, 1, 3, 3] + [1] * 9 + [0] * 5)}
  labels = np.array([0] * 6 + [1] * 14)
  found = metrics.class_summary(scores, labels, 3)
  assert found == {
      'threshold': 1.0, 'n': [6, 14, 0], 'accuracy': [3 / 6, 9 / 14, None],
      'accepted': [5 / 6, 1.0, None],
      'confusion': [[3, 1, 0, 2], [5, 9, 0, 0], [0, 0, 0, 0]]}
  assert json.loads(json.dumps(found)) == found
  few = metrics.class_summary(scores, labels, 3, most=2)
  assert few.pop('confused') == [[1, 0, 5], [0, 3, 2]]
  assert few == {key: found[key] for key in few}
  no_mistakes = metrics.class_summary(
      {'score': np.ones(2), 'prediction': np.array([0, 1])}, np.array([0, 1]), 2, 1)
  assert no_mistakes['confused'] == []


def test_the_figures_of_the_classes_sum_to_those_of_the_set(data):
  labels, pos, _ = data
  found = metrics.class_summary(pos, labels, 5)
  n = np.array(found['n'])
  summary = metrics.positive_summary(pos, labels)
  assert n.sum() == summary['n'] == np.sum(found['confusion'])
  assert (n * found['accuracy']).sum() / n.sum() == pytest.approx(summary['accuracy'])
  assert (n * found['accepted']).sum() / n.sum() == pytest.approx(
      np.mean(pos['score'] >= found['threshold']))
  assert np.sum(found['confusion'], 1).tolist() == n.tolist()


def test_corruption_summary(data):
  labels, pos, _ = data
  worse = {**pos, 'score': pos['score'] - 2, 'prediction': (pos['prediction'] + (
      np.arange(300) < 30)) % 5}
  found = metrics.corruption_summary(worse, labels, pos)
  threshold = metrics.threshold_at_recall(pos['score'])
  assert found['accepted'] == np.mean(pos['score'] - 2 >= threshold) < 0.95
  assert found['accuracy'] == metrics.accuracy(worse['prediction'], labels)
  assert found['accuracy_interval'] == list(metrics.proportion_interval(
      round(300 * found['accuracy']), 300))
  assert found['accepted_interval'] == list(
      metrics.accepted_interval(pos['score'], worse['score']))
  assert metrics.corruption_summary(pos, labels, pos)['accepted'] == 0.95
