"""How well a confidence tells positives (ID) from negatives (OOD), at any threshold.

    detection_metrics(positive_scores, negative_scores)['auroc']

Higher scores mean "more like a positive", throughout.
"""

import numpy as np
from numpy.typing import ArrayLike

from nat_jax.metrics import checks

RECALL = 0.95


def detection_metrics(
    positive_scores: ArrayLike, negative_scores: ArrayLike
) -> dict[str, float]:
  """AUROC, AUPR and FPR95, with the class that each calls positive in its name.

  auroc: P(positive scored above negative) + 1/2 P(equal); the same whichever class
    is called positive.
  aupr_in, aupr_out: area under precision and recall, with ID and with OOD to be
    found. As average precision, sum_i (R_i - R_{i-1}) P_i, which is what Outlier
    Exposure prints; OpenOOD and pytorch-ood take the trapezoids, which are not
    attainable points (0.828 against 0.883 where many scores tie). Either depends on
    the sizes of the groups, auroc and FPR95 do not.
  fpr95_id_positive: the share of negatives accepted at the highest threshold that
    keeps at least 95% of the positives (ODIN, energy). The rate that NCR_t is at a
    fixed threshold.
  fpr95_ood_positive: the share of positives rejected at the threshold that catches
    at least 95% of the negatives (Outlier Exposure, OpenOOD). Not the same number:
    0.178 and 0.315 on one set of scores.

  Args:
    positive_scores: [p]; infinities are fine. Only their order counts.
    negative_scores: [n].

  Returns:
    The five figures, as floats between 0 and 1.

  Raises:
    ValueError: an empty group, or NaN.

  Reference: Hendrycks, Gimpel, "A Baseline for Detecting Misclassified and
  Out-of-Distribution Examples in Neural Networks", ICLR 2017.
  """
  from sklearn import metrics as sk  # two seconds, which --help need not take

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


def joint_ranks(
    positive_scores: ArrayLike, negative_scores: ArrayLike
) -> tuple[np.ndarray, np.ndarray, int]:
  """Scores as dense ranks 0..m-1 in their joint order, ties keeping one rank.

  Ranks are finite where scores are not, and small integers to count by.

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
  # Every vertex is kept: dropping collinear ones can skip the first past the recall.
  from sklearn import metrics as sk

  fpr, tpr, _ = sk.roc_curve(wanted, score, drop_intermediate=False)
  return float(fpr[np.argmax(tpr >= RECALL)])
