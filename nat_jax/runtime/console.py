"""Standard output and standard error that never make the program fail.

    guard()                          # at the start of the program
"""

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import Any


class Stream:
  """A text stream that drops what cannot be written instead of raising.

  Writing fails when a pipe or a terminal was closed, on a full disk, or when the file
  descriptor is closed.
  """

  def __init__(self, stream: Any):
    self.stream = stream

  def write(self, text: str) -> int:
    with contextlib.suppress(OSError, ValueError):  # ValueError: stream is closed
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
  """Wraps `sys.stdout` and `sys.stderr` in a `Stream`, unless they are already."""
  for name in ('stdout', 'stderr'):
    stream = getattr(sys, name)
    if isinstance(stream, Stream):
      continue
    if stream is None:  # closed at the start: no later file may get its descriptor
      stream = open(os.devnull, 'w')  # noqa: SIM115
    elif hasattr(stream, 'reconfigure'):  # do not fail on characters it cannot encode
      stream.reconfigure(errors='backslashreplace')
    setattr(sys, name, Stream(stream))
