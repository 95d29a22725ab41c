"""Signals that stop a run: which are heard, which stay ignored, a second Ctrl-C."""

import os
import signal
import threading

import pytest

from nat_jax.runtime import signals


@pytest.fixture(autouse=True)
def put_back():
  before = {number: signal.getsignal(number) for number in signals.STOPS}
  yield
  for number, handler in before.items():
    signal.signal(number, handler)


def send(number):
  os.kill(os.getpid(), number)


@pytest.mark.parametrize('number', signals.STOPS)
def test_the_first_signal_is_told(number):
  before = signal.getsignal(number)
  with signals.caught() as came:
    assert came() == 0
    send(number)
    send(signal.SIGTERM)
    assert came() == number
  assert signal.getsignal(number) is before


def test_what_is_ignored_stays_so():
  """nohup ignores SIGHUP, a shell's background job SIGINT."""
  for number in (signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
  with signals.interruptible(), signals.caught() as came:
    send(signal.SIGHUP)
    send(signal.SIGINT)
    assert came() == 0
  assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_second_interrupt_stops_and_a_third_kills():
  signal.signal(signal.SIGINT, signal.default_int_handler)
  with pytest.raises(KeyboardInterrupt), signals.interruptible():
    with signals.caught():
      send(signal.SIGINT)
      send(signal.SIGINT)
  assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
  with pytest.raises(KeyboardInterrupt), signals.interruptible():
    send(signal.SIGINT)
  assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL


def test_another_thread_sets_no_handler():
  before, found = signal.getsignal(signal.SIGTERM), []

  def look():
    with signals.caught() as came:
      found.append((came(), signal.getsignal(signal.SIGTERM)))

  thread = threading.Thread(target=look)
  thread.start()
  thread.join()
  assert found == [(0, before)]
