"""Files that are written whole or not at all, and read with errors that name them.

    write_json('run/eval.json', {'step': 6})
    read_json('run/eval.json', 'evaluate the run again')
    with writing_together('run') as path:
      write_npz(path('scores/test.npz'), step=6, max_prob=scores)
      write_json(path('eval.json'), {'step': 6})

A reader raises `Unreadable` for a file that is there and cannot be used; its message
holds the path, the reason and what to do.
"""

import contextlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import logging

PARTIAL = '.partial'  # what the name of a file that is not whole yet ends with


class Unreadable(ValueError):
  """A file that is there, and is damaged or holds something else."""

  def __init__(self, path: str | os.PathLike, reason: Any, remedy: str):
    super().__init__(f'{os.fspath(path)} cannot be read ({reason}); {remedy}')


@contextlib.contextmanager
def named(path: str | os.PathLike) -> Iterator[None]:
  """Gives an OSError without the name of a file this one: a full disk gives none."""
  try:
    yield
  except OSError as error:
    if error.errno is None or error.filename is not None:
      raise
    raise OSError(error.errno, error.strerror, os.fspath(path)) from None


@contextlib.contextmanager
def replacing(path: str | os.PathLike, mode: str = 'w', **kwargs: Any) -> Iterator[Any]:
  """Opens a file that takes the place of `path` when the block ends without an error.

  Until then, and after an error, the file that was there stays as it was.

  Args:
    path: of the file; its folder must exist.
    mode: 'w' or 'wb'.
    **kwargs: of `open`; text is UTF-8.
  """
  partial = os.fspath(path) + PARTIAL
  if 'b' not in mode:
    kwargs.setdefault('encoding', 'utf-8')
  try:
    with named(path), open(partial, mode, **kwargs) as file:
      yield file
      file.flush()
      os.fsync(file.fileno())  # a crash of the machine leaves the old or the new file
    os.replace(partial, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.remove(partial)
    raise


@contextlib.contextmanager
def writing_together(folder: str | os.PathLike) -> Iterator[Callable[[str], str]]:
  """Several files of a folder that take their places together, at the end of the block.

  Yields:
    From the name of a file in `folder` to the path to write it to. The files are put in
    their places in the order in which their paths were asked for: the last one tells
    that all of them are there.
  """
  asked: dict[str, str] = {}

  def path(name: str) -> str:
    place = os.path.join(folder, name)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    asked[place] = f'{place}.new'
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


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes a JSON file whole or not at all."""
  with replacing(path) as file:
    json.dump(value, file, indent=2)
    file.write('\n')


def read_json(path: str | os.PathLike, remedy: str) -> dict[str, Any]:
  """Reads the object of a JSON file.

  Args:
    path: of the file.
    remedy: what the reader of an error should do, such as 'evaluate the run again'.

  Raises:
    Unreadable: the file is there and is not a JSON object.
    FileNotFoundError: it is not there.
  """
  try:
    with open(path, encoding='utf-8') as file:
      value = json.load(file)
  # ValueError: no JSON, or no UTF-8.
  except (ValueError, RecursionError) as error:
    raise Unreadable(path, error, remedy) from None
  if not isinstance(value, dict):
    raise Unreadable(
        path, f'expected a JSON object, got {type(value).__name__}', remedy)
  return value


def read_records(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
  """Yields the records of a JSON-lines file that have a step and a kind.

  Other lines are passed over with a warning: one that was being written when the run
  was killed, or a damaged one. Nothing is yielded where there is no file.
  """
  if not os.path.exists(path):
    return
  bad = []
  with open(path, encoding='utf-8', errors='replace') as file:
    for number, line in enumerate(file, 1):
      record = _record(line)
      if record is None:
        bad.append(number)
      else:
        yield record
  if bad:
    logging.warning(
        '%s: passed over %d damaged line(s), the first is line %d.', path, len(bad),
        bad[0])


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


def write_npz(path: str | os.PathLike, **arrays: Any) -> None:
  """Writes a compressed .npz file whole or not at all."""
  with replacing(path, 'wb') as file:
    np.savez_compressed(file, **arrays)


def read_npz(
    path: str | os.PathLike, remedy: str, keys: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
  """Reads all arrays of an .npz file.

  Args:
    path: of the file.
    remedy: as for `read_json`.
    keys: names of arrays that must be there.

  Raises:
    Unreadable: the file is there and is damaged, or lacks an array of `keys`.
    FileNotFoundError: it is not there.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {key: file[key] for key in file.files}
  except FileNotFoundError:
    raise
  # Whatever numpy, zipfile and zlib find in a file that is not as it was written.
  except (OSError, ValueError, EOFError, KeyError, AttributeError, SyntaxError,
          NotImplementedError, MemoryError, RuntimeError, OverflowError, TypeError,
          zipfile.BadZipFile, zlib.error) as error:
    raise Unreadable(path, repr(error), remedy) from None
  missing = [key for key in keys if key not in arrays]
  if missing:
    raise Unreadable(
        path, f'it has no {", ".join(missing)}, but {", ".join(arrays)}', remedy)
  return arrays
