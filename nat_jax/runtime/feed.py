"""Feeds batches to the updates: placement of the images, and updates per call.

    ends = periods(config['run'], evaluator.periods.values())
    step_fn, source, items = make_feed(config, inputs, trainer, mesh, ends)
    call_length = make_call_length(config, ends, adapt=True)
    k = call_length(step)
    state, metrics = step_fn(state, frozen, source, items(step, k), k)
"""

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nat_jax import data, names
from nat_jax.runtime import parallel
from nat_jax.task import Inputs, Trainer

AHEAD = 2**28  # bytes of batches that are gathered ahead; at most 16 batches
THREADS = max(2, min(8, len(parallel.usable_cores())))  # threads that gather batches
SECONDS_PER_CALL = 1.0  # after SIGTERM a run stops once two calls have ended


def check(
    config: Mapping[str, Any], inputs: Inputs, trainer: Trainer, mesh,
    ends: Sequence[int],
) -> None:
  """Checks placement, memory and shapes of the batches; places nothing.

  Args:
    config, inputs, trainer, mesh, ends: see `make_feed`.

  Raises:
    ValueError: see `make_feed`.
  """
  placement = config['run']['placement']
  if placement not in ('resident', 'streamed'):
    raise ValueError(
        names.unknown('run.placement', placement, ['resident', 'streamed']))
  by_host = not parallel.scans(mesh) or placement == 'streamed'
  _check_memory(config, inputs, longest_call(config, ends) if by_host else 1)
  _try_step(trainer, data.gather(inputs.pool, inputs.stream.index(0)))


def make_feed(
    config: Mapping[str, Any], inputs: Inputs, trainer: Trainer, mesh,
    ends: Sequence[int],
) -> tuple[Callable, Any, Callable[[int, int], Any]]:
  """Places the training images on the device or in host memory (`run.placement`).

  Args:
    config: of the run.
    inputs, trainer: of the run's task.
    mesh: the devices.
    ends: periods in updates, from `periods`.

  Returns:
    (step_fn, source, items): `step_fn(state, frozen, source, items(step, k), k)` makes
    k updates, from update `step` on; see `parallel.wrap_step`.

  Raises:
    ValueError: an unknown placement or mode, arrays that exceed the memory, or networks
      that do not accept images of this shape.
  """
  check(config, inputs, trainer, mesh, ends)
  run, scans = config['run'], parallel.scans(mesh)
  index = functools.partial(_local_index, inputs.stream.index, mesh)
  most = longest_call(config, ends)

  def indices(step, k):
    """Indices of k steps, stacked."""
    return _stacked(map(index, range(step, step + k)), most)

  resident = run['placement'] == 'resident'
  if resident and scans:
    step_fn = parallel.wrap_step(
        trainer.step, mesh, mode=run['mode'], fetch=data.gather)
    data.check_memory(
        len(inputs.pool.image) * _example_bytes(inputs),
        'the training images of run.placement=resident', 'set run.placement=streamed')
    pool = jax.tree.map(np.asarray, inputs.pool)  # all rows
    return step_fn, parallel.replicate(pool, mesh), indices
  step_fn = parallel.wrap_step(trainer.step, mesh, mode=run['mode'])

  def batches(step, k):
    """Batches of k steps, read at once; the last is repeated up to `most`."""
    found = data.gather(
        inputs.pool, _stacked(map(index, range(step, step + k)), k))
    again = [*range(k), *[k - 1] * (most - k)]
    return found if k == most else jax.tree.map(lambda x: x[again], found)

  if resident:  # on a CPU the device's memory is the host's
    return step_fn, (), batches
  return step_fn, (), _Batches(
      lambda step: data.gather(inputs.pool, index(step)), config['steps'], most,
      inputs.stream.num_slots * _example_bytes(inputs))


def _stacked(batches, rows):
  """Stacks batches; the last is repeated up to `rows`, for constant shapes."""
  batches = list(batches)
  batches += batches[-1:] * (rows - len(batches))
  return jax.tree.map(lambda *arrays: np.stack(arrays), *batches)


