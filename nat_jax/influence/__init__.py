"""The value of every training example, positive or negative, for a metric.

    found = influence('runs/digits', of='ncr@0.8:validation_digits_6_7')
    found.value          # [examples of the pool]; above 0: the metric is better with it
    found.sets           # name -> which examples those are

  adjoint      the exact derivative by weights of examples, by repeating the training
  tracin       a cheap approximation from the checkpoints that were kept
  classifiers  what is particular to classifiers: metrics, and what has no exact value
  gans         what is particular to GANs of images and of points
  targets      soft NCR, loss, soft accuracy, log-likelihood, differentiable
  samples      Inception Score and Frechet distance, differentiable
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from nat_jax import data, names, runs, train
from nat_jax.influence import adjoint, classifiers, gans, targets
from nat_jax.runtime import checkpoint
from nat_jax.task import Inputs, Run
from nat_jax.tasks import TASKS, subsets, unchanged

METHODS = ('exact', 'tracin')
MEMORY = 2.0  # GB for training states
MEANING = (
    'value: by how much the metric would be worse if the example had been left out of '
    'every batch, to first order, with the number that means divide by unchanged. '
    'Above 0: helpful. Below 0: harmful; the metric would be better without it. '
    '0: without effect, or never in a batch.')


class Kind(NamedTuple):
  """What influence needs to know of the runs of a task.

  Attributes:
    parse: (--of, config) -> the metric; raises ValueError for one that its runs do not
      have.
    check: Run -> None; raises ValueError where the exact method cannot work.
    measure: (Run, metric) -> (state -> (soft metric, its derivatives by the floats of
      the state, metric)).
    approximate: (Run, workdir, inputs, metric, steps of checkpoints) -> (dE/dw of each
      example of the pool, soft metric, metric); None: it has no approximation.
  """

  parse: Callable[[str, Mapping[str, Any]], targets.Target]
  check: Callable[[Run], None]
  measure: Callable[[Run, targets.Target], Callable[[Any], tuple[float, Any, float]]]
  approximate: Callable[..., tuple[np.ndarray, float, float]] | None = None


KINDS = {  # task -> what is particular to its runs
    'classify': Kind(classifiers.parse, classifiers.check, classifiers.measure,
                     classifiers.approximate),
    'gan': Kind(gans.parse, gans.check, gans.measure),
    'points': Kind(gans.parse_points, gans.check, gans.measure_points),
}


class Part(NamedTuple):
  """A training set in the pool.

  Attributes:
    first: its first row in the pool.
    rows: int [m], the row of each example in its source.
    size: examples of the source, with those that were dropped.
  """

  first: int
  rows: np.ndarray
  size: int

  @property
  def here(self) -> slice:
    """Its rows in the pool."""
    return slice(self.first, self.first + len(self.rows))


class Influence(NamedTuple):
  """The value of the training examples of a run.

  Attributes:
    config: of the run.
    step: of the checkpoint.
    method: one of `METHODS`.
    target: the metric.
    value: float64 [n], see `MEANING`.
    taken: int [n], how many times each example was in a batch.
    sets: name -> `Part` of the pool: positives, then the negatives.
    pool: the training examples.
    class_names: of the positives; may be empty.
    soft: value of the differentiable metric.
    hard: value of the metric itself, from `nat_jax.metrics`.
    difference: largest difference of a parameter of the repeated training from the
      checkpoint, which should be 0; None for 'tracin'.
    checkpoints: steps of the checkpoints that were used.
  """

  config: dict[str, Any]
  step: int
  method: str
  target: targets.Target
  value: np.ndarray
  taken: np.ndarray
  sets: dict[str, Part]
  pool: data.Pool
  class_names: tuple[str, ...]
  soft: float
  hard: float
  difference: float | None
  checkpoints: list[int]


def influence(
    workdir: str, of: str = '', method: str = 'exact', step: int | None = None,
    memory: float = MEMORY, tell: Callable[[int, int], None] = lambda done, num: None,
) -> Influence:
  """Computes the value of every training example for a metric.

  Args:
    workdir: of a run of classifiers, of GANs of images, or of GANs of points, whose
      values are means over the seeds.
    of: the metric, see `parse` of `classifiers` and of `gans`, and `parse_points`; '':
      the default.
    method: 'exact', by `adjoint`, or 'tracin', by the checkpoints that were kept, for
      classifiers.
    step: of the checkpoint; None: the newest or, with early stopping, the best.
    memory: GB for training states, for 'exact'.
    tell: is called with (updates traced back, their number).

  Raises:
    ValueError: no checkpoint, or a metric, method or budget that is not valid; for
      'exact' a network with BatchNorm, or an optimiser without a derivative; or
      training examples that have changed.
  """
  if method not in METHODS:
    raise ValueError(names.unknown('--method', method, METHODS))
  if not memory > 0:
    raise ValueError(f'--memory must be a number of GB above 0, got {memory}')
  run = runs.restore(workdir, step)
  config = run.config
  kind = _kind(workdir, config, method)
  target = kind.parse(of, config)
  if method == 'exact':
    kind.check(run)
    adjoint.plan(run.step, _num_bytes(run.state), memory * adjoint.GB)
  inputs = TASKS[config['task']].load(config, run.mesh.devices.size, runs.OTHERS)
  unchanged.record(workdir, config, inputs, True, runs.OTHERS)
  if method == 'exact':
    measure = kind.measure(run, target)
    slope, soft, hard, difference = _exact(run, inputs, kind, measure, memory, tell)
    used = [run.step]
  else:
    used = [one for one in checkpoint.list_steps(workdir) if one <= run.step]
    slope, soft, hard = kind.approximate(run, workdir, inputs, target, used)
    difference = None
  # Left out is weight 0 in place of that of its class (data.class_weights).
  weight = 1.0 if inputs.pool.weight is None else inputs.pool.weight
  sign = 1 if target.higher else -1
  return Influence(
      config, run.step, method, target, sign * slope * weight, _count(inputs, run.step),
      _parts(config, inputs), inputs.pool, inputs.class_names, soft, hard, difference,
      used)


def _kind(workdir, config, method) -> Kind:
  """Raises ValueError for a run whose examples have no value by this method."""
  task = TASKS[config['task']]
  if 'influence' not in task.commands:
    raise ValueError(
        f'expected a run of classifiers or of GANs in {workdir}, got one of '
        f'{task.title}; valid modes for it: --mode={", ".join(task.commands)}, report')
  kind = KINDS[config['task']]
  if method == 'tracin' and not kind.approximate:
    raise ValueError(
        f'--method=tracin is for classifiers, and {workdir} holds {task.title}; leave '
        'it out')
  return kind


def _num_bytes(state):
  return sum(x.nbytes for x in jax.tree.leaves(state))


def _exact(run, inputs, kind, measure, memory, tell):
  """(dE/dw of each example of the pool, soft metric, metric, difference)."""
  replay = adjoint.make_replay(run.config, inputs, run.trainer, run.mesh)
  start = train.initial_state(run.config, run.trainer, run.mesh)
  otherwise = ', or use --method=tracin' if kind.approximate else ''
  _check_derivative(run.config, replay, start, otherwise)
  state = start
  for step in range(run.step):
    state = replay.advance(state, step)
  difference = max(
      float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())
      for a, b in zip(adjoint.floats(state.nets), adjoint.floats(run.state.nets),
                      strict=True) if a.size)
  soft, cotangent, hard = measure(state)
  slope = np.zeros(len(inputs.pool.label))

  def add(rows, weights):
    filled = rows >= 0
    np.add.at(slope, rows[filled], weights[filled].astype(np.float64))

  width, _ = adjoint.plan(run.step, _num_bytes(start), memory * adjoint.GB)
  adjoint.trace_back(replay, start, 0, run.step, cotangent, width, add,
                     lambda step: tell(run.step - step, run.step))
  if not np.isfinite(slope).all():
    raise ValueError(
        f'the derivative is not finite for {(~np.isfinite(slope)).sum()} of '
        f'{len(slope)} examples: the training is too unstable to be traced back; train '
        f'with a lower learning rate{otherwise}')
  return slope, soft, hard, difference


def _check_derivative(config, replay, start, otherwise):
  """Raises ValueError if the optimiser has no derivative at the first update."""
  ones = [np.ones(x.shape, x.dtype) for x in adjoint.floats(start)]
  if not replay.finite(replay.adjoint(start, 0, ones)):
    raise ValueError(
        f'the optimizer {config["optimizer"]["name"]!r} has no derivative where a '
        'gradient has always been 0 (the square root of Adam): train with '
        f"optimizer={{'name': 'adam', 'eps_root': 1e-8, ...}} or with sgd{otherwise}")


def _count(inputs: Inputs, steps: int) -> np.ndarray:
  """How many times each example of the pool was in a batch."""
  taken = np.zeros(len(inputs.pool.label), int)
  for step in range(steps):
    for rows in jax.tree.leaves(inputs.stream.index(step)):
      np.add.at(taken, rows[rows >= 0], 1)
  return taken


def _parts(config: Mapping[str, Any], inputs: Inputs) -> dict[str, Part]:
  """Where the training sets are in the pool, and in their sources."""
  if inputs.negatives is None:  # points
    sizes = {'negatives': int((inputs.pool.label < 0).sum())}
  else:
    sizes = {name: len(one.label) for name, one in inputs.negatives.items()}
  sizes = {subsets.POSITIVES: len(inputs.pool.label) - sum(sizes.values()), **sizes}
  parts, first = {}, 0
  for name, num in sizes.items():
    parts[name] = Part(first, *subsets.origin(config['data'], name, num))
    first += num
  return parts
