"""Influence on metrics of GANs of images and of GANs of points.

    target = parse('fid', config)
    soft, slopes, hard = measure(run, target)(state)   # slopes: by the floats of state
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import losses, runs
from nat_jax.influence import adjoint, samples, targets
from nat_jax.influence.classifiers import NOT_SEPARABLE
from nat_jax.runtime import parallel
from nat_jax.task import Run
from nat_jax.tasks.points import measures


def parse(text: str, config: Mapping[str, Any]) -> targets.Target:
  """Reads a metric of generated images, see `samples.parse`.

  Raises:
    ValueError: another metric, or a run without a classifier for it.
  """
  samples.check(config)
  return samples.parse(text)


def parse_points(text: str, config: Mapping[str, Any]) -> targets.Target:
  """Reads a metric of generated points, see `targets.parse_points`."""
  del config
  return targets.parse_points(text)


def check(run: Run) -> None:
  """Raises ValueError where the exact method cannot work."""
  check_losses(run.config)
  check_networks(run)


def check_losses(config: Mapping[str, Any]) -> None:
  """Raises ValueError for losses with parts that are constants to a derivative."""
  trainer = config['trainer']['name']
  if trainer in ('adaptive_mix', 'gaan'):
    raise ValueError(
        f'the trainer {trainer!r} has terms that are constants to a derivative, so '
        "that its influence would not be exact; train with trainer.name 'gan'")
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


def check_networks(run: Run) -> None:
  """Raises ValueError for networks of a GAN whose layers have no exact derivative."""
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
    if name != 'gen' and any('BatchStatsNorm' in path or path.endswith(
        ("['mean']", "['var']")) for path in paths):
      raise ValueError(
          f'the discriminator {run.config["discriminator"]["name"]!r} {NOT_SEPARABLE} '
          'Train one without (--config.discriminator.batch_norm=False, or '
          'mlp_discriminator)')


def measure(
    run: Run, target: targets.Target
) -> Callable[[Any], tuple[float, list[Any], float]]:
  """Returns state -> (soft metric, its derivatives by the floats, metric)."""
  return samples.make_measure(run, target, runs.OTHERS)


def measure_points(
    run: Run, target: targets.Target
) -> Callable[[Any], tuple[float, list[Any], float]]:
  """Returns state -> (log-likelihood, its derivatives by the floats, log-likelihood).

  The points are held out by another seed of the data, and the noise is fixed.
  """
  config = run.config
  held_out = measures.hold_out(config['data'], config['num_samples']).points
  z = np.random.default_rng(0).standard_normal(
      (config['num_samples'], config['generator']['latent'])).astype(np.float32)

  def value_and_grad(given, nothing):
    state, points, z = given

    def mean(leaves):
      made = run.trainer.heads['samples'](
          adjoint.with_floats(state, leaves), {'z': z})
      return jnp.mean(jnp.stack([target.terms(one, points) for one in made]))

    return jax.value_and_grad(mean)(adjoint.floats(state))

  compiled = parallel.wrap_head(value_and_grad, run.mesh)

  def at(state):
    value, slopes = compiled((state, held_out.astype(np.float32), z), {})
    return float(value), slopes, float(value)

  return at
