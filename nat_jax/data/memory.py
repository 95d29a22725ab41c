"""Checks that arrays which a config asks for can fit into memory.

    check_memory(num * 8 * 8, 'num=10**12 images', 'lower num')
"""

import os
import pathlib
from collections.abc import Iterator

CGROUPS = pathlib.Path('/sys/fs/cgroup')
OWN_GROUPS = pathlib.Path('/proc/self/cgroup')


def check_memory(num_bytes: float, what: str, remedy: str) -> None:
  """Raises ValueError if the memory that may be used is smaller than `num_bytes`.

  Args:
    num_bytes: a lower bound of the arrays' size; arrays that pass may still not fit.
    what: the arrays, for the message "... would take about ... GB".
    remedy: what the user can do, for the end of the message.
  """
  size, owner = total()
  if num_bytes > size:
    raise ValueError(
        f'{what} would take about {num_bytes / 1e9:,.0f} GB of memory, and this '
        f'{owner} has {size / 1e9:,.0f} GB; {remedy}')


def total() -> tuple[int, str]:
  """Returns (bytes of memory that may be used, whose memory that is).

  It is the memory of the 'machine', or the smallest limit of a control group that this
  process is in: of a 'container or job'.
  """
  found = [(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'), 'machine')]
  for path in _limits():
    try:
      found.append((int(path.read_text(encoding='ascii')), 'container or job'))
    except (OSError, ValueError):  # there is no such file, or it says 'max'
      continue
  return min(found)


def _limits() -> Iterator[pathlib.Path]:
  """The files that may have a limit: of this process's groups and their parents."""
  try:
    lines = OWN_GROUPS.read_text(encoding='utf-8').splitlines()
  except OSError:  # not Linux
    return
  for line in lines:
    _, controllers, group = line.split(':', 2)
    if not controllers:  # control groups of version 2
      root, name = CGROUPS, 'memory.max'
    elif 'memory' in controllers.split(','):
      root, name = CGROUPS / 'memory', 'memory.limit_in_bytes'
    else:
      continue
    own = pathlib.PurePosixPath(group.lstrip('/'))
    for folder in (own, *own.parents):
      yield root / folder / name
