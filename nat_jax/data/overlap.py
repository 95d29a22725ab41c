"""Counts the images that sets share, such as test negatives and training negatives.

    count_overlaps({'svhn': test_negatives}, [training_negatives])   # {'svhn': 0}
    overlap_sentence('svhn', 12, 2000)   # '12 of the 2,000 images of svhn are ...'
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping

from nat_jax.data.rows import Images, chunks
from nat_jax.data.sources import Arrays

NEGLIGIBLE = 0.01  # share of a set; where more is trained on, a test says little


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


def overlap_sentence(name: str, overlap: int, num: int) -> str:
  """Says what it means for the figures of a test set that it has training negatives.

  Args:
    name: of the set.
    overlap: number of its images that are training negatives, 1 or more.
    num: number of its images.
  """
  if overlap == num:
    return (f'All {num:,} images of {name} are training negatives, so that its figures '
            'say nothing about new ones.')
  text = f'{overlap:,} of the {num:,} images of {name} are training negatives, '
  if overlap > NEGLIGIBLE * num:
    return text + 'so that its figures say little about new ones.'
  # Without them the share of images that have some property changes by this at most.
  change = 100 * overlap / (num - overlap)
  return text + f'which changes its shares by {change:.2g} percentage points at most.'


def _digests(images: Images) -> Iterator[bytes]:
  """Yields a digest of each image; images on disk are read some at a time."""
  kind = f'{images.dtype}{images.shape[1:]}'.encode()
  for part in chunks(images):
    for image in part:
      yield hashlib.blake2b(image.tobytes(), digest_size=16, key=kind).digest()
