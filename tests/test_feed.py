"""How many updates a call makes, and the batches that it gets."""

import itertools
import types

import jax
import numpy as np
import pytest

from nat_jax import data
from nat_jax.runtime import feed, parallel


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


def make_resident(monkeypatch, scans, num=40):
  """`feed.make_feed` of resident images, and the numbers of rows that are read."""
  asked = []

  def look(chosen):
    asked.append(len(chosen))
    return np.zeros((len(chosen), 6, 6, 1), np.uint8) + chosen[:, None, None, None] % 7

  pool = data.Pool(data.Rows(look, num, (6, 6, 1)), np.arange(num, dtype=np.int32))
  stream = types.SimpleNamespace(
      index=lambda step: np.arange(4, dtype=np.int32) + step, num_slots=4)
  inputs = types.SimpleNamespace(pool=pool, shape=(6, 6, 1), stream=stream)
  trainer = types.SimpleNamespace(step=None)
  monkeypatch.setattr(feed, '_try_step', lambda *args: None)
  monkeypatch.setattr(parallel, 'scans', lambda mesh: scans)
  monkeypatch.setattr(parallel, 'wrap_step', lambda *args, **kwargs: None)
  config = {'steps': 100, 'data': {'batch_size': 4}, 'run': dict(
      placement='resident', mode='auto', updates_per_call=5)}
  made = feed.make_feed(config, inputs, trainer, parallel.make_mesh(jax.devices()[:1]),
                        [50])
  return *made, asked


def test_a_short_call_reads_its_own_batches_only(monkeypatch):
  """The last is repeated in memory, so that all calls have one shape."""
  _, _, items, asked = make_resident(monkeypatch, scans=False)
  del asked[:]
  found = items(3, 2)
  assert sum(asked) == 2 * 4
  assert found['label'].tolist() == [[3, 4, 5, 6]] + [[4, 5, 6, 7]] * 4
  np.testing.assert_array_equal(found['image'][..., 0, 0, 0], found['label'] % 7)
  assert items(0, 5)['label'][:, 0].tolist() == [0, 1, 2, 3, 4]


def test_images_beyond_the_memory_are_not_put_on_a_device(monkeypatch):
  _, source, _, _ = make_resident(monkeypatch, scans=True)
  assert source.image.shape == (40, 6, 6, 1)
  monkeypatch.setattr(data.memory.os, 'sysconf', lambda name: 1000)  # 1 MB in all
  with pytest.raises(ValueError, match='resident.* GB .*set run.placement=streamed'):
    make_resident(monkeypatch, scans=True, num=10**5)
