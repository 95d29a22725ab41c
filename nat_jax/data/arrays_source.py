"""Vectors, or pictures as arrays, from a file .npz or .csv as a data source.

    arrays('features.npz', split='all[:60%]')          # the rows that have a label
    arrays('features.npz', rows='unlabelled')          # the others: negatives
    arrays('table.csv', split='train', classes=(0, 2))

A file .npz holds `vector`, numbers [n, d], or `image`, uint8 [n, h, w, c]; further
arrays are optional: `label` [n], numbers (-1: none) or names ('': none); `names` [k] of
numbered classes; `split` [n], the name of the part that a row belongs to; `path` [n],
the picture of a row. A file .csv has columns of numbers, and the optional columns
label, split and path. Vectors become float32 and are standardised by `data.mean` and
`data.std` of the config.
"""

import json
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nat_jax import names as names_lib
from nat_jax.data import sources
from nat_jax.data.memory import check_memory

LABEL, SPLIT, PATH = 'label', 'split', 'path'
CONTENT = ('vector', 'image')
KEYS = (*CONTENT, LABEL, 'names', SPLIT, PATH, 'backbone')  # arrays of a file .npz
ROWS = ('labelled', 'unlabelled', 'all')
UNLABELLED = 'unlabelled'


class Header(NamedTuple):
  """What a file says about its rows.

  Attributes:
    label: int32 [n], -1: none; None: the file has no labels.
    names: of the classes 0, 1, ...
    split: [n] names of the parts of the rows; None: the file has none.
    backbone: what made the vectors, as --mode=embed wrote it; {}: not known.
  """

  label: np.ndarray | None
  names: tuple[str, ...]
  split: np.ndarray | None
  backbone: Mapping[str, Any]


def arrays(
    path: str,
    split: str = 'all',
    classes: Sequence[int] | None = None,
    rows: str = 'labelled',
    keep_constant: bool = False,
) -> sources.Arrays:
  """Reads vectors or pictures from a file.

  Args:
    path: of a file .npz or .csv, see the module.
    split: 'all', or the name of a part in the file's `split`; slices of these
      ('all[:80%]', 'train[80%:]') are taken of each class, as in the source 'folder';
      several are joined by +.
    classes: the classes to keep, by number; None: all. Labels that are numbers without
      `names` are numbered from 0, in their order.
    rows: 'labelled'; 'unlabelled', which are one class; or 'all', where the unlabelled
      are a class of their own.
    keep_constant: whether vectors may have columns that are constant in the file.

  Returns:
    float32 vectors [n, d] as in the file, or uint8 images [n, h, w, c].

  Raises:
    ValueError: no such file, or one that holds something else; labels that are needed
      and missing; numbers that are not finite; constant columns; or a split that is not
      valid or leaves a class without a row.
  """
  if rows not in ROWS:
    raise ValueError(names_lib.unknown('rows of the source arrays,', rows, ROWS))
  header, values = read(path)
  if values.ndim == 2:
    _check_columns(path, values, keep_constant)
  label, names = _classes_of(path, header, len(values), rows)
  # `listing.image` holds the numbers of the rows: only those of the split are copied.
  listing = sources.take_classes(
      sources.Arrays(np.flatnonzero(label >= 0), label[label >= 0], names), classes)
  parts = None if header.split is None else header.split[listing.image]
  chosen = sources.split_parts(listing, parts, split, path, 'row')
  taken = listing.image[chosen]
  return sources.Arrays(
      values[taken], listing.label[chosen], listing.names, row=taken)


def _classes_of(path, header, num, rows):
  """(int32 [num], -1: not among `rows`; the class names)."""
  given = np.full(num, -1, np.int32) if header.label is None else header.label
  if rows == 'labelled':
    if (given < 0).all():
      raise ValueError(
          f'{path} has no labels: expected {LABEL!r}, the class of each row, as '
          "numbers or names; negatives need none: rows='all' or rows='unlabelled'")
    return given, header.names
  if rows == 'unlabelled':
    if (given >= 0).all():
      raise ValueError(
          f'{path} has no row without a label (-1, or an empty text); take negatives '
          'from another file')
    return np.where(given < 0, 0, -1).astype(np.int32), (UNLABELLED,)
  if (given >= 0).all():
    return given, header.names
  return (np.where(given < 0, len(header.names), given).astype(np.int32),
          (*header.names, UNLABELLED))


def read_header(path: str) -> Header:
  """Reads what a file says about its rows, without the vectors of a file .npz.

  Raises:
    ValueError: see `arrays`.
  """
  return _read(path, header_only=True)[0]


