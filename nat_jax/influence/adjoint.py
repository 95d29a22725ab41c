"""The exact derivative of a result of a training by the weights of its examples.

    replay = make_replay(config, inputs, trainer, mesh)
    for step in range(num):                             # the training once more
      state = replay.advance(state, step)
    trace_back(replay, start, 0, num, cotangent, width, add)

A step is a pure function of the state, and the stream a pure function of the step, so
that a training can be repeated from its start. `trace_back` applies the transposed
derivative of each update in reverse: with u_T = dE/dstate_T,

    u_t = (d step / d state_t)' u_{t+1},    dE/dw_jt = (d step / d w_jt)' u_{t+1},

where w_jt = 1 is the weight of example j in update t. It is exact for any optimiser
whose state is in the training state. States are kept at the start of segments, which
are computed again on the way back: p states of each of d levels suffice for p^d updates
in d further passes, so that memory is a matter of a budget.

Reference: Hara, Nitanda, Maehara, "Data Cleansing for Models Trained with SGD", NeurIPS
2019; Terashita, Ohashi, Nonaka, Kanemaru, "Influence Estimation for Generative
Adversarial Networks", ICLR 2021.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import data
from nat_jax.runtime import parallel
from nat_jax.task import Inputs, Trainer

GB = 1e9


class Replay(NamedTuple):
  """A training that can be repeated update by update.

  Attributes:
    advance: (state, step) -> the state after update `step`; the state is not donated.
    adjoint: (state before update `step`, step, cotangent of the floating-point leaves
      of the state after it) -> (cotangent of those before it, derivatives by the
      weights of the slots of the batch).
    rows: step -> rows of the pool in the slots of the batch, -1: an empty slot; it has
      the structure of the derivatives by weights.
    finite: tree of arrays -> whether all numbers in it are finite.
  """

  advance: Callable[[Any, int], Any]
  adjoint: Callable[[Any, int, Any], tuple[Any, Any]]
  rows: Callable[[int], Any]
  finite: Callable[[Any], bool]


def floats(tree: Any) -> list[Any]:
  """The floating-point leaves of a tree, those that have derivatives."""
  return [x for x in jax.tree.leaves(tree) if _is_float(x)]


def with_floats(tree: Any, leaves: list[Any]) -> Any:
  """The tree with other floating-point leaves, in the order of `floats`."""
  new = iter(leaves)
  return jax.tree.map(lambda x: next(new) if _is_float(x) else x, tree)


def _is_float(x):
  return jnp.issubdtype(x.dtype, jnp.floating)


def make_replay(
    config: Mapping[str, Any], inputs: Inputs, trainer: Trainer, mesh
) -> Replay:
  """Compiles the updates of a run and their transposed derivatives.

  Args:
    config: of the run.
    inputs: with its pool and its stream.
    trainer: of the run.
    mesh: the devices.
  """
  frozen = parallel.replicate(trainer.frozen(), mesh)
  step_fn = parallel.wrap_step(
      trainer.step, mesh, mode=config['run']['mode'], scan=False)

  def batch(step):
    return data.gather(inputs.pool, inputs.stream.index(step))

  def advance(state, step):
    item = jax.tree.map(lambda x: x[None], batch(step))
    return step_fn(parallel.copy(state), frozen, (), item)[0]

  def transposed(given, batch):
    state, frozen, cotangent = given

    def update(leaves, weights):
      after, _ = trainer.step(
          with_floats(state, leaves), frozen, _with_weights(batch, weights))
      return floats(after)

    _, back = jax.vjp(update, floats(state), _weights(batch))
    return back(cotangent)

  compiled = parallel.wrap_head(transposed, mesh)

  def adjoint(state, step, cotangent):
    return compiled((state, frozen, cotangent), batch(step))

  return Replay(advance, adjoint, inputs.stream.index,
                lambda tree: bool(parallel.all_finite(tree)))


def _weights(batch):
  """The weights of a batch, or of each batch of a dict of them."""
  if 'weight' in batch:
    return batch['weight']
  return {name: one['weight'] for name, one in batch.items()}


def _with_weights(batch, weights):
  if 'weight' in batch:
    return {**batch, 'weight': weights}
  return {name: {**one, 'weight': weights[name]} for name, one in batch.items()}


def plan(num: int, num_bytes: int, budget: float) -> tuple[int, int]:
  """How many states are kept to trace back `num` updates.

  Args:
    num: of updates.
    num_bytes: of a state.
    budget: bytes for states.

  Returns:
    (states per level p, levels d): d p states are kept, p^d >= num; the training is
    computed d times. Of all that fit the budget, the one with the fewest levels.

  Raises:
    ValueError: not even two states per level fit.
  """
  most = int(budget // num_bytes)
  deepest = max(1, math.ceil(math.log2(num)))
  for levels in range(1, deepest + 1):
    width = max(2, math.ceil(num ** (1 / levels) - 1e-9))
    if levels * width <= most:
      return width, levels
  raise ValueError(
      f'a training state takes {num_bytes / GB:.3g} GB, and tracing back {num} updates '
      f'needs at least {2 * deepest} of them, {2 * deepest * num_bytes / GB:.3g} GB; '
      f'the budget is --memory={budget / GB:g} GB. Allow more (for classifiers '
      '--method=tracin keeps only one)')


def trace_back(
    replay: Replay, start: Any, first: int, last: int, cotangent: Any, width: int,
    add: Callable[[Any, Any], None], tell: Callable[[int], None] = lambda step: None,
) -> Any:
  """Derivatives of a result by the weights of the examples of updates first..last-1.

  Args:
    replay: of the run.
    start: the state before update `first`.
    first, last: the updates.
    cotangent: derivative of the result by `floats` of the state after the last one.
    width: states that are kept per level, from `plan`.
    add: (rows of the pool, derivatives by the weights), numpy arrays of one shape; it
      is called for each batch.
    tell: is called with each step that has been traced back.

  Returns:
    The cotangent of the floating-point leaves of `start`.
  """
  length = last - first
  size = max(1, math.ceil(length / width))  # of a segment
  edges = list(range(first, last, size))
  states, state = [start], start
  for edge in edges[1:]:
    for step in range(edge - size, edge):
      state = replay.advance(state, step)
    states.append(state)
  for edge in reversed(edges):
    state = states.pop()
    if size > 1:
      cotangent = trace_back(
          replay, state, edge, min(edge + size, last), cotangent, width, add, tell)
      continue
    cotangent, weights = replay.adjoint(state, edge, cotangent)
    jax.tree.map(lambda rows, slope: add(np.asarray(rows), np.asarray(slope)),
                 replay.rows(edge), weights)
    tell(edge)
  return cotangent
