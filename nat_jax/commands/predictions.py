"""The rows of a prediction: written as they come, continued after an interruption.

    with open_rows('predictions.csv', settings) as rows:
      new = [path for path in paths if not rows.has(path)]
      rows.write([{'file': path, 'verdict': 'accepted', 'class': 'cat', ...}])
      rows.finish()                      # predictions.csv
    rows.counts[('accepted', 'cat')]     # of all rows

Until `finish` the rows are in `predictions.csv.unfinished`, one JSON object a line,
after a line with the settings. A file that an interrupted prediction has left is
continued: what follows its last whole line is cut off, so that the picture of a partial
line is predicted again. Per written row 8 bytes are in memory, a hash of its file name.
"""

import array
import collections
import contextlib
import csv
import fcntl
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nat_jax.names import listed
from nat_jax.runtime import files

# Verdicts, besides `rule.NONE`.
ACCEPTED, UNREADABLE = 'accepted', 'unreadable'
UNFINISHED = '.unfinished'
CHUNK = 10_000  # rows that are written to a Parquet file at a time
# Spreadsheets interpret cells that start with one of these as formulas. The apostrophe
# is included so that the one that is put before a cell can always be removed again.
ESCAPED = ('=', '+', '-', '@', '\t', '\r', '\n', "'")


def check_out(path: str, images: Sequence[str]) -> None:
  """Raises ValueError unless predictions of `images` can be written to `path`."""
  end = os.path.splitext(path)[1]
  if end not in FORMATS:
    raise ValueError(
        f'expected --out with one of the endings {", ".join(FORMATS)}, got {path}')
  if end == '.parquet' and not importlib.util.find_spec('pyarrow'):
    raise ValueError(
        f'{path} needs the package pyarrow, which is not installed; install it with '
        'pip install pyarrow, or write .csv or .jsonl')
  folder = os.path.dirname(os.path.abspath(path))
  if not os.path.isdir(folder):
    raise ValueError(f'--out {path}: there is no folder {folder}; create it first')
  for one in (one.removeprefix('@') for one in images):
    if os.path.exists(path) and os.path.exists(one) and os.path.samefile(path, one):
      raise ValueError(
          f'--out {path} is a list of pictures that --images names; write elsewhere')


@contextlib.contextmanager
def open_rows(path: str, settings: Mapping[str, Any]) -> Iterator['Rows']:
  """Opens the rows of a prediction, with those that an interrupted one has left.

  Args:
    path: of the finished file, with an ending in `FORMATS`.
    settings: in JSON types; what the rows depend on.

  Raises:
    ValueError: the unfinished rows at `path` are of other settings, or another process
      writes them.
  """
  partial = path + UNFINISHED
  settings = json.loads(json.dumps(settings))
  with files.named(partial), open(partial, 'a+b') as file:
    _lock(file, path)
    rows = Rows(path, file, settings)
    try:
      yield rows
    finally:
      if not rows.total():
        os.remove(partial)


def _lock(file, path):
  """Locks the rows for this process; a disk without locks is done without."""
  taken = False
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # Another process may have finished, and removed the file, since it was opened.
    taken = not os.path.exists(file.name)
  except BlockingIOError:
    taken = True
  except OSError:
    pass
  if taken:
    raise ValueError(
        f'another prediction is being written to {path}; wait for its end, or write '
        'elsewhere with --out')


