"""Pictures with a class for every pixel: `Pairs`, and folders of pictures and masks.

    pairs = masks('street', num_classes=19, void=255)  # street/images/, street/masks/

A mask is a PNG of the size of its picture, whose pixels are numbers of classes.
"""

import os
import pathlib
import warnings
from collections.abc import Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from nat_jax.data import folder_source, memory, sources
from nat_jax.data.decode import decode
from nat_jax.names import listed

VOID = 255  # in `Pairs.mask`: a pixel of no class, or without a label
IMAGES, MASKS = 'images', 'masks'  # sub-folders
INDEXED = ('1', 'L', 'P', 'I', 'I;16')  # modes of Pillow with one number per pixel


class Pairs(NamedTuple):
  """Pictures and their masks.

  Attributes:
    image: uint8 [n, h, w, c].
    mask: uint8 [n, h, w], classes 0..num_classes-1, or `VOID` whatever number the void
      has in the files.
    names: of the classes; () if they have none.
  """

  image: np.ndarray
  mask: np.ndarray
  names: tuple[str, ...] = ()


def masks(
    path: str, size: int | Sequence[int] | None = None, mode: str = 'RGB',
    split: str = 'all', names: Sequence[str] = (), *, num_classes: int, void: int,
) -> Pairs:
  """Reads PATH/images/ and PATH/masks/, files with equal names but for the extension.

  Args:
    path: of the folder. Hidden files and files with other extensions are ignored.
    size: the side, or (h, w); pictures are resized so that they just cover it and
      cropped in the middle, masks are resized by the nearest pixel. None: all pictures
      must have one size.
    mode: 'RGB' (three channels) or 'L' (one, grey).
    split: 'all', or a slice of it ('all[:80%]'), after one fixed shuffle of the files.
    names: of the classes, in the order of their numbers; (): they have none.
    num_classes: number of classes.
    void: number of the pixels of no class in the masks.

  Raises:
    ValueError: a missing folder, a picture without a mask or a mask without a picture,
      a mask of another size than its picture, of colours or with values that are no
      classes, a file that cannot be read, or another number of names than of classes.
  """
  size = folder_source.checked(size, mode)
  if names and len(names) != num_classes:
    raise ValueError(
        f'expected a name for each of num_classes={num_classes} classes, got '
        f'{len(names)} names; set num_classes={len(names)}, or correct the names')
  files = find_pairs(path)
  order = np.random.default_rng(0).permutation(len(files))
  chosen = [files[k] for _, part in sources.split_slices(split, {'all': len(files)})
            for k in np.sort(order[part])]
  if size is not None:
    memory.check_memory(
        len(chosen) * size[0] * size[1] * (len(mode) + 1),
        f'{len(chosen)} pictures and masks of {size}', 'lower size, or use fewer')
  with warnings.catch_warnings(), futures.ThreadPoolExecutor() as pool:
    warnings.filterwarnings('ignore', module=r'PIL\.')  # see `folder_source`
    read = list(pool.map(
        lambda pair: _read(*pair, size, mode, num_classes, void), chosen))
  shapes = [mask.shape for _, mask in read]
  other = next((k for k, shape in enumerate(shapes) if shape != shapes[0]), None)
  if other is not None:
    raise ValueError(
        f'expected pictures of one size, got {chosen[0][0]} {shapes[0]} and '
        f'{chosen[other][0]} {shapes[other]}; set data.image_size, such as '
        '--config.data.image_size=64, or size=(height, width) of the source')
  image, mask = (np.stack(part) for part in zip(*read, strict=True))
  return Pairs(image, mask, tuple(names))


