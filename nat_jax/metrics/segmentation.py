"""Metrics of segmenters, from counts of pixels.

    >>> counts = confusion([0, 0, 1, 1], [0, 1, 1, -1], 2)   # predictions, labels
    >>> counts.tolist()                                      # [label, prediction]
    [[1, 0], [1, 1]]
    >>> intersection_over_union(counts).tolist()
    [0.5, 0.5]
"""

import numpy as np
from numpy.typing import ArrayLike


def confusion(prediction: ArrayLike, label: ArrayLike, num_classes: int) -> np.ndarray:
  """Counts pixels by their label and their prediction.

  Args:
    prediction: integers in 0..num_classes-1, of any shape.
    label: of the same shape; pixels of other labels than 0..num_classes-1, the void,
      are left out.
    num_classes: number of classes.

  Returns:
    int64 [num_classes, num_classes], by label and prediction.

  Raises:
    ValueError: shapes that differ, or predictions that are no classes.
  """
  prediction, label = np.asarray(prediction), np.asarray(label)
  if prediction.shape != label.shape:
    raise ValueError(
        'expected a prediction for each label, got the shapes '
        f'{prediction.shape} and {label.shape}')
  if prediction.size and not 0 <= prediction.min() <= prediction.max() < num_classes:
    raise ValueError(
        f'expected predictions in 0..{num_classes - 1}, got {prediction.min()}..'
        f'{prediction.max()}')
  counted = (label >= 0) & (label < num_classes)
  places = label[counted].astype(np.int64) * num_classes + prediction[counted]
  return np.bincount(places, minlength=num_classes**2).reshape(num_classes, -1)


def intersection_over_union(counts: np.ndarray) -> np.ndarray:
  """IoU_k = #{label k and prediction k} / #{label k or prediction k}, float64 [k].

  NaN for a class that no pixel has, neither by label nor by prediction.

  Args:
    counts: from `confusion`, added up over all pictures.
  """
  right = np.diag(counts)
  union = counts.sum(0) + counts.sum(1) - right
  return np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)


def pixel_accuracy(counts: np.ndarray) -> float:
  """The share of the pixels with a class that are predicted correctly."""
  total = counts.sum()
  return float(np.diag(counts).sum() / total) if total else float('nan')
