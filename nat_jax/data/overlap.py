"""Do two sets share images?

    count_overlap(test_negatives, training_negatives)
"""

import hashlib

import numpy as np

from nat_jax.data.sources import Arrays


def count_overlap(a: Arrays, b: Arrays) -> int:
  """Number of images of `a` that stand in `b`, equal in every pixel.

  Sets of different type (uint8, float32) or shape share nothing.
  """
  if a.image.dtype != b.image.dtype or a.image.shape[1:] != b.image.shape[1:]:
    return 0
  known = set(map(_digest, b.image))
  return sum(_digest(image) in known for image in a.image)


def _digest(image: np.ndarray) -> bytes:
  return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
