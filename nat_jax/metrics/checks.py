"""The check of the arrays that metrics of classifiers take.

    scores = samples('positive_scores', scores)       # [n], without NaN
"""

import chex
import numpy as np
from numpy.typing import ArrayLike


def samples(name: str, values: ArrayLike) -> np.ndarray:
  """Returns `values` as a numpy array [n] of unchanged dtype.

  Args:
    name: of the array, for the error message.
    values: [n].

  Raises:
    ValueError: no samples, or NaN among them.
  """
  values = np.asarray(values)
  chex.assert_rank(values, 1)
  if not values.size:
    raise ValueError(f'{name}: expected at least one sample, got none')
  num_nan = int(np.isnan(values).sum())
  if num_nan:
    raise ValueError(
        f'{name}: expected numbers, got NaN in {num_nan} of {values.size} samples; '
        'did the training diverge?'
    )
  return values
