"""A user's own pictures as a data set, of any size and kind.

    folder('pets', size=32)               # pets/cat/*.jpg, pets/dog/*.png: two classes
    folder('leaflets', size=32)           # a flat folder: all of label 0 (negatives)

What happens to a picture: turned by its EXIF tag, 16-bit grey scaled to 8, laid on
white where transparent, converted to `mode`, resized so that it just covers `size`
(bicubic, antialiased), cropped in the middle. Of an animation the first frame is taken.
"""

import pathlib
from collections.abc import Sequence
from concurrent import futures

import numpy as np
from absl import logging
from PIL import Image, ImageOps

from nat_jax.data import memory, sources

EXTENSIONS = frozenset(
    '.bmp .gif .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp'.split()
)


def folder(
    path: str,
    size: int | Sequence[int] | None = None,
    mode: str = 'RGB',
    split: str = 'all',
    classes: Sequence[int] | None = None,
    skip_unreadable: bool = False,
) -> sources.Arrays:
  """Reads the pictures under `path`.

  Args:
    path: its sub-folders, sorted, are the classes; or pictures lie in it directly.
      Hidden files and files of other extensions are passed over.
    size: the side, or (h, w); None asks that all pictures be equally large.
    mode: 'RGB' (three channels) or 'L' (one, grey).
    split: 'all', or a slice ('all[:80%]') of one fixed shuffle of the files.
    classes: the classes to keep, by their number in the sorted order.
    skip_unreadable: pass over damaged pictures with a warning.

  Returns:
    uint8 images.

  Raises:
    ValueError: no such folder, no picture in it or in one of its classes, pictures
      beside class folders, a damaged picture, sizes that differ.
  """
  size = _checked(size, mode)
  listing = list_pictures(path)
  # The images stand for themselves as paths here: only those kept are decoded.
  order = np.random.default_rng(0).permutation(len(listing.label))
  listing = listing._replace(image=listing.image[order], label=listing.label[order])
  listing = sources.take_split({'all': listing}, split)
  listing = sources.take_classes(listing, classes)
  image, rows = read_pictures(listing.image, size, mode, skip_unreadable)
  return sources.Arrays(image, listing.label[rows], listing.names)


def read_pictures(
    files: Sequence[pathlib.Path],
    size: int | Sequence[int] | None = None,
    mode: str = 'RGB',
    skip_unreadable: bool = False,
) -> tuple[np.ndarray, list[int]]:
  """Decodes pictures, in the order given; arguments and errors as in `folder`.

  Returns:
    (uint8 [n, h, w, c], the places in `files` of those that were read).
  """
  size = _checked(size, mode)
  if size is not None:
    memory.check_memory(
        len(files) * size[0] * size[1] * len(mode), f'{len(files)} pictures of {size}',
        'make them smaller, or take fewer')

  def read(file):
    try:
      return _read(file, size, mode)
    # SyntaxError: Pillow's, for a broken PNG.
    except (OSError, ValueError, SyntaxError, EOFError) as error:
      if not skip_unreadable:
        raise ValueError(
            f'{file} cannot be read as a picture ({error}); mend or remove it, or set '
            'skip_unreadable=True'
        ) from None
      logging.warning('skipped %s: cannot be read as a picture (%s)', file, error)
      return None

  with futures.ThreadPoolExecutor() as pool:  # Pillow decodes outside the GIL
    images = list(pool.map(read, files))
  rows = [row for row, image in enumerate(images) if image is not None]
  if not rows:
    raise ValueError(f'not one of the {len(images)} pictures can be read: {files[0]}..')
  first = rows[0]
  for row in rows:
    if images[row].shape != images[first].shape:
      raise ValueError(
          'expected pictures of one size, got '
          f'{files[first]} {images[first].shape[:2]} and '
          f'{files[row]} {images[row].shape[:2]}; set size=(height, width)'
      )
  return np.stack([images[row] for row in rows]), rows


def _checked(size, mode: str) -> tuple[int, int] | None:
  """The size as (h, w), or None."""
  if mode not in ('RGB', 'L'):
    raise ValueError(f"mode must be 'RGB' or 'L', got {mode!r}")
  if size is not None:
    size = (size, size) if isinstance(size, int) else tuple(size)
    if len(size) != 2 or min(size) < 1:
      raise ValueError(f'size must be a side or (height, width), got {size}')
  return size


def list_pictures(path: str) -> sources.Arrays:
  """Lists the pictures under `path`, in a fixed order, their paths as `image`."""
  root = pathlib.Path(path).expanduser()
  if not root.is_dir():
    raise ValueError(f'expected a folder of pictures, but {root} is not a folder')
  entries = sorted(p for p in root.iterdir() if not p.name.startswith('.'))
  flat = [p for p in entries if p.is_file() and p.suffix.lower() in EXTENSIONS]
  groups = {p.name: _pictures(p) for p in entries if p.is_dir()}
  if not flat and not any(groups.values()):
    raise ValueError(
        f'{root} holds no picture; expected {", ".join(sorted(EXTENSIONS))} in it or '
        'in its sub-folders (classes)'
    )
  if not any(groups.values()):
    groups = {root.name: flat}
  elif flat:
    raise ValueError(
        f'{root} holds both class folders and pictures outside of them ({flat[0].name} '
        '...); move these into a class folder, or all pictures into one flat folder'
    )
  empty = [name for name, files in groups.items() if not files]
  if empty:  # dropping it would shift the labels of the classes after it
    raise ValueError(f'{root}: no picture in the class folder {empty[0]!r}; remove it')
  files = [file for group in groups.values() for file in group]
  label = np.repeat(np.arange(len(groups)), [len(g) for g in groups.values()])
  names = tuple(groups)
  return sources.Arrays(np.array(files, object), label.astype(np.int32), names)


def _pictures(root: pathlib.Path) -> list[pathlib.Path]:
  """The pictures at any depth below `root`, without hidden files and folders."""
  return sorted(
      p for p in root.rglob('*')
      if p.suffix.lower() in EXTENSIONS
      and p.is_file()
      and not any(part.startswith('.') for part in p.relative_to(root).parts)
  )


def _read(file: pathlib.Path, size: tuple[int, int] | None, mode: str) -> np.ndarray:
  """Decodes one picture to uint8 `[h, w, c]`."""
  with Image.open(file) as image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(('I', 'F')):  # Pillow would clip these at 255
      image = _to_8_bits(image)
    if image.has_transparency_data:
      image = image.convert('RGBA')
      white = Image.new('RGBA', image.size, 'white')
      image = Image.alpha_composite(white, image)
    image = image.convert(mode)
    if size is not None:
      image = ImageOps.fit(image, size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(image.height, image.width, -1)


def _to_8_bits(image: Image.Image) -> Image.Image:
  """Scales a 16-bit grey picture, 0..65535, to 0..255."""
  values = np.asarray(image)
  if image.mode == 'F' or values.min() < 0 or values.max() > 65535:
    raise ValueError('grey values are not integers of 8 or 16 bits')
  return Image.fromarray(np.round(values / 257).astype(np.uint8))
