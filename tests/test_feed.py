"""How many updates a call makes."""

import itertools

import pytest

from nat_jax.runtime import feed


def make(adapt, monkeypatch=None, seconds=0.0, evals=(), **run):
  config = {'steps': 1000, 'run': dict(
      updates_per_call=50, log_every=100, checkpoint_every=0) | run}
  ends = feed.periods(config['run'], evals)
  call_length = feed.make_call_length(config, ends, adapt)
  step, lengths, now = 0, [], 0.0
  while step < config['steps']:
    if monkeypatch:
      monkeypatch.setattr(feed.time, 'monotonic', lambda now=now: now)
    lengths.append(call_length(step))
    step += lengths[-1]
    now += seconds * lengths[-1]
  assert step == config['steps']
  return lengths


def test_calls_end_where_there_is_something_to_do():
  lengths = make(False, log_every=40, evals=(90, 0, 77), checkpoint_every=500)
  ends = set(itertools.accumulate(lengths))
  assert max(lengths) <= 50
  for period in (40, 90, 77, 500):
    assert set(range(period, 1001, period)) <= ends


@pytest.mark.parametrize('asked, steps, periods, longest', [
    (50, 1000, (100, 0, 0), 50), (50, 20, (100, 0, 0), 20),
    (50, 1000, (100, 0, 30), 30), (10**5, 10**6, (40, 90, 500), 40)])
def test_no_more_rows_are_made_than_a_call_can_use(asked, steps, periods, longest):
  log_every, eval_every, checkpoint_every = periods
  run = dict(log_every=log_every, checkpoint_every=checkpoint_every,
             updates_per_call=asked)
  ends = feed.periods(run, [eval_every])
  assert feed.longest_call({'steps': steps, 'run': run}, ends) == longest


@pytest.mark.parametrize('seconds, most', [(0.001, 50), (0.05, 20), (0.3, 3), (9.0, 1)])
def test_a_call_takes_about_a_second(seconds, most, monkeypatch):
  lengths = make(True, monkeypatch, seconds)
  assert lengths[0] == 1
  assert max(lengths) in (most, most - 1)  # 0.05 s is not exact
  assert max(lengths) * seconds <= max(1.0, seconds)
  assert len(lengths) < 1000 / most * 1.5 + 10
