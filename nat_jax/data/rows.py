"""Arrays of images that are read on access, for data sets larger than the memory.

    rows = Rows(read, num=1_281_167, shape=(224, 224, 3))  # read: indices -> images
    batch = rows[np.array([5, 17, 5])]                      # uint8 [3, 224, 224, 3]
    half = select(rows, np.arange(0, len(rows), 2))         # nothing is read
    whole = join([array_in_memory, rows])                   # nothing is copied

An argument of type `Images` is an array or a `Rows`: both have a `shape`, a `dtype` and
a length, and are indexed by a slice or an array of ints.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

CHUNK = 512  # most images that `chunks` reads at a time
CHUNK_BYTES = 2**26  # and most bytes


class Rows:
  """Images [num, h, w, c] that a function reads on access.

  Attributes:
    read: indices, int [n] -> images [n, h, w, c].
    shape: (num, h, w, c).
    dtype: of the images.
  """

  def __init__(
      self, read: Callable[[np.ndarray], np.ndarray], num: int,
      shape: Sequence[int], dtype: np.dtype | type = np.uint8,
  ):
    """Describes images without reading any.

    Args:
      read: indices, int [n] in 0..num-1 -> images [n, h, w, c]. It must be thread-safe.
      num: number of images.
      shape: (h, w, c) of one image.
      dtype: of the images.
    """
    self.read, self.shape, self.dtype = read, (num, *shape), np.dtype(dtype)

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
    """Reads the images with the indices `rows`.

    Args:
      rows: a slice, or int of any shape, in 0..num-1.

    Returns:
      Images [*rows.shape, h, w, c]; for a slice [n, h, w, c].

    Raises:
      IndexError: an index that is not in 0..num-1.
    """
    rows = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
    rows = rows.astype(np.int64)
    if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
      raise IndexError(
          f'rows must be 0..{len(self) - 1}, got {rows.min()}..{rows.max()}')
    found = self.read(rows.ravel()) if rows.size else np.empty(0, self.dtype)
    return np.asarray(found).reshape(*rows.shape, *self.shape[1:])

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    """Reads all images into memory."""
    return self[:].astype(dtype or self.dtype, copy=False)


Images = np.ndarray | Rows


def select(images: Images, rows: slice | np.ndarray) -> Images:
  """Returns some of the images; images on disk are read only on access.

  Args:
    images: an array in memory or on disk (`numpy.memmap`), or `Rows`.
    rows: a slice, or indices, int [n].
  """
  if in_memory(images) or (
      isinstance(images, np.ndarray) and isinstance(rows, slice)):
    return images[rows]
  numbers = np.arange(len(images))[rows]
  return Rows(
      lambda chosen: images[numbers[chosen]], len(numbers), images.shape[1:],
      images.dtype)


def in_memory(images: Images) -> bool:
  """Whether the images are an array in memory."""
  return isinstance(images, np.ndarray) and not isinstance(images, np.memmap)


def join(parts: Sequence[Images]) -> Images:
  """Returns the concatenation of sets of images without copying them.

  Args:
    parts: 1 or more sets, [n, h, w, c] each, of one shape (h, w, c) and dtype.
  """
  if len(parts) == 1:
    return parts[0]
  ends = np.cumsum([len(part) for part in parts])

  def read(rows):
    found = np.empty((len(rows), *parts[0].shape[1:]), parts[0].dtype)
    of_part = np.searchsorted(ends, rows, side='right')
    for i, part in enumerate(parts):
      chosen = of_part == i
      if chosen.any():
        found[chosen] = part[rows[chosen] - (ends[i] - len(part))]
    return found

  return Rows(read, int(ends[-1]), parts[0].shape[1:], parts[0].dtype)


def chunks(images: Images) -> Iterator[np.ndarray]:
  """Yields consecutive parts of the images, [CHUNK or fewer, h, w, c] each."""
  one = math.prod(images.shape[1:]) * images.dtype.itemsize
  num = max(1, min(CHUNK, CHUNK_BYTES // max(one, 1)))
  for start in range(0, len(images), num):
    yield images[start:start + num]
