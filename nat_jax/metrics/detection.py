"""OOD detection metrics: how well scores separate positives (ID) from negatives (OOD).

    >>> detection_metrics([0.9, 0.8, 0.4], [0.7, 0.1])['auroc']
    0.8333333333333333

A higher score means "more like a positive" in all functions.
"""

import numpy as np
from numpy.typing import ArrayLike

from nat_jax.metrics import checks

RECALL = 0.95


def detection_metrics(
    positive_scores: ArrayLike, negative_scores: ArrayLike
) -> dict[str, float]:
  """AUROC, AUPR and FPR95; the names say which class each metric treats as positive.

  auroc: P(positive scored above negative) + 1/2 P(equal scores). It does not depend on
    which class is treated as positive.
  aupr_in, aupr_out: area under the precision-recall curve with ID and with OOD as the
    class to be found, as average precision, sum_i (R_i - R_{i-1}) P_i, which Outlier
    Exposure reports. OpenOOD and pytorch-ood use the trapezoidal rule, whose points are
    not attainable (0.828 against 0.883 where many scores tie). Both depend on the
    numbers of positives and negatives; auroc and FPR95 do not.
  fpr95_id_positive: the share of negatives accepted at the highest threshold that
    keeps at least 95% of the positives (ODIN, energy); NCR_t is this share at a fixed
    threshold.
  fpr95_ood_positive: the share of positives rejected at the threshold that rejects at
    least 95% of the negatives (Outlier Exposure, OpenOOD). The two FPR95 differ: 0.178
    and 0.315 on one set of scores.

  Args:
    positive_scores: [p]; may be infinite. Only the order of the scores matters.
    negative_scores: [n].

  Returns:
    The five metrics by name, floats between 0 and 1.

  Raises:
    ValueError: an empty group, or NaN.

  Reference: Hendrycks, Gimpel, "A Baseline for Detecting Misclassified and
  Out-of-Distribution Examples in Neural Networks", ICLR 2017.
  """
  from sklearn import metrics as sk  # takes two seconds, which --help must not

  pos_rank, neg_rank, _ = joint_ranks(positive_scores, negative_scores)
  rank = np.concatenate([pos_rank, neg_rank])
  is_pos = np.concatenate([np.ones(pos_rank.size, int), np.zeros(neg_rank.size, int)])
  return {
      'auroc': float(sk.roc_auc_score(is_pos, rank)),
      'aupr_in': float(sk.average_precision_score(is_pos, rank)),
      'aupr_out': float(sk.average_precision_score(1 - is_pos, -rank)),
      'fpr95_id_positive': _fpr_at_recall(is_pos, rank),
      'fpr95_ood_positive': _fpr_at_recall(1 - is_pos, -rank),
  }


def threshold_at_recall(positive_scores: ArrayLike, recall: float = RECALL) -> float:
  """The highest threshold that keeps at least the share `recall` of the positives.

  It is the threshold of 'fpr95_id_positive': an image is accepted if its score is at
  least the threshold.

  Args:
    positive_scores: [p].
    recall: least share of accepted positives.

  Raises:
    ValueError: no positives, or NaN.
  """
  scores = np.sort(checks.samples('positive_scores', positive_scores))
  kept = np.arange(1, scores.size + 1)
  return float(scores[-kept[np.argmax(kept / scores.size >= recall)]])


def joint_ranks(
    positive_scores: ArrayLike, negative_scores: ArrayLike
) -> tuple[np.ndarray, np.ndarray, int]:
  """The dense ranks 0..m-1 of two sets of scores in their joint order.

  Tied scores share a rank. Ranks are finite where scores are not, and are small
  integers that histograms can be taken of.

  Args:
    positive_scores: [p].
    negative_scores: [n].

  Returns:
    (ranks of the positives [p], ranks of the negatives [n], m).

  Raises:
    ValueError: an empty group, or NaN.
  """
  pos = checks.samples('positive_scores', positive_scores).astype(np.float64)
  neg = checks.samples('negative_scores', negative_scores).astype(np.float64)
  values, rank = np.unique(np.concatenate([pos, neg]), return_inverse=True)
  return rank[: pos.size], rank[pos.size :], values.size


def _fpr_at_recall(wanted: np.ndarray, score: np.ndarray) -> float:
  """The false positive rate at the first point of the ROC with a recall of `RECALL`."""
  # All points are kept: without collinear ones the first such point can be missing.
  from sklearn import metrics as sk

  fpr, tpr, _ = sk.roc_curve(wanted, score, drop_intermediate=False)
  return float(fpr[np.argmax(tpr >= RECALL)])
