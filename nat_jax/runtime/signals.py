"""Signals that stop a run after it is saved; a second Ctrl-C stops it immediately.

    with interruptible():            # the program
      with caught() as received:     # a run
        received()                   # 0, or the number of the first signal
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def caught() -> Iterator[Callable[[], int]]:
  """Yields a function that returns the first signal of `STOPS` received, or 0.

  A second SIGINT raises KeyboardInterrupt. Signals that are ignored stay ignored
  (`nohup` ignores SIGHUP). The previous handlers are restored at the end. Outside the
  main thread no handler is installed.
  """
  received: list[int] = []

  def handle(number, frame):
    if number == signal.SIGINT and number in received:
      _interrupt(number, frame)
    received.append(number)
    if number == signal.SIGINT:
      # Not print, which may be what was interrupted and is not reentrant.
      with contextlib.suppress(OSError):
        os.write(2, b'\nstopping: the run is saved first (Ctrl-C again: at once)\n')

  before = {}
  if threading.current_thread() is threading.main_thread():
    before = {number: signal.getsignal(number) for number in STOPS}
  for number, handler in before.items():
    if handler != signal.SIG_IGN:
      signal.signal(number, handle)
  try:
    yield lambda: received[0] if received else 0
  finally:
    for number, handler in before.items():
      if signal.getsignal(number) is handle:
        signal.signal(number, handler or signal.SIG_DFL)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
  """Makes Ctrl-C raise KeyboardInterrupt once; another one then kills the program.

  So a second Ctrl-C while the program ends does not show a traceback.
  """
  if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    yield
    return
  signal.signal(signal.SIGINT, _interrupt)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _interrupt(number, frame):
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  raise KeyboardInterrupt
