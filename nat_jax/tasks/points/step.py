"""Trains GANs of points for many seeds in parallel.

    inputs = load(config, num_devices=1)
    trainer = build(config, inputs.shape, others)

All seeds are one program, a `vmap` of the GAN's step: the seeds are the first axis of
the arrays of the state and the last axis of the arrays of a batch.
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
from nat_jax.tasks import gaan, images
from nat_jax.tasks.gan import build as gan_build


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

  @property
  def num(self) -> int:
    """The number of stacked generators; 1 of other generators."""
    return getattr(self.generator, 'num', 1)

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


class UniformNoise(nn.Module):
  """A generator of points with noise that is uniform in [-1, 1] in each dimension.

  The noise is 2 F(z) - 1, F the cumulative distribution function of the normal
  distribution, of normal noise z.

  Attributes:
    generator: the generator that takes this noise.
    axis_name: not used.
  """

  generator: nn.Module
  axis_name: str | None = None

  @property
  def latent(self) -> int:
    return self.generator.latent

  @property
  def num(self) -> int:
    """The number of stacked generators; 1 of other generators."""
    return getattr(self.generator, 'num', 1)

  def __call__(
      self, z: jax.Array, labels: jax.Array | None = None,
      mask: jax.Array | None = None,
  ) -> jax.Array:
    """Returns points [n, d] of normal noise z [n, latent]."""
    return self.generator(gaan.PRIORS['uniform'](z), labels, mask)


def _grid_noise(generator, **kwargs):
  if generator.latent != 1:
    raise ValueError(
        f"noise 'grid' needs a generator with latent 1, got {generator.latent}; set "
        "generator.latent to 1, or noise={'name': 'normal'}")
  return GridNoise(generator, **kwargs)


@registry.arguments(gaan.Setup)
def _gaan(
    *, encoder: Mapping[str, Any], objective: losses.GanObjective, num_classes: int,
    **settings: Any,
) -> Trainer:
  """The trainer of a GAN with an encoder of this spec."""
  del objective, num_classes  # `build` checks that they do not matter
  return gaan.gaan(encoder=gaan.make_encoder(
      encoder, settings['generator'].latent, settings['image_shape']), **settings)


TRAINERS = {**gan_build.TRAINERS, 'gaan': _gaan}
NOISES = {'grid': _grid_noise, 'normal': lambda generator: generator,
          'uniform': UniformNoise}


def seeds_of(config: Mapping[str, Any]) -> list[int]:
  """Returns the seeds that are trained in parallel."""
  return [config['seed'] + i for i in range(config['num_seeds'])]


def labels_of(points: data.Points) -> np.ndarray:
  """Returns the classes of the data, int32 [n]; all 0 where there is one class."""
  none = np.zeros(len(points.positive), np.int32)
  return none if points.label is None else points.label


def num_classes_of(config: Mapping[str, Any]) -> int:
  """Returns the number of classes of the data of a config."""
  points = registry.build(data.POINTS, config['data'], what='set of points')
  return int(labels_of(points).max()) + 1


def load(
    config: Mapping[str, Any], num_devices: int = 1, others: Others | None = None
) -> Inputs:
  """Draws the points and makes the stream of batches, which differ between seeds.

  Args:
    config: of GANs of points.
    num_devices: number of devices that share a batch.
    others: not used.

  Returns:
    `Inputs` whose stream has indices int32 [n, n_critic, seeds].

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
          sizes[0], config['batch_size'], num_negatives,
          repeats=config['trainer'].get('n_critic', 1), multiple_of=num_devices)
      for seed in seeds_of(config)]

  def index(step):
    rows = [stream.index(step) for stream in streams]
    return {name: np.stack([one[name] for one in rows], -1) for name in rows[0]}

  pool = data.Pool(
      np.concatenate([points.positive, points.negative]),
      np.concatenate([labels_of(points), np.full(sizes[1], -1, np.int32)]))
  stream = data.Stream(streams[0].num_slots * len(streams), index)
  return Inputs(pool, stream, points.positive.shape[1:])


def _networks(config, shape, num_classes, num_outputs):
  """The generator, in most cases with the noise of the config, and the discriminator.
  """
  given = num_classes if config['trainer'].get('labels') == 'predefined' else 0
  generator = registry.build(
      models.GENERATORS, config['generator'], what='generator', image_shape=shape,
      num_classes=given)
  discriminator = registry.build(
      models.DISCRIMINATORS, config['discriminator'], what='discriminator',
      image_shape=shape, num_outputs=num_outputs)
  if config['trainer']['name'] == 'gaan':  # draws z itself, since G gets codes too
    return generator, discriminator
  return registry.build(
      NOISES, config['noise'], what='noise', generator=generator), discriminator


