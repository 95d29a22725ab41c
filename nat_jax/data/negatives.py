"""Synthetic negatives: noise, blobs, crops of photographs, and changed positives.

    normal_noise(positives, num=2000, seed=1)
    patch_shuffle(positives, num=2000, patches=2)
    class_halves(positives, num=2000)

Each function returns `num` images of the size and channels of `like`, the positives;
`patch_shuffle`, `pixel_permute` and `class_halves` also take their pixels from `like`.
Every label is 0. Equal seeds give equal images. All raise ValueError for more images
than fit in memory; of images that are made when they are read, for more labels.
"""

import math
from collections.abc import Sequence

import numpy as np

from nat_jax import names
from nat_jax.data import rows
from nat_jax.data.memory import check_memory
from nat_jax.data.sources import Arrays

_PHOTOGRAPHS = {'train': 'china.jpg', 'test': 'flower.jpg'}
_LARGE = 2**28  # bytes of noise, beyond which it is not kept in memory


def normal_noise(like: Arrays, num: int = 2000, seed: int = 0) -> Arrays:
  """Standard normal noise at the model's input: float32, taken as already normalised.

  More than 256 MiB of images are made when they are read, each from (seed, its index),
  and never all in memory.

  Reference: Li, Jia, Jing, ECAI 2020, Table 1 ("noise").
  """
  shape = (num, *like.image.shape[1:])
  if 4 * math.prod(shape) > _LARGE:
    return _all_zero(rows.Rows(
        lambda chosen: np.stack([
            np.random.default_rng((seed, row)).standard_normal(shape[1:], np.float32)
            for row in chosen.tolist()]), num, shape[1:], np.float32), 'normal noise')
  image = np.random.default_rng(seed).standard_normal(
      _shape(like, num, np.float32), np.float32)
  return _all_zero(image, 'normal noise')


def uniform_noise(like: Arrays, num: int = 2000, seed: int = 0) -> Arrays:
  """Uniform noise: every pixel and channel is uniform in 0..255."""
  shape = _shape(like, num, np.uint8)
  image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
  return _all_zero(image, 'uniform noise')


def blobs(like: Arrays, num: int = 2000, seed: int = 0) -> Arrays:
  """Coloured blobs: Bernoulli(0.7) pixels, blurred, then set to 0 where below 0.75.

  Reference: Hendrycks, Mazeika, Dietterich, "Deep Anomaly Detection with Outlier
  Exposure", ICLR 2019, appendix A. Its blur (sigma 1.5) mixes channels too.
  """
  from scipy import ndimage

  shape = _shape(like, num, np.float32)
  image = np.random.default_rng(seed).random(shape, np.float32) < 0.7
  image = image.astype(np.float32)
  image = ndimage.gaussian_filter(image, (0, 1.5, 1.5, 1.5), mode='nearest')
  image = np.where(image < 0.75, 0, image)
  return _all_zero(np.round(255 * image).astype(np.uint8), 'blobs')


def patch_shuffle(
    like: Arrays, num: int = 2000, seed: int = 0, patches: int = 2
) -> Arrays:
  """Positives cut into a grid of patches x patches rectangles, randomly reordered.

  This keeps textures and destroys shapes. No image keeps its original order. Images of
  positives that are not in memory are made when they are read.

  Args:
    like: the positives.
    num: number of images; with more than there are positives, some are used repeatedly.
    seed: of the choice of images and of the orders.
    patches: rectangles along each side; must divide height and width.

  Returns:
    Images of the positives' dtype.

  Raises:
    ValueError: `patches` is below 2, or does not divide height and width.
  """
  height, width, channels = like.image.shape[1:]
  if patches < 2 or height % patches or width % patches:
    raise ValueError(
        f'patches must be 2 or more and divide the height {height} and the width '
        f'{width}, got {patches}'
    )
  check_memory(
      8 * num * patches**2, f'the orders of {num} synthetic negatives',
      'lower num of the source')
  rng = np.random.default_rng(seed)
  drawn = _draw(like, num, rng)
  high, wide = height // patches, width // patches
  same = np.arange(patches**2)
  order = np.tile(same, (num, 1))
  again = np.arange(num)
  while again.size:  # until no image is left as it was
    order[again] = rng.permuted(order[again], axis=1)
    again = np.flatnonzero((order == same).all(1))

  def shuffled(chosen):
    image = like.image[drawn[chosen]]
    image = image.reshape(-1, patches, high, patches, wide, channels)
    image = image.swapaxes(2, 3).reshape(-1, patches**2, high, wide, channels)
    image = image[np.arange(len(image))[:, None], order[chosen]]
    image = image.reshape(-1, patches, patches, high, wide, channels).swapaxes(2, 3)
    return image.reshape(-1, height, width, channels)

  if rows.in_memory(like.image):
    _shape(like, num, like.image.dtype)
    return _all_zero(shuffled(np.arange(num)), 'shuffled patches')
  return _all_zero(
      rows.Rows(shuffled, num, like.image.shape[1:], like.image.dtype),
      'shuffled patches')


