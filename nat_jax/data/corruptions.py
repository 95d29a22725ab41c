"""Common corruptions of pictures, at five strengths.

    arrays = corrupt(arrays, {'name': 'jpeg', 'strength': 3, 'num': 500})

The four are gaussian_noise, gaussian_blur, contrast and jpeg_compression of ImageNet-C.
Pictures of at least 64 pixels in height and width get its constants, smaller ones those
of CIFAR-10-C.

Reference: Hendrycks, Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019, and the scripts of its repository.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from nat_jax import registry
from nat_jax.data import decode, rows
from nat_jax.data.sources import Arrays

LARGE = 64  # pixels; from this size on the constants are those of ImageNet-C
STRENGTHS = (1, 2, 3, 4, 5)


def noise(
    images: np.ndarray, numbers: np.ndarray, strength: int, seed: int = 0
) -> np.ndarray:
  """Adds Gaussian noise, one generator for each image.

  Args:
    images: uint8 [n, h, w, c].
    numbers: int [n], of the images; the noise of an image is a function of (seed,
      number).
    strength: 1 to 5.
    seed: of the noise.
  """
  scale = _constant(
      images, strength, (.04, .06, .08, .09, .10), (.08, .12, .18, .26, .38))
  drawn = [np.random.default_rng((seed, int(i))).standard_normal(images.shape[1:])
           for i in numbers]
  return _pixels(images / 255 + scale * np.reshape(drawn, images.shape))


def blur(images: np.ndarray, numbers: np.ndarray, strength: int) -> np.ndarray:
  """Blurs images with a Gaussian; arguments as for `noise`."""
  from scipy import ndimage

  del numbers
  sigma = _constant(images, strength, (.4, .6, .7, .8, 1), (1, 2, 3, 4, 6))
  return _pixels(ndimage.gaussian_filter(
      images / 255, (0, sigma, sigma, 0), mode='nearest'))


def contrast(images: np.ndarray, numbers: np.ndarray, strength: int) -> np.ndarray:
  """Lowers the contrast around the mean of each channel; arguments as for `noise`."""
  del numbers
  factor = _constant(images, strength, (.75, .5, .4, .3, .15), (.4, .3, .2, .1, .05))
  mean = images.mean((1, 2), keepdims=True)
  return _pixels(((images - mean) * factor + mean) / 255)


def jpeg(images: np.ndarray, numbers: np.ndarray, strength: int) -> np.ndarray:
  """Compresses images to JPEG and decodes them; arguments as for `noise`."""
  del numbers
  quality = _constant(images, strength, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7))

  def compressed(image):
    file = io.BytesIO()
    decode.to_image(image).save(file, format='jpeg', quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)

  return np.stack([compressed(image) for image in images])


CORRUPTIONS: dict[str, Callable[..., np.ndarray]] = {
    'noise': noise, 'blur': blur, 'contrast': contrast, 'jpeg': jpeg}


def corrupt(arrays: Arrays, spec: Mapping[str, Any]) -> Arrays:
  """Returns corrupted images, which are made when they are read.

  Args:
    arrays: uint8 images [n, h, w, 1 or 3], in memory or on disk.
    spec: {'name': ..., 'strength': 1 to 5}, a name in CORRUPTIONS; 'num': number of
      images, a random sample that depends on n and `num` alone (0, or n and more: all);
      further arguments of the corruption.

  Raises:
    ValueError: an unknown name or strength, or images that are not uint8 of one or
      three channels.
    TypeError: an argument that the corruption does not have.
  """
  images, label = arrays.image, arrays.label
  if images.dtype != np.uint8 or images.shape[-1] not in (1, 3):
    raise ValueError(
        'expected pictures to corrupt, uint8 with 1 or 3 channels, got '
        f'{images.dtype} {list(images.shape[1:])}; leave out the key `corrupt`')
  if spec.get('strength') not in STRENGTHS:
    raise ValueError(
        f'the strength of a corruption must be one of {STRENGTHS}, got '
        f'{spec.get("strength")!r}')
  spec = dict(spec)
  num = spec.pop('num', 0)
  if 0 < num < len(label):
    chosen = np.sort(np.random.default_rng(0).permutation(len(label))[:num])
    images, label = rows.select(images, chosen), label[chosen]

  def read(chosen):
    return registry.build(CORRUPTIONS, spec, what='corruption', images=images[chosen],
                          numbers=chosen)

  read(np.arange(1))  # an unknown name or argument is found here
  return arrays._replace(
      image=rows.Rows(read, len(label), images.shape[1:]), label=label)


def _constant(images, strength, small, large):
  """The constant of a strength, for images of this size."""
  return (large if min(images.shape[1:3]) >= LARGE else small)[strength - 1]


def _pixels(values):
  """Images in [0, 1] as uint8; values outside are clipped, and then rounded down."""
  return (np.clip(values, 0, 1) * 255).astype(np.uint8)
