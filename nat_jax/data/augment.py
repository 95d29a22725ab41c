"""Augmentation and normalisation on the device, inside the step.

    augment = make_augment([{'name': 'crop', 'pad': 4}, {'name': 'flip'}])
    images = normalise(augment(images, keys), mean, std)

There is one typed key per image: the result depends on the image and its key only, not
on the rest of the batch or the number of devices.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import registry
from nat_jax.data.pixmix import pixmix

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


AUGMENTS: dict[str, Callable[..., ImageFn]] = {
    'crop': crop, 'cutout': cutout, 'flip': flip,
    'pixmix': pixmix,
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
