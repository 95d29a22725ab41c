"""Checks and conversions of the arrays that metrics of generated images take.

    features, reference = arrays.pair(features, reference)      # [n, d], [m, d]
    labels = arrays.labels(labels, num=len(features), num_classes=10)
"""

import numpy as np
from numpy.typing import ArrayLike


def features(values: ArrayLike, name: str = 'features') -> np.ndarray:
  """Returns features as float64 [n, d].

  Args:
    values: [n, d], any numeric dtype.
    name: of the array, for the error message.

  Raises:
    ValueError: another rank, no sample, NaN or infinity.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 2 or not values.size:
    raise ValueError(
        f'{name}: expected at least one sample, [n, d]; got shape {values.shape}'
    )
  num_bad = int((~np.isfinite(values).all(axis=1)).sum())
  if num_bad:
    raise ValueError(
        f'{name}: expected finite numbers, got NaN or infinity in {num_bad} of '
        f'{len(values)} samples; the generator diverged: use an earlier checkpoint '
        '(--step)'
    )
  return values


def pair(
    generated: ArrayLike, reference: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the features of generated and of real images as float64 [n, d], [m, d].

  Raises:
    ValueError: another rank, no sample, NaN or infinity, or different dimensions d.
  """
  generated, reference = features(generated), features(reference, 'reference features')
  same_width(generated.shape[1], reference.shape[1])
  return generated, reference


def same_width(dim: int, reference_dim: int) -> None:
  """Raises ValueError unless two feature dimensions are equal."""
  if dim != reference_dim:
    raise ValueError(
        f'features: expected the {reference_dim} dimensions of the reference, got '
        f'{dim}; compute both with the same network'
    )


def probs(values: ArrayLike, name: str = 'probs') -> np.ndarray:
  """Returns class probabilities as float64 [n, k], each row scaled to sum to 1.

  Args:
    values: [n, k], not negative, each row with a sum within 0.02 of 1.
    name: of the array, for the error message.

  Raises:
    ValueError: another rank, no sample, or rows that are no probabilities.
  """
  values = features(values, name)
  total = values.sum(axis=1, keepdims=True)
  # The tolerance is for softmax in bfloat16; the division below removes the error.
  if values.min() < 0 or np.abs(total - 1).max() > 0.02:
    raise ValueError(
        f'{name}: expected probabilities, not negative, with rows that sum to 1; got '
        f'values {values.min():g}..{values.max():g}, sums {total.min():g}..'
        f'{total.max():g}; are these logits?'
    )
  return values / total


def labels(
    values: ArrayLike, num: int, num_classes: int, name: str = 'labels'
) -> np.ndarray:
  """Returns labels as integers [num] in 0..num_classes-1.

  Args:
    values: [num] integers.
    num: number of samples.
    num_classes: number of classes.
    name: of the array, for the error message.

  Raises:
    ValueError: another length, no integers, or a label outside the classes.
  """
  values = np.asarray(values)
  if values.shape != (num,):
    raise ValueError(
        f'{name}: expected one label for each of {num} samples, got shape '
        f'{values.shape}'
    )
  if not np.issubdtype(values.dtype, np.integer):
    raise ValueError(f'{name}: expected integers, got {values.dtype}')
  if num and not 0 <= values.min() <= values.max() < num_classes:
    raise ValueError(
        f'{name}: expected classes 0..{num_classes - 1}, got '
        f'{values.min()}..{values.max()}'
    )
  return values
