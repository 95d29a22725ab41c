"""A folder of image files, of any size and format, as a data source.

    folder('pets', size=32)               # pets/cat/*.jpg, pets/dog/*.png: two classes
    folder('leaflets', size=32)           # a flat folder: all of label 0 (negatives)
    folder('pets', size=32, split='test') # of pets/train/cat ..., pets/test/cat ...

`nat_jax.data.decode` says how a picture becomes an array of this size.
"""

import collections
import functools
import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures

import numpy as np
from absl import logging

from nat_jax.data import memory, picture_store, sources
from nat_jax.data import rows as rows_lib
from nat_jax.data.decode import Picture, decode
from nat_jax.names import listed
from nat_jax.schema import presets

EXTENSIONS = frozenset(
    '.bmp .gif .jfif .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp'.split()
)


def folder(
    path: str,
    size: int | Sequence[int] | None = None,
    mode: str = 'RGB',
    split: str = 'all',
    classes: Sequence[int] | None = None,
    skip_unreadable: bool = False,
    lazy: bool | str = False,
) -> sources.Arrays:
  """Reads the pictures under `path`.

  Args:
    path: a folder whose sub-folders, in sorted order, are the classes, a flat folder
      of pictures, or one with a folder of either kind for each part: train, and val (or
      validation), calibration, test. Hidden files and files with other extensions are
      ignored.
    size: the side, or (h, w); None: all pictures must have one size.
    mode: 'RGB' (three channels) or 'L' (one, grey).
    split: 'all', or a slice of it ('all[:80%]'). Slices are taken of each class, after
      one fixed shuffle of its files, with bounds rounded to whole pictures: adjacent
      slices (all[:80%], all[80%:]) are disjoint and complete. A flat folder is one
      class, and can also be sliced by numbers (all[:100]). With parts also
      'train', 'validation', 'calibration' and 'test', and slices of them.
    classes: the classes to keep, by their number in the sorted order; None: all.
    skip_unreadable: whether to skip damaged pictures with a warning.
    lazy: False: all pictures are in memory. 'auto': they are decoded once, kept on disk
      and read from there, if they take at most half of its free room, and otherwise
      decoded each time they are read; see `picture_store`. True: they are decoded each
      time they are read, and a damaged one is an error when it is first read. True
      needs `size`; 'auto' without one is False.

  Returns:
    uint8 images [n, h, w, c], in an order in which the classes alternate.

  Raises:
    ValueError: no such folder, no picture in it or in one of its classes, pictures
      beside class folders, parts that do not match, a damaged picture, different
      sizes, or a split that is not valid or leaves a class without a picture.
  """
  size = checked(size, mode)
  everything, parts = _list(path)  # with paths as images
  listing = sources.take_classes(
      everything._replace(image=np.arange(len(everything.label))), classes)
  parts = None if parts is None else parts[listing.image]
  rows = sources.split_parts(listing, parts, split, path, 'picture')
  return take_pictures(
      path, everything.image, listing.image[rows], listing.label[rows], listing.names,
      size, mode, skip_unreadable, lazy, f'the split {split!r}')


