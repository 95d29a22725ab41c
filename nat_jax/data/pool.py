"""All training images, one set after the other, and batches gathered from them.

    pool = make_pool(positives, {'cifar100': negatives}, 10, mean, std)
    batch = gather(pool, stream.index(step))        # numpy, or jax.numpy under jit
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nat_jax.data import negatives as negatives_lib
from nat_jax.data import rows
from nat_jax.data.sources import Arrays

Array = np.ndarray | jax.Array


class Pool(NamedTuple):
  """The positives, then every set of negatives in order.

  Attributes:
    image: `[n, h, w, c]` uint8, which may be `data.Rows`.
    label: `[n]` int32, -1 = negative.
  """

  image: Array | rows.Rows
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
      rows.join([pixels(arrays.image) for arrays in (positives, *sets)]),
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
    return {name: gather(pool, part) for name, part in index.items()}
  filled = (index >= 0).astype(index.dtype)
  row = index * filled
  return {
      'image': pool.image[row],
      'label': (pool.label[row] + 1) * filled - 1,
      'weight': filled.astype('float32'),
  }
