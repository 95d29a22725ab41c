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
    'aupr_in', 'aupr_out', 'fpr95_id_positive', its '_interval' [low, high],
    'fpr95_ood_positive' and 'n'; with `bootstrap` also 'auroc_interval'.

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
      'fpr95_id_positive_interval': list(intervals.accepted_interval(pos, neg)),
      'n': n,
  }
  if bootstrap:
    summary['auroc_interval'] = list(intervals.auroc_interval(pos, neg))
  return summary


def class_summary(
    scores: Scores, labels: ArrayLike, num_classes: int, most: int = 50
) -> dict[str, Any]:
  """The figures of each class of a positive evaluation set.

  Args:
    scores: of the n positives, from `scores_from_logits`.
    labels: [n] integers in 0..num_classes-1.
    num_classes: number of classes c.
    most: largest number of classes for which the whole confusion matrix is returned.

  Returns:
    'threshold', the highest score that keeps 95 % of all n positives; lists of c with
    one number per class, 'n', 'accuracy' and 'accepted', the share of its images whose
    score is at least the threshold (None for a class without images); and 'confusion',
    c rows of c counts, row: the label, column: the prediction (c + 1 where a background
    output is predicted). With more than `most` classes it is 'confused', the `most`
    largest counts beside the diagonal, [label, prediction, count].

  Raises:
    ValueError: no samples, or NaN.
  """
  labels = np.asarray(labels)
  found = np.minimum(scores['prediction'], num_classes)  # num_classes: the background
  width = num_classes + bool((found == num_classes).any())
  counts = np.zeros((num_classes, width), int)
  np.add.at(counts, (labels, found), 1)
  threshold = detection.threshold_at_recall(scores['score'])
  n = counts.sum(1)
  accepted = np.bincount(
      labels, scores['score'] >= threshold, num_classes)

  def shares(values):
    return [float(x) / int(m) if m else None for x, m in zip(values, n, strict=True)]

  summary = {
      'threshold': threshold, 'n': n.tolist(),
      'accuracy': shares(np.diagonal(counts)), 'accepted': shares(accepted)}
  if num_classes <= most:
    return {**summary, 'confusion': counts.tolist()}
  wrong = counts.copy()
  np.fill_diagonal(wrong, 0)
  largest = np.argsort(-wrong, axis=None, kind='stable')[:most]
  pairs = np.stack(np.unravel_index(largest, wrong.shape), 1).tolist()
  return {**summary, 'confused': [
      [*pair, int(wrong[tuple(pair)])] for pair in pairs if wrong[tuple(pair)]]}


def corruption_summary(
    scores: Scores, labels: ArrayLike, pos_scores: Scores
) -> dict[str, Any]:
  """The metrics of corrupted positives, compared with those that are not corrupted.

  Args:
    scores: of the n corrupted positives, from `scores_from_logits`.
    labels: [n] integers in 0..c-1.
    pos_scores: of the positives that are not corrupted.

  Returns:
    'accuracy', 'accepted', the share whose score reaches the threshold that keeps 95 %
    of the uncorrupted positives, their '_interval' [low, high], and 'n'.

  Raises:
    ValueError: no samples, NaN, or a label of -1.
  """
  accuracy, n = ncr.accuracy(scores['prediction'], labels), len(scores['score'])
  threshold = detection.threshold_at_recall(pos_scores['score'])
  accepted = float(np.mean(scores['score'] >= threshold))
  return {
      'accuracy': accuracy, 'accuracy_interval': _proportion(accuracy, n),
      'accepted': accepted, 'accepted_interval': list(intervals.accepted_interval(
          pos_scores['score'], scores['score'])), 'n': n}


def _proportion(share: float, n: int) -> list[float]:
  return list(intervals.proportion_interval(round(share * n), n))
