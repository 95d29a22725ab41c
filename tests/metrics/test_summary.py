"""Summaries: the keys of eval.json, their agreement with the single metrics."""

import json

import numpy as np
import pytest

from nat_jax import metrics

FIGURES = {
    'ncr', 'par', 'auroc', 'aupr_in', 'aupr_out',
    'fpr95_id_positive', 'fpr95_ood_positive', 'n', 'ncr_interval',
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
