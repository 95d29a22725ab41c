"""Signals that ask a run to stop: it is saved first. A second Ctrl-C stops it at once.

    with interruptible():            # the program
      with caught() as came:         # a run: came() is 0, or the number of the signal
        ...
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def caught() -> Iterator[Callable[[], int]]:
  """Yields a function: the number of the first signal of `STOPS` that came, or 0.

  The second SIGINT raises KeyboardInterrupt. A signal that is ignored stays so (`nohup`
  ignores SIGHUP). The handlers of before are put back at the end; outside the main
  thread there are none.
  """
  came: list[int] = []

  def handle(number, frame):
    if number == signal.SIGINT and number in came:
      _interrupt(number, frame)
    came.append(number)
    if number == signal.SIGINT:
      with contextlib.suppress(OSError):  # not print: it may be what was interrupted
        os.write(2, b'\nstopping: the run is saved first (Ctrl-C again: at once)\n')

  before = {}
  if threading.current_thread() is threading.main_thread():
    before = {number: signal.getsignal(number) for number in STOPS}
  for number, handler in before.items():
    if handler != signal.SIG_IGN:
      signal.signal(number, handle)
  try:
    yield lambda: came[0] if came else 0
  finally:
    for number, handler in before.items():
      if signal.getsignal(number) is handle:
        signal.signal(number, handler or signal.SIG_DFL)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
  """Ctrl-C raises KeyboardInterrupt once; while the program ends another one kills it.

  So none shows a traceback of what was going on.
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
