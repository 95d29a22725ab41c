"""Functions of all benchmarks: the bare step of a config, its time and FLOPs, the loop.

    bare = make_bare(runs.resolve(config))
    state, seconds = time_updates(
        bare.scanned, bare.state(), bare.batch, bare.k, budget=2)
    rate = loop(config)                                   # images/s of `train.train`
    evaluations, seeds = sweep('runs/gan-digits')         # of its runs, by variant
"""

import collections
import contextlib
import functools
import glob
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
  """The training step of a config without the training loop.

  Attributes:
    config: resolved.
    mesh: the devices.
    training: `task.Inputs`: the images and the stream of batches.
    trainer: of the task.
    state: () -> a new state.
    batch: one batch, on the device.
    step: jitted (state, batch) -> (state, metrics): one update.
    scanned: jitted (state, batch) -> (state, figures [k]): k updates on `batch`.
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
  """Returns the bare step of a resolved config, not compiled yet."""
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


def sweep(
    folder: str, least: int = 2
) -> tuple[dict[str, dict[int, dict[str, Any]]], list[int]]:
  """Reads the runs of a sweep, with `least` seeds or more.

  Returns:
    ({variant: {seed: its eval.json}}, seeds that all variants have).
  """
  found = collections.defaultdict(dict)
  for path in glob.glob(os.path.join(folder, '*', 'eval.json')):
    with open(path, encoding='utf-8') as file:
      evaluation = json.load(file)
    found[evaluation['variant']][evaluation['seed']] = evaluation
  seeds = sorted(set.intersection(*map(set, found.values()))) if found else []
  if len(seeds) < least:
    raise SystemExit(f'expected runs in {folder}, with {least} or more seeds that all '
                     f'variants have, got the seeds {seeds} of {sorted(found)}')
  return dict(sorted(found.items())), seeds


def machine() -> str:
  """The devices, the version of JAX and the host's cores, in a line."""
  device = jax.devices()[0]
  return (f'{jax.device_count()} x {device.device_kind} ({device.platform}), '
          f'jax {jax.__version__}, {os.cpu_count()} host cores')


def timed(run: Callable[[Any], Any], state: Any) -> tuple[Any, float]:
  """Times `run(state) -> state`, which may donate its argument.

  Returns:
    (the new state, seconds).
  """
  jax.block_until_ready(state)
  start = time.perf_counter()
  state = jax.block_until_ready(run(state))
  return state, time.perf_counter() - start


def time_updates(
    fn: Callable[..., Any], state: Any, batch: Any, updates: int, budget: float,
    rounds: int = 5,
) -> tuple[Any, float]:
  """Returns the median over rounds of the seconds per update.

  Args:
    fn: (state, batch) -> (state, anything).
    state: first argument of the first call; `fn` may donate it.
    batch: second argument of all calls.
    updates: number of updates per call of `fn`.
    budget: seconds for all rounds together; a round has at least one call.
    rounds: number of measurements.

  Returns:
    (the last state, seconds per update).
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


def loop(config: Mapping[str, Any], skip: int = 1) -> float:
  """Returns the images/s of `train.train`, with logging and checkpoints.

  The rates are those in metrics.jsonl. The time of evaluations does not count.

  Args:
    config: of a run with more than `skip` records.
    skip: number of records that do not count; the first includes the compilation.
  """
  with tempfile.TemporaryDirectory() as workdir:
    with contextlib.redirect_stdout(io.StringIO()):
      train.train(config, workdir)
    with open(os.path.join(workdir, 'metrics.jsonl')) as file:
      records = [json.loads(line) for line in file]
  rates = [r['images_per_second'] for r in records if r['kind'] == 'train'][skip:]
  return statistics.harmonic_mean(rates)  # all records have equal numbers of images


def count_flops(fn: Callable[..., Any], *args: Any) -> int:
  """Returns the FLOPs of the matrix products and convolutions of `fn(*args)`.

      product [.., m, k] x [.., k, n]    2 m k n per element of the batch
      convolution                        2 (outputs) (weights per output)

  They are counted in the jaxpr, before any optimisation. A convolution with a dilated
  input (transposed, or a gradient) counts only products with inputs that are not
  inserted zeros. Products with padding count, each iteration of a scan counts, of the
  branches of a condition the largest counts, and all other operations count 0.
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
