"""Which updates are traced."""

import jax
import pytest

from nat_jax.runtime import profiling


@pytest.fixture
def calls(monkeypatch):
  found = []
  monkeypatch.setattr(jax.profiler, 'start_trace', lambda path: found.append(path))
  monkeypatch.setattr(jax.profiler, 'stop_trace', lambda: found.append('stop'))
  return found


def traced(calls, start, end, num, every):
  """The steps whose context was entered while the trace was on."""
  steps = []
  with profiling.tracer('run', start, end, num) as trace:
    for step in range(start, end, every):
      with trace(step):
        if calls and calls[-1] != 'stop':
          steps.append(step)
  assert calls in ([], ['run/profile', 'stop'])
  return steps


@pytest.mark.parametrize('start, end, num, every, expected', [
    (0, 1000, 50, 10, list(range(100, 150, 10))),
    (0, 1000, 25, 10, [100, 110, 120]),
    (500, 1000, 10, 50, [600]),
    (0, 40, 50, 10, [20, 30]),  # a short run: its second half
    (0, 1000, 0, 10, []),
])
def test_updates_that_are_traced(calls, start, end, num, every, expected):
  assert traced(calls, start, end, num, every) == expected


def test_a_trace_is_closed_by_an_error(calls):
  with pytest.raises(KeyError), profiling.tracer('run', 0, 200, 50) as trace:
    with trace(150):
      raise KeyError('x')
  assert calls == ['run/profile', 'stop']
