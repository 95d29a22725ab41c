"""The value of every training example, positive or negative, for a metric.

    found = influence('runs/digits', of='ncr@0.8:validation_digits_6_7')
    found.value          # [examples of the pool]; above 0: the metric is better with it
    found.sets           # name -> which examples those are

  adjoint  the exact derivative by the weights of examples, by repeating the training
  targets  soft NCR, loss, soft accuracy, log-likelihood, as differentiable functions
  samples  Inception Score and Frechet distance, as differentiable functions
  tracin   a cheap approximation from the checkpoints that were kept
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import data, losses, metrics, names, runs, schema, train
from nat_jax.influence import adjoint, samples, targets, tracin
from nat_jax.runtime import checkpoint, parallel
from nat_jax.task import Inputs, Run
from nat_jax.tasks import TASKS, subsets
from nat_jax.tasks.classify import inputs as inputs_lib
from nat_jax.tasks.points import measures

METHODS = ('exact', 'tracin')
MEMORY = 2.0  # GB for training states
NOT_SEPARABLE = (
    'has BatchNorm, which normalises an example by the others of its batch: the effect '
    'of one example is not separable, and its exact influence not defined.')
MEANING = (
    'value: by how much the metric would be worse if the example had been left out of '
    'every batch, to first order, with the number that means divide by unchanged. '
    'Above 0: helpful. Below 0: harmful; the metric would be better without it. '
    '0: without effect, or never in a batch.')


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
    of: the metric, see `targets.parse`, `samples.parse` and `targets.parse_points`;
      '': the default.
    method: 'exact', by `adjoint`, or 'tracin', by the checkpoints that were kept, for
      classifiers.
    step: of the checkpoint; None: the newest or, with early stopping, the best.
    memory: GB for training states, for 'exact'.
    tell: is called with (updates traced back, their number).

  Raises:
    ValueError: no checkpoint, or a metric, method or budget that is not valid; for
      'exact' a network with BatchNorm, or an optimiser without a derivative.
  """
  if method not in METHODS:
    raise ValueError(names.unknown('--method', method, METHODS))
  if not memory > 0:
    raise ValueError(f'--memory must be a number of GB above 0, got {memory}')
  run = runs.restore(workdir, step)
  config = run.config
  _check_task(workdir, config, method)
  target = _parse(of, config)
  if method == 'exact':
    _check_exact(run, memory)
  measure, shown = _MEASURES[config['task']](run, target)
  inputs = TASKS[config['task']].load(config, run.mesh.devices.size, runs.OTHERS)
  if method == 'exact':
    slope, soft, hard, difference = _exact(run, inputs, measure, memory, tell)
    used = [run.step]
  else:
    used = [one for one in checkpoint.list_steps(workdir) if one <= run.step]
    slope, soft, hard = _tracin(run, workdir, inputs, target, shown, used)
    difference = None
  sign = 1 if target.higher else -1
  return Influence(
      config, run.step, method, target, sign * slope, _count(inputs, run.step),
      _parts(config, inputs), inputs.pool, inputs.class_names, soft, hard, difference,
      used)


def _check_task(workdir, config, method):
  """Raises ValueError for a run whose examples have no value by this method."""
  task = TASKS[config['task']]
  if 'influence' not in task.commands:
    raise ValueError(
        f'expected a run of classifiers or of GANs in {workdir}, got one of '
        f'{task.title}; valid modes for it: --mode={", ".join(task.commands)}, report')
  if method == 'tracin' and config['task'] != 'classify':
    raise ValueError(
        f'--method=tracin is for classifiers, and {workdir} holds {task.title}; leave '
        'it out')


def _parse(of, config):
  """The target; raises ValueError for one that runs of this task do not have."""
  if config['task'] == 'points':
    return targets.parse_points(of)
  if config['task'] == 'gan':
    samples.check(config)
    return samples.parse(of)
  return targets.parse(of or targets.default(config), config)