def read(path: str) -> tuple[Header, np.ndarray]:
  """Reads a file: (`Header`, float32 [n, d] or uint8 [n, h, w, c]).

  Raises:
    ValueError: see `arrays`.
  """
  return _read(path, header_only=False)


def _read(path, header_only):
  path = os.path.expanduser(path)
  readers = {'.npz': _read_npz, '.csv': _read_csv}
  end = os.path.splitext(path)[1].lower()
  if end not in readers:
    raise ValueError(
        f'the source arrays reads {" and ".join(readers)}, got the file {path!r}')
  if not os.path.isfile(path):
    raise ValueError(
        f'there is no file {path!r}; --mode=embed --out FILE.npz makes one from '
        'pictures')
  # CSV takes at least two characters for a number, and np.load reads whole arrays.
  check_memory(os.path.getsize(path), path, 'split the file, or use fewer columns')
  header, values = readers[end](path, header_only)
  num = len(next(x for x in (values, header.label, header.split, [])
                 if x is not None))
  for key in (LABEL, SPLIT):
    each = getattr(header, key)
    if each is not None and each.shape != (num,):
      raise ValueError(
          f'{path}: {key!r} must be of one dimension, with a value for each of the '
          f'{num} rows, got the shape {list(each.shape)}')
  return header, values


# Files .npz.


def _read_npz(path, header_only):
  try:
    with np.load(path, allow_pickle=False) as file:
      keys = set(file.files)
      found = {key: file[key] for key in KEYS
               if key in keys and not (header_only and key in CONTENT)}
    backbone = json.loads(str(found.get('backbone', '{}')))
  except (OSError, ValueError, EOFError, KeyError, RuntimeError, NotImplementedError,
          zipfile.BadZipFile, zlib.error) as error:
    raise ValueError(
        f'{path} cannot be read as a file .npz of numbers and text ({error}); '
        "np.savez('features.npz', vector=..., label=...) writes one") from None
  content = [key for key in CONTENT if key in keys]
  if len(content) != 1:
    near = [names_lib.hint(key, CONTENT) for key in keys - set(KEYS)]
    raise ValueError(
        f"{path}: expected one of the arrays 'vector' [n, d] and 'image' [n, h, w, c], "
        f'got {sorted(keys)}{next(filter(None, near), "")}')
  values = None if header_only else _content(path, content[0], found[content[0]])
  label, names = _label(path, found.get(LABEL), found.get('names'))
  split = found.get(SPLIT)
  split = None if split is None else split.astype(str)
  return Header(label, names, split, backbone), values


def _content(path, key, values):
  if key == 'image':
    if values.dtype != np.uint8 or values.ndim != 4 or not values.size:
      raise ValueError(
          f"{path}: 'image' must be uint8 [n, h, w, c], got {values.dtype} "
          f'{list(values.shape)}; grey pictures have c = 1')
    return values
  if values.dtype.kind not in 'fiu' or values.ndim != 2 or not values.size:
    raise ValueError(
        f"{path}: 'vector' must be numbers [n, d], got {values.dtype} "
        f'{list(values.shape)}; a picture of each row is called image')
  return _finite(path, values, [f'column {k}' for k in range(values.shape[1])])


def _label(path, label, names):
  """(int32 [n] or None, class names) of an array of numbers or names."""
  if label is None:
    return None, ()
  if label.dtype.kind in 'US':
    label = label.astype(str)
    if names is None:
      names = sorted({*label.ravel().tolist()} - {''})
    number = {name: k for k, name in enumerate(map(str, names))} | {'': -1}
    unknown = sorted({*label.ravel().tolist()} - set(number))
    if unknown:
      raise ValueError(
          f"{path}: {LABEL!r} holds {unknown[0]!r}, which is not in 'names'")
    return np.array([number[one] for one in label.ravel().tolist()], np.int32).reshape(
        label.shape), tuple(map(str, names))
  if label.dtype.kind not in 'iu':
    raise ValueError(
        f'{path}: {LABEL!r} must be whole numbers or names, got {label.dtype}')
  named = names is not None and len(names)
  most = len(names) - 1 if named else 10**6
  if label.size and not -1 <= label.min() <= label.max() <= most:
    raise ValueError(
        f'{path}: {LABEL!r} must be -1 (none) or a number of a class, at most {most}, '
        f'got {label.min()}..{label.max()}')
  if not named:
    classed = label >= 0
    names, numbers = np.unique(label[classed], return_inverse=True)
    label = np.full(label.shape, -1)
    label[classed] = numbers
  return label.astype(np.int32), tuple(map(str, names))


