"""Files of rows by which training examples are dropped or kept: `data.drop`, `.keep`.

    {"positives": {"size": 1257, "rows": [3, 17]}, "digits_6_7": {...}}

Rows count the examples of a source from 0, in the order in which it is loaded. A file
names sets by their name in `data.negatives`, or 'positives'; sets that it does not name
are used as a whole.

    path = identify('drop.json')                 # 'drop.json#1a2b3c4d'
    sets = apply(settings, sets)                 # name -> data.Arrays
"""

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from nat_jax import data, names
from nat_jax.runtime import files

POSITIVES = 'positives'
KEYS = ('drop', 'keep')  # of `config['data']`


def identify(path: str) -> str:
  """The path of a file of rows, followed by the checksum of its content.

  A resolved config holds it in this form, so that a run whose file has changed is a run
  of another config. A path that has a checksum already, and '', are returned as is.

  Raises:
    ValueError, OSError: there is no such file, or it is no file of rows.
  """
  if not path or _split(path)[1]:
    return path
  return f'{path}#{_checksum(_read(path))}'


def kept(
    settings: Mapping[str, Any], name: str, size: int
) -> np.ndarray:
  """The rows of a set that are trained on, int [m], in rising order.

  Args:
    settings: `config['data']`.
    name: of a set of negatives, or `POSITIVES`.
    size: number of examples of the source of this set.

  Raises:
    ValueError: a file of rows that is not of this source, or has changed.
  """
  chosen = np.ones(size, bool)
  for key in KEYS:
    path, checksum = _split(settings.get(key) or '')
    if not path:
      continue
    sets = _read(path)
    if checksum and _checksum(sets) != checksum:
      raise ValueError(
          f'data.{key}: {path} has changed since the run was started; restore the '
          'file, or train in another --workdir')
    if name not in sets:
      continue
    if sets[name]['size'] != size:
      raise ValueError(
          f'data.{key}: {path} is for {sets[name]["size"]} examples of {name!r}, and '
          f'its source has {size}; use a file that was made for this source')
    listed = np.zeros(size, bool)
    listed[sets[name]['rows']] = True
    chosen &= listed == (key == 'keep')
  return np.flatnonzero(chosen)


def origin(
    settings: Mapping[str, Any], name: str, num: int
) -> tuple[np.ndarray, int]:
  """Where the examples of a training set are in its source.

  Args:
    settings: `config['data']`.
    name: of a set of negatives, or `POSITIVES`.
    num: examples of the set that are trained on.

  Returns:
    (int [num], rows of the source; the number of examples of the source).
  """
  for key in KEYS:
    path, _ = _split(settings.get(key) or '')
    sets = _read(path) if path else {}
    if name in sets:
      size = sets[name]['size']
      return kept(settings, name, size), size
  return np.arange(num), num


def apply(
    settings: Mapping[str, Any], sets: Mapping[str, data.Arrays]
) -> dict[str, data.Arrays]:
  """The training sets without the examples that `data.drop` and `data.keep` exclude.

  Args:
    settings: `config['data']`.
    sets: name -> examples: `POSITIVES`, and the names of negatives.

  Raises:
    ValueError: see `kept`; a file that names another set; or a set without an example.
  """
  for key in KEYS:
    path, _ = _split(settings.get(key) or '')
    known = {POSITIVES, *settings.get('negatives', ())}
    for name in _read(path) if path else ():
      if name not in known:
        raise ValueError(
            f'data.{key}: {path}: {names.unknown("set", name, sorted(known))}')
  found = {}
  for name, arrays in sets.items():
    rows = kept(settings, name, len(arrays.label))
    if not len(rows):
      raise ValueError(
          f'data.drop and data.keep leave no example of the set {name!r}; remove the '
          'set from the config, or name fewer of its rows')
    found[name] = (arrays if len(rows) == len(arrays.label) else
                   data.take_rows(arrays, rows))
  return found


def _split(path):
  """(path, checksum or '') of a path from `identify`."""
  found = re.fullmatch(r'(.*)#([0-9a-f]{8})', path)
  return found.groups() if found else (path, '')


def _checksum(sets):
  return f'{zlib.crc32(json.dumps(sets, sort_keys=True).encode()):08x}'


def _read(path):
  try:
    sets = files.read_json(path, '--mode=influence writes such files')
  except FileNotFoundError:
    raise ValueError(
        f'there is no file of rows {path} (data.drop, data.keep); put it back, or '
        'write it by --mode=influence') from None
  for name, one in sets.items():
    rows, size = (one.get(key) if isinstance(one, dict) else None
                  for key in ('rows', 'size'))
    if not (isinstance(rows, list) and isinstance(size, int) and all(
        type(row) is int and 0 <= row < size for row in rows)):
      raise ValueError(
          f'{path}: expected {{set: {{"size": n, "rows": [whole numbers in 0..n-1]}}}},'
          f' got something else for the set {name!r}; --mode=influence writes such '
          'files')
  return sets
