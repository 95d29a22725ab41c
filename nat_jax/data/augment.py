"""Augmentation and normalisation on the device, inside the step.

    augment = make_augment([{'name': 'crop', 'pad': 4}, {'name': 'flip'}])
    images = normalise(augment(images, keys), mean, std)

One typed key an image: what becomes of an image depends on its key alone, not on the
batch around it or on the number of devices.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import registry

ImageFn = Callable[[jax.Array, jax.Array], jax.Array]  # ([h, w, c], key) -> [h, w, c]


def crop(pad: int = 4, mode: str = 'constant') -> ImageFn:
  """Pads every side by `pad` and cuts the old size out again, anywhere.

  Args:
    pad: pixels on each side.
    mode: 'constant' (zeros, which in uint8 is black) or 'reflect'.

  Returns:
    Function of one image and its key.

  Raises:
    ValueError: another mode, or pad below 0.
  """
  if mode not in ('constant', 'reflect') or pad < 0:
    raise ValueError(
        f"crop takes pad of 0 or more and mode 'constant' or 'reflect', got {pad} and "
        f'{mode!r}'
    )

  def apply(image, key):
    corner = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode)
    return jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)

  return apply


def flip() -> ImageFn:
  """Mirrors left and right, every other time."""

  def apply(image, key):
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)

  return apply


def cutout(size: int = 8) -> ImageFn:
  """Sets a square of `size` to 0; its middle lies anywhere, so it may hang over.

  Raises:
    ValueError: size below 1.

  Reference: DeVries and Taylor, Improved Regularization of Convolutional Neural
  Networks with Cutout, 2017.
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
}


def make_augment(
    specs: Sequence[Mapping[str, Any]],
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Chains augmentations.

  Args:
    specs: `{'name': ..., **kwargs}` each, applied in order; none = the identity.

  Returns:
    Pure function of images `[n, h, w, c]` and typed keys `[n]`; type and shape are
    kept.

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
  """(x / 255 - mean) / std of uint8 images; float32 images pass as they are.

  Args:
    images: `[..., h, w, c]`.
    mean: `[c]` or `[1]`, of the images divided by 255.
    std: likewise.

  Returns:
    float32, of the same shape.

  Raises:
    ValueError: another type.
  """
  if images.dtype == jnp.float32:
    return images
  if images.dtype != jnp.uint8:
    raise ValueError(f'expected images in uint8 or float32, got {images.dtype}')
  shape = (1,) * (images.ndim - 1) + (-1,)
  mean, std = (np.asarray(x, np.float32).reshape(shape) for x in (mean, std))
  return (images.astype(jnp.float32) / 255 - mean) / std
