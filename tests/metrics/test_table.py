"""The one table of metrics: directions of all figures that evaluations have."""

import numpy as np
import pytest

from nat_jax import metrics


@pytest.mark.parametrize('figure, lower', [
    ('noise/ncr/0.8', True), ('noise/fpr95_id_positive', True), ('v/ece', True),
    ('samples/fid', True), ('samples/class_kl', True), ('noise/auroc', False),
    ('v/accuracy', False), ('v/par/0.4', False), ('samples/inception_score', False),
    ('ncr/accuracy', False), ('ece/auroc', False),  # names of sets decide nothing
    ('v/n', False), ('', False)])
def test_direction_of_a_figure(figure, lower):
  assert metrics.lower_is_better(figure) is lower


def test_sentence_on_directions():
  assert metrics.directions(['fid', 'precision', 'kid', 'diversity']) == (
      'FID, KID: lower is better; precision: higher is better.')


def test_every_metric_of_a_classifier_is_in_the_table():
  rng = np.random.default_rng(0)
  scores = metrics.scores_from_logits(rng.normal(size=(50, 3)).astype(np.float32), 3)
  found = {*metrics.positive_summary(scores, np.zeros(50, int)),
           *metrics.negative_summary(scores, scores)}
  found = {name for name in found if not name.endswith('_interval')} - {'n'}
  assert found <= set(metrics.METRICS)
  assert {metrics.METRICS[name].better for name in found} == {'lower', 'higher'}
  by_threshold = {name for name in found if metrics.METRICS[name].by_threshold}
  assert by_threshold == {'ncr', 'par'}
