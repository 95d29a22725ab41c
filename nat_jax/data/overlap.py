"""Counts the images that two sets share, such as training and test negatives.

    count_overlap(test_negatives, training_negatives)
"""

import hashlib
from collections.abc import Iterator

from nat_jax.data.rows import Images, chunks
from nat_jax.data.sources import Arrays


def count_overlap(a: Arrays, b: Arrays) -> int:
  """The number of images of `a` that are in `b`, equal in every pixel.

  It is 0 for sets of different dtype (uint8, float32) or image shape.
  """
  if a.image.dtype != b.image.dtype or a.image.shape[1:] != b.image.shape[1:]:
    return 0
  digests = set(_digests(b.image))
  return sum(digest in digests for digest in _digests(a.image))


def _digests(images: Images) -> Iterator[bytes]:
  """Yields a digest of each image; images on disk are read some at a time."""
  for part in chunks(images):
    for image in part:
      yield hashlib.blake2b(image.tobytes(), digest_size=16).digest()
