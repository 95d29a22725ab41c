"""The array cache: whole splits as decoded arrays on disk, in a documented layout.

    write_cache('cifar10', 'test', image, label, names)
    arrays = read_cache(cache_folder('cifar10') / 'test')

There is one folder per split:

    <cache_dir>/<data set, '/' written as '-'>/<split>/
      image.npy     uint8 [n, h, w, c]
      label.npy     int32 [n]
      names.json    ["airplane", ...]: the class names, or []

By default `cache_dir` is $NAT_JAX_CACHE, or ~/.cache/nat_jax if that is not set. A
machine without TensorFlow gets its data by copying such folders, or by `write_cache`.
"""

import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import filelock
import numpy as np

from nat_jax.data import rows, sources

QUIET = 60  # seconds without a change after which an incomplete folder is a leftover


def cache_root() -> pathlib.Path:
  """The folder of all that is cached: $NAT_JAX_CACHE, or else ~/.cache/nat_jax."""
  return pathlib.Path(
      os.environ.get('NAT_JAX_CACHE') or '~/.cache/nat_jax').expanduser()


def cache_folder(dataset: str, cache_dir: str | None = None) -> pathlib.Path:
  """The folder that holds the cached splits of `dataset`."""
  root = pathlib.Path(cache_dir).expanduser() if cache_dir else cache_root()
  return root / dataset.replace('/', '-')


def write_cache(
    dataset: str,
    split: str,
    image: rows.Images,
    label: np.ndarray,
    names: Sequence[str] = (),
    cache_dir: str | None = None,
    done: Callable[[int], Any] = lambda num: None,
) -> pathlib.Path:
  """Writes one whole split into the cache, atomically.

  The images are read and written some at a time, so they may be more than memory holds.
  Of several processes one writes the split; the others wait, and get the ValueError.

  Args:
    dataset: the name by which `from_tfds` reads it.
    split: a whole split ('train', not 'train[:10%]').
    image: `[n, h, w, c]` uint8, an array or `data.Rows`.
    label: `[n]`, any integer dtype.
    names: the class names; may be empty.
    cache_dir: root of the cache; None: the default.
    done: called with the number of images after each part that was written.

  Returns:
    The folder that was written.

  Raises:
    ValueError: wrong shapes or dtypes, or the split is in the cache already.
  """
  image = image if isinstance(image, rows.Rows) else np.asarray(image)
  label = np.asarray(label)
  if not re.fullmatch(r'\w[\w.-]*', split) or split == 'all':
    raise ValueError(f"expected the name of a whole split ('train'), got {split!r}")
  if np.issubdtype(label.dtype, np.integer):
    label = label.astype(np.int32)
  _check(image, label, names)
  folder = cache_folder(dataset, cache_dir) / split
  folder.parent.mkdir(parents=True, exist_ok=True)
  with _locked(folder) as locked:
    if folder.exists():
      raise ValueError(f'{folder} is there already; delete it to write it again')
    if locked:
      _remove_leftovers(folder)
    _write(folder, image, label, names, done)
  return folder


@contextlib.contextmanager
def _locked(folder) -> Iterator[bool]:
  """Locks a split; yields whether it could be, which not every disk allows."""
  path, locked = folder.with_name(f'.{folder.name}.lock'), False
  lock = filelock.FileLock(path, fallback_to_soft=False)
  if os.access(folder.parent, os.W_OK):  # where it is not, the lock would wait forever
    with contextlib.suppress(OSError, NotImplementedError):
      lock.acquire()
      locked = True
  try:
    yield locked
  finally:
    if locked:  # removed while it is held: a process that waits for it makes a new file
      with contextlib.suppress(OSError):
        os.remove(path)
      lock.release()


