"""All training images, one set after the other, and batches gathered from them.

    pool = make_pool(positives, {'cifar100': negatives}, 10, mean, std)
    batch = gather(pool, stream.index(step))        # numpy, or jax.numpy under jit
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nat_jax.data import negatives as negatives_lib
from nat_jax.data.sources import Arrays

Array = np.ndarray | jax.Array


class Rows:
  """Several arrays [n_i, ...], read as one array [sum n_i, ...] without a copy of them.

  Rows of an array on disk (`numpy.memmap`) are read when they are asked for.
  `numpy.asarray` gives all of them in memory.

  Attributes:
    shape, dtype: of the whole.
  """

  def __init__(self, parts: Sequence[np.ndarray]):
    self.parts = parts
    self.ends = np.cumsum([len(part) for part in parts])
    self.shape = (int(self.ends[-1]), *parts[0].shape[1:])
    self.dtype = parts[0].dtype

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
    """The rows of the numbers `rows` (int, of any shape): [*rows.shape, ...]."""
    rows = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
    if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
      raise IndexError(
          f'rows must be 0..{len(self) - 1}, got {rows.min()}..{rows.max()}')
    found = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
    of_part = np.searchsorted(self.ends, rows, side='right')
    for i, part in enumerate(self.parts):
      chosen = of_part == i
      if chosen.any():
        found[chosen] = part[rows[chosen] - (self.ends[i] - len(part))]
    return found

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    return np.concatenate(self.parts).astype(dtype or self.dtype, copy=False)


class Pool(NamedTuple):
  """The positives, then every set of negatives in order.

  Attributes:
    image: `[n, h, w, c]` uint8; `Rows` until it is put on a device.
    label: `[n]` int32, -1 = negative.
  """

  image: Array | Rows
  label: Array


def make_pool(
    positives: Arrays,
    negatives: Mapping[str, Arrays],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Pool:
  """Joins positives and negatives, without copying uint8 images.

  The labels of the negatives become -1.

  Args:
    positives: their labels are 0..num_classes-1.
    negatives: any number of sets, none among them.
    num_classes: number of classes.
    mean: `[c]` or `[1]`, with which normalised (float) images become uint8 again.
    std: per channel, `[c]` or `[1]`, as `mean`.

  Returns:
    The pool, in numpy.

  Raises:
    ValueError: labels out of range, a set without images, or images that differ from
      the positives in size or channels.
  """
  label = np.asarray(positives.label)
  if not label.size:
    raise ValueError('expected positives, got an empty set')
  if label.min() < 0 or label.max() >= num_classes:
    raise ValueError(
        f'labels of the positives must be 0..{num_classes - 1}, got {label.min()}..'
        f'{label.max()}; set num_classes, or choose classes=(...), which renumbers'
    )
  shape = positives.image.shape[1:]
  for name, arrays in negatives.items():
    if not len(arrays.image):
      raise ValueError(f'the negatives {name!r} are an empty set')
    if arrays.image.shape[1:] != shape:
      size, mode = tuple(shape[:2]), 'L' if shape[2] == 1 else 'RGB'
      raise ValueError(
          f'the negatives {name!r} are {list(arrays.image.shape[1:])} (height, width, '
          f'channels) but the positives {list(shape)}; sets of one shape are needed: '
          f"the source 'folder' makes pictures so by size={size}, mode={mode!r}"
      )

  def pixels(image):
    if image.dtype == np.uint8:
      return image
    return negatives_lib.quantise(image, mean, std)

  sets = list(negatives.values())
  num_negatives = sum(len(arrays.image) for arrays in sets)
  return Pool(
      Rows([pixels(arrays.image) for arrays in (positives, *sets)]),
      np.concatenate([label, np.full(num_negatives, -1)]).astype(np.int32),
  )


def gather(pool: Pool, index: Array | dict[str, Array]) -> dict[str, Any]:
  """Makes the batch of the rows `index`; -1 is an empty slot.

  Args:
    pool: in numpy, or on the device.
    index: `[n]` int32 (or of any shape), of the same kind; or a dict of such.

  Returns:
    `image` `[n, h, w, c]`, `label` `[n]` int32, `weight` `[n]` float32; of a dict, a
    dict of such batches. An empty slot has the image of row 0, label -1 and weight 0.
  """
  if isinstance(index, dict):
    return {name: gather(pool, rows) for name, rows in index.items()}
  filled = (index >= 0).astype(index.dtype)
  row = index * filled
  return {
      'image': pool.image[row],
      'label': (pool.label[row] + 1) * filled - 1,
      'weight': filled.astype('float32'),
  }
