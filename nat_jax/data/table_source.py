"""Pictures that a CSV file lists, with their classes, parts and groups, as a source.

    path,label,split,group
    scans/0001.png,nodule,train,patient7
    scans/0002.png,,test,patient9

    table('scans.csv', part='train', size=224)                   # pictures of classes
    table('scans.csv', part='test', negatives=True, size=224)    # those without a label

Paths are relative to the folder of the table. Rows without a label are negatives, of
none of the classes. `split` is one of the four parts, train, validation, calibration
and test; without this column pictures are assigned to the parts within each class.
Pictures of one group, such as a patient, a camera or a video, are in one part.
"""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nat_jax import names as names_lib
from nat_jax.data import folder_source, sources

PARTS = ('train', 'validation', 'calibration', 'test')
SHARES = {'train': 0.6, 'validation': 0.1, 'calibration': 0.1, 'test': 0.2}
COLUMNS = ('path', 'label', 'split', 'group')  # the first two are needed
NEGATIVE = -1  # label of negatives


class Table(NamedTuple):
  """The content of a table.

  Attributes:
    files: paths of the pictures, object [n], in the order of the table.
    label: int32 [n] in the sorted order of the names, NEGATIVE: none of the classes.
    part: of each picture, one of PARTS, object [n].
    names: the classes.
  """

  files: np.ndarray
  label: np.ndarray
  part: np.ndarray
  names: tuple[str, ...]


def table(
    path: str,
    part: str = 'train',
    negatives: bool = False,
    size: int | Sequence[int] | None = None,
    mode: str = 'RGB',
    skip_unreadable: bool = False,
    lazy: bool | str = False,
) -> sources.Arrays:
  """Reads the pictures of one part of a table.

  Args:
    path: of a CSV file with the columns `path`, `label` and optionally `split` and
      `group`, see `read_table`.
    part: 'train', 'validation', 'calibration' or 'test'.
    negatives: False: the pictures with a label. True: those without one, all of which
      get the label 0.
    size, mode, skip_unreadable, lazy: as for `folder_source.folder`.

  Returns:
    uint8 images [n, h, w, c], in the order of the table.

  Raises:
    ValueError: a mistake in the table, no picture of this kind in it, or a damaged
      picture.
  """
  if part not in PARTS:
    raise ValueError(names_lib.unknown('part', part, PARTS))
  found = read_table(path)
  chosen = (found.part == part) & ((found.label == NEGATIVE) == negatives)
  if not chosen.any():
    raise ValueError(
        f'{path} has no pictures {"without" if negatives else "with"} a label')
  label, names = found.label[chosen], found.names
  if negatives:
    label, names = label * 0, ('negatives',)
  return folder_source.take_pictures(
      path, found.files, np.flatnonzero(chosen), label, names, size, mode,
      skip_unreadable, lazy, f'the part {part!r}')


def read_table(path: str) -> Table:
  """Reads a table and checks it; pictures without a part are assigned to one.

  Without the column `split` all pictures are assigned to parts by `assign`; if it names
  neither validation nor calibration, or one of them only, the missing ones are taken
  from the training pictures.

  Args:
    path: of the CSV file, in UTF-8.

  Raises:
    ValueError: no such file, a missing or unknown column, an empty path, a picture that
      is missing or listed twice, an unknown part, a group in several parts, or a class
      or the negatives without a picture in a part. The message names the lines.
  """
  path = os.path.expanduser(path)
  rows, lines = read_rows(path)
  folder = os.path.dirname(os.path.abspath(path))
  files = np.array([os.path.join(folder, row['path']) for row in rows], object)
  _check_files(path, rows, files, lines)
  names = tuple(sorted({row['label'] for row in rows} - {''}))
  number = {name: k for k, name in enumerate(names)} | {'': NEGATIVE}
  label = np.array([number[row['label']] for row in rows], np.int32)
  # A picture without a group is a group of its own.
  groups = [row.get('group') or f'\0{row["path"]}' for row in rows]
  if 'split' in rows[0]:
    part = np.array([row['split'] for row in rows], object)
    _check_parts(path, part, groups, lines)
    missing = [name for name in PARTS[1:3] if name not in part]
    left = np.flatnonzero(part == 'train')
    shares = {name: SHARES[name] for name in ('train', *missing)}
    if missing and left.size:
      part[left] = assign(label[left], [groups[row] for row in left], shares)
  else:
    part = assign(label, groups, SHARES)
  _check_classes(path, names, label, part, groups, lines)
  return Table(files, label, part, names)


