"""All metrics of an evaluation set, as eval.json holds them.

    pos = scores_from_logits(pos_logits, num_classes)
    neg = scores_from_logits(neg_logits, num_classes)
    evals = {'test': positive_summary(pos, labels), 'noise': negative_summary(pos, neg)}

Every value is a plain Python float, int, list or dict.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nat_jax.metrics import calibration, detection, intervals, ncr

Scores = Mapping[str, np.ndarray]


def positive_summary(
    scores: Scores,
    labels: ArrayLike,
    *,
    thresholds: Sequence[float] = ncr.THRESHOLDS,
) -> dict[str, Any]:
  """The metrics of a positive evaluation set.

  Args:
    scores: of the n positives, from `scores_from_logits`.
    labels: [n] integers in 0..c-1.
    thresholds: the values of t for PAR_t.

  Returns:
    'accuracy', 'accuracy_interval' [low, high], 'ece', 'par' {str(t): share} and 'n'. A
    background prediction is an error, for accuracy and ECE.

  Raises:
    ValueError: no samples, NaN, or a label of -1.
  """
  accuracy = ncr.accuracy(scores['prediction'], labels)
  correct = scores['prediction'] == np.asarray(labels)
  n = int(correct.size)
  return {
      'accuracy': accuracy,
      'accuracy_interval': _proportion(accuracy, n),
      'ece': calibration.expected_calibration_error(scores['max_prob'], correct),
      'par': ncr.positive_acceptance_rate(scores['max_prob'], thresholds),
      'n': n,
  }


def negative_summary(
    pos_scores: Scores,
    neg_scores: Scores,
    *,
    bootstrap: bool = True,
    thresholds: Sequence[float] = ncr.THRESHOLDS,
) -> dict[str, Any]:
  """The metrics of a negative evaluation set, compared with a positive one.

  NCR_t and PAR_t use `max_prob`; AUROC, AUPR and FPR95 use the tie-free `score`.

  Args:
    pos_scores: of the positives, from `scores_from_logits`.
    neg_scores: of the n negatives, from `scores_from_logits`.
    bootstrap: whether to add 'auroc_interval', which takes 1,000 resamples.
    thresholds: the values of t for NCR_t and PAR_t.

  Returns:
    'ncr' and 'par' {str(t): share}, 'ncr_interval' {str(t): [low, high]}, 'auroc',
    'aupr_in', 'aupr_out', 'fpr95_id_positive', 'fpr95_ood_positive' and 'n'; with
    `bootstrap` also 'auroc_interval' [low, high].

  Raises:
    ValueError: an empty set, or NaN.
  """
  rates = ncr.negative_confidence_rate(neg_scores['max_prob'], thresholds)
  n = int(len(neg_scores['max_prob']))
  pos, neg = pos_scores['score'], neg_scores['score']
  summary = {
      'ncr': rates,
      'ncr_interval': {t: _proportion(rate, n) for t, rate in rates.items()},
      'par': ncr.positive_acceptance_rate(pos_scores['max_prob'], thresholds),
      **detection.detection_metrics(pos, neg),
      'n': n,
  }
  if bootstrap:
    summary['auroc_interval'] = list(intervals.auroc_interval(pos, neg))
  return summary


def _proportion(share: float, n: int) -> list[float]:
  return list(intervals.proportion_interval(round(share * n), n))
