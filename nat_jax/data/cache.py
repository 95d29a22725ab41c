"""Whole splits as decoded arrays on disk, in a layout that any tool may fill.

    write_cache('cifar10', 'test', image, label, names)
    arrays = read_cache(cache_folder('cifar10') / 'test')

One folder a split:

    <cache_dir>/<data set, '/' written as '-'>/<split>/
      image.npy     uint8 [n, h, w, c]
      label.npy     int32 [n]
      names.json    ["airplane", ...]: the class names, or []

`cache_dir` is $NAT_JAX_CACHE, or else ~/.cache/nat_jax. So a machine without TensorFlow
is given data either by copying such folders or by `write_cache`.
"""

import json
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Sequence

import numpy as np

from nat_jax.data import sources


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
    image: np.ndarray,
    label: np.ndarray,
    names: Sequence[str] = (),
    cache_dir: str | None = None,
) -> pathlib.Path:
  """Writes one whole split into the cache, in one piece or not at all.

  Args:
    dataset: the name that `from_tfds` will be given.
    split: a whole split ('train', not 'train[:10%]').
    image: `[n, h, w, c]` uint8.
    label: `[n]`, any integer type.
    names: the class names.
    cache_dir: as for `from_tfds`.

  Returns:
    The folder written.

  Raises:
    ValueError: wrong shapes or types, or the split is cached already.
  """
  image, label = np.asarray(image), np.asarray(label)
  if not re.fullmatch(r'\w[\w.-]*', split) or split == 'all':
    raise ValueError(f"expected the name of a whole split ('train'), got {split!r}")
  if np.issubdtype(label.dtype, np.integer):
    label = label.astype(np.int32)
  _check(image, label, names)
  folder = cache_folder(dataset, cache_dir) / split
  if folder.exists():
    raise ValueError(f'{folder} is there already; delete it to write it anew')
  # A reader, or a second writer, never sees half a folder.
  partial = folder.with_name(f'.{split}-{uuid.uuid4().hex}')
  partial.mkdir(parents=True)
  try:
    np.save(partial / 'image.npy', image)
    np.save(partial / 'label.npy', label)
    (partial / 'names.json').write_text(json.dumps(list(names)), encoding='utf-8')
    os.replace(partial, folder)
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    raise
  return folder


def read_cache(folder: str | os.PathLike[str]) -> sources.Arrays:
  """Reads one split that `write_cache` wrote; the images stay on disk (mapped).

  Raises:
    ValueError: a file is missing, cut off, or not of the documented kind.
  """
  folder = pathlib.Path(folder)
  try:
    image = np.asarray(np.load(folder / 'image.npy', mmap_mode='r'))
    label = np.load(folder / 'label.npy')
    names = json.loads((folder / 'names.json').read_text(encoding='utf-8'))
    _check(image, label, names)
  except (OSError, EOFError, ValueError) as error:
    raise ValueError(
        f'{folder} is not a whole split ({error}); delete that folder, so that it is '
        'written anew'
    ) from None
  return sources.Arrays(image, label, tuple(names))


def _check(image: np.ndarray, label: np.ndarray, names: Sequence[str]) -> None:
  if image.dtype != np.uint8 or image.ndim != 4 or not len(image):
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