def build(
    config: Mapping[str, Any], shape: tuple[int, ...], others: Others
) -> Trainer:
  """Builds the trainer of all seeds; results do not depend on the other seeds.

  Args:
    config: of GANs of points.
    shape: (d,) of one point.
    others: not used.

  Returns:
    A `Trainer`. Its head 'samples' maps {'z': [n, latent]} to points [seeds, n, d], as
    many of each class where the generator is conditional; its head 'boundary' maps
    points [n, d] to how much D takes them for data, in [0, 1], [seeds, n]
    (`losses.GanObjective.realness`), without the class term of a projection D.

  Raises:
    ValueError: an unknown name, or settings that are not valid.
    TypeError: an unknown or a missing argument of a spec.
  """
  del others
  _check_encoder(config)
  num_classes = num_classes_of(config)
  objective = losses.make_gan_objective(config['loss'], num_classes)
  generator, discriminator = _networks(
      config, shape, num_classes, objective.num_outputs)
  schedule = optim.make_schedule(config['schedule'], config['steps'])
  n_critic = config['trainer'].get('n_critic', 1)
  gen_tx = optim.make_optimizer(config['optimizer'], schedule)
  # Orthogonal regularisation is of G. The count of D's optimiser grows by n_critic.
  others_of = {**config['optimizer'], 'orthogonal': 0.0}
  disc_tx = optim.make_optimizer(others_of, lambda count: schedule(count // n_critic))
  trainer, of_gaan = dict(config['trainer']), {}
  if trainer['name'] == 'gaan':
    trainer['prior'] = config['noise']['name']
    of_gaan = {'enc_tx': optim.make_optimizer(others_of, schedule),
               'steps': config['steps']}
  one = registry.build(
      TRAINERS, trainer, what='trainer', **of_gaan,
      generator=generator, discriminator=discriminator, objective=objective,
      gen_tx=gen_tx, disc_tx=disc_tx, num_classes=num_classes, image_shape=shape,
      augment=lambda points, keys: points, normalise=lambda points: points,
      penalties=[registry.build(losses.PENALTIES, penalty, what='penalty')
                 for penalty in config['penalties']],
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
      return objective.realness(outputs)

    return jax.vmap(of_one)(state.nets['disc'])

  return one._replace(
      init=init, step=step, heads={
          'samples': _make_samples(config, shape, generator, one, num_classes),
          'boundary': boundary},
      learning_rate=schedule)


def _make_samples(config, shape, generator, one, num_classes):
  """The head 'samples' of all seeds; `one` is the trainer of a seed."""
  by_batch = getattr(generator, 'batch_norm', 'none') in ('batch', 'class')

  def samples(state, noise):
    # As many of each class, in an order of which no part, such as every fifth sample
    # of a figure, has some of the classes only.
    labels = np.random.default_rng(0).permutation(
        np.arange(len(noise['z'])) % num_classes)
    given = {'z': noise['z'], 'label': jnp.asarray(labels)}
    if not by_batch:
      return jax.vmap(lambda state: one.heads['samples'](state, given))(state)
    # With the statistics of batches as in training; the last one is filled up.
    num, size = len(labels), config['batch_size']
    rows = np.resize(np.arange(num), (-(-num // size), size))
    batches = jax.tree.map(lambda x: x[rows], given)
    points = jax.vmap(lambda state: jax.lax.map(
        lambda batch: one.heads['samples'](state, batch), batches))(state)
    return points.reshape(len(points), -1, *shape)[:, :num]

  return samples


def _check_encoder(config):
  """Raises ValueError for a GAN with an encoder whose loss or z would be another."""
  if config['trainer']['name'] != 'gaan':
    return
  if config['trainer'].get('prior', 'normal') != 'normal':
    raise ValueError(
        "the noise of points is the key `noise`; set noise={'name': 'uniform'} and "
        f"trainer.prior='normal', got {config['trainer']['prior']!r}")
  if config['noise']['name'] not in gaan.PRIORS:
    raise ValueError(
        "trainer 'gaan' needs noise that codes can be compared with; set noise to "
        f"{' or '.join(map(repr, gaan.PRIORS))}, got {config['noise']['name']!r}")
  if config['loss'] != {'name': 'gan'}:
    raise ValueError(
        "trainer 'gaan' has losses of its own; set loss={'name': 'gan'}, got loss "
        f"{config['loss']['name']!r}")