def _example_bytes(inputs):
  return math.prod(inputs.shape) * np.dtype(inputs.pool.image.dtype).itemsize


def _local_index(index, mesh, step):
  """The rows of a step's global batch that the devices of this process hold."""
  return jax.tree.map(lambda x: x[parallel.local(len(x), mesh)], index(step))


class _Batches:
  """Batches of consecutive steps, gathered ahead by grain's threads."""

  def __init__(self, batch: Callable[[int], Any], stop: int, rows: int, num_bytes: int):
    self.batch, self.stop, self.rows = batch, stop, rows
    self.ahead = min(16, max(2, AHEAD // num_bytes))  # batches
    self.next, self.iterator = None, None

  def __call__(self, step: int, k: int):
    """Stacks the batches of steps step..step+k-1, the last repeated up to `rows`."""
    if step != self.next:
      self.iterator = self._start(step)
    self.next = step + k
    return _stacked((next(self.iterator) for _ in range(k)), self.rows)

  def _start(self, step):
    import grain  # imported here because it takes a third of a second

    steps = grain.MapDataset.range(step, self.stop).map(lambda s: self.batch(int(s)))
    return iter(steps.to_iter_dataset(grain.ReadOptions(
        num_threads=min(self.ahead, THREADS), prefetch_buffer_size=self.ahead)))


def periods(run: Mapping[str, Any], evals: Iterable[int]) -> list[int]:
  """Returns the periods in updates of logging, checkpoints and evaluations.

  Calls of updates end at the multiples of these periods.

  Args:
    run: the group `run` of a config.
    evals: periods of the evaluations; 0: at the end of the run only.

  Returns:
    The distinct periods above 0.
  """
  every = dict.fromkeys([run['log_every'], run['checkpoint_every'], *evals])
  return [number for number in every if number]


def longest_call(config: Mapping[str, Any], ends: Sequence[int]) -> int:
  """Returns the largest number of updates per call.

  Args:
    config: of the run.
    ends: periods in updates, from `periods`; a call never crosses a multiple of one.
  """
  return min(config['run']['updates_per_call'], config['steps'], *ends)


def _check_memory(config, inputs, batches):
  """Raises ValueError if the arrays that a config asks for exceed the host's memory.

  Args:
    batches: number of batches that the host holds at once.
  """
  values = math.prod(inputs.shape)
  slots, measures = inputs.stream.num_slots, config.get('measures', {})
  group = 'data.' if 'batch_size' in config['data'] else ''
  for key, num_bytes in {
      # A batch is normalised to float32; k stacked batches are as in the pool.
      f'{group}batch_size': 4 * slots * values,
      'run.updates_per_call': batches * slots * _example_bytes(inputs),
      'eval_batch_size': 4 * config.get('eval_batch_size', 0) * values,
      'measures.batch_size': 4 * measures.get('batch_size', 0) * values,
      'measures.num_samples': measures.get('num_samples', 0) * (
          values + 4 * config.get('generator', {}).get('latent', 0)),
  }.items():
    data.check_memory(num_bytes, f'the arrays of {key}', f'lower {key}')


def _try_step(trainer, batch):
  """Traces an update without executing it, to find mismatched shapes early."""
  def update(key, frozen, batch):
    return trainer.step(trainer.init(key), frozen, batch)

  jax.eval_shape(update, jax.random.key(0), trainer.frozen(), batch)


def make_call_length(
    config: Mapping[str, Any], ends: Sequence[int], adapt: bool
) -> Callable[[int], int]:
  """Returns a function step -> number of updates of the call that starts at this step.

  A call never crosses an update after which something is logged, evaluated or saved.

  Args:
    config: of the run; `run.updates_per_call` is the upper limit.
    ends: periods in updates, from `periods`.
    adapt: whether to limit a call to about one second as well, so that slow updates are
      logged in time and SIGTERM is handled soon. Meant for updates that are dispatched
      one by one, where the length of a call neither changes a bit of the parameters nor
      costs a compilation.
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
