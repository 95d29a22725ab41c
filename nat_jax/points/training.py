"""Trains a GAN of points with many seeds side by side, and looks at it on the way.

    points = registry.build(data.POINTS, config['data'])
    seen = run_seeds(config, points)        # samples and boundary of every snapshot

All seeds are one program on one device: `vmap` over seeds, `scan` over steps. Without
negatives it is the original GAN; with them their target is 0, as that of samples.
"""

import time
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import data, losses, models, registry, trainers
from nat_jax.runtime import optim, parallel
from nat_jax.task import Trainer

GRID = {1: 301, 2: 61}  # points of an axis on which D is looked at
BATCHES = 2**31  # folded into a seed's key: no step has this number


class GridNoise(nn.Module):
  """Gives a generator of points evenly spaced noise instead of normal.

  The i-th of n points gets -reach + 2 reach i / (n - 1) + jitter * U(0, 1); the uniform
  number is the normal one's place in its distribution.

  Attributes:
    generator: its latent must be 1.
    reach: half the length that the noise is spread over.
    jitter: length of the uniform addition.

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
    """z [n, 1], normal, to points [n, d]."""
    grid = jnp.linspace(-self.reach, self.reach, len(z))[:, None]
    return self.generator(
        grid + self.jitter * jax.scipy.stats.norm.cdf(z), labels, mask)


def _grid_noise(generator, **kwargs):
  if generator.latent != 1:
    raise ValueError(
        f"noise 'grid' is for a generator with latent 1, got {generator.latent}; for "
        "others take noise={'name': 'normal'}")
  return GridNoise(generator, **kwargs)


NOISES = {'grid': _grid_noise, 'normal': lambda generator: generator}


def build(
    config: Mapping[str, Any], dimension: int
) -> tuple[Trainer, nn.Module]:
  """Builds the trainer of one seed, and the discriminator."""
  objective = losses.make_gan_objective({'name': 'gan'}, 1)
  shape = (dimension,)
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
  trainer = trainers.gan(
      generator=generator, discriminator=discriminator, objective=objective,
      gen_tx=tx, disc_tx=tx, num_classes=1, image_shape=shape,
      augment=lambda points, keys: points, normalise=lambda points: points,
      negative_weight=config['negative_weight'] or None)
  return trainer, discriminator


def make_batch(
    config: Mapping[str, Any], key: jax.Array, pools: Mapping[str, jax.Array]
) -> dict[str, Any]:
  """Draws a batch of the trainer from the pools 'positive' and 'negative' [n, d]."""
  sizes = {'positive': config['batch_size']}
  if config['negatives']:
    sizes['negative'] = config['negatives_per_batch']
  batch = {}
  for (name, num), one in zip(sizes.items(), jax.random.split(key), strict=False):
    rows = jax.random.randint(one, (num, 1), 0, len(pools[name]))
    batch[name] = {
        'image': pools[name][rows], 'weight': jnp.ones((num, 1)),
        'label': jnp.full((num, 1), 0 if name == 'positive' else -1)}
  return batch


def check(config: Mapping[str, Any], points: data.Points) -> None:
  """Raises ValueError for networks that do not go together, or more than fits.

  A step is traced for that, and none is made.
  """
  dimension = points.positive.shape[1]
  looks = (config['snapshots'] + 1) * config['num_seeds']
  data.check_memory(
      4 * looks * (config['num_samples'] * dimension + len(grid(points))),
      'what is kept of all seeds', 'lower num_seeds, num_samples or snapshots')
  trainer, _ = build(config, dimension)

  def update(key, pools):
    init_key, key = jax.random.split(key)
    return trainer.step(trainer.init(init_key), {}, make_batch(config, key, pools))

  pools = {'positive': points.positive, 'negative': points.negative}
  jax.eval_shape(update, jax.random.key(0), pools)


def run_seeds(
    config: Mapping[str, Any], points: data.Points, say=lambda text: None
) -> dict[str, np.ndarray]:
  """Trains all seeds; looks at them before the first step and `snapshots` times.

  Returns:
    'step' [t], 'samples' [t, seeds, num_samples, d] and 'boundary' [t, seeds, grid], D
    in [0, 1] on `grid(points)`.

  Raises:
    ValueError: a seed diverged.
  """
  trainer, discriminator = build(config, points.positive.shape[1])
  each = config['steps'] // config['snapshots']
  mesh = parallel.make_mesh(jax.devices()[:1])

  def look(state, given):
    outputs, _ = discriminator.apply(
        state.nets['disc'].variables, given['grid'], train=False)
    samples = trainer.heads['samples'](state, {'z': given['z'], 'label': None})
    return samples, jax.nn.sigmoid(outputs[:, 0])

  def advance(state, given):
    def update(state, _):
      key = jax.random.fold_in(jax.random.fold_in(state.key, BATCHES), state.step)
      batch = make_batch(config, key, given)
      return trainer.step(state, {}, batch)[0], None

    state, _ = jax.lax.scan(update, state, length=each)
    return state, look(state, given)

  def init(key):
    seeds = np.uint32(config['seed']) + jnp.arange(config['num_seeds'], dtype=np.uint32)
    return jax.vmap(trainer.init)(jax.vmap(jax.random.fold_in, (None, 0))(key, seeds))

  looked, advanced = (
      parallel.wrap_head(jax.vmap(fn, (0, None)), mesh) for fn in (look, advance))
  rng = np.random.default_rng(0)  # the same noise for all seeds and snapshots
  z = rng.standard_normal((config['num_samples'], config['generator']['latent']))
  given = {'positive': points.positive, 'negative': points.negative,
           'grid': grid(points), 'z': z.astype(np.float32)}
  states = parallel.init_state(init, jax.random.key(0), mesh)
  seen, start = [jax.device_get(looked(states, given))], time.monotonic()
  for t in range(1, config['snapshots'] + 1):
    states, found = advanced(states, given)
    seen.append(jax.device_get(found))
    bad = [i for i, x in enumerate(seen[-1][0]) if not np.isfinite(x).all()]
    if bad:
      raise ValueError(
          f'seed {config["seed"] + bad[0]} diverged by step {t * each}: its samples '
          'are not finite; lower --config.schedule.learning_rate')
    if t % max(config['snapshots'] // 5, 1) == 0:
      say(f'step {t * each}/{config["steps"]} of {config["num_seeds"]} seeds  '
          f'{time.monotonic() - start:.0f} s')
  samples, boundary = (np.stack(x) for x in zip(*seen, strict=True))
  return {'step': each * np.arange(len(seen)), 'samples': samples, 'boundary': boundary}


def grid(points: data.Points) -> np.ndarray:
  """The points [g, d] on which D is looked at; in a plane x changes fastest."""
  dimension = points.positive.shape[1]
  axis = np.linspace(*points.window, GRID[dimension], dtype=np.float32)
  return np.stack([x.ravel() for x in np.meshgrid(*[axis] * dimension)], -1)
