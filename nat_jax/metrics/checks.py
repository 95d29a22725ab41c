"""The one check at the entry of every metric: what came is a set of samples."""

import chex
import numpy as np
from numpy.typing import ArrayLike


def samples(name: str, values: ArrayLike) -> np.ndarray:
  """Returns `values` as a numpy array [n] of the dtype it came in.

  Raises:
    ValueError: no samples, or NaN among them; `name` says which.
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
