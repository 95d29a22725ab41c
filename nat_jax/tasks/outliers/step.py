"""GAAL: a discriminator of data against generated outliers, and its update.

    inputs = load(config, num_devices=1)
    trainer = build(config, inputs.shape, others)
    state, metrics = trainer.step(state, {}, {'real': batch, 'all': batch})

All vectors x are scaled to u = (x - low) / (high - low), in [0, 1] for the training
examples. D is the probability that a vector is data; its logit is the score, high for
normal examples.

Reference: Liu, Li, Zhou, Jiang, Sun, Wang, He, "Generative Adversarial Active Learning
for Unsupervised Outlier Detection", arXiv:1809.10816.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics as clu_metrics

from nat_jax import data, models, task
from nat_jax.runtime import optim
from nat_jax.task import GLOBAL, Axis, Inputs, Net, Others, State
from nat_jax.tasks import updates

Average = clu_metrics.Average
MOST_ROWS = 5000  # training examples whose scores the generators' targets are taken of


class Setup(NamedTuple):
  """The networks and the settings of the training.

  Attributes:
    generator: one of k generators: noise [n, d] -> vectors [n, d].
    discriminator: vectors [n, d] -> (logits [n, 1], aux).
    gen_tx, disc_tx: the optimisers.
    num_generators: k.
    freeze_after: number of updates after which the generators are not updated.
  """

  generator: nn.Module
  discriminator: nn.Module
  gen_tx: optax.GradientTransformation
  disc_tx: optax.GradientTransformation
  num_generators: int
  freeze_after: int


@flax.struct.dataclass
class GaalMetrics(clu_metrics.Collection):
  """Averages over updates and examples."""

  loss_disc: Average.from_output('loss_disc')
  loss_gen: Average.from_fun(  # NaN once the generators are frozen
      lambda **outputs: dict(values=outputs['loss_gen'], mask=outputs['trained']))
  grad_norm_disc: Average.from_output('grad_norm_disc')
  grad_norm_gen: Average.from_output('grad_norm_gen')
  real: Average.from_fun(  # D of data
      lambda **outputs: dict(values=outputs['real'], mask=outputs['weight'] > 0))
  fake: Average.from_fun(  # D of generated vectors
      lambda **outputs: dict(values=outputs['fake'], mask=outputs['weight'] > 0))


def gaal(**settings: Any) -> task.Trainer:
  """Returns the trainer of k generators and a discriminator.

  A step updates D, and then the generators, until `freeze_after` updates are done.
  D: the mean of -log D(u) over the batch and -log(1 - D(G(z))) over as many generated
  vectors, of which generator i = 0..k-1 makes the share (k - i) / (k (k + 1) / 2).
  G_i: the mean of -T_i log D(G_i(z)) - (1 - T_i) log(1 - D(G_i(z))) over a whole batch
  of noise. T_i is the i/k quantile of D over the training examples (k > 1), or 1.
  The noise z is uniform in [0, 1]^d.

  Args:
    **settings: the attributes of `Setup`.

  Returns:
    A `Trainer` over a `State` of 'gen', stacked, and 'disc'. Its head 'score' maps
    scaled vectors [n, d] to the logits of D, [n]; its head 'samples' maps {'z': [n, d],
    'owner': int32 [n]} to the scaled vectors of the generators `owner`, [n, d].
  """
  setup = Setup(**settings)
  return task.Trainer(
      init=functools.partial(init, setup),
      frozen=dict,
      step=functools.partial(step, setup),
      heads={'score': lambda state, vectors: logits(
                 setup, state.nets['disc'].params, vectors),
             'samples': lambda state, noise: made(
                 setup, state.nets['gen'].params, noise['z'], noise['owner'])},
      figures=lambda metrics: {
          **task.figures(metrics), 'images': float(metrics.real.count)},
      line=lambda record: (
          f'D {record["loss_disc"]:.3f}  of data {record["real"]:.2f}, of generated '
          f'{record["fake"]:.2f}'),
      watch=('loss_disc', 'grad_norm_disc', 'grad_norm_gen'))


def init(setup: Setup, key: jax.Array) -> State:
  """Returns the initial `State` of the networks 'gen' and 'disc'."""
  gen_key, disc_key, step_key = jax.random.split(key, 3)
  shape = (1, *setup.discriminator.image_shape)
  gen = jax.vmap(lambda key: setup.generator.init(key, jnp.zeros(shape))['params'])(
      jax.random.split(gen_key, setup.num_generators))
  disc = setup.discriminator.init(disc_key, jnp.zeros(shape))['params']
  return State(
      step=jnp.zeros((), jnp.int32), key=step_key,
      nets={'gen': Net(gen, {}, setup.gen_tx.init(gen)),
            'disc': Net(disc, {}, setup.disc_tx.init(disc))},
      ema={})


def step(setup, state, frozen, batch, *, axis: Axis = GLOBAL):
  """Updates the discriminator and, while they are trained, the generators.

  Args:
    setup: a `Setup`.
    state: a `State` of 'gen' and 'disc'.
    frozen: not used.
    batch: {'real': batch of scaled vectors, 'all': the training examples for the
      quantiles}, the latter if there are several generators.
    axis: the devices that share the batch.

  Returns:
    (state, `GaalMetrics`).
  """
  del frozen
  keys = jax.random.split(jax.random.fold_in(state.key, state.step))
  gen, disc = state.nets['gen'], state.nets['disc']
  weight = batch['real']['weight']
  disc, (loss_disc, (real, fake)), norm = update_disc(
      setup, disc, gen, batch['real'], keys[0], axis)
  trained = state.step < setup.freeze_after
  gen, loss_gen, norm_gen = jax.lax.cond(
      trained,
      lambda key: update_gen(setup, gen, disc, batch, key, axis),
      lambda key: (gen, jnp.zeros(()), jnp.zeros(())), keys[1])
  state = state.replace(step=state.step + 1, nets={'gen': gen, 'disc': disc})
  return state, task.collect(
      GaalMetrics, axis, loss_disc=loss_disc, loss_gen=loss_gen[None],
      trained=trained[None], grad_norm_disc=norm, grad_norm_gen=norm_gen,
      real=jax.nn.sigmoid(real), fake=jax.nn.sigmoid(fake), weight=weight)


def update_disc(setup, disc, gen, real, key, axis):
  """Updates the discriminator; see `updates.descend` for what it returns."""
  num = len(real['weight'])
  z = noise(key, num, real['image'].shape[1:], axis)
  fake = made(setup, gen.params, z, owners(setup.num_generators, num, axis))
  total = 2 * axis.sum(real['weight'])

  def loss_fn(params, batch_stats, _):
    found = logits(setup, params, jnp.concatenate([real['image'], fake]))
    of_real, of_fake = found[:num], found[num:]
    terms = real['weight'] * (jax.nn.softplus(-of_real) + jax.nn.softplus(of_fake))
    return terms / total, batch_stats, (of_real, of_fake)

  return updates.descend(disc, setup.disc_tx, loss_fn, axis)


def update_gen(setup, gen, disc, batch, key, axis):
  """Updates every generator.

  Returns:
    (the stacked `Net`, the mean of the losses of all generators, the gradient's norm).
  """
  real, k = batch['real'], setup.num_generators
  num, shape = len(real['weight']), real['image'].shape[1:]
  z = noise(key, num, (k, *shape), axis)
  target = jnp.ones(k)
  if k > 1:
    given = batch['all']
    target = quantiles(
        jax.nn.sigmoid(logits(setup, disc.params, given['image'])), given['weight'],
        k, axis)
  total = axis.sum(real['weight'])

  def loss_fn(params, batch_stats, _):
    fake = jax.vmap(
        lambda params, z: setup.generator.apply({'params': params}, z), (0, 1), 1)(
            params, z)
    found = logits(setup, disc.params, fake.reshape(num * k, *shape)).reshape(num, k)
    terms = (target[None] * jax.nn.softplus(-found)
             + (1 - target)[None] * jax.nn.softplus(found))
    return real['weight'][:, None] * terms / total, batch_stats, ()

  gen, (loss, _), norm = updates.descend(gen, setup.gen_tx, loss_fn, axis)
  return gen, loss / k, norm


def logits(setup: Setup, params: Any, vectors: jax.Array) -> jax.Array:
  """The logits of D for scaled vectors [n, d], [n]."""
  return setup.discriminator.apply({'params': params}, vectors)[0][:, 0]


def made(
    setup: Setup, params: Any, z: jax.Array, owner: jax.Array
) -> jax.Array:
  """The scaled vectors [n, d] that the generators `owner`, [n], make of noise z."""
  of_all = jax.vmap(
      lambda params: setup.generator.apply({'params': params}, z))(params)
  return of_all[owner, jnp.arange(len(z))]


def noise(
    key: jax.Array, num: int, shape: tuple[int, ...], axis: Axis
) -> jax.Array:
  """Uniform noise [num, *shape] in [0, 1), with one key per example."""
  return jax.vmap(lambda key: jax.random.uniform(key, shape))(axis.keys(key, num))


def shares(num_generators: int) -> np.ndarray:
  """The share of generator i = 0..k-1, (k - i) / (k (k + 1) / 2), float64 [k].

  Generators whose targets are low, of regions with few examples, make more.
  """
  parts = np.arange(num_generators, 0, -1)
  return parts / parts.sum()


def owners(num_generators: int, num: int, axis: Axis) -> jax.Array:
  """The generator of each of the `num` generated examples of this device, int32 [num].

  The global batch is divided by `shares`, in the order of the generators.
  """
  total = num * (1 if axis.name is None else jax.lax.axis_size(axis.name))
  ends = np.round(total * np.cumsum(shares(num_generators)))
  owner = np.searchsorted(ends, np.arange(total), 'right').astype(np.int32)
  return jax.lax.dynamic_slice_in_dim(jnp.asarray(owner), axis.first(num), num)


def quantiles(
    values: jax.Array, weight: jax.Array, num: int, axis: Axis
) -> jax.Array:
  """The i/num quantiles of values, i = 0..num-1, linearly interpolated, [num].

  Args:
    values: [n], of this device.
    weight: [n]; 0: an empty slot.
    num: number of quantiles.
    axis: the devices that share the values.
  """
  filled = axis.gather(weight) > 0
  ordered = jnp.sort(jnp.where(filled, axis.gather(values), jnp.inf))
  last = filled.sum() - 1
  place = jnp.arange(num) / num * last
  low = jnp.floor(place).astype(jnp.int32)
  part = place - low
  return (1 - part) * ordered[low] + part * ordered[jnp.minimum(low + 1, last)]


# From a config.


def resolve(config: dict[str, Any], others: Others) -> dict[str, Any]:
  """Returns the config with the range of every column and the size of the network.

  Args:
    config: of the task 'outliers'.
    others: not used.

  Raises:
    ValueError: the source cannot be loaded, or does not give vectors.
  """
  del others
  if config['hidden'] and config['data']['low'] and config['data']['high']:
    return config
  return with_ranges(config, load_examples(config).image)


def with_ranges(config: dict[str, Any], vectors: np.ndarray) -> dict[str, Any]:
  """Fills in `data.low`, `data.high` and `hidden` where the config leaves them open.

  Args:
    config: of the task 'outliers'.
    vectors: the training examples, [n, d].

  Raises:
    ValueError: `data.low` or `data.high` has another number of columns than the
      examples, or a value of `data.low` exceeds that of `data.high`.
  """
  settings = config['data']
  ranges = {'low': vectors.min(0), 'high': vectors.max(0)}
  given = {key: settings[key] or value.tolist() for key, value in ranges.items()}
  _range(given, vectors.shape[1])
  return {**config, 'data': {**settings, **given},
          'hidden': config['hidden'] or math.isqrt(len(vectors) - 1) + 1}


def load_examples(config: Mapping[str, Any]) -> data.Arrays:
  """Loads the training examples, not scaled, float32 [n, d].

  Raises:
    ValueError: the source does not give vectors, or too few.
  """
  source = config['data']['examples']
  arrays = data.load(source)
  if not data.is_vectors(arrays.image.shape[1:]):
    raise ValueError(
        f'outliers are looked for among vectors, and the source {source["name"]!r} '
        f'gives pictures of shape {list(arrays.image.shape[1:])}; --mode=embed makes '
        'vectors of pictures')
  if len(arrays.image) < 2:
    raise ValueError(
        'data.examples must hold 2 examples or more, got '
        f'{len(arrays.image)}; choose another split')
  return arrays


def scale(vectors: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
  """Returns (x - low) / (high - low) of vectors [n, d], float32.

  A column that is constant in the training examples is divided by 1.

  Args:
    vectors: [n, d].
    settings: with 'low' and 'high', [d].

  Raises:
    ValueError: another number of columns, or a low that exceeds its high.
  """
  low, width = _range(settings, vectors.shape[1])
  return ((vectors - low) / width).astype(np.float32)


def unscale(vectors: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
  """The inverse of `scale`."""
  low, width = _range(settings, vectors.shape[1])
  return (vectors * width + low).astype(np.float32)


def _range(settings, num_columns):
  """(low, width) of every column, float64 [d]; ValueError unless they are valid."""
  for key in ('low', 'high'):
    if len(settings[key]) != num_columns:
      raise ValueError(
          f'data.{key} must hold one number for each of the {num_columns} columns of '
          f'the examples, got {len(settings[key])}; () takes the range of the training '
          'examples')
  low, high = (np.asarray(settings[key], np.float64) for key in ('low', 'high'))
  if (low > high).any():
    k = np.flatnonzero(low > high)[0]
    raise ValueError(
        f'data.low must not exceed data.high in any column, got {low[k]} and {high[k]} '
        f'in column {k}; give both, or () for the range of the training examples')
  return low, np.where(high > low, high - low, 1.0)


def load(
    config: Mapping[str, Any], num_devices: int = 1, others: Others | None = None
) -> Inputs:
  """Loads and scales the training examples, and makes the stream of batches.

  The labels of the examples are not used.

  Args:
    config: of the task 'outliers'.
    num_devices: number of devices that share a batch.
    others: not used.

  Raises:
    ValueError: a mistake in the source.
  """
  del others
  arrays = load_examples(config)
  inputs = make_inputs(config, scale(arrays.image, config['data']), num_devices)
  return inputs._replace(class_names=arrays.names, positives=arrays)


def make_inputs(
    config: Mapping[str, Any], vectors: np.ndarray, num_devices: int
) -> Inputs:
  """The inputs of a training on scaled vectors, float32 [n, d].

  Args:
    config: of the task 'outliers'; of its data only 'batch_size' is read.
    vectors: the examples.
    num_devices: number of devices that share a batch.
  """
  num = len(vectors)
  stream = data.make_stream(
      num, {}, {}, batch_size=min(config['data']['batch_size'], num),
      negatives_per_batch=0, inside=False, seed=config['seed'],
      multiple_of=num_devices)
  chosen = np.random.default_rng(config['seed']).permutation(num)[:MOST_ROWS]
  size = -(-len(chosen) // num_devices) * num_devices
  every = np.concatenate([np.sort(chosen), np.full(size - len(chosen), -1)])
  every = every.astype(np.int32)

  def index(step):
    rows = {'real': stream.index(step)}
    return rows | {'all': every} if config['num_generators'] > 1 else rows

  return Inputs(
      data.Pool(vectors, np.zeros(num, np.int32)),
      data.Stream(stream.num_slots + size, index), vectors.shape[1:])


def build(
    config: Mapping[str, Any], shape: tuple[int, ...], others: Others
) -> task.Trainer:
  """Builds the trainer of a config.

  Args:
    config: of the task 'outliers', from `resolve`.
    shape: (d,) of one example.
    others: not used.

  Raises:
    ValueError: an unknown name, or settings that are not valid.
    TypeError: an unknown or a missing argument of a spec.
  """
  del others
  schedule, disc_schedule = (
      optim.make_schedule(spec or config['schedule'], config['steps'])
      for spec in (config['schedule'], config['disc_schedule']))
  trainer = gaal(
      generator=models.IdentityGenerator(latent=shape[0], image_shape=shape),
      discriminator=models.ToyDiscriminator(
          image_shape=shape, num_outputs=1, widths=(config['hidden'],)),
      gen_tx=optim.make_optimizer(config['optimizer'], schedule),
      disc_tx=optim.make_optimizer(config['optimizer'], disc_schedule),
      num_generators=config['num_generators'], freeze_after=config['freeze_after'])
  return trainer._replace(learning_rate=disc_schedule)
