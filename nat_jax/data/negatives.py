"""Synthetic negatives: noise, blobs, and positives taken apart.

    normal_noise(positives, num=2000, seed=1)
    patch_shuffle(positives, num=2000, patches=2)

Each imitates `like`, the positives: their size, channels, and for the last two their
pixels. Every label is 0. The same seed gives the same images. A number of them that the
memory does not hold is a ValueError.
"""

import math
from collections.abc import Sequence

import numpy as np

from nat_jax.data.memory import check_memory
from nat_jax.data.sources import Arrays


def normal_noise(like: Arrays, num: int = 2000, seed: int = 0) -> Arrays:
  """Standard normal noise of the model's input: float32, that is, after normalising.

  Reference: NAT, table 1 (noise).
  """
  shape = _shape(like, num, np.float32)
  image = np.random.default_rng(seed).standard_normal(shape, np.float32)
  return _all_zero(image, 'normal noise')


def uniform_noise(like: Arrays, num: int = 2000, seed: int = 0) -> Arrays:
  """Every pixel and channel uniform in 0..255."""
  shape = _shape(like, num, np.uint8)
  image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
  return _all_zero(image, 'uniform noise')


def blobs(like: Arrays, num: int = 2000, seed: int = 0) -> Arrays:
  """Coloured blobs: Bernoulli(0.7) pixels, blurred, and black where below 0.75.

  Reference: Hendrycks et al., Deep Anomaly Detection with Outlier Exposure, 2019,
  appendix A (the blur, sigma 1.5, is theirs, and runs over the channels too).
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
  """Positives cut into patches x patches squares, which change places.

  The textures stay, the shape goes. At least two squares change places.

  Args:
    like: the positives.
    num: how many; beyond the number of positives these come again.
    seed: of the choice and of the orders.
    patches: squares along a side; must divide height and width.

  Returns:
    Images of the positives' type.

  Raises:
    ValueError: `patches` below 2, or not a divisor.
  """
  height, width, channels = like.image.shape[1:]
  if patches < 2 or height % patches or width % patches:
    raise ValueError(
        f'patches must be 2 or more and divide the height {height} and the width '
        f'{width}, got {patches}'
    )
  rng = np.random.default_rng(seed)
  image = _draw(like, num, rng)
  high, wide = height // patches, width // patches
  image = image.reshape(num, patches, high, patches, wide, channels)
  image = image.swapaxes(2, 3).reshape(num, patches**2, high, wide, channels)
  same = np.arange(patches**2)
  order = np.tile(same, (num, 1))
  again = np.arange(num)
  while again.size:  # until no image is left as it was
    order[again] = rng.permuted(order[again], axis=1)
    again = np.flatnonzero((order == same).all(1))
  image = image[np.arange(num)[:, None], order]
  image = image.reshape(num, patches, patches, high, wide, channels).swapaxes(2, 3)
  return _all_zero(image.reshape(num, height, width, channels), 'shuffled patches')


def pixel_permute(like: Arrays, num: int = 2000, seed: int = 0) -> Arrays:
  """Positives whose pixels change places, in a new order for each image.

  The colours of a pixel stay together, so the histogram of the image is kept.
  """
  height, width, channels = like.image.shape[1:]
  rng = np.random.default_rng(seed)
  image = _draw(like, num, rng).reshape(num, height * width, channels)
  order = rng.permuted(np.tile(np.arange(height * width), (num, 1)), axis=1)
  image = np.take_along_axis(image, order[:, :, None], axis=1)
  return _all_zero(image.reshape(num, height, width, channels), 'permuted pixels')


def quantise(
    image: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
  """Undoes the normalisation: round(255 (x std + mean)), clipped to 0..255.

  For noise that is trained on beside uint8 images; the clipping cuts its tails off.

  Args:
    image: `[..., c]` float, normalised.
    mean: `[c]` or `[1]`, of the images divided by 255.
    std: likewise.

  Returns:
    `[..., c]` uint8.
  """
  image = image * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
  return np.clip(np.round(255 * image), 0, 255).astype(np.uint8)


def _shape(like: Arrays, num: int, dtype: type) -> tuple[int, ...]:
  """[num, h, w, c]; ValueError where the memory does not hold such an array."""
  shape = (num, *like.image.shape[1:])
  check_memory(
      math.prod(shape) * np.dtype(dtype).itemsize, f'{num} synthetic negatives',
      'lower num of that source')
  return shape


def _draw(like: Arrays, num: int, rng: np.random.Generator) -> np.ndarray:
  """Draws images without repeating one before all have had their turn."""
  _shape(like, num, like.image.dtype)
  return like.image[np.resize(rng.permutation(len(like.image)), num)]


def _all_zero(image: np.ndarray, name: str) -> Arrays:
  return Arrays(image, np.zeros(len(image), np.int32), (name,))
