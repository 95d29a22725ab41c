"""Trains GANs of points for many seeds in parallel.

    inputs = load(config, num_devices=1)
    trainer = build(config, inputs.shape, others)

All seeds are one program, a `vmap` of the GAN's step: the seeds are the first axis of
the arrays of the state and the last axis of the arrays of a batch. The loss is that of
the original GAN. D's target is 1 for data and 0 for generated points and negatives.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import data, losses, models, registry
from nat_jax.runtime import optim
from nat_jax.task import GLOBAL, Axis, Inputs, Others, Trainer
from nat_jax.tasks import images
from nat_jax.tasks.gan.step import gan


class GridNoise(nn.Module):
  """A generator of points with evenly spaced noise instead of normal noise.

  The noise of point i = 0..n-1 is -reach + 2 reach i / (n - 1) + jitter u, u ~ U(0, 1);
  u is the cumulative distribution function of the normal distribution at z.

  Attributes:
    generator: the generator that takes this noise; its latent must be 1.
    reach: the evenly spaced values are in [-reach, reach].
    jitter: factor of the uniform noise.
    axis_name: not used.

  Reference: AYLIEN/gan-intro, the generator's distribution.
  """

  generator: nn.Module
  reach: float = 8.0
  jitter: float = 0.01
  axis_name: str | None = None

  @property
  def latent(self) -> int:
    return self.generator.latent

  def __call__(
      self, z: jax.Array, labels: jax.Array | None = None,
      mask: jax.Array | None = None,
  ) -> jax.Array:
    """Returns points [n, d].

    Args:
      z: normal noise, [n, 1].
      labels, mask: passed on to the generator.
    """
    grid = jnp.linspace(-self.reach, self.reach, len(z))[:, None]
    return self.generator(
        grid + self.jitter * jax.scipy.stats.norm.cdf(z), labels, mask)


def _grid_noise(generator, **kwargs):
  if generator.latent != 1:
    raise ValueError(
        f"noise 'grid' needs a generator with latent 1, got {generator.latent}; set "
        "generator.latent to 1, or noise={'name': 'normal'}")
  return GridNoise(generator, **kwargs)


NOISES = {'grid': _grid_noise, 'normal': lambda generator: generator}


def seeds_of(config: Mapping[str, Any]) -> list[int]:
  """Returns the seeds that are trained in parallel."""
  return [config['seed'] + i for i in range(config['num_seeds'])]


def load(
    config: Mapping[str, Any], num_devices: int = 1, others: Others | None = None
) -> Inputs:
  """Draws the points and makes the stream of batches, which differ between seeds.

  Args:
    config: of GANs of points.
    num_devices: number of devices that share a batch.
    others: not used.

  Returns:
    `Inputs` whose stream has indices int32 [n, 1, seeds].

  Raises:
    ValueError: points or batch sizes that are not valid, or pmap on several devices.
  """
  del others
  images.check_devices(config, num_devices, prefix='')
  if num_devices > 1 and config['run']['mode'] == 'pmap':
    raise ValueError(
        'GANs of points need the global batch, which run.mode=pmap splits; use '
        '--config.run.mode=jit, or one device (CUDA_VISIBLE_DEVICES=0)')
  points = registry.build(data.POINTS, config['data'], what='set of points')
  sizes = len(points.positive), len(points.negative)
  num_negatives = config['negatives_per_batch'] if config['negatives'] else 0
  streams = [
      data.apart(
          data.make_stream(
              sizes[0], {'negatives': sizes[1]} if num_negatives else {}, {},
              batch_size=config['batch_size'], negatives_per_batch=num_negatives,
              inside=False, seed=seed),
          sizes[0], config['batch_size'], num_negatives, multiple_of=num_devices)
      for seed in seeds_of(config)]

  def index(step):
    rows = [stream.index(step) for stream in streams]
    return {name: np.stack([one[name] for one in rows], -1) for name in rows[0]}

  pool = data.Pool(
      np.concatenate([points.positive, points.negative]),
      np.repeat(np.array([0, -1], np.int32), sizes))
  stream = data.Stream(streams[0].num_slots * len(streams), index)
  return Inputs(pool, stream, points.positive.shape[1:])


def build(
    config: Mapping[str, Any], shape: tuple[int, ...], others: Others
) -> Trainer:
  """Builds the trainer of all seeds; results do not depend on the other seeds.

  Args:
    config: of GANs of points.
    shape: (d,) of one point.
    others: not used.

  Returns:
    A `Trainer`. Its head 'samples' maps {'z': [n, latent]} to points [seeds, n, d]; its
    head 'boundary' maps points [n, d] to the probability D in [0, 1], [seeds, n].

  Raises:
    ValueError: an unknown name, or settings that are not valid.
    TypeError: an unknown or a missing argument of a spec.
  """
  del others
  objective = losses.make_gan_objective({'name': 'gan'}, 1)
  generator, discriminator = (
      registry.build(table, config[what], what=what, image_shape=shape, **extra)
      for table, what, extra in (
          (models.GENERATORS, 'generator', {}),
          (models.DISCRIMINATORS, 'discriminator',
           {'num_outputs': objective.num_outputs})))
  generator = registry.build(
      NOISES, config['noise'], what='noise', generator=generator)
  schedule = optim.make_schedule(config['schedule'], config['steps'])
  tx = optim.make_optimizer(config['optimizer'], schedule)
  one = gan(
      generator=generator, discriminator=discriminator, objective=objective,
      gen_tx=tx, disc_tx=tx, num_classes=1, image_shape=shape,
      augment=lambda points, keys: points, normalise=lambda points: points,
      negative_weight=config['negative_weight'])
  seeds = np.array(seeds_of(config), np.uint32)

  def init(key):
    del key  # the key of a network depends on its own seed only
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), seeds)
    return jax.vmap(one.init)(keys)

  def step(state, frozen, batch, *, axis: Axis = GLOBAL):
    del frozen
    state, metrics = jax.vmap(
        lambda state, batch: one.step(state, {}, batch, axis=axis), (0, 2))(
            state, batch)
    return state, jax.tree.map(lambda x: x.sum(0), metrics)

  def boundary(state, points):
    def of_one(disc):
      outputs, _ = discriminator.apply(disc.variables, points, train=False)
      return jax.nn.sigmoid(outputs[:, 0])

    return jax.vmap(of_one)(state.nets['disc'])

  def samples(state, noise):
    given = {'z': noise['z'], 'label': None}
    return jax.vmap(lambda state: one.heads['samples'](state, given))(state)

  return one._replace(
      init=init, step=step, heads={'samples': samples, 'boundary': boundary},
      learning_rate=schedule)