class Rows:
  """The rows of a prediction.

  Attributes:
    counts: (verdict, class) -> number of rows; the class is '' but for accepted rows.
    errors: the first few unreadable files and the reasons.
    resumed: number of rows that an interrupted prediction has left.
  """

  def __init__(self, path: str, file: Any, settings: Mapping[str, Any]):
    """Reads what `file` holds and cuts off what follows the last whole line."""
    self.path, self.file, self.settings = path, file, settings
    self.counts: collections.Counter = collections.Counter()
    self.errors: list[tuple[str, str]] = []
    hashes = array.array('Q')
    end = 0
    for start, row in _read(file):
      if not start:
        self._check_settings(row)
      else:
        hashes.append(_hash(row['file']))
        self._count(row)
      end = file.tell()
    file.truncate(end)
    file.seek(end)
    if not end:
      self._write([settings])
    self.resumed = len(hashes)
    self.order = np.array(hashes, np.uint64)
    self.seen = np.sort(self.order)

  def _check_settings(self, found):
    if found == self.settings:
      return
    keys = [f'{key} {found.get(key)!r} -> {self.settings.get(key)!r}'
            for key in sorted({*found, *self.settings})
            if found.get(key) != self.settings.get(key)]
    raise ValueError(
        f'{self.file.name} holds the rows of an unfinished prediction with other '
        f'settings ({listed(keys, 5)}): finish it with its own command, remove it, or '
        'write elsewhere with --out')

  def has(self, path: str) -> bool:
    """Whether an interrupted prediction has left a row of this file."""
    key = np.uint64(_hash(as_text(path)))
    place = np.searchsorted(self.seen, key)
    return bool(place < len(self.seen) and self.seen[place] == key)

  def without(self, paths: Iterable[str]) -> Iterator[str]:
    """Yields the paths of a list after those that have a row.

    Raises:
      ValueError: the list does not begin with the paths that have a row.
    """
    start = 0
    for start, path in enumerate(paths, 1):
      if start > self.resumed:
        yield path
      elif self.order[start - 1] != np.uint64(_hash(as_text(path))):
        self._refuse(f'{path}, number {start} of the list, is not')
    if start < self.resumed:
      self._refuse(f'the list has {start:,} pictures, and there are {self.resumed:,}')

  def _refuse(self, why):
    raise ValueError(
        f'{self.file.name} holds the rows of an unfinished prediction of another list '
        f'({why} in it): finish it with its own list, remove it, or write elsewhere '
        'with --out')

  def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
    """Appends rows with 'file', 'verdict', 'class', 'probability', 'score' and 'top',
    a list of {'class', 'probability'}; or with 'file', 'verdict' and 'error'."""
    self._write(rows)
    for row in rows:
      self._count(row)

  def _write(self, rows):
    self.file.write(''.join(json.dumps(row) + '\n' for row in rows).encode())
    self.file.flush()

  def _count(self, row):
    accepted = row['verdict'] == ACCEPTED
    self.counts[row['verdict'], row['class'] if accepted else ''] += 1
    if row['verdict'] == UNREADABLE and len(self.errors) < 5:
      self.errors.append((row['file'], row['error']))

  def total(self, verdict: str | None = None) -> int:
    """The number of rows, of a verdict or in all."""
    return sum(n for (each, _), n in self.counts.items() if verdict in (None, each))

  def __iter__(self) -> Iterator[dict[str, Any]]:
    """Yields all rows from the file."""
    for start, row in _read(self.file):
      if start:
        yield row

  def finish(self) -> None:
    """Writes all rows to the finished file, which replaces an older one atomically."""
    FORMATS[os.path.splitext(self.path)[1]](self.path, self, self.settings['top'])
    os.remove(self.file.name)


def _read(file):
  """Yields (position, object) of the lines up to the first that is not whole."""
  file.seek(0)
  while line := file.readline():
    start = file.tell() - len(line)
    try:
      row = json.loads(line) if line.endswith(b'\n') else None
    except ValueError:
      return
    if not isinstance(row, dict):
      return
    yield start, row


def as_text(path: str) -> str:
  """A path as text that keeps its bytes: those that are no UTF-8 become surrogates."""
  return os.fsencode(path).decode('utf-8', 'surrogateescape')


def _hash(name):
  data = name.encode('utf-8', 'surrogateescape')
  return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'little')


def _flat(row, top):
  """A row for a table: [file, verdict, class, probability, score, ..., error]."""
  others = row.get('top', [])[1:]
  others = [(one['class'], one['probability']) for one in others]
  others += [(None, None)] * (top - 1 - len(others))
  return [row['file'], row['verdict'], row.get('class'), row.get('probability'),
          row.get('score'), *(x for pair in others for x in pair), row.get('error')]


def _header(top):
  others = [f'{name}_{k}'
            for k in range(2, top + 1) for name in ('class', 'probability')]
  return ['file', 'verdict', 'class', 'probability', 'score', *others, 'error']


def as_cell(value):
  """Escapes a text that spreadsheets would run as a formula; None is an empty cell."""
  if isinstance(value, str) and value.startswith(ESCAPED):
    return f"'{value}"
  return '' if value is None else value


def _write_csv(path, rows, top):
  with files.replacing(path, newline='', errors='surrogateescape') as file:
    writer = csv.writer(file)
    writer.writerow(_header(top))
    writer.writerows(map(as_cell, _flat(row, top)) for row in rows)


def _write_jsonl(path, rows, top):
  del top
  with files.replacing(path) as file:
    file.writelines(json.dumps(row) + '\n' for row in rows)


def _write_parquet(path, rows: Iterable[Mapping[str, Any]], top):
  """Bytes of names that are no UTF-8, which Parquet cannot hold, become \\xNN."""
  import pyarrow as pa
  from pyarrow import parquet

  names = _header(top)
  schema = pa.schema([
      (name, pa.float64() if name.startswith(('probability', 'score')) else pa.string())
      for name in names])

  def plain(value):
    if not isinstance(value, str):
      return value
    data = value.encode('utf-8', 'surrogateescape')
    return data.decode('utf-8', 'backslashreplace')

  with files.replacing(path, 'wb') as file, parquet.ParquetWriter(file, schema) as out:
    for chunk in _chunks(rows):
      columns = zip(*(map(plain, _flat(row, top)) for row in chunk), strict=True)
      out.write_table(pa.table(
          [pa.array(column, field.type)
           for column, field in zip(columns, schema, strict=True)], schema=schema))


def _chunks(rows):
  """Yields lists of at most CHUNK rows."""
  chunk = []
  for row in rows:
    chunk.append(row)
    if len(chunk) == CHUNK:
      yield chunk
      chunk = []
  if chunk:
    yield chunk


FORMATS = {'.csv': _write_csv, '.jsonl': _write_jsonl, '.parquet': _write_parquet}
