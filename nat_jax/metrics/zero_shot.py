"""Metrics of generalised zero-shot learning: U, S, H and calibrated stacking.

    constant = choose_constant(scores, label, seen)      # on validation rows
    figures = generalised(scores, label, seen, constant)  # on test rows
    figures['accuracy_unseen'], figures['accuracy_seen'], figures['harmonic_mean']
"""

import math
from typing import Any

import chex
import numpy as np

CANDIDATES = 201  # constants that are tried


def class_accuracies(
    label: np.ndarray, prediction: np.ndarray, num_classes: int
) -> np.ndarray:
  """The share of the rows of each class that are predicted correctly, float64 [k].

  Args:
    label, prediction: int [n].
    num_classes: k; the accuracy of a class without a row is NaN.
  """
  chex.assert_equal_shape([label, prediction])
  counts = np.bincount(label, minlength=num_classes)
  right = np.bincount(label[label == prediction], minlength=num_classes)
  with np.errstate(invalid='ignore'):
    return right / counts


def harmonic(one: float, other: float) -> float:
  """2 a b / (a + b); 0 if both are 0."""
  return 2 * one * other / (one + other) if one + other else 0.0


def generalised(
    scores: np.ndarray, label: np.ndarray, seen: np.ndarray, constant: float = 0.0
) -> dict[str, Any]:
  """Accuracies where all classes, seen and unseen, are candidates.

  The prediction is argmax_c (scores_c - constant [c is seen]).

  Args:
    scores: [n, k], of every class.
    label: int [n], in 0..k-1.
    seen: bool [k].
    constant: of calibrated stacking; 0: none.

  Returns:
    'accuracy_unseen' U and 'accuracy_seen' S, means over classes of the accuracy of
    each class; 'harmonic_mean' H = 2 U S / (U + S); 'accuracy_unseen_only', U if the
    unseen classes alone are candidates; 'class_accuracies', a list of k.

  Reference: Chao, Changpinyo, Gong, Sha, "An Empirical Study and Analysis of
  Generalized Zero-Shot Learning for Object Recognition in the Wild", ECCV 2016.
  """
  chex.assert_shape(scores, (len(label), len(seen)))
  of_class = class_accuracies(
      label, (scores - constant * seen).argmax(1), len(seen))
  unseen, known = (_mean(of_class[which]) for which in (~seen, seen))
  rows = ~seen[label]
  alone = class_accuracies(
      label[rows], np.where(seen, -np.inf, scores[rows]).argmax(1), len(seen))
  return {'accuracy_unseen': unseen, 'accuracy_seen': known,
          'harmonic_mean': harmonic(unseen, known),
          'accuracy_unseen_only': _mean(alone[~seen]),
          'class_accuracies': of_class.tolist()}


def _mean(values):
  """The mean of the values that are not NaN; NaN if there are none."""
  known = values[~np.isnan(values)]
  return float(known.mean()) if len(known) else math.nan


def choose_constant(
    scores: np.ndarray, label: np.ndarray, seen: np.ndarray
) -> tuple[float, float]:
  """The constant of calibrated stacking with the largest H, and this H.

  The constants that are tried are 0 and quantiles of the difference between the best
  seen and the best unseen class of a row. Of equally good ones the middle is taken.

  Args:
    scores, label, seen: see `generalised`; of validation rows.
  """
  gaps = (np.where(seen, scores, -np.inf).max(1)
          - np.where(seen, -np.inf, scores).max(1))
  tried = np.unique(np.append(np.quantile(gaps, np.linspace(0, 1, CANDIDATES)), 0.0))
  tried = np.append(tried, (tried[1:] + tried[:-1]) / 2)
  found = np.array([generalised(scores, label, seen, one)['harmonic_mean']
                    for one in tried])
  best = np.sort(tried[found >= found.max() - 1e-12])
  return float(best[len(best) // 2]), float(found.max())