def find_pairs(path: str) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """The (picture, mask) files of a folder, in the order of their names.

  Raises:
    ValueError: see `masks`.
  """
  root, found = pathlib.Path(path).expanduser(), {}
  for part in (IMAGES, MASKS):
    if not (root / part).is_dir():
      raise ValueError(
          f'expected the folders {IMAGES}/ and {MASKS}/ in {root}, but '
          f'{root / part} is not a folder')
    files = [pathlib.Path(file) for file in folder_source.walk_pictures(root / part)]
    if not files:
      raise ValueError(
          f'{root / part} holds no picture; expected files with the extensions '
          f'{", ".join(sorted(folder_source.EXTENSIONS))}')
    found[part] = {}
    for file in files:
      name = os.path.splitext(file.relative_to(root / part))[0]
      if name in found[part]:
        raise ValueError(
            f'{found[part][name]} and {file} have one name but for the extension; '
            'remove one of them')
      found[part][name] = file
  for part, other, what in ((IMAGES, MASKS, 'pictures have no mask'),
                            (MASKS, IMAGES, 'masks have no picture')):
    alone = sorted(set(found[part]) - set(found[other]))
    if alone:
      raise ValueError(
          f'{len(alone)} {what} in {root / other}: '
          f'{listed(found[part][name].name for name in alone)}; each picture needs a '
          'mask of its name and each mask a picture: add or remove files')
  return [(found[IMAGES][name], found[MASKS][name]) for name in sorted(found[IMAGES])]


def check_void(num_classes: int, void: int) -> None:
  """Raises ValueError unless `void` is no class and classes fit into 8 bits."""
  if num_classes > VOID:
    raise ValueError(
        f'masks have 8 bits, of which {VOID} is the void: expected num_classes of at '
        f'most {VOID}, got {num_classes}')
  if void < num_classes:
    raise ValueError(
        f'data.void={void} is a class too, since the classes are 0..{num_classes - 1}; '
        f'set data.void to {num_classes} or more, by convention 255, or num_classes '
        'lower')


def class_counts(mask: np.ndarray, num_classes: int) -> np.ndarray:
  """The number of pixels of each class, int [num_classes]; the void is left out.

  Args:
    mask: uint8 [n, h, w].
    num_classes: number of classes.
  """
  # One mask at a time: `bincount` makes a copy of eight bytes for each pixel.
  return sum(np.bincount(one.ravel(), minlength=VOID + 1) for one in mask)[:num_classes]


def check_training(pairs: Pairs, num_classes: int) -> None:
  """Raises ValueError if a class is in none of the training masks."""
  missing = np.flatnonzero(class_counts(pairs.mask, num_classes) == 0).tolist()
  if missing:
    shown = [pairs.names[k] if pairs.names else k for k in missing]
    raise ValueError(
        f'expected pixels of each of the {num_classes} classes in the training masks, '
        f'and there are none of {listed(shown)}; add masks that show them, or lower '
        'num_classes')


def _read(file, mask_file, size, mode, num_classes, void):
  """(uint8 picture [h, w, c], uint8 mask [h, w]) of two files."""
  image, mask = (_opened(one) for one in (file, mask_file))
  if image.size != mask.size:
    raise ValueError(
        f'{mask_file} must have the size of its picture {file}, {image.size[0]} x '
        f'{image.size[1]} pixels, got {mask.size[0]} x {mask.size[1]}')
  if mask.mode not in INDEXED:
    raise ValueError(
        f'{mask_file} is a picture of colours (mode {mask.mode}), and a mask must hold '
        f'one number per pixel, a class of 0..{num_classes - 1} or {void} (void); '
        'convert it to an indexed PNG')
  values = np.asarray(mask).astype(np.int64)
  wrong = np.unique(values[~np.isin(values, [*range(num_classes), void])])
  if wrong.size:
    raise ValueError(
        f'{mask_file} holds the values {listed(wrong.tolist())}; expected classes '
        f'0..{num_classes - 1}, or {void} for pixels of no class (data.void); set '
        'num_classes or data.void, or correct the mask')
  values = np.where(values == void, VOID, values).astype(np.uint8)
  if size is not None:
    values = np.asarray(ImageOps.fit(
        Image.fromarray(values), size[::-1], Image.Resampling.NEAREST))
  return decode(image, size, mode), values


def _opened(file):
  try:
    with Image.open(file) as image:
      return ImageOps.exif_transpose(image)
  except Exception as error:  # Pillow raises nearly any exception for a damaged file
    raise ValueError(
        f'{file} cannot be read as a picture ({error or type(error).__name__}); '
        'replace it, or remove it with its picture or mask') from None
