"""The pool of all training images, from which batches are gathered.

    pool = make_pool(positives, {'cifar100': negatives}, 10, mean, std)
    batch = gather(pool, stream.index(step))        # numpy, or jax.numpy under jit
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nat_jax.data import negatives as negatives_lib
from nat_jax.data import rows
from nat_jax.data.arrays_source import is_vectors
from nat_jax.data.sources import Arrays

Array = np.ndarray | jax.Array


class Pool(NamedTuple):
  """The positives, followed by each set of negatives in order.

  Attributes:
    image: uint8 `[n, h, w, c]`, an array or `data.Rows`; float32 `[n, d]` for vectors
      and points.
    label: int32 `[n]`, -1: a negative.
    weight: float32 `[n]`, factor of the loss of each image; None: all are 1.
  """

  image: Array | rows.Rows
  label: Array
  weight: Array | None = None


def make_pool(
    positives: Arrays,
    negatives: Mapping[str, Arrays],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Pool:
  """Joins positives and negatives into a pool, without copying uint8 images.

  The labels of the negatives become -1.

  Args:
    positives: images with labels 0..num_classes-1.
    negatives: name -> set of images; {} for none.
    num_classes: number of classes.
    mean, std: per channel, `[c]` or `[1]`, of pixels in [0, 1]; normalised (float)
      images x are converted to uint8: 255 (x std + mean), rounded and clipped. Vectors
      stay as they are.

  Returns:
    The pool, as numpy arrays or `data.Rows`.

  Raises:
    ValueError: labels out of range, a set without images, or images that differ from
      the positives in size or channels.
  """
  label = np.asarray(positives.label)
  if not label.size:
    raise ValueError(
        'the set of positives must have 1 image or more, got 0; choose another split '
        'or other classes of its source')
  if label.min() < 0 or label.max() >= num_classes:
    raise ValueError(
        f'labels of the positives must be 0..{num_classes - 1}, got {label.min()}..'
        f'{label.max()}; set num_classes, or choose classes=(...), which renumbers'
    )
  shape = positives.image.shape[1:]
  for name, arrays in negatives.items():
    if not len(arrays.image):
      raise ValueError(
          f'the set of negatives {name!r} must have 1 image or more, got 0; choose '
          'another split or other classes of its source, or remove the set')
    other = arrays.image.shape[1:]
    if other != shape and is_vectors(other) and is_vectors(shape):
      raise ValueError(
          f'the negatives {name!r} have {other[0]} columns, the positives {shape[0]}; '
          'all sets need vectors of one kind, such as those of one backbone')
    if other != shape and is_vectors(shape):
      raise ValueError(
          f'the negatives {name!r} are pictures, the positives vectors; --mode=embed '
          'makes vectors of pictures')
    if other != shape:
      size, mode = tuple(shape[:2]), 'L' if shape[2] == 1 else 'RGB'
      raise ValueError(
          f'the negatives {name!r} have the shape {list(other)} '
          f'(height, width, channels), the positives {list(shape)}; all sets need one '
          "shape: the source 'folder' converts pictures with "
          f'size={size}, mode={mode!r}'
      )

  def pixels(image):
    if image.dtype == np.uint8 or is_vectors(shape):
      return image
    if isinstance(image, rows.Rows):
      return rows.Rows(
          lambda chosen: negatives_lib.quantise(image[chosen], mean, std), len(image),
          image.shape[1:])
    return negatives_lib.quantise(image, mean, std)

  sets = list(negatives.values())
  num_negatives = sum(len(arrays.image) for arrays in sets)
  return Pool(
      rows.join([pixels(arrays.image) for arrays in (positives, *sets)]),
      np.concatenate([label, np.full(num_negatives, -1)]).astype(np.int32),
  )


def class_weights(
    asked: str | Sequence[float], label: np.ndarray, num_classes: int
) -> np.ndarray | None:
  """The factor of the loss of each image, by its class.

  Args:
    asked: '': none; one factor for each class; or 'balanced', w_k = n / (c n_k), n_k of
      the n positives in class k of c, so that the weights of all classes have equal
      sums and those of all positives have the sum n.
    label: int `[m]`, -1: a negative, whose factor is 1.
    num_classes: number of classes c.

  Returns:
    float32 `[m]`; None for ''.

  Raises:
    ValueError: another number of factors than of classes, or 'balanced' where a class
      has no image.

  Reference: scikit-learn, `class_weight='balanced'`.
  """
  if not len(asked):
    return None
  if asked == 'balanced':
    counts = np.bincount(label[label >= 0], minlength=num_classes)
    if not counts.all():
      raise ValueError(
          "data.class_weights='balanced' needs training positives of each class, and "
          f'there are none of class {np.flatnonzero(counts == 0)[0]}; give a factor '
          'for each class instead, or add images')
    asked = counts.sum() / (num_classes * counts)
  if len(asked) != num_classes:
    raise ValueError(
        f'data.class_weights must hold one factor for each of the {num_classes} '
        f'classes, got {len(asked)}')
  return np.append(asked, 1).astype(np.float32)[label]  # label -1: the last one


def gather(pool: Pool, index: Array | dict[str, Array]) -> dict[str, Any]:
  """Gathers the batch of the rows `index`.

  Args:
    pool: numpy arrays, or arrays on a device.
    index: int32 `[n]` (or of any shape), an array of numpy or JAX like the pool; -1: an
      empty slot. Or a dict of such arrays.

  Returns:
    {'image': `[n, h, w, c]`, 'label': int32 `[n]`, 'weight': float32 `[n]`}; for a dict
    of indices a dict of such batches. An empty slot has the image of row 0, label -1
    and weight 0.
  """
  if isinstance(index, dict):
    return {name: gather(pool, part) for name, part in index.items()}
  filled = (index >= 0).astype(index.dtype)
  row = index * filled
  return {
      'image': pool.image[row],
      'label': (pool.label[row] + 1) * filled - 1,
      'weight': filled.astype('float32') * (
          1 if pool.weight is None else pool.weight[row]),
  }