def assign(
    label: np.ndarray, groups: Sequence[str], shares: Mapping[str, float]
) -> np.ndarray:
  """Assigns pictures to parts, within each class, so that groups stay together.

  The groups are taken by falling size, of equal sizes in one fixed random order. Each
  goes to the part that has least of what it should have, measured for each class of
  the group by the pictures of the part over its share, and averaged over the group's
  classes; of equal parts to the one with the largest share. So a class without groups
  is split in these shares, each but the largest rounded up, and parts get a picture of
  a class as long as it has groups left.

  Args:
    label: int [n].
    groups: name of the group of each picture.
    shares: part -> share above 0, in any unit.

  Returns:
    The part of each picture, object [n]. It depends on the names of groups, not on
    their order.
  """
  parts = sorted(shares, key=shares.get, reverse=True)
  share = np.array([shares[part] for part in parts])[:, None]
  classes, label = np.unique(label, return_inverse=True)
  named, group = np.unique(np.array(groups, object).astype(str), return_inverse=True)
  counts = np.zeros((len(named), len(classes)), int)
  np.add.at(counts, (group, label), 1)
  order = np.random.default_rng(0).permutation(len(named))
  order = order[np.argsort(-counts[order].sum(1), kind='stable')]
  filled, chosen = np.zeros((len(parts), len(classes))), np.empty(len(named), int)
  for one in order:
    present = np.flatnonzero(counts[one])
    chosen[one] = (filled[:, present] / share).mean(1).argmin()
    filled[chosen[one]] += counts[one] / counts.sum(0)
  return np.array(parts, object)[chosen[group]]


def read_rows(path: str) -> tuple[list[dict[str, str]], list[int]]:
  """Reads the rows of a table, as dicts, and their line numbers.

  Raises:
    ValueError: no such file, no CSV in UTF-8, a missing or unknown column, a row with
      another number of values, or no row.
  """
  if not os.path.isfile(path):
    raise ValueError(f'expected a table of pictures, but there is no file {path!r}')
  try:
    with open(path, encoding='utf-8-sig', newline='') as file:
      reader = csv.DictReader(file, restkey='', skipinitialspace=True)
      columns = [name.strip() for name in reader.fieldnames or ()]
      _check_columns(path, columns)
      reader.fieldnames, rows, lines = columns, [], []
      for row in reader:
        if '' in row or None in row.values():
          raise ValueError(
              f'{path}, line {reader.line_num}: expected {len(columns)} values '
              f'({",".join(columns)}), got another number; put values with commas in '
              'double quotes')
        rows.append({name: value.strip() for name, value in row.items()})
        lines.append(reader.line_num)
  except (UnicodeDecodeError, csv.Error) as error:
    raise ValueError(f'{path} is not a CSV file in UTF-8 ({error})') from None
  if not rows:
    raise ValueError(f'{path} lists no picture')
  return rows, lines


def _check_columns(path, columns):
  if len(columns) == 1 and re.search(r'[;\t|]', columns[0]):
    raise ValueError(
        f'{path}: expected values that are separated by commas, got the first line '
        f'{columns[0]!r}; save the table as CSV with commas')
  for name in columns:
    if name not in COLUMNS:
      raise ValueError(f'{path}: {names_lib.unknown("column", name, COLUMNS)}')
  for name in COLUMNS[:2]:
    if name not in columns:
      raise ValueError(
          f'{path} has no column {name!r} in its first line; expected '
          f'{",".join(COLUMNS)}, of which split and group may be left out')
  if len(set(columns)) < len(columns):
    raise ValueError(f'{path} has a column twice: {",".join(columns)}')


def _check_files(path, rows, files, lines):
  first, mistakes = {}, []
  for row, file, line in zip(rows, files, lines, strict=True):
    same = os.path.normpath(file)
    if not row['path']:
      mistakes.append((line, 'there is no path'))
    elif not os.path.isfile(file):
      mistakes.append((line, f'there is no file {file!r}; paths are relative to the '
                       'folder of the table'))
    elif same in first:
      mistakes.append((line, f'{row["path"]} is in line {first[same]} already; remove '
                       'one of the two'))
    first.setdefault(same, line)
  _refuse(path, mistakes)


def _check_parts(path, part, groups, lines):
  first, mistakes = {}, []
  for name, group, line in zip(part, groups, lines, strict=True):
    other, before = first.setdefault(group, (name, line))
    if name not in PARTS:
      mistakes.append((
          line, f'{names_lib.unknown("split", name, PARTS)}; fill in the column split '
          'in each row, or leave it out'))
    elif other != name:
      mistakes.append((
          line, f'the group {group!r} is in the split {name!r} here and in '
          f'{other!r} in line {before}; pictures of a group must be in one split: '
          'correct it, or leave the column split out'))
  _refuse(path, mistakes)


def _refuse(path, mistakes):
  """Raises ValueError for the first mistake, (line, text), and the lines of others."""
  if not mistakes:
    return
  (line, text), *others = mistakes
  if others:
    lines = names_lib.listed(line for line, _ in others)
    text += f'. Mistakes are also in line{"s" * (len(others) > 1)} {lines}'
  raise ValueError(f'{path}, line {line}: {text}')


def _check_classes(path, names, label, part, groups, lines):
  """Raises ValueError unless each class, and the negatives, have pictures in all parts.
  """
  if not names:
    raise ValueError(f'{path} has no pictures with a label')
  for k in np.unique(label):
    mine = label == k
    for name in PARTS:
      if not (mine & (part == name)).any():
        what = f'the class {names[k]!r}' if k >= 0 else 'the rows without a label'
        first = np.flatnonzero(mine)[0]
        num = len({groups[row] for row in np.flatnonzero(mine)})
        raise ValueError(
            f'{path}: no picture of {what} (line {lines[first]}) is in the part '
            f'{name!r}; of its {mine.sum()} pictures in {num} groups each of the four '
            f'parts {", ".join(PARTS)} needs one: add pictures or remove the class, or '
            'set its parts in the column split')
