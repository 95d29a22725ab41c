"""Pictures on disk, decoded once: their pixels, perceptual hashes, and damaged files.

    store = open_store(root, files, (224, 224), 'RGB', decode_each)
    store.image[rows]       # uint8 [n, 224, 224, 3], read from disk
    store.hashes            # uint64 [num files]
    store.unreadable        # {index: reason}

All pictures are decoded once, in threads, a few hundred in memory at a time. What was
found is kept in a folder of the cache:

    <cache root>/pictures/<name, size, mode and digest of the path>/<digest of files>/
      image.npy          uint8 [num files, h, w, c], unless the disk has no room
      hashes.npy         uint64 [num files], 0: none
      unreadable.json    {index: reason} of damaged pictures, whose pixels are 0

The pixels are kept if they take at most half of the free room of that disk; otherwise
pictures are decoded each time they are read. The digest is of the absolute paths, sizes
and times of change of all files: where a file has changed all are decoded again, and
what was kept before is deleted once no process has read it for two days.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import filelock
import numpy as np
import tqdm
from absl import logging

from nat_jax.data import cache, near_duplicates, rows

FOLDER = 'pictures'  # in the root of the cache
IMAGES, HASHES, UNREADABLE = 'image.npy', 'hashes.npy', 'unreadable.json'
UNUSED = 2 * 24 * 3600  # seconds after which pictures that have changed are removed
TOUCH = 3600  # seconds after which a process that reads pictures says so again
_CHUNK = 256  # pictures whose hashes are computed at a time

# (paths, (h, w), mode) -> (path, uint8 [h, w, c] or the reason why not) of each.
Decode = Callable[
    [Sequence[str], tuple[int, int], str], Iterator[tuple[str, np.ndarray | str]]]


class Store(NamedTuple):
  """What is known of the pictures of a folder or a table.

  Attributes:
    image: uint8 [n, h, w, c], read from disk on access; None: pixels are not kept.
    hashes: perceptual hashes uint64 [n], 0: none, see `near_duplicates`.
    unreadable: {index: reason} of damaged pictures.
  """

  image: rows.Rows | None
  hashes: np.ndarray
  unreadable: dict[int, str]


def open_store(
    root: str, files: Sequence[os.PathLike | str], size: tuple[int, int], mode: str,
    decode: Decode,
) -> Store:
  """Reads what is kept of the pictures, or decodes all of them to find it.

  Args:
    root: of the pictures: the path of a folder or of a table.
    files: paths of all its pictures, in an order that does not change.
    size: (h, w) to which they are decoded.
    mode: 'RGB' or 'L'.
    decode: such as `folder_source.decode_each`.

  Raises:
    ValueError: what is kept is damaged.
    OSError: a file cannot be found, or the cache cannot be written.
  """
  root = os.path.abspath(os.path.expanduser(root))
  name = re.sub(r'[^\w.-]', '_', os.path.basename(root))[:50]
  above = cache.cache_root() / FOLDER / (
      f'{name}-{size[0]}x{size[1]}{mode}-{_digest([root])}')
  folder = above / _digest(map(_about, files))
  try:
    above.mkdir(parents=True, exist_ok=True)
    # Of the processes of a sweep one decodes the pictures and the others wait.
    with filelock.FileLock(above / '.lock', fallback_to_soft=False):
      if not folder.exists():
        _fill(folder, name, [os.fspath(file) for file in files], size, mode, decode)
        for old in above.iterdir():  # a run that reads it may be under way
          if old.is_dir() and old.stat().st_mtime < time.time() - UNUSED:
            shutil.rmtree(old, ignore_errors=True)
      os.utime(folder)
  except (OSError, NotImplementedError) as error:  # the latter: a disk without locks
    raise OSError(
        f'decoded pictures cannot be kept in {folder} ({error}); free some room, let '
        "$NAT_JAX_CACHE name another folder, or set lazy=True in the sources instead "
        "of lazy='auto'") from error
  return _read(folder, (len(files), *size, len(mode)))


def _fill(folder, name, files, size, mode, decode):
  """Decodes all pictures; writes what is found atomically, so that it is whole."""
  shape = (len(files), *size, len(mode))
  partial = folder.with_name(f'.{folder.name}-{uuid.uuid4().hex}')
  partial.mkdir()
  try:
    keep = 2 * math.prod(shape) <= shutil.disk_usage(partial).free
    if not keep:
      logging.warning(
          '%s: %d decoded pictures would take more than half of the free room in %s; '
          'they are decoded each time they are read.', name, len(files), folder.parent)
    hashes, unreadable, done = np.zeros(len(files), np.uint64), {}, 0
    with (
        open(partial / IMAGES, 'wb') as file,
        tqdm.tqdm(total=len(files), desc=f'decoding {name}', unit=' pictures',
                  disable=None) as bar,
    ):
      if keep:
        cache.write_header(file, shape)
      for images, reasons in _chunks(decode(files, size, mode), shape[1:]):
        unreadable |= {done + row: reason for row, reason in reasons.items()}
        found = near_duplicates.perceptual_hashes(images)
        found[list(reasons)] = near_duplicates.NONE
        hashes[done:done + len(images)] = found
        if keep:
          file.write(images.data)
        done += len(images)
        bar.update(len(images))
    if not keep:
      (partial / IMAGES).unlink()
    np.save(partial / HASHES, hashes)
    (partial / UNREADABLE).write_text(json.dumps(unreadable), encoding='utf-8')
    os.replace(partial, folder)
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    raise
  logging.info('%s: %d pictures decoded, %d unreadable; kept in %s', name, len(files),
               len(unreadable), folder)


def _chunks(decoded, shape):
  """Stacks decoded pictures: (uint8 [n, h, w, c], {row: reason} of damaged ones)."""
  images, reasons = [], {}
  for _, found in decoded:
    if isinstance(found, str):
      reasons[len(images)] = found
      found = np.zeros(shape, np.uint8)
    images.append(found)
    if len(images) == _CHUNK:
      yield np.stack(images), reasons
      images, reasons = [], {}
  if images:
    yield np.stack(images), reasons


def _read(folder, shape) -> Store:
  try:
    hashes = np.load(folder / HASHES)
    known = json.loads((folder / UNREADABLE).read_text(encoding='utf-8'))
    unreadable = {int(row): reason for row, reason in known.items()}
    if hashes.shape != shape[:1] or hashes.dtype != np.uint64:
      raise ValueError(f'{HASHES} is {hashes.dtype} {list(hashes.shape)}')
    path = folder / IMAGES
    image = (_in_use(cache.open_images(path, shape), folder) if path.exists()
             else None)
  except (OSError, EOFError, ValueError, AttributeError) as error:
    raise ValueError(
        f'{folder} is damaged ({error}); delete that folder, so that the pictures are '
        'decoded again') from None
  return Store(image, hashes, unreadable)


def _in_use(images, folder) -> rows.Rows:
  """Images whose folder has, while they are read, a recent time of change."""
  told = time.monotonic()

  def read(chosen):
    nonlocal told
    if time.monotonic() - told >= TOUCH:
      told = time.monotonic()
      with contextlib.suppress(OSError):
        os.utime(folder)
    return images.read(chosen)

  return rows.Rows(read, len(images), images.shape[1:])


def _about(file):
  """What changes when a file does; of a link to nothing its name."""
  path = os.path.abspath(file)
  try:
    found = os.stat(path)
  except FileNotFoundError:
    return path
  return f'{path}\0{found.st_size}\0{found.st_mtime_ns}'


def _digest(texts) -> str:
  digest = hashlib.blake2b(digest_size=8)
  for text in texts:
    digest.update(os.fsencode(text) + b'\0\0')
  return digest.hexdigest()
