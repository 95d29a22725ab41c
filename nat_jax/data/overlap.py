"""Counts the images that two sets share, such as training and test negatives.

    count_overlap(test_negatives, training_negatives)
"""

import hashlib

import numpy as np

from nat_jax.data.sources import Arrays


def count_overlap(a: Arrays, b: Arrays) -> int:
  """The number of images of `a` that are in `b`, equal in every pixel.

  It is 0 for sets of different dtype (uint8, float32) or image shape.
  """
  if a.image.dtype != b.image.dtype or a.image.shape[1:] != b.image.shape[1:]:
    return 0
  digests = set(map(_digest, b.image))
  return sum(_digest(image) in digests for image in a.image)


def _digest(image: np.ndarray) -> bytes:
  return hashlib.blake2b(image.tobytes(), digest_size=16).digest()
