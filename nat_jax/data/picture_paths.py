"""The picture files that a user names: files, folders, patterns, lists.

    check(['photos/', '*.jpg', '@list.txt'])     # ValueError: one of them names nothing
    for path in find(['photos/', '*.jpg', '@list.txt', '-']): ...

A folder stands for the pictures in it, at any depth, but for hidden files and folders;
`@FILE` and `-` (standard input) stand for lists of files, one a line. Paths are found
one by one: no more than the names of one folder, or the matches of one pattern, are in
memory, since these are sorted.
"""

import codecs
import glob
import os
import sys
from collections.abc import Iterator, Sequence

from nat_jax.data.folder_source import EXTENSIONS, walk_pictures

STDIN = '-'


def check(named: Sequence[str]) -> None:
  """Raises ValueError unless each of `named` can be read and names something."""
  if not named:
    raise ValueError('expected pictures to be named, got none')
  if list(named).count(STDIN) > 1:
    raise ValueError('standard input (-) can be read only once')
  for one in named:
    if one == STDIN:
      continue
    if is_list(one):
      if not os.path.isfile(one[1:]):
        raise ValueError(f'{one}: {one[1:]} is not a file; expected a list of pictures')
    elif next(find([one]), None) is None:
      raise ValueError(
          f'{one} holds no picture; expected files with the extensions '
          f'{", ".join(sorted(EXTENSIONS))} in it or in its sub-folders'
          if os.path.isdir(one) else
          f'expected pictures, but {one} is neither a file nor a folder, nor a pattern '
          'that matches any')


def find(named: Sequence[str]) -> Iterator[str]:
  """Yields the paths of the picture files that `named` stands for, in a fixed order.

  A file that is named, by itself or in a list, is yielded whether it exists or not. One
  that is named twice is yielded once, but for lists.

  Args:
    named: files, folders, patterns such as 'photos/**/*.jpg', '@FILE' and '-'.
  """
  if any(map(is_list, named)) or len(named) == 1 and os.path.exists(named[0]):
    yield from _find(named)
    return
  seen = set()  # of hashes, which take less memory than paths
  for path in _find(named):
    key = hash(os.path.normpath(path))
    if key not in seen:
      seen.add(key)
      yield path


def _find(named):
  for one in named:
    if one == STDIN:
      yield from _lines(sys.stdin.buffer)
    elif is_list(one):
      with open(one[1:], 'rb') as file:
        yield from _lines(file)
    elif os.path.exists(one):
      yield from _expand(one)
    else:
      for path in sorted(glob.iglob(os.path.expanduser(one), recursive=True)):
        yield from _expand(path)


def is_list(named: str) -> bool:
  """Whether it stands for a list of files: '@FILE' or '-'."""
  return named == STDIN or named.startswith('@') and not os.path.exists(named)


def _lines(file):
  """The paths in an open list, of any bytes; empty lines are skipped."""
  for k, line in enumerate(file):
    line = line.removeprefix(codecs.BOM_UTF8) if k == 0 else line
    path = os.fsdecode(line.rstrip(b'\r\n'))
    if path:
      yield path


def _expand(path):
  """A file, or the pictures below a folder."""
  if os.path.isdir(path):
    yield from walk_pictures(path)
  else:
    yield path