# Files .csv.


def _read_csv(path, header_only):
  import pandas as pd  # imported here because it takes half a second

  special = [LABEL, SPLIT, PATH]
  try:
    columns = [*pd.read_csv(path, nrows=0).columns]
    numbers = [name for name in columns if name not in special]
    table = pd.read_csv(
        path, dtype=dict.fromkeys(special, str), keep_default_na=False,
        na_values={name: ['', 'NA', 'nan', 'NaN', 'NULL', 'null'] for name in numbers},
        usecols=special[:2].__contains__ if header_only else None)
  except (ValueError, UnicodeError) as error:  # pandas' ParserError is a ValueError
    raise ValueError(f'{path} cannot be read as CSV ({error})') from None
  values = None if header_only else _columns(path, table, numbers)
  text = {name: table[name].str.strip().to_numpy(str) for name in special[:2]
          if name in table}
  label = text.get(LABEL)
  if label is not None and all(
      re.fullmatch(r'-1|\d{1,6}|', one) for one in label.tolist()):
    label = np.where(label == '', '-1', label).astype(np.int32)
  return Header(*_label(path, label, None), text.get(SPLIT), {}), values


def _columns(path, table, numbers):
  """float32 [n, d] of the columns of numbers."""
  if not numbers or not len(table):
    raise ValueError(
        f'{path} must have rows and columns of numbers besides {LABEL}, {SPLIT} and '
        f'{PATH}, got {len(table)} rows and the columns '
        f'{names_lib.listed(table.columns)}')
  wrong = [name for name in numbers if table[name].dtype.kind not in 'fiu']
  if wrong:
    raise ValueError(
        f'{path}: the column(s) {names_lib.listed(wrong)} hold something else than '
        'numbers; make numbers of it, or remove it')
  return _finite(path, table[numbers].to_numpy(np.float64),
                 [f'column {name!r}' for name in numbers])


# What both need.


def _finite(path, values, columns):
  """The values as float32; ValueError if one is not finite in float32."""
  with np.errstate(over='ignore'):
    found = values.astype(np.float32)
  wrong = ~np.isfinite(found)
  if wrong.any():
    row, column = np.argwhere(wrong)[0]
    raise ValueError(
        f'{path}: {wrong.sum()} of {wrong.size} numbers are missing or not finite in '
        f'float32, in {wrong.any(1).sum()} rows; the first is '
        f'{values[row, column]} in {columns[column]} of row {row}; remove these rows '
        'or columns, or fill them in')
  return found


def _check_columns(path, values, keep_constant):
  """Raises ValueError for constant columns, unless they are to be kept."""
  constant = np.flatnonzero((values == values[0]).all(0))
  if len(constant) and not keep_constant:
    raise ValueError(
        f'{path}: {len(constant)} of {values.shape[1]} columns are constant, number '
        f'{names_lib.listed(constant.tolist())} (from 0): remove them, or keep them by '
        'keep_constant=True in each source of this file')


def is_vectors(shape: Sequence[int]) -> bool:
  """Whether an example of the shape is a vector (d,), not a picture (h, w, c)."""
  return len(shape) == 1


def moments(arrays: sources.Arrays) -> dict[str, list[float]]:
  """Returns {'mean': [d], 'std': [d]} of the columns of vectors, in float64.

  The std of a column that is constant here is 1, so that it can be divided by.

  Args:
    arrays: vectors [n, d].

  Raises:
    ValueError: pictures.
  """
  if not is_vectors(arrays.image.shape[1:]):
    raise ValueError(
        'data.mean=() and data.std=() are for vectors; for pictures give one number, '
        f'or one per channel, got images of shape {list(arrays.image.shape[1:])}')
  mean, std = (fn(arrays.image, axis=0, dtype=np.float64) for fn in (np.mean, np.std))
  constant = (arrays.image == arrays.image[0]).all(0)
  return {'mean': mean.tolist(), 'std': np.where(constant, 1.0, std).tolist()}


def standardise(
    vectors: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
  """Returns (x - mean) / std of vectors [n, d] in float32; mean and std are [d] or [1].

  Raises:
    ValueError: another number of columns.
  """
  for key, values in (('mean', mean), ('std', std)):
    if len(values) not in (1, vectors.shape[1]):
      raise ValueError(
          f'expected vectors of {len(values)} columns, as data.{key} of the run, got '
          f'{vectors.shape[1]}')
  return ((vectors - np.asarray(mean)) / np.asarray(std)).astype(np.float32)
