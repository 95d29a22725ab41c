"""The sources of pictures with masks, and the regions of their rare classes.

    pairs = load_pairs({'name': 'scenes', 'num': 60}, num_classes=4, void=255)
    rare = rare_classes(pairs.mask, num_classes=4)   # (3,)
    cut = regions(pairs, rare)                       # one for each connected region
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nat_jax import registry
from nat_jax.data.masks import VOID, Pairs, check_void, class_counts, masks
from nat_jax.data.memory import check_memory
from nat_jax.data.scenes import scenes

PAIRS = {'masks': masks, 'scenes': scenes}
RARE = 0.2  # a class is rare if it has less than this share of the mean class's pixels


def load_pairs(spec: Mapping[str, Any], num_classes: int, void: int) -> Pairs:
  """Loads the source of pictures and masks that `spec` names in `PAIRS`.

  Args:
    spec: `{'name': ..., **kwargs}`.
    num_classes: number of classes.
    void: number of the pixels of no class in files of masks.

  Raises:
    ValueError: an unknown name, `void` is a class, or an error of the source.
  """
  check_void(num_classes, void)
  return registry.build(
      PAIRS, spec, what='source of masks', num_classes=num_classes, void=void)


def rare_classes(mask: np.ndarray, num_classes: int) -> tuple[int, ...]:
  """The classes with less than `RARE` times the mean number of pixels of a class."""
  counts = class_counts(mask, num_classes)
  return tuple(np.flatnonzero(counts < RARE * counts.mean()).tolist())


def regions(pairs: Pairs, classes: Sequence[int]) -> Pairs:
  """Every connected region of some classes, alone in its picture.

  Args:
    pairs: pictures and masks.
    classes: the classes.

  Returns:
    A pair for each region, in the order of the pictures: the picture, and a mask that
    holds the class within the region and `VOID` elsewhere.

  Raises:
    ValueError: there is no region, or there are more than fit in memory.
  """
  from scipy import ndimage

  rows, labels, places = [], [], []  # a place: a rectangle, and which of its pixels
  for row, mask in enumerate(pairs.mask):
    for label in classes:
      found, num = ndimage.label(mask == label)
      rows += [row] * num
      labels += [label] * num
      places += [(box, found[box] == k)
                 for k, box in enumerate(ndimage.find_objects(found), 1)]
  if not rows:
    raise ValueError(
        f'there is no region of the classes {list(classes)} in the training masks; '
        'set `rare` to the classes whose regions are to be pasted')
  height, width, channels = pairs.image.shape[1:]
  # Two arrays of them are joined to pictures with a mask, and these to a pool.
  check_memory(
      3 * len(rows) * height * width * (channels + 1),
      f'the {len(rows)} regions of the classes {list(classes)}, each with its picture,',
      'name fewer classes in `rare`, or lower data.image_size')
  cut = np.full((len(rows), height, width), VOID, np.uint8)
  for mask, label, (box, inside) in zip(cut, labels, places, strict=True):
    mask[box][inside] = label
  return Pairs(pairs.image[rows], cut, pairs.names)