def take_pictures(
    root: str, files: np.ndarray, rows: np.ndarray, label: np.ndarray,
    names: tuple[str, ...], size: int | Sequence[int] | None, mode: str,
    skip_unreadable: bool, lazy: bool | str, what: str,
) -> sources.Arrays:
  """Returns some of the pictures of a folder or a table.

  Args:
    root: path of the folder or table.
    files: paths of all its pictures.
    rows: those to take, indices in `files`, int [n].
    label: of those, int32 [n].
    names: of the classes.
    size, mode, skip_unreadable, lazy: see `folder`.
    what: the part that is taken, for messages.

  Raises:
    ValueError: see `folder`.
  """
  size, chosen = checked(size, mode), files[rows]
  if lazy is True:
    if size is None or skip_unreadable:
      raise ValueError(
          f'lazy=True needs a size and goes without skip_unreadable, got size={size}, '
          f'skip_unreadable={skip_unreadable}: damaged pictures are not known before; '
          "lazy='auto' knows them")
    return sources.Arrays(_decoded(chosen, size, mode), label, names, chosen)
  if lazy == 'auto' and size is not None:
    store = picture_store.open_store(
        root, files, size, mode, functools.partial(_decode_all, root))
    unreadable = {at: store.unreadable[row] for at, row in enumerate(rows.tolist())
                  if row in store.unreadable}
    for at, reason in unreadable.items():
      _report(chosen[at], reason, skip_unreadable)
    left = np.delete(np.arange(len(rows)), list(unreadable))
    image = (_decoded(chosen[left], size, mode) if store.image is None
             else rows_lib.select(store.image, rows[left]))
    hashes = store.hashes[rows[left]]
  else:
    image, unreadable = read_pictures(chosen, size, mode, skip_unreadable)
    left = np.delete(np.arange(len(rows)), list(unreadable))
    hashes = None
  read = label[left]
  lost = np.setdiff1d(label, read)
  if lost.size:
    raise ValueError(
        f'{root}: not one of the {(label == lost[0]).sum()} picture(s) of the class '
        f'{names[lost[0]]!r} in {what} can be read; replace these files')
  return sources.Arrays(image, read, names, chosen[left], hashes)


def _decode_all(root, files, size, mode):
  """`decode_each` of the pictures of a folder; warns of the files that are left out."""
  others = _others(os.path.expanduser(root))  # '' where `root` is a table
  if others:
    logging.warning(
        '%s: left out, since their extensions are not of pictures that can be read: %s',
        root, others)
  return decode_each(files, size, mode)


def _decoded(files, size, mode) -> rows_lib.Rows:
  """Pictures that are decoded each time they are read."""
  return rows_lib.Rows(
      lambda chosen: read_pictures(files[chosen], size, mode)[0], len(files),
      (*size, len(mode)))


def read_pictures(
    files: Sequence[pathlib.Path],
    size: int | Sequence[int] | None = None,
    mode: str = 'RGB',
    skip_unreadable: bool = False,
) -> tuple[np.ndarray, dict[int, str]]:
  """Decodes pictures in the order given.

  Args:
    files: paths of the pictures.
    size: the side, or (h, w); None: all pictures must have one size.
    mode: 'RGB' (three channels) or 'L' (one, grey).
    skip_unreadable: whether to skip damaged pictures with a warning.

  Returns:
    (uint8 images [n, h, w, c] of the readable pictures, {index in `files`: reason} of
    the skipped ones).

  Raises:
    ValueError: a damaged picture, no readable one, different sizes, or with a size
      more pictures than fit in memory.
  """
  size = checked(size, mode)
  if size is not None:
    memory.check_memory(
        len(files) * size[0] * size[1] * len(mode), f'{len(files)} pictures of {size}',
        "lower size, use fewer pictures, or keep them on disk: lazy='auto'")

  def read(file):
    try:
      return decode(file, size, mode)
    # Pillow's decoders raise nearly any exception for a damaged file, and a
    # DecompressionBombError or a MemoryError for a huge one.
    except Exception as error:
      return _report(file, str(error) or type(error).__name__, skip_unreadable)

  with warnings.catch_warnings(), futures.ThreadPoolExecutor() as pool:
    # Pillow warns, without naming the file, of large pictures and of damaged tags in
    # pictures that it nevertheless reads (much larger ones raise).
    warnings.filterwarnings('ignore', module=r'PIL\.')
    found = list(pool.map(read, files))  # Pillow decodes outside the GIL
  unreadable = {row: found[row] for row in range(len(found)) if type(found[row]) is str}
  images = {row: found[row] for row in range(len(found)) if row not in unreadable}
  if not images:
    raise ValueError(
        f'not one of the {len(found)} pictures can be read; the first is {files[0]} '
        f'({found[0]})')
  first = next(iter(images))
  for row, image in images.items():
    if image.shape != images[first].shape:
      raise ValueError(
          'expected pictures of one size, got '
          f'{files[first]} {images[first].shape[:2]} and '
          f'{files[row]} {image.shape[:2]}; set data.image_size, or '
          'size=(height, width) of the source'
      )
  return np.stack(list(images.values())), unreadable


