"""Standard output and error that never stop a program.

    guard()                          # at the start of the program
"""

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import Any


class Stream:
  """A text stream whose reader may go away: what cannot be written is dropped.

  A pipe or a terminal that was closed, a full disk behind it, a closed descriptor.
  """

  def __init__(self, stream: Any):
    self.stream = stream

  def write(self, text: str) -> int:
    with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
      self.stream.write(text)
    return len(text)

  def writelines(self, lines: Iterable[str]) -> None:
    for line in lines:
      self.write(line)

  def flush(self) -> None:
    with contextlib.suppress(OSError, ValueError):
      self.stream.flush()

  def isatty(self) -> bool:
    with contextlib.suppress(OSError, ValueError):
      return self.stream.isatty()
    return False

  def __getattr__(self, name: str) -> Any:
    return getattr(self.stream, name)


def guard() -> None:
  """Makes `sys.stdout` and `sys.stderr` a `Stream` each, once."""
  for name in ('stdout', 'stderr'):
    stream = getattr(sys, name)
    if isinstance(stream, Stream):
      continue
    if stream is None:  # closed from the start: keep files from taking its number
      stream = open(os.devnull, 'w')  # noqa: SIM115
    elif hasattr(stream, 'reconfigure'):  # a name it cannot spell is no reason either
      stream.reconfigure(errors='backslashreplace')
    setattr(sys, name, Stream(stream))
