"""Atomic writing of files, and reading with errors that name the file and a remedy.

    write_json('run/eval.json', {'step': 6})
    read_json('run/eval.json', 'evaluate the run again')
    with writing_together('run') as path:
      write_npz(path('scores/test.npz'), step=6, max_prob=scores)
      write_json(path('eval.json'), {'step': 6})

A reader raises `Unreadable` for a file that exists and cannot be used; its message
holds the path, the reason and what to do.

A path may also begin with gs://, which `etils.epath` reads and writes. An object store
can neither append to an object nor rename one, and writes an object as a whole or not
at all:
  replacing, write_json ...  upload the finished file as one object
  append                     reads the object and uploads it again, longer
  writing_together           removes the last object, which implies all others, then
                             uploads them in order; until the last one none counts
"""

import contextlib
import importlib.util
import io
import json
import math
import os
import pathlib
import re
import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

REMOTE = 'gs://'
PARTIAL = '.partial'  # suffix of a file that is being written


class Unreadable(ValueError):
  """A file that exists, but is damaged or holds something else than expected."""

  def __init__(self, path: str | os.PathLike, reason: Any, remedy: str):
    super().__init__(f'{os.fspath(path)} cannot be read ({reason}); {remedy}')


def is_remote(path: str | os.PathLike) -> bool:
  """Whether a path is in an object store."""
  return os.fspath(path).startswith(REMOTE)


def as_path(path: str | os.PathLike) -> Any:
  """The path as a `pathlib.Path`, or for gs:// as an `epath.Path`, which is alike."""
  if not is_remote(path):
    return pathlib.Path(path)
  from etils import epath  # imported here because it takes a tenth of a second

  return epath.Path(path)


def exists(path: str | os.PathLike) -> bool:
  """Whether there is a file or a folder at the path."""
  return as_path(path).exists() if is_remote(path) else os.path.exists(path)


def absolute(path: str | os.PathLike) -> str:
  """The absolute path; a path of gs:// is one."""
  return os.fspath(path) if is_remote(path) else os.path.abspath(path)


def check_store(path: str) -> None:
  """Raises ValueError for a path of an object store that cannot be used here.

  The packages that `etils.epath` needs for gs:// are looked for; nothing is read.
  """
  if is_remote(path):
    if not any(map(importlib.util.find_spec, ('gcsfs', 'tensorflow'))):
      raise ValueError(
          f"{path} needs the package gcsfs, which is not installed; install it with: "
          "pip install -e '.[gcs]'")
  elif '://' in path:
    raise ValueError(
        f'{path} is neither a local path nor one of {REMOTE}, the only object store')


@contextlib.contextmanager
def named(path: str | os.PathLike) -> Iterator[None]:
  """Adds `path` to an OSError without a file name, such as that of a full disk."""
  try:
    yield
  except OSError as error:
    if error.errno is None or error.filename is not None:
      raise
    raise OSError(error.errno, error.strerror, os.fspath(path)) from None