def _report(file, reason, skip):
  """Warns of a damaged picture and returns the reason, or raises ValueError."""
  if not skip:
    raise ValueError(
        f'{file} cannot be read as a picture ({reason}); replace or remove it, or '
        'skip such pictures: --config.data.skip_unreadable=True') from None
  logging.warning('skipped %s: cannot be read as a picture (%s)', file, reason)
  return reason


def decode_each(
    files: Iterable[Picture], size: int | Sequence[int], mode: str = 'RGB',
    ahead: int = 256,
) -> Iterator[tuple[Picture, np.ndarray | str]]:
  """Decodes any number of pictures in threads and yields them in the order given.

  Args:
    files: paths of the pictures, or pictures (`decode.Picture`).
    size: the side, or (h, w).
    mode: 'RGB' (three channels) or 'L' (one, grey).
    ahead: most pictures that are in memory.

  Yields:
    (one of `files`, uint8 image [h, w, c]), or (one of `files`, reason) where it cannot
    be read.
  """
  size = checked(size, mode)

  def read(file):
    try:
      return decode(file, size, mode)
    except Exception as error:  # see `read_pictures`
      return str(error) or type(error).__name__

  waiting: collections.deque = collections.deque()
  pool = futures.ThreadPoolExecutor()
  try:
    for file in files:
      waiting.append((file, pool.submit(read, file)))
      if len(waiting) >= ahead:
        file, found = waiting.popleft()
        yield file, found.result()
    while waiting:
      file, found = waiting.popleft()
      yield file, found.result()
  finally:
    pool.shutdown(cancel_futures=True)


def checked(
    size: int | Sequence[int] | None, mode: str
) -> tuple[int, int] | None:
  """The size as (h, w), or None; ValueError for an invalid size or mode."""
  if mode not in ('RGB', 'L'):
    raise ValueError(f"mode must be 'RGB' or 'L', got {mode!r}")
  if size is not None:
    size = (size, size) if isinstance(size, int) else tuple(size)
    if len(size) != 2 or min(size) < 1:
      raise ValueError(
          f'size must be a side or (height, width), each 1 or more, got {size}')
  return size


def list_pictures(path: str) -> sources.Arrays:
  """Lists the pictures under `path` in a fixed order, with their paths as `image`.

  Raises:
    ValueError: no such folder, no picture in it or in one of its classes, pictures
      beside class folders, or parts that do not match; see `folder`.
  """
  return _list(path)[0]


def _list(path) -> tuple[sources.Arrays, np.ndarray | None]:
  """(the pictures under `path`, the part of each or None); see `list_pictures`."""
  root = pathlib.Path(path).expanduser()
  if not root.is_dir():
    raise ValueError(
        f'expected a folder of pictures, but {root} is not a folder; put the pictures '
        'of a run back where they were, or make a link there')
  folders = presets.part_folders(root)
  if not folders:
    return _arrays(_groups(root)), None
  loose = [one for one in sorted(root.iterdir()) if _is_picture(one)]
  if loose:
    raise ValueError(
        f'{root} holds both folders of parts ({", ".join(folders.values())}) and '
        f'pictures outside of them ({loose[0].name} ...); move these into a part')
  groups = {part: _groups(root / name) for part, name in folders.items()}
  # A flat folder is one class, which has the name of the whole.
  flat = [part for part in groups if groups[part].keys() == {folders[part]}]
  if len(flat) == len(groups):
    groups = {part: {root.name: files}
              for part, found in groups.items() for files in found.values()}
  for part, found in groups.items():
    unknown = [name for name in found if name not in groups['train']]
    if unknown:
      raise ValueError(
          f'{root / folders[part]} holds {listed(unknown)}, which '
          f'{root / folders["train"]} does not: expected the same classes, each a '
          f'folder of pictures, in all parts ({", ".join(folders.values())}), of which '
          'only train needs all of them')
  names = list(groups['train'])
  arrays = [_arrays({name: found.get(name, []) for name in names})
            for found in groups.values()]
  return arrays[0]._replace(
      image=np.concatenate([one.image for one in arrays]),
      label=np.concatenate([one.label for one in arrays]),
  ), np.repeat([*groups], [len(one.label) for one in arrays]).astype(object)