def _remove_leftovers(folder):
  """Removes incomplete folders of processes that were killed.

  Not those that are written to, as by a host that does not see the lock.
  """
  for path in folder.parent.glob(f'.{folder.name}-{"[0-9a-f]" * 32}'):
    with contextlib.suppress(OSError):
      changed = max(one.stat().st_mtime for one in (path, *path.iterdir()))
      if changed < time.time() - QUIET:
        shutil.rmtree(path)


def _write(folder, image, label, names, done):
  """Writes a split elsewhere first: no process ever sees an incomplete folder."""
  partial = folder.with_name(f'.{folder.name}-{uuid.uuid4().hex}')
  partial.mkdir()
  try:
    # Not through a memory map: on a full disk that would end the process by SIGBUS.
    with open(partial / 'image.npy', 'wb') as file:
      write_header(file, image.shape)
      for part in rows.chunks(image):
        file.write(np.ascontiguousarray(part).data)
        done(len(part))
    np.save(partial / 'label.npy', label)
    (partial / 'names.json').write_text(json.dumps(list(names)), encoding='utf-8')
    os.replace(partial, folder)
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    raise


def write_header(file: BinaryIO, shape: Sequence[int]) -> None:
  """Writes the header of an .npy file of uint8; the images follow one by one."""
  np.lib.format.write_array_header_1_0(file, {
      'descr': '|u1', 'fortran_order': False, 'shape': tuple(shape)})


def open_images(path: str | os.PathLike[str], shape: Sequence[int]) -> rows.Rows:
  """Opens the images of an .npy file, which are read row by row.

  They are read into arrays of their own, not mapped: the pages of a map would count as
  memory of this process until the operating system needs them.

  Args:
    path: of an .npy file of uint8.
    shape: (n, h, w, c) that it must have.

  Raises:
    ValueError: the file is truncated or of another shape or dtype.
  """
  mapped = np.load(path, mmap_mode='r')
  if mapped.shape != tuple(shape) or mapped.dtype != np.uint8:
    raise ValueError(
        f'expected uint8 {list(shape)} in {path}, got {mapped.dtype} '
        f'{list(mapped.shape)}')
  offset, one = mapped.offset, math.prod(shape[1:])

  def read(chosen):
    images = np.empty((len(chosen), *shape[1:]), np.uint8)
    with open(path, 'rb', buffering=0) as file:
      for image, row in zip(images, chosen, strict=True):
        file.seek(offset + int(row) * one)
        if file.readinto(image) != one:
          raise OSError(f'{path} has been truncated while it was in use')
    return images

  return rows.Rows(read, shape[0], shape[1:])


def read_cache(folder: str | os.PathLike[str]) -> sources.Arrays:
  """Reads one split that `write_cache` wrote; images are memory-mapped.

  Raises:
    ValueError: a file is missing, truncated or not in the documented layout.
  """
  folder = pathlib.Path(folder)
  try:
    image = np.load(folder / 'image.npy', mmap_mode='r')
    label = np.load(folder / 'label.npy')
    names = json.loads((folder / 'names.json').read_text(encoding='utf-8'))
    _check(image, label, names)
  except (OSError, EOFError, ValueError) as error:
    raise ValueError(
        f'{folder} is not a whole split ({error}); delete that folder, so that it is '
        'written again'
    ) from None
  return sources.Arrays(image, label, tuple(names))


def _check(image: rows.Images, label: np.ndarray, names: Sequence[str]) -> None:
  """Raises ValueError unless the arrays have the documented shapes and dtypes."""
  if image.dtype != np.uint8 or len(image.shape) != 4 or not len(image):
    raise ValueError(
        f'expected images uint8 [n, h, w, c], got {image.dtype} {list(image.shape)}'
    )
  if label.dtype != np.int32 or label.shape != image.shape[:1]:
    raise ValueError(
        f'expected labels int32 [{len(image)}], got {label.dtype} {list(label.shape)}'
    )
  if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
    raise ValueError(f'expected a list of class names, got {names!r}')
  if names and label.max() >= len(names):
    raise ValueError(f'label {label.max()} has no name: there are {len(names)} names')
