"""Influence on metrics of classifiers: the metrics, exact and approximate.

    target = parse('ncr@0.8:validation_digits_6_7', config)
    soft, slopes, hard = measure(run, target)(state)   # slopes: by the floats of state
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import data, metrics, runs, schema
from nat_jax.influence import adjoint, targets, tracin
from nat_jax.runtime import parallel
from nat_jax.task import Inputs, Run
from nat_jax.tasks.classify import inputs as inputs_lib

NOT_SEPARABLE = (
    'has BatchNorm, which normalises an example by the others of its batch: the effect '
    'of one example is not separable, and its exact influence not defined.')


def parse(text: str, config: Mapping[str, Any]) -> targets.Target:
  """Reads a metric of an evaluation set, see `targets.parse`; '': the default."""
  return targets.parse(text or targets.default(config), config)


def check(run: Run) -> None:
  """Raises ValueError where the exact method cannot work."""
  trainer = run.config['trainer']['name']
  if trainer == 'adaptive_mix':
    raise ValueError(
        f'the trainer {trainer!r} has terms that are constants to a derivative, so '
        "that its influence would not be exact; train with trainer.name 'supervised'")
  stats = jax.tree_util.tree_leaves_with_path(
      {name: net.batch_stats for name, net in run.state.nets.items()})
  if any(path[-1].key in ('mean', 'var') for path, _ in stats):
    raise ValueError(
        f'the network {run.config["model"]["name"]!r} {NOT_SEPARABLE} Use '
        '--method=tracin, or train a network without BatchNorm '
        '(--config.model.name=mlp, vit_s16)')


def measure(
    run: Run, target: targets.Target
) -> Callable[[Any], tuple[float, list[Any], float]]:
  """Returns state -> (soft metric, its derivatives by the floats, metric)."""
  shown = _evaluation_set(run, target)

  def at(state):
    soft, slopes, logits = differentiate(run, state, target, shown)
    return soft, slopes, _hard(target, logits, shown.label, run.config)

  return at


def approximate(
    run: Run, workdir: str, inputs: Inputs, target: targets.Target, steps: list[int]
) -> tuple[np.ndarray, float, float]:
  """The approximate value of each example by `tracin`.

  Args:
    run: the one in `workdir`.
    workdir: of the checkpoints.
    inputs: training examples and their stream.
    target: the metric.
    steps: of the checkpoints, in rising order.

  Returns:
    (dE/dw of each example of the pool, soft metric, metric) at the last checkpoint.
  """
  config, shown = run.config, _evaluation_set(run, target)
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


def _evaluation_set(run, target):
  part = run.config['evals'][target.set].get('part', schema.TEST)
  return inputs_lib.load_evals(
      run.config, {}, [part], runs.OTHERS, run.class_names)[target.set].arrays


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
