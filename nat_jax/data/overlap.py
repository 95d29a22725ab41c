"""Counts the images that sets share, such as test negatives and training negatives.

    count_overlaps({'svhn': test_negatives}, [training_negatives])   # {'svhn': 0}
    overlap_sentence('svhn', 12, 2000)   # 'svhn shares 12 of its 2,000 images ...'
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping

from nat_jax.data.rows import Images, chunks
from nat_jax.data.sources import Arrays

MUCH = 0.1  # of a set; where more of it is trained on, its figures say little


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
  shared = 'all' if overlap == num else f'{overlap:,}'
  text = f'{name} shares {shared} of its {num:,} images with the training negatives'
  if overlap == num:
    return f'{text}: its figures say nothing about new ones.'
  if overlap > MUCH * num:
    return f'{text}: its figures say little about new ones.'
  # Of the whole set the share s = w a + (1 - w) b is above t, where a is that of the
  # images shared, w = overlap / num, and b that of the others: |s - b| <= w.
  return (f'{text}; without them the share of it that is accepted would differ by '
          f'{100 * overlap / num:.2g} percentage points at most.')


def _digests(images: Images) -> Iterator[bytes]:
  """Yields a digest of each image; images on disk are read some at a time."""
  kind = f'{images.dtype}{images.shape[1:]}'.encode()
  for part in chunks(images):
    for image in part:
      yield hashlib.blake2b(image.tobytes(), digest_size=16, key=kind).digest()
