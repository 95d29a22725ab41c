"""How batches reach the updates: where the pixels live, and how many updates a call.

    ends = periods(config['run'], evaluator.periods.values())
    step_fn, source, items = make_feed(config, inputs, trainer, mesh, ends)
    call_length = make_call_length(config, ends, adapt=True)
    k = call_length(step)
    state, metrics = step_fn(state, frozen, source, items(step, k), k)
"""

import functools
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nat_jax import data
from nat_jax.runtime import parallel
from nat_jax.task import Inputs, Trainer

AHEAD = 2**28  # bytes of batches that are gathered ahead, at most 16 batches
THREADS = max(2, min(8, os.cpu_count() or 1))  # that gather them
SECONDS_PER_CALL = 1.0  # a run that is stopped by SIGTERM waits for two calls


def make_feed(
    config: Mapping[str, Any], inputs: Inputs, trainer: Trainer, mesh,
    ends: Sequence[int],
) -> tuple[Callable, Any, Callable[[int, int], Any]]:
  """Chooses where the pixels live.

  Args:
    config: of the run.
    inputs, trainer: of its task.
    mesh: the devices.
    ends: the periods of what is done between calls; see `periods`.

  Returns:
    (step_fn, source, items): `step_fn(state, frozen, source, items(step, k), k)` makes
    k updates.

  Raises:
    ValueError: an unknown placement or mode, more than the memory holds, or images and
      networks that do not go together.
  """
  run, scans = config['run'], parallel.scans(mesh)
  if run['placement'] not in ('resident', 'streamed'):
    raise ValueError(
        f'unknown run.placement {run["placement"]!r}; valid: resident, streamed')
  index = functools.partial(_local_index, inputs.stream.index, mesh)
  by_host = not scans or run['placement'] == 'streamed'
  most = longest_call(config, ends)
  _check_memory(config, inputs, most if by_host else 1)
  _try_step(trainer, data.gather(inputs.pool, inputs.stream.index(0)))

  def indices(step, k):
    """Always as many rows, of which the first k are used: programs keep their shape."""
    rows = [index(s) for s in range(step, step + k)]
    rows += rows[-1:] * (most - k)
    return jax.tree.map(lambda *arrays: np.stack(arrays), *rows)

  resident = run['placement'] == 'resident'
  if resident and scans:
    step_fn = parallel.wrap_step(
        trainer.step, mesh, mode=run['mode'], fetch=data.gather)
    pool = jax.tree.map(np.asarray, inputs.pool)  # all rows
    return step_fn, parallel.replicate(pool, mesh), indices
  step_fn = parallel.wrap_step(trainer.step, mesh, mode=run['mode'])
  if resident:  # the device's memory is the host's
    return step_fn, (), lambda step, k: data.gather(inputs.pool, indices(step, k))
  return step_fn, (), _Batches(
      lambda step: data.gather(inputs.pool, index(step)), config['steps'], most,
      inputs.stream.num_slots * math.prod(inputs.shape))


def _local_index(index, mesh, step):
  """The rows of the global batch of a step that the devices of this process hold."""
  return jax.tree.map(lambda x: x[parallel.local(len(x), mesh)], index(step))


class _Batches:
  """Batches of consecutive steps, gathered ahead by grain's threads."""

  def __init__(self, batch: Callable[[int], Any], stop: int, rows: int, num_bytes: int):
    self.batch, self.stop, self.rows = batch, stop, rows
    self.ahead = min(16, max(2, AHEAD // num_bytes))  # batches
    self.next, self.iterator = None, None

  def __call__(self, step: int, k: int):
    """Batches of steps step...step+k-1, stacked; the last repeated up to `rows`."""
    if step != self.next:
      self.iterator = self._start(step)
    self.next = step + k
    batches = [next(self.iterator) for _ in range(k)]
    batches += batches[-1:] * (self.rows - k)
    return jax.tree.map(lambda *arrays: np.stack(arrays), *batches)

  def _start(self, step):
    import grain  # takes a third of a second, which other placements need not wait for

    steps = grain.MapDataset.range(step, self.stop).map(lambda s: self.batch(int(s)))
    return iter(steps.to_iter_dataset(grain.ReadOptions(
        num_threads=min(self.ahead, THREADS), prefetch_buffer_size=self.ahead)))


def periods(run: Mapping[str, Any], evals: Iterable[int]) -> list[int]:
  """Every how many updates something is done that a call of updates must end at.

  Args:
    run: the group `run` of a config.
    evals: the periods of the evaluations; 0: at the end of the run alone.
  """
  every = dict.fromkeys([run['log_every'], run['checkpoint_every'], *evals])
  return [number for number in every if number]


def longest_call(config: Mapping[str, Any], ends: Sequence[int]) -> int:
  """The most updates of a call, which never passes a multiple of one of `ends`."""
  return min(config['run']['updates_per_call'], config['steps'], *ends)


def _check_memory(config, inputs, batches):
  """Raises ValueError where a config asks for arrays beyond the memory.

  Args:
    batches: how many the host holds at once.
  """
  values = math.prod(inputs.shape)
  slots, measures = inputs.stream.num_slots, config.get('measures', {})
  group = 'data.' if 'batch_size' in config['data'] else ''
  for key, num_bytes in {
      # In float32, as it is normalised; and in uint8, stacked.
      f'{group}batch_size': 4 * slots * values,
      'run.updates_per_call': batches * slots * values,
      'eval_batch_size': 4 * config.get('eval_batch_size', 0) * values,
      'measures.batch_size': 4 * measures.get('batch_size', 0) * values,
      'measures.num_samples': measures.get('num_samples', 0) * (
          values + 4 * config.get('generator', {}).get('latent', 0)),
  }.items():
    data.check_memory(num_bytes, f'the arrays of {key}', f'lower {key}')


def _try_step(trainer, batch):
  """Traces an update without making it, so that what does not fit is told at once."""
  def update(key, frozen, batch):
    return trainer.step(trainer.init(key), frozen, batch)

  jax.eval_shape(update, jax.random.key(0), trainer.frozen(), batch)


def make_call_length(
    config: Mapping[str, Any], ends: Sequence[int], adapt: bool
) -> Callable[[int], int]:
  """Returns step -> how many updates to make before the next look at the run.

  A call never passes a point where something is to be logged, evaluated or saved.

  Args:
    config: its `run.updates_per_call` is the most.
    ends: the periods of what is done between calls; see `periods`.
    adapt: no more than a second's worth either, so that slow updates show their
      figures and hear SIGTERM. For updates that are dispatched one by one: there the
      length of a call changes no bit of the parameters and costs no compilation.
  """
  longest = longest_call(config, ends)
  most, length, asked = 1 if adapt else longest, 1, None

  def call_length(step):
    nonlocal most, length, asked
    now = time.monotonic()
    if adapt and asked is not None:
      seconds = max(now - asked, 1e-6) / length
      fits = max(int(SECONDS_PER_CALL / seconds), 1)
      most = min(longest, 2 * most, fits)
    asked = now
    length = min([most, config['steps'] - step, *(p - step % p for p in ends)])
    return length

  return call_length
