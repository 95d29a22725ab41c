"""The rule by which a picture becomes an array, for training and for prediction.

    decode('cat.jpg', (32, 32))             # uint8 [32, 32, 3]
    decode(Image.open('cat.jpg'), (8, 8), 'L')
    decode(np.zeros((480, 640, 3), np.uint8), (32, 32))

A picture is rotated by its EXIF tag, reduced from 16-bit to 8-bit grey, put on white
where transparent, converted to `mode`, resized to just cover `size` (bicubic,
antialiased) and centre-cropped. Of an animation the first frame is used.

This file imports numpy and Pillow only, because exported models contain a copy of it.
"""

import contextlib
import os

import numpy as np
from PIL import Image, ImageOps

Picture = str | os.PathLike | Image.Image | np.ndarray


def decode(
    picture: Picture, size: tuple[int, int] | None, mode: str = 'RGB'
) -> np.ndarray:
  """Decodes one picture.

  Args:
    picture: a path, a Pillow image, or uint8 pixels [h, w], [h, w, 1], [h, w, 3] or
      [h, w, 4] (the fourth channel is opacity).
    size: (h, w) of the result; None: that of the picture.
    mode: 'RGB' (three channels) or 'L' (one, grey).

  Returns:
    uint8 [h, w, c].

  Raises:
    ValueError: an array that is no picture. For a damaged file Pillow raises nearly any
      exception.
  """
  if isinstance(picture, np.ndarray):
    return _prepare(_from_array(picture), size, mode)
  if isinstance(picture, Image.Image):
    return _prepare(picture, size, mode)
  with Image.open(picture) as image:
    return _prepare(image, size, mode)


def fit(image: Image.Image, size: tuple[int, int] | None, mode: str) -> np.ndarray:
  """A picture in `mode`, resized so that it just covers `size` and cropped in the
  middle; uint8 [h, w, c]."""
  image = image.convert(mode)
  if size is not None:
    image = ImageOps.fit(image, size[::-1], Image.Resampling.BICUBIC)
  return np.asarray(image).reshape(image.height, image.width, -1)


def _prepare(image, size, mode):
  image.load()  # raises if the picture is damaged
  with contextlib.suppress(Exception):  # malformed EXIF says nothing of the rotation
    image = ImageOps.exif_transpose(image)
  if image.mode.startswith(('I', 'F')):  # Pillow would clip these at 255
    image = _to_8_bits(image)
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image)
  return fit(image, size, mode)


def _from_array(pixels: np.ndarray) -> Image.Image:
  if pixels.ndim == 2:
    pixels = pixels[..., None]
  if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
    raise ValueError(
        'expected the pixels of a picture as uint8 (0 to 255), [h, w, c] with 1, 3 or '
        f'4 channels, got {pixels.dtype} {list(pixels.shape)}')
  return to_image(pixels)


def to_image(pixels: np.ndarray) -> Image.Image:
  """Pixels uint8 [h, w, c] as a Pillow image, grey for c of 1."""
  return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _to_8_bits(image: Image.Image) -> Image.Image:
  """Scales a 16-bit grey picture, 0..65535, to 0..255."""
  values = np.asarray(image)
  if image.mode == 'F' or values.min() < 0 or values.max() > 65535:
    raise ValueError('grey values are not integers of 8 or 16 bits')
  return Image.fromarray(np.round(values / 257).astype(np.uint8))
