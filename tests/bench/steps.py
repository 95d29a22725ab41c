"""What the benches share: the bare step of a config, its timing, its FLOPs, the loop.

    bare = make_bare(runs.resolve(config))
    state, seconds = time_updates(bare.scanned, bare.state(), bare.k, budget=2)
    rate = loop(config)                                   # images/s of `train.train`
"""

import contextlib
import functools
import io
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from nat_jax import data, runs, train
from nat_jax.runtime import parallel


class Bare(NamedTuple):
  """The step of a config, without anything around it.

  Attributes:
    config: resolved.
    mesh: the devices.
    training: the images and the batches.
    trainer: of the task.
    state: () -> a new state.
    batch: one batch, on the device.
    step: compiled; (state, batch) -> (state, metrics) makes one update.
    scanned: compiled; (state, batch) -> (state, figures) makes k updates with `batch`.
    k: `run.updates_per_call`.
  """

  config: Mapping[str, Any]
  mesh: jax.sharding.Mesh
  training: Any
  trainer: Any
  state: Callable[[], Any]
  batch: Any
  step: Callable[..., Any]
  scanned: Callable[..., Any]
  k: int


def make_bare(config: Mapping[str, Any]) -> Bare:
  """Returns the bare step of a resolved config; nothing is compiled yet."""
  mesh = parallel.make_mesh()
  training = runs.TASKS[config['task']].load(config)
  trainer = runs.build_trainer(config, training.shape)
  batch = jax.device_put(data.gather(training.pool, training.stream.index(0)))
  k = config['run']['updates_per_call']

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, batch):
    return trainer.step(state, {}, batch)

  @functools.partial(jax.jit, donate_argnums=0)
  def scanned(state, batch):
    def body(state, _):
      state, metrics = trainer.step(state, {}, batch)
      return state, jax.tree.leaves(metrics)[0].sum()
    return jax.lax.scan(body, state, length=k)

  def state():
    return parallel.init_state(trainer.init, jax.random.key(0), mesh)

  return Bare(config, mesh, training, trainer, state, batch, step, scanned, k)


def timed(run: Callable[[Any], Any], state: Any) -> tuple[Any, float]:
  """Seconds of `run(state) -> state`; returns the state too, since it is donated."""
  jax.block_until_ready(state)
  start = time.perf_counter()
  state = jax.block_until_ready(run(state))
  return state, time.perf_counter() - start


def time_updates(
    fn: Callable[..., Any], state: Any, batch: Any, updates: int, budget: float,
    rounds: int = 5,
) -> tuple[Any, float]:
  """Median over rounds of the seconds per update.

  Args:
    fn: (state, batch) -> (state, anything).
    state: donated.
    batch: given to every call.
    updates: made by one call of `fn`.
    budget: seconds that all rounds should take; each makes one call at least.
    rounds: number of measurements.

  Returns:
    (the state after them, seconds per update).
  """
  def calls(num):
    def run(state):
      for _ in range(num):
        state, _ = fn(state, batch)
      return state
    return run

  state, _ = timed(calls(1), state)  # compiles
  state, seconds = timed(calls(1), state)
  num = max(int(budget / rounds / seconds), 1)
  found = []
  for _ in range(rounds):
    state, seconds = timed(calls(num), state)
    found.append(seconds / num / updates)
  return state, statistics.median(found)


def loop(config: Mapping[str, Any]) -> float:
  """Images/s of `train.train`: metrics, logging, TensorBoard events and checkpoints.

  From its own metrics.jsonl, without the first record (compilation) and without
  evaluations.
  """
  with tempfile.TemporaryDirectory() as workdir:
    with contextlib.redirect_stdout(io.StringIO()):
      train.train(config, workdir)
    with open(os.path.join(workdir, 'metrics.jsonl')) as file:
      records = [json.loads(line) for line in file]
  rates = [r['images_per_second'] for r in records if r['kind'] == 'train'][1:]
  return statistics.harmonic_mean(rates)  # every record has as many images


def count_flops(fn: Callable[..., Any], *args: Any) -> int:
  """FLOPs of the matrix products and convolutions of `fn(*args)`, as it is written.

      product [.., m, k] x [.., k, n]    2 m k n, for each of the batch
      convolution                        2 (outputs) (weights that one output reads)

  A convolution of an input spread by zeros (transposed, or a gradient) has the products
  with what is not zero. Padding counts, loops count all their turns, of the branches of
  a condition the longest counts, everything else counts nothing.
  """
  return _count(jax.make_jaxpr(fn)(*args))


def _count(jaxpr) -> int:
  return sum(_count_one(equation) for equation in jaxpr.eqns)


def _count_one(equation) -> int:
  name, params = equation.primitive.name, equation.params
  if name == 'dot_general':
    (contracted, _), _ = params['dimension_numbers']
    shape = equation.invars[0].aval.shape
    return (2 * equation.outvars[0].aval.size
            * math.prod(shape[axis] for axis in contracted))
  if name == 'conv_general_dilated':
    kernel = equation.invars[1].aval.shape
    read = math.prod(kernel[axis] for axis in params['dimension_numbers'].rhs_spec[1:])
    return (2 * equation.outvars[0].aval.size * read
            // math.prod(params['lhs_dilation']))
  inner = [_count(jaxpr) for jaxpr in _jaxprs(params.values())]
  if name == 'cond':
    return max(inner)
  return sum(inner) * params.get('length', 1)


def _jaxprs(values) -> Iterator[Any]:
  for value in values:
    if hasattr(value, 'eqns'):
      yield value
    elif isinstance(value, list | tuple):
      yield from _jaxprs(value)
