"""How batches reach the updates: where the pixels live, and how many updates a call.

    step_fn, source, items = make_feed(config, inputs, trainer, mesh)
    call_length = make_call_length(config, adapt=True)
    k = call_length(step)
    state, metrics = step_fn(state, frozen, source, items(step, k), k)
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import grain
import jax
import numpy as np

from nat_jax import data
from nat_jax.runtime import parallel
from nat_jax.task import Inputs, Trainer

SECONDS_PER_CALL = 1.0  # a run that is stopped by SIGTERM waits for two calls


def make_feed(
    config: Mapping[str, Any], inputs: Inputs, trainer: Trainer, mesh
) -> tuple[Callable, Any, Callable[[int, int], Any]]:
  """Chooses where the pixels live.

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
  index = inputs.stream.index
  by_host = not scans or run['placement'] == 'streamed'
  _check_memory(config, inputs, longest_call(config) if by_host else 1)
  _try_step(trainer, data.gather(inputs.pool, index(0)))

  def indices(step, k):
    """Always as many rows, of which the first k are used: programs keep their shape."""
    rows = [index(s) for s in range(step, step + k)]
    rows += rows[-1:] * (most - k)
    return jax.tree.map(lambda *arrays: np.stack(arrays), *rows)

  most = longest_call(config)
  resident = run['placement'] == 'resident'
  if resident and scans:
    step_fn = parallel.wrap_step(
        trainer.step, mesh, mode=run['mode'], fetch=data.gather)
    return step_fn, parallel.replicate(inputs.pool, mesh), indices
  step_fn = parallel.wrap_step(trainer.step, mesh, mode=run['mode'])
  if resident:  # the device's memory is the host's
    return step_fn, (), lambda step, k: data.gather(inputs.pool, indices(step, k))
  return step_fn, (), _Batches(
      lambda step: data.gather(inputs.pool, index(step)), config['steps'], most)


class _Batches:
  """Batches of consecutive steps, gathered ahead by grain's threads."""

  def __init__(self, batch: Callable[[int], Any], stop: int, rows: int):
    self.batch, self.stop, self.rows = batch, stop, rows
    self.next, self.iterator = None, None

  def __call__(self, step: int, k: int):
    """Batches of steps step...step+k-1, stacked; the last repeated up to `rows`."""
    if step != self.next:
      steps = grain.MapDataset.range(step, self.stop).map(lambda s: self.batch(int(s)))
      self.iterator = iter(steps.to_iter_dataset(
          grain.ReadOptions(num_threads=2, prefetch_buffer_size=16)))
    self.next = step + k
    batches = [next(self.iterator) for _ in range(k)]
    batches += batches[-1:] * (self.rows - k)
    return jax.tree.map(lambda *arrays: np.stack(arrays), *batches)


def longest_call(config: Mapping[str, Any]) -> int:
  """The most updates of a call: it ends wherever something is to be done."""
  run = config['run']
  return min(run['updates_per_call'], config['steps'], *_periods(run))


def _periods(run):
  return [run[k] for k in ('log_every', 'eval_every', 'checkpoint_every') if run[k]]


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
    config: Mapping[str, Any], adapt: bool
) -> Callable[[int], int]:
  """Returns step -> how many updates to make before the next look at the run.

  A call never passes a point where something is to be logged, evaluated or saved.

  Args:
    config: its `run.updates_per_call` is the most.
    adapt: no more than a second's worth either, so that slow updates show their
      figures and hear SIGTERM. For updates that are dispatched one by one: there the
      length of a call changes no bit of the parameters and costs no compilation.
  """
  run = config['run']
  longest, periods = longest_call(config), _periods(run)
  most, length, asked = 1 if adapt else longest, 1, None

  def call_length(step):
    nonlocal most, length, asked
    now = time.monotonic()
    if adapt and asked is not None:
      seconds = max(now - asked, 1e-6) / length
      fits = max(int(SECONDS_PER_CALL / seconds), 1)
      most = min(longest, 2 * most, fits)
    asked = now
    length = min([most, config['steps'] - step, *(p - step % p for p in periods)])
    return length

  return call_length