def _check_exact(run: Run, memory: float) -> None:
  """Raises ValueError where the exact method cannot work, before any data is loaded."""
  _check_losses(run.config)
  _check_networks(run)
  stats = jax.tree_util.tree_leaves_with_path(
      {name: net.batch_stats for name, net in run.state.nets.items()})
  if any(path[-1].key in ('mean', 'var') for path, _ in stats):
    raise ValueError(
        f'the network {run.config["model"]["name"]!r} {NOT_SEPARABLE} Use '
        '--method=tracin, or train a network without BatchNorm '
        '(--config.model.name=mlp, vit_s16)')
  adjoint.plan(run.step, _num_bytes(run.state), memory * adjoint.GB)


def _check_losses(config):
  """Raises ValueError for updates with parts that are constants to a derivative."""
  trainer = config['trainer']['name']
  if trainer in ('adaptive_mix', 'gaan'):
    raise ValueError(
        f'the trainer {trainer!r} has terms that are constants to a derivative, so '
        'that its influence would not be exact; train with another one (trainer.name '
        f"{'supervised' if config['task'] == 'classify' else 'gan'!r})")
  if config['task'] == 'classify':
    return
  # Whether a loss compares examples does not depend on the number of classes.
  objective = losses.make_gan_objective(config['loss'], 3)
  for key, given, advice in (
      ('loss', objective.whole_batch and config['loss']['name'], "'gan' or 'hinge'"),
      ('discriminator.kernels', config['discriminator'].get('kernels'), '0')):
    if given:
      raise ValueError(
          f'{key}={given!r} compares the examples of a batch, so that the effect of '
          'one example is not separable, and its exact influence not defined; train '
          f'with {key} {advice}')


def _check_networks(run):
  """Raises ValueError for networks of a GAN whose layers have no exact derivative."""
  if run.config['task'] == 'classify':
    return
  for name, net in run.state.nets.items():
    leaves = jax.tree_util.tree_leaves_with_path((net.params, net.batch_stats))
    paths = [jax.tree_util.keystr(path) for path, _ in leaves]
    what = 'generator' if name == 'gen' else 'discriminator'
    if any(path.endswith("['u']") for path in paths):
      raise ValueError(
          f'the {what} has spectral norm, whose power iteration is a constant to a '
          'derivative, so that its influence would not be exact; train with '
          f"{what}.norm 'weight' or 'none'")
    # BatchNorm of a generator normalises what is generated, and no training example.
    if name != 'gen' and any('BatchStatsNorm' in path for path in paths):
      raise ValueError(
          f'the discriminator {run.config["discriminator"]["name"]!r} {NOT_SEPARABLE} '
          'Train one without (--config.discriminator.batch_norm=False, or '
          'mlp_discriminator)')


def _num_bytes(state):
  return sum(x.nbytes for x in jax.tree.leaves(state))


def _exact(run, inputs, measure, memory, tell):
  """(dE/dw of each example of the pool, soft metric, metric, difference)."""
  replay = adjoint.make_replay(run.config, inputs, run.trainer, run.mesh)
  start = train.initial_state(run.config, run.trainer, run.mesh)
  _check_derivative(run.config, replay, start)
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
        'with a lower learning rate'
        + (', or use --method=tracin' if run.config['task'] == 'classify' else ''))
  return slope, soft, hard, difference


def _check_derivative(config, replay, start):
  """Raises ValueError if the optimiser has no derivative at the first update."""
  ones = [jnp.ones_like(x) for x in adjoint.floats(start)]
  if not replay.finite(replay.adjoint(start, 0, ones)):
    raise ValueError(
        f'the optimizer {config["optimizer"]["name"]!r} has no derivative where a '
        'gradient has always been 0 (the square root of Adam): train with '
        "optimizer={'name': 'adam', 'eps_root': 1e-8, ...} or with sgd"
        + (', or use --method=tracin' if config['task'] == 'classify' else ''))


def _of_classifier(run, target):
  """(state -> (soft metric, its derivatives, metric), the evaluation set)."""
  part = run.config['evals'][target.set].get('part', schema.TEST)
  shown = inputs_lib.load_evals(
      run.config, {}, [part], runs.OTHERS)[target.set].arrays
  return functools.partial(_measure, run, target=target, shown=shown), shown


_MEASURES = {  # task -> (run, target) -> as `_of_classifier`
    'classify': _of_classifier,
    'gan': lambda run, target: (
        samples.make_measure(run, target, runs.OTHERS), None),
    'points': lambda run, target: (
        functools.partial(_likelihood, run, target=target), None)}