def pixel_permute(like: Arrays, num: int = 2000, seed: int = 0) -> Arrays:
  """Positives with randomly permuted pixels, in a different order for each image.

  The channels of a pixel stay together, so that the colour histogram is unchanged.
  """
  height, width, channels = like.image.shape[1:]
  rng = np.random.default_rng(seed)
  _shape(like, num, like.image.dtype)
  image = like.image[_draw(like, num, rng)].reshape(num, height * width, channels)
  order = rng.permuted(np.tile(np.arange(height * width), (num, 1)), axis=1)
  image = np.take_along_axis(image, order[:, :, None], axis=1)
  return _all_zero(image.reshape(num, height, width, channels), 'permuted pixels')


def class_halves(like: Arrays, num: int = 2000, seed: int = 0) -> Arrays:
  """Halves of two positives of different classes, side by side or one above the other.

  Args:
    like: the positives, of two classes or more.
    num: number of images.
    seed: of the choice of the images and of the way they are cut.

  Returns:
    Images of the positives' dtype.

  Raises:
    ValueError: positives of one class, or smaller than 2 x 2.
  """
  height, width = like.image.shape[1:3]
  label = np.asarray(like.label)
  if min(height, width) < 2 or len(np.unique(label)) < 2:
    raise ValueError(
        "'class_halves' needs positives of 2 classes or more and of 2 x 2 pixels or "
        f'more, got {len(np.unique(label))} class(es) of {height} x {width} pixels')
  _shape(like, num, like.image.dtype)
  rng = np.random.default_rng(seed)
  one = _draw(like, num, rng)
  # Positives in the order of their classes: the others follow the own class's, in turn.
  order = np.argsort(label, kind='stable')
  _, which, counts = np.unique(label, return_inverse=True, return_counts=True)
  own, end = counts[which[one]], np.cumsum(counts)[which[one]]
  other = order[(end + (rng.random(num) * (len(label) - own)).astype(int)) % len(label)]
  image, second = like.image[one].copy(), like.image[other]
  above = rng.random(num) < 0.5
  image[above, height // 2:] = second[above, height // 2:]
  image[~above, :, width // 2:] = second[~above, :, width // 2:]
  return _all_zero(image, 'halves of two classes')


def photographs(
    like: Arrays, num: int = 2000, seed: int = 0, split: str = 'train'
) -> Arrays:
  """Random square crops of a photograph, of 1 to 16 times the positives' height.

  Args:
    like: the positives.
    num: number of images.
    seed: of the places and sizes of the crops.
    split: 'train' (scikit-learn's picture of a temple) or 'test' (that of a flower).

  Returns:
    uint8 images; grey ones if the positives have one channel.

  Raises:
    ValueError: an unknown split, or positives with neither 1 nor 3 channels.
  """
  from PIL import Image
  from sklearn import datasets

  if split not in _PHOTOGRAPHS:
    raise ValueError(names.unknown('split', split, _PHOTOGRAPHS))
  shape = _shape(like, num, np.uint8)
  if shape[3] not in (1, 3):
    raise ValueError(
        f"'photographs' makes pictures of 1 or 3 channels; the positives have "
        f'{shape[3]}')
  photograph = Image.fromarray(datasets.load_sample_image(_PHOTOGRAPHS[split]))
  photograph = photograph.convert('L' if shape[3] == 1 else 'RGB')
  wide, high = photograph.size
  rng = np.random.default_rng(seed)
  most = min(wide, high) - 1
  side = np.clip(shape[1] * 2 ** rng.uniform(0, 4, num), 2, most)
  left, top = (rng.random(num) * (size - side) for size in (wide, high))
  image = [np.asarray(photograph.resize(
      (shape[2], shape[1]), Image.Resampling.BOX, (x, y, x + s, y + s)))
           for x, y, s in zip(left, top, side, strict=True)]
  return _all_zero(np.reshape(image, shape), 'photographs')


def quantise(
    image: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
  """Undoes the normalisation: round(255 (x std + mean)), clipped to 0..255.

  It makes noise fit for training together with uint8 images; clipping cuts its tails.

  Args:
    image: `[..., c]` float, normalised.
    mean: `[c]` or `[1]`, of pixels in [0, 1].
    std: `[c]` or `[1]`, of pixels in [0, 1].

  Returns:
    `[..., c]` uint8.
  """
  image = image * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
  return np.clip(np.round(255 * image), 0, 255).astype(np.uint8)


def _shape(like: Arrays, num: int, dtype: type) -> tuple[int, ...]:
  """The shape [num, h, w, c]; ValueError if such an array does not fit in memory."""
  shape = (num, *like.image.shape[1:])
  check_memory(
      math.prod(shape) * np.dtype(dtype).itemsize, f'{num} synthetic negatives',
      'lower num of the source')
  return shape


def _draw(like: Arrays, num: int, rng: np.random.Generator) -> np.ndarray:
  """Draws indices of images; none is repeated before all have been drawn."""
  return np.resize(rng.permutation(len(like.image)), num)


def _all_zero(image: rows.Images, name: str) -> Arrays:
  """The images with label 0; ValueError if the labels do not fit in memory."""
  check_memory(
      4 * len(image), f'the labels of {len(image)} synthetic negatives',
      'lower num of the source')
  return Arrays(image, np.zeros(len(image), np.int32), (name,))