def _groups(root) -> dict[str, list[pathlib.Path]]:
  """{class: its pictures} in a folder; a flat one is one class of its name."""
  entries = sorted(p for p in root.iterdir() if not p.name.startswith('.'))
  flat = [p for p in entries if _is_picture(p)]
  groups = {p.name: _pictures(p) for p in entries if p.is_dir()}
  if not flat and not any(groups.values()):
    raise ValueError(
        f'{root} holds no picture; expected files with the extensions '
        f'{", ".join(sorted(EXTENSIONS))} in it or in its sub-folders (classes)'
        f'{_must_convert(root)}')
  if not any(groups.values()):
    return {root.name: flat}
  if flat:
    raise ValueError(
        f'{root} holds both class folders and pictures outside of them ({flat[0].name} '
        '...); move these into a class folder, or all pictures into one flat folder'
    )
  empty = [name for name, files in groups.items() if not files]
  if empty:  # ignoring it would shift the labels of the classes after it
    raise ValueError(
        f'{root}: no picture in the class folder {empty[0]!r}; remove it, or add files '
        f'with the extensions {", ".join(sorted(EXTENSIONS))}'
        f'{_must_convert(root / empty[0])}')
  return groups


def _is_picture(path) -> bool:
  return (not path.is_dir() and path.suffix.lower() in EXTENSIONS
          and not path.name.startswith('.'))


def _arrays(groups) -> sources.Arrays:
  """The files of {class: files}, with the number of their class."""
  files = [file for group in groups.values() for file in group]
  label = np.repeat(np.arange(len(groups)), [len(g) for g in groups.values()])
  # Names that are not UTF-8 get escapes, since reports could not write them.
  names = tuple(
      os.fsencode(name).decode('utf-8', 'backslashreplace') for name in groups)
  return sources.Arrays(np.array(files, object), label.astype(np.int32), names)


def _others(root):
  """The files below a folder that are no pictures by their extension, as '2 .heic'."""
  counts = collections.Counter(
      os.path.splitext(name)[1].lower() for _, names in _walk(root) for name in names)
  return ', '.join(f'{num} {end or "without extension"}'
                   for end, num in sorted(counts.items()) if end not in EXTENSIONS)


def _must_convert(root):
  """The end of a message on a folder without pictures."""
  others = _others(root)
  return f'; its other files ({others}) must be converted' if others else ''


def _pictures(root: pathlib.Path) -> list[pathlib.Path]:
  return sorted(map(pathlib.Path, walk_pictures(root)))


def walk_pictures(root: str | os.PathLike) -> Iterator[str]:
  """Yields the paths of the pictures at any depth below a folder, folder by folder.

  Hidden files and folders are left out, and further links to one folder. No more than
  the names of one folder are in memory.
  """
  for folder, names in _walk(root):
    for name in names:
      if os.path.splitext(name)[1].lower() in EXTENSIONS:
        yield os.path.join(folder, name)


def _raise(error):
  """Raises the error of a folder that cannot be listed, which os.walk passes over."""
  raise error


def _walk(root):
  """(folder, names of its files) at any depth, in order, without what is hidden."""
  if not os.path.isdir(root):
    return
  known = {os.path.realpath(root)}
  for folder, inner, names in os.walk(root, onerror=_raise, followlinks=True):
    real = {os.path.realpath(os.path.join(folder, name)): name
            for name in sorted(inner, reverse=True) if not name.startswith('.')}
    inner[:] = sorted(name for place, name in real.items() if place not in known)
    known |= real.keys()
    yield folder, sorted(name for name in names if not name.startswith('.'))
