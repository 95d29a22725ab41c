"""Augmentation and normalisation on the device, inside the step.

    augment = make_augment([{'name': 'crop', 'pad': 4}, {'name': 'flip'}])
    images = normalise(augment(images, keys), mean, std)

There is one typed key per image: the result depends on the image and its key only, not
on the rest of the batch or the number of devices.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import registry
from nat_jax.data.pixmix import pixmix
from nat_jax.data.rand_augment import check_uint8, grey, rand_augment

ImageFn = Callable[[jax.Array, jax.Array], jax.Array]  # ([h, w, c], key) -> [h, w, c]


def crop(pad: int = 4, mode: str = 'constant') -> ImageFn:
  """Random crop: pads every side by `pad`, then crops to the original size.

  Args:
    pad: pixels on each side.
    mode: 'constant' (zeros: black in uint8) or 'reflect'.

  Returns:
    Function of one image [h, w, c] and its key.

  Raises:
    ValueError: another mode, or `pad` below 0.
  """
  if mode not in ('constant', 'reflect') or pad < 0:
    raise ValueError(
        f"crop takes pad of 0 or more and mode 'constant' or 'reflect', got pad {pad} "
        f'and mode {mode!r}'
    )

  def apply(image, key):
    corner = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode)
    return jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)

  return apply


def flip() -> ImageFn:
  """Random horizontal flip, with probability 1/2."""

  def apply(image, key):
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)

  return apply


def cutout(size: int = 8) -> ImageFn:
  """Cutout: sets a size x size square at a random position to 0.

  Its centre is anywhere in the image, so that part of it may lie outside.

  Raises:
    ValueError: `size` below 1.

  Reference: DeVries, Taylor, "Improved Regularization of Convolutional Neural Networks
  with Cutout", arXiv:1708.04552.
  """
  if size < 1:
    raise ValueError(f'cutout takes size of 1 or more, got {size}')

  def apply(image, key):
    height, width, _ = image.shape
    middle = jax.random.randint(key, (2,), 0, np.array([height, width]))
    top, left = middle[0] - size // 2, middle[1] - size // 2
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inside = (rows >= top) & (rows < top + size)
    inside = inside & (columns >= left) & (columns < left + size)
    return jnp.where(inside[:, :, None], jnp.zeros((), image.dtype), image)

  return apply


def random_resized_crop(
    area: Sequence[float] = (0.35, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)
) -> ImageFn:
  """Crops a rectangle of random area and shape, and resizes it to the image's size.

  The rectangle of an image [h, w] has the area a h w and the shape w/h r, where a is
  uniform in `area` and log r in log `ratio`; a side that is longer than the image's is
  cut to it. Its position is uniform inside the image. Pixels are interpolated linearly,
  with antialiasing where a side shrinks.

  Args:
    area: (smallest, largest) share of the area.
    ratio: (smallest, largest) factor of the image's width over height.

  Returns:
    Function of one image [h, w, c] and its key.

  Raises:
    ValueError: shares that are not 0 < smallest <= largest <= 1, or factors that are
      not 0 < smallest <= largest.

  Reference: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6.
  """
  (least, most), (narrow, wide) = area, ratio
  if not (0 < least <= most <= 1 and 0 < narrow <= wide):
    raise ValueError(
        'random_resized_crop takes area (smallest, largest) in (0, 1] and ratio '
        f'(smallest, largest) above 0, got area {tuple(area)} and ratio {tuple(ratio)}')

  def apply(image, key):
    keys = jax.random.split(key, 3)
    share = jax.random.uniform(keys[0], (), minval=least, maxval=most)
    shape = jnp.exp(jax.random.uniform(
        keys[1], (), minval=math.log(narrow), maxval=math.log(wide)))
    # As shares of the image's height and width.
    sides = jnp.minimum(jnp.sqrt(share * jnp.stack([1 / shape, shape])), 1)
    corner = jax.random.uniform(keys[2], (2,)) * (1 - sides)
    return resized_crop(image, corner, sides)

  return apply


def resized_crop(image: jax.Array, corner: jax.Array, sides: jax.Array) -> jax.Array:
  """Resizes a rectangle of an image to the image's size, linearly and antialiased.

  Args:
    image: [h, w, c].
    corner: (top, left) of the rectangle, as shares of h and w.
    sides: its height and width, as shares of h and w.

  Returns:
    [h, w, c] of the image's dtype.
  """
  size = np.array(image.shape[:2], np.float32)
  out = jax.image.scale_and_translate(
      image.astype(jnp.float32), image.shape, (0, 1), 1 / sides,
      -corner * size / sides, 'linear')
  return _as_type(out, image.dtype)


def colour(
    brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2
) -> ImageFn:
  """Random brightness, contrast and saturation, in this order, of uint8 images.

  Each interpolates between the image and a plain one, plain + f (image - plain), where
  f is uniform in [1 - strength, 1 + strength]. The plain image is black for brightness,
  the mean of the grey values for contrast, the grey values for saturation. Results are
  rounded and clipped to 0..255 at the end.

  Args:
    brightness, contrast, saturation: strengths in [0, 1]; 0: unchanged. Saturation has
      no effect on images of one channel.

  Returns:
    Function of one uint8 image [h, w, c] and its key, for 1 or 3 channels.

  Raises:
    ValueError: a strength that is not in [0, 1]; or, when it is applied, an image of
      another dtype.
  """
  strengths = brightness, contrast, saturation
  if not all(0 <= one <= 1 for one in strengths):
    raise ValueError(
        'colour takes brightness, contrast and saturation in [0, 1], got '
        f'{strengths}')

  def apply(image, key):
    check_uint8('colour', image)
    factors = 1 + jax.random.uniform(key, (3,), minval=-1) * np.array(
        strengths, np.float32)
    x = image.astype(jnp.float32) * factors[0]
    x = _blend(grey(x).mean(), x, factors[1])
    x = _blend(grey(x), x, factors[2])
    return _as_type(x, image.dtype)

  return apply


def standard(small: int = 64) -> ImageFn:
  """The usual augmentation of photographs, by the size of the images.

  Images with a side below `small` pixels: crop of 4 pixels and flip. Larger ones:
  random resized crop, flip and colour, each with its defaults.

  Args:
    small: pixels.

  Returns:
    Function of one uint8 image [h, w, c] and its key.
  """
  few, many = (crop(), flip()), (random_resized_crop(), flip(), colour())

  def apply(image, key):
    for position, step in enumerate(few if min(image.shape[:2]) < small else many):
      image = step(image, jax.random.fold_in(key, position))
    return image

  return apply


def _blend(plain, image, factor):
  return plain + factor * (image - plain)


def _as_type(image, dtype):
  """float32 values, rounded and clipped to 0..255 for uint8."""
  if dtype == jnp.uint8:
    image = jnp.clip(jnp.round(image), 0, 255)
  return image.astype(dtype)


AUGMENTS: dict[str, Callable[..., ImageFn]] = {
    'colour': colour, 'crop': crop, 'cutout': cutout, 'flip': flip,
    'pixmix': pixmix, 'rand_augment': rand_augment,
    'random_resized_crop': random_resized_crop, 'standard': standard,
}


def make_augment(
    specs: Sequence[Mapping[str, Any]],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Chains augmentations of `AUGMENTS` into one function of a batch.

  Args:
    specs: `{'name': ..., **kwargs}` of each augmentation, applied in this order; an
      empty list is the identity.

  Returns:
    Pure function of images `[n, h, w, c]` and typed keys `[n]`, which preserves dtype
    and shape.

  Raises:
    ValueError: an unknown name.
  """
  steps = [registry.build(AUGMENTS, spec, what='augmentation') for spec in specs]

  def augment(images: jax.Array, keys: jax.Array) -> jax.Array:
    def one(image, key):
      for position, step in enumerate(steps):
        image = step(image, jax.random.fold_in(key, position))
      return image

    return jax.vmap(one)(images, keys)

  return augment


def normalise(
    images: jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
  """Normalises uint8 images, (x / 255 - mean) / std; float32 images are returned as is.

  Args:
    images: `[..., h, w, c]`.
    mean: `[c]` or `[1]`, of pixels in [0, 1].
    std: `[c]` or `[1]`, of pixels in [0, 1].

  Returns:
    float32 images of unchanged shape.

  Raises:
    ValueError: another dtype.
  """
  if images.dtype == jnp.float32:
    return images
  if images.dtype != jnp.uint8:
    raise ValueError(f'expected images in uint8 or float32, got {images.dtype}')
  shape = (1,) * (images.ndim - 1) + (-1,)
  mean, std = (np.asarray(x, np.float32).reshape(shape) for x in (mean, std))
  return (images.astype(jnp.float32) / 255 - mean) / std