def _measure(run, state, target, shown):
  """(soft metric, its derivatives by the state, metric) of a classifier."""
  soft, cotangent, logits = differentiate(run, state, target, shown)
  return soft, cotangent, _hard(target, logits, shown.label, run.config)


def _likelihood(run, state, target):
  """(log-likelihood, its derivatives by the state, log-likelihood), means over seeds.

  The points are held out by another seed of the data, and the noise is fixed.
  """
  config = run.config
  held_out = measures.hold_out(config['data'], config['num_samples']).points
  z = np.random.default_rng(0).standard_normal(
      (config['num_samples'], config['generator']['latent'])).astype(np.float32)

  def value_and_grad(given, nothing):
    state, points, z = given

    def mean(leaves):
      samples = run.trainer.heads['samples'](
          adjoint.with_floats(state, leaves), {'z': z})
      return jnp.mean(jnp.stack([target.terms(one, points) for one in samples]))

    return jax.value_and_grad(mean)(adjoint.floats(state))

  value, grads = parallel.wrap_head(value_and_grad, run.mesh)(
      (state, held_out.astype(np.float32), z), {})
  return float(value), grads, float(value)


def differentiate(
    run: Run, state: Any, target: targets.Target, shown: data.Arrays
) -> tuple[float, list[Any], np.ndarray]:
  """A metric of an evaluation set and its derivative by the state.

  Args:
    run: its trainer, mesh and config.
    state: to evaluate.
    target: the metric.
    shown: the evaluation set.

  Returns:
    (the metric, its derivatives by `adjoint.floats(state)`, logits [n, k]).
  """
  def value_and_grad(state, batch):
    def total(leaves):
      logits = run.trainer.heads['logits'](
          adjoint.with_floats(state, leaves), batch['image'])
      terms = target.terms(logits, batch['label'])
      return jnp.where(batch['filled'], terms, 0).sum(), logits

    return jax.value_and_grad(total, has_aux=True)(adjoint.floats(state))

  devices = run.mesh.devices.size
  size = -(-run.config['eval_batch_size'] // devices) * devices
  compiled = parallel.wrap_head(value_and_grad, run.mesh)
  num, sums, logits = len(shown.label), None, []
  for first in range(0, num, size):
    image, label = (np.asarray(x[first:first + size]) for x in (
        shown.image, shown.label))
    missing = size - len(label)
    (total, outputs), grads = compiled(state, {
        'image': np.pad(image, [(0, missing), *[(0, 0)] * (image.ndim - 1)]),
        'label': np.pad(label, (0, missing)),
        'filled': np.arange(size) < len(label)})
    logits.append(np.asarray(outputs)[:len(label)])
    new = (total, grads)
    sums = new if sums is None else jax.tree.map(jnp.add, sums, new)
  total, grads = sums
  return float(total) / num, [x / num for x in grads], np.concatenate(logits)


def _tracin(run, workdir, inputs, target, shown, steps):
  """(approximate dE/dw of each example of the pool, soft metric, metric)."""
  config = run.config
  see = tracin.make_outputs(
      run.trainer, run.state, run.shape, run.mesh, config['eval_batch_size'])
  doses = tracin.doses(config, inputs, run.trainer.learning_rate, steps)
  slope = np.zeros(len(inputs.pool.label))
  for dose, step in zip(doses, steps, strict=True):
    state = run.state if step == run.step else runs.restore(workdir, step).state
    seen = see(state, shown.image)
    slope += dose * tracin.slopes(
        config, see(state, inputs.pool.image), inputs.pool.label, target.terms, seen,
        shown.label)
  soft = float(np.mean(target.terms(jnp.asarray(seen[1]), shown.label)))
  return slope, soft, _hard(target, seen[1], shown.label, config)


def _hard(target, logits, labels, config):
  """The metric that `target` is the differentiable form of, in float64."""
  name, _, rest = target.text.partition(':')[0].partition('@')
  if name == 'loss':
    return metrics.negative_log_likelihood(logits, labels)
  scores = metrics.scores_from_logits(logits, config['num_classes'])
  if name == 'accuracy':
    return float(np.mean(scores['prediction'] == labels))
  rate, = metrics.negative_confidence_rate(
      scores['max_prob'], [float(rest)]).values()
  return rate


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