@contextlib.contextmanager
def replacing(path: str | os.PathLike, mode: str = 'w', **kwargs: Any) -> Iterator[Any]:
  """Opens a temporary file that replaces `path` when the block ends without an error.

  Until then, and after an error, an existing file at `path` is unchanged.

  Args:
    path: of the file; its folder must exist.
    mode: 'w' or 'wb'.
    **kwargs: further arguments of `open`; the default encoding is UTF-8.

  Yields:
    The open file.
  """
  partial = f'{os.fspath(path)}.{uuid.uuid4().hex[:8]}{PARTIAL}'  # of this process
  if 'b' not in mode:
    kwargs.setdefault('encoding', 'utf-8')
  if is_remote(path):
    content = io.BytesIO()
    file = content if 'b' in mode else io.TextIOWrapper(content, **kwargs)
    yield file
    file.flush()
    _upload(path, content.getvalue())
    return
  try:
    with named(path), open(partial, mode, **kwargs) as file:
      yield file
      file.flush()
      os.fsync(file.fileno())  # a power failure leaves either the old or the new file
    os.replace(partial, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.remove(partial)
    raise


def append(path: str | os.PathLike, data: bytes) -> None:
  """Appends to a file, which is closed at once, so that no buffer holds any of it."""
  if is_remote(path):
    place = as_path(path)
    _upload(path, (place.read_bytes() if place.exists() else b'') + data)
    return
  with named(path), open(path, 'ab') as file:
    file.write(data)


def _upload(path, data):
  """Writes an object; libraries of object stores raise errors of kinds of their own."""
  try:
    as_path(path).write_bytes(data)
  except (OSError, MemoryError):
    raise
  except Exception as error:
    raise OSError(f'{path} cannot be written: {error}') from error


class Upload(io.BytesIO):
  """A file in memory that is uploaded as a whole whenever it is flushed."""

  def __init__(self, path: str):
    super().__init__()
    self.path = path

  def flush(self) -> None:
    _upload(self.path, self.getvalue())


@contextlib.contextmanager
def writing_together(folder: str | os.PathLike) -> Iterator[Callable[[str], str]]:
  """Writes several files under temporary names and renames them when the block ends.

  Yields:
    A function of a file name in `folder` that returns the temporary path to write to.
    Files are renamed in the order of these calls, so that the last file, once it is
    there, implies all others.
  """
  if is_remote(folder):
    with _uploading_together(as_path(folder)) as path:
      yield path
    return
  asked: dict[str, str] = {}  # final path -> temporary path

  def path(name: str) -> str:
    place = os.path.join(folder, name)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    asked[place] = f'{place}.{uuid.uuid4().hex[:8]}{PARTIAL}'
    return asked[place]

  try:
    yield path
    for place, new in asked.items():
      os.replace(new, place)
  except BaseException:
    for new in asked.values():
      with contextlib.suppress(OSError):
        os.remove(new)
    raise


@contextlib.contextmanager
def _uploading_together(folder):
  """`writing_together` for a folder of an object store."""
  with tempfile.TemporaryDirectory() as local:
    asked: dict[str, pathlib.Path] = {}  # name -> temporary path

    def path(name: str) -> str:
      asked[name] = pathlib.Path(local, name)
      asked[name].parent.mkdir(parents=True, exist_ok=True)
      return str(asked[name])

    yield path
    if asked:
      (folder / list(asked)[-1]).unlink(missing_ok=True)
    for name, place in asked.items():
      _upload(folder / name, place.read_bytes())


def finite(value: Any) -> Any:
  """Returns a nested value with NaN and infinity replaced by None: standard JSON."""
  if isinstance(value, Mapping):
    return {k: finite(v) for k, v in value.items()}
  if isinstance(value, list):
    return [finite(v) for v in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes a JSON file atomically, each list of numbers on one line."""
  text = json.dumps(value, indent=2)
  # Text in a list has quotes, and text in JSON has no line breaks.
  text = re.sub(r'\[\n[^\[\]{}"]*\]', lambda found: ' '.join(
      found[0].split()).replace('[ ', '[').replace(' ]', ']'), text)
  with replacing(path) as file:
    file.write(text + '\n')


def read_json(path: str | os.PathLike, remedy: str) -> dict[str, Any]:
  """Reads a JSON file that holds an object.

  Args:
    path: of the file.
    remedy: what the user can do about an error, such as 'evaluate the run again'.

  Raises:
    Unreadable: the file does not hold a JSON object.
    FileNotFoundError: there is no such file.
  """
  try:
    with _open_text(path) as file:
      value = json.load(file)
  # ValueError: invalid JSON or UTF-8.
  except (ValueError, RecursionError) as error:
    raise Unreadable(path, error, remedy) from None
  if not isinstance(value, dict):
    raise Unreadable(
        path, f'expected a JSON object, got {type(value).__name__}', remedy)
  return value


def read_records(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
  """Yields the records of a JSON-lines file that have 'step' and 'kind'.

  Other lines, such as one that was being written when the run was killed, are skipped
  with a warning. Yields nothing if there is no such file.
  """
  if not exists(path):
    return
  bad = []
  with _open_text(path, errors='replace') as file:
    for number, line in enumerate(file, 1):
      record = _record(line)
      if record is None:
        bad.append(number)
      else:
        yield record
  if bad:
    logging.warning(
        '%s: skipped %d damaged line(s), the first is line %d.', path, len(bad), bad[0])


def _open_text(path, errors='strict'):
  """Opens a file of text for reading."""
  if is_remote(path):
    return io.TextIOWrapper(
        io.BytesIO(as_path(path).read_bytes()), encoding='utf-8', errors=errors)
  return open(path, encoding='utf-8', errors=errors)


def _record(line):
  try:
    record = json.loads(line)
  except (ValueError, RecursionError):
    return None
  whole = (
      isinstance(record, dict)
      and type(record.get('step')) is int
      and isinstance(record.get('kind'), str)
      and isinstance(record.get('evals', {}), dict))
  return record if whole else None


def write_npz(path: str | os.PathLike, /, **arrays: Any) -> None:
  """Writes a compressed .npz file atomically."""
  with replacing(path, 'wb') as file:
    np.savez_compressed(file, **arrays)


def read_npz(
    path: str | os.PathLike, remedy: str, keys: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
  """Reads all arrays of an .npz file.

  Args:
    path: of the file.
    remedy: what the user can do about an error, such as 'evaluate the run again'.
    keys: names of arrays that the file must hold.

  Raises:
    Unreadable: the file is damaged, or lacks an array of `keys`.
    FileNotFoundError: there is no such file.
  """
  try:
    readable = io.BytesIO(as_path(path).read_bytes()) if is_remote(path) else path
    with np.load(readable, allow_pickle=False) as file:
      arrays = {key: file[key] for key in file.files}
  except FileNotFoundError:
    raise
  # All that numpy, zipfile and zlib raise for damaged files.
  except (OSError, ValueError, EOFError, KeyError, AttributeError, SyntaxError,
          NotImplementedError, MemoryError, RuntimeError, OverflowError, TypeError,
          zipfile.BadZipFile, zlib.error) as error:
    raise Unreadable(path, repr(error), remedy) from None
  missing = [key for key in keys if key not in arrays]
  if missing:
    raise Unreadable(
        path, f'it has no {", ".join(missing)}, but {", ".join(arrays)}', remedy)
  return arrays
