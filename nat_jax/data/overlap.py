"""Counts the images that sets share, such as test negatives and training negatives.

    count_overlaps({'svhn': test_negatives}, [training_negatives])   # {'svhn': 0}
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping

from nat_jax.data.rows import Images, chunks
from nat_jax.data.sources import Arrays


def count_overlaps(
    sets: Mapping[str, Arrays], others: Iterable[Arrays]
) -> dict[str, int]:
  """Counts the images of each set that are also in others, equal in every pixel.

  Every image is read once. The digests of `sets` are kept in memory, 100 bytes for each
  image; of `others`, which may be large, only the images that are being read.

  Args:
    sets: name -> images.
    others: images of any number of sets.

  Returns:
    {name: number}. Images of different dtype (uint8, float32) or shape are not equal.
  """
  digests = {name: list(_digests(one.image)) for name, one in sets.items()}
  wanted, found = set().union(*digests.values()), set()
  if wanted:
    for other in others:
      found.update(wanted.intersection(_digests(other.image)))
  return {name: sum(each in found for each in own) for name, own in digests.items()}


def _digests(images: Images) -> Iterator[bytes]:
  """Yields a digest of each image; images on disk are read some at a time."""
  kind = f'{images.dtype}{images.shape[1:]}'.encode()
  for part in chunks(images):
    for image in part:
      yield hashlib.blake2b(image.tobytes(), digest_size=16, key=kind).digest()
