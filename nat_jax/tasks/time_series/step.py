"""MAD-GAN: an LSTM GAN on windows of normal series, its update and its scores.

    trainer = mad_gan(generator=..., discriminator=..., latent=6, ...)
    state, metrics = trainer.step(state, {}, {'real': batch, 'negative': batch})
    scores = trainer.heads['scores'](state, windows)          # [n, l, 2]

G maps a sequence of noise z to a window; D gives a logit for every time step. External
negatives are windows that are made anomalous (`anomalies`); those that are not changed
by it are left out.

Reference: Li, Chen, Shi, Goh, Ng, "MAD-GAN: Multivariate Anomaly Detection for Time
Series Data with Generative Adversarial Networks", ICANN 2019, arXiv:1901.04997.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics as clu_metrics

from nat_jax import task
from nat_jax.task import GLOBAL, Axis, Net, State
from nat_jax.tasks import updates
from nat_jax.tasks.time_series import anomalies

Average = clu_metrics.Average


class Setup(NamedTuple):
  """The networks and the settings.

  Attributes:
    generator: noise [n, l, latent] -> windows [n, l, c].
    discriminator: windows [n, l, c] -> logits [n, l, 1].
    gen_tx, disc_tx: the optimisers.
    latent: numbers of noise per time step.
    shape: (l, c) of a window.
    gen_updates: updates of the generator per update of the discriminator.
    negative_weight: factor of the mean loss of negatives; None: one mean over negatives
      and generated windows.
    negative_kinds: how negatives are made, names in `anomalies.ANOMALIES`.
    inversion_steps, inversion_rate: number of steps and learning rate of Adam, for the
      noise that reproduces a window best.
  """

  generator: nn.Module
  discriminator: nn.Module
  gen_tx: optax.GradientTransformation
  disc_tx: optax.GradientTransformation
  latent: int
  shape: tuple[int, int]
  gen_updates: int
  negative_weight: float | None
  negative_kinds: Sequence[str]
  inversion_steps: int
  inversion_rate: float


@flax.struct.dataclass
class Metrics(clu_metrics.Collection):
  """Averages over updates, time steps and windows."""

  loss_disc: Average.from_output('loss_disc')
  loss_gen: Average.from_output('loss_gen')
  grad_norm_disc: Average.from_output('grad_norm_disc')
  grad_norm_gen: Average.from_output('grad_norm_gen')
  real: updates.mean_of('real')  # D of training windows
  fake: updates.mean_of('fake')  # D of generated windows
  negative: updates.mean_of('negative')  # D of negatives; NaN without any


def mad_gan(**settings: Any) -> task.Trainer:
  """Returns the trainer of a generator G and a discriminator D of windows.

  A step updates D once and then G `gen_updates` times. With h(a) = log(1 + exp(-a)) and
  means over time steps and windows, D minimises mean h(D(x)) + mean h(-D(G(z))) and the
  term of negatives x', the mean of h(-D(x')); G minimises mean h(D(G(z))).

  Args:
    **settings: the attributes of `Setup`.

  Returns:
    A `Trainer` over a `State` of 'gen' and 'disc'. Its head 'scores' maps windows
    [n, l, c] to [n, l, 2]: the residual mean_c |x - G(z*)|, and 1 - sigmoid(D(x)).
  """
  setup = Setup(**settings)
  return task.Trainer(
      init=functools.partial(init, setup),
      frozen=dict,
      step=functools.partial(step, setup),
      heads={'scores': functools.partial(scores, setup)},
      figures=lambda metrics: {
          **task.figures(metrics), 'images': float(metrics.real.count)},
      line=lambda record: (
          f'D {record["loss_disc"]:.3f}  G {record["loss_gen"]:.3f}  '
          f'D(x) {record["real"]:.2f}  D(G(z)) {record["fake"]:.2f}'),
      watch=('loss_disc', 'loss_gen', 'grad_norm_disc', 'grad_norm_gen'))


def init(setup: Setup, key: jax.Array) -> State:
  """Returns the initial `State` of the networks 'gen' and 'disc'."""
  gen_key, disc_key, step_key = jax.random.split(key, 3)
  gen = setup.generator.init(
      gen_key, jnp.zeros((1, setup.shape[0], setup.latent)))['params']
  disc = setup.discriminator.init(disc_key, jnp.zeros((1, *setup.shape)))['params']
  return State(
      step=jnp.zeros((), jnp.int32), key=step_key,
      nets={'gen': Net(gen, {}, setup.gen_tx.init(gen)),
            'disc': Net(disc, {}, setup.disc_tx.init(disc))},
      ema={})


def step(setup, state, frozen, batch, *, axis: Axis = GLOBAL):
  """Updates the discriminator, and then the generator.

  Args:
    setup: a `Setup`.
    state: a `State` of 'gen' and 'disc'.
    frozen: not used.
    batch: {'real': batch of windows, 'negative': windows of which negatives are made},
      the latter if there are negatives.
    axis: the devices that share the batch.

  Returns:
    (state, `Metrics`).
  """
  del frozen
  disc_key, negative_key, *gen_keys = jax.random.split(
      jax.random.fold_in(state.key, state.step), 2 + setup.gen_updates)
  gen, disc, weight = state.nets['gen'], state.nets['disc'], batch['real']['weight']
  sets = {'real': batch['real'], 'fake': {
      'image': generate(setup, gen.params, disc_key, len(weight), axis),
      'weight': weight}}
  if 'negative' in batch:
    given = batch['negative']
    keys = axis.keys(negative_key, len(given['weight']))
    made = anomalies.corrupt(setup.negative_kinds, keys, given['image'])
    # `stuck` does not change a sensor that stands still; such a window is still normal.
    changed = (made != given['image']).any((1, 2))
    sets['negative'] = {**given, 'image': made, 'weight': given['weight'] * changed}
  disc, (loss_disc, logits), norm_disc = update_disc(setup, disc, sets, axis)
  for key in gen_keys:
    gen, loss_gen, norm_gen = update_gen(setup, gen, disc, weight, key, axis)
  found = {'negative': jnp.zeros(1), 'negative_weight': jnp.zeros(1)}
  for name, one in sets.items():
    found |= {name: jax.nn.sigmoid(logits[name]).mean(1),
              f'{name}_weight': one['weight']}
  state = state.replace(step=state.step + 1, nets={'gen': gen, 'disc': disc})
  return state, task.collect(
      Metrics, axis, loss_disc=loss_disc, loss_gen=loss_gen, grad_norm_disc=norm_disc,
      grad_norm_gen=norm_gen, **found)


def update_disc(setup, disc, sets, axis):
  """Updates D on sets of windows.

  Returns:
    (the `Net`, (loss, {set: logits [n, l]}), norm of the gradient).
  """
  total = {name: axis.sum(one['weight']) for name, one in sets.items()}
  factor = {name: 1 / jnp.maximum(number, 1) for name, number in total.items()}
  if 'negative' in sets and setup.negative_weight is None:
    factor['fake'] = factor['negative'] = 1 / (total['fake'] + total['negative'])
  elif 'negative' in sets:
    factor['negative'] *= setup.negative_weight
  windows = jnp.concatenate([one['image'] for one in sets.values()])
  ends = np.cumsum([len(one['weight']) for one in sets.values()])

  def loss_fn(params, batch_stats, _):
    parts = jnp.split(realness(setup, params, windows), ends[:-1])
    logits = dict(zip(sets, parts, strict=True))
    terms = [
        factor[name] * one['weight'] * jax.nn.softplus(
            -logits[name] if name == 'real' else logits[name]).mean(1)
        for name, one in sets.items()]
    return jnp.concatenate(terms), batch_stats, logits

  return updates.descend(disc, setup.disc_tx, loss_fn, axis)


def update_gen(setup, gen, disc, weight, key, axis):
  """Updates G; returns (the `Net`, loss, norm of the gradient)."""
  total = axis.sum(weight)

  def loss_fn(params, batch_stats, _):
    made = generate(setup, params, key, len(weight), axis)
    terms = jax.nn.softplus(-realness(setup, disc.params, made)).mean(1)
    return weight * terms / total, batch_stats, ()

  gen, (loss, _), norm = updates.descend(gen, setup.gen_tx, loss_fn, axis)
  return gen, loss, norm


def generate(setup, params, key, num, axis):
  """`num` generated windows of this device, [num, l, c], of normal noise."""
  shape = setup.shape[0], setup.latent
  z = jax.vmap(lambda key: jax.random.normal(key, shape))(axis.keys(key, num))
  return setup.generator.apply({'params': params}, z)


def realness(setup: Setup, params: Any, windows: jax.Array) -> jax.Array:
  """The logits of D for windows [n, l, c], [n, l]."""
  return setup.discriminator.apply({'params': params}, windows)[..., 0]


def invert(setup: Setup, params: Any, windows: jax.Array) -> jax.Array:
  """The windows that G makes of z*, which minimises their squared error, [n, l, c].

  z* = argmin_z mean_{t,c} (x - G(z))^2 for each window, by Adam from z = 0. The windows
  of a batch do not influence each other.

  Args:
    setup: a `Setup`.
    params: of the generator.
    windows: x, [n, l, c].
  """
  tx = optax.adam(setup.inversion_rate)

  def make(z):
    return setup.generator.apply({'params': params}, z)

  def descend(_, carry):
    z, opt_state = carry
    slope = jax.grad(
        lambda z: jnp.square(make(z) - windows).mean((1, 2)).sum())(z)
    change, opt_state = tx.update(slope, opt_state)
    return optax.apply_updates(z, change), opt_state

  start = jnp.zeros((*windows.shape[:2], setup.latent))
  z, _ = jax.lax.fori_loop(
      0, setup.inversion_steps, descend, (start, tx.init(start)))
  return make(z)


def scores(setup: Setup, state: State, windows: jax.Array) -> jax.Array:
  """(residual, 1 - D) for every time step of windows [n, l, c]: [n, l, 2]."""
  nets = state.nets
  residual = jnp.abs(windows - invert(setup, nets['gen'].params, windows)).mean(2)
  unreal = jax.nn.sigmoid(-realness(setup, nets['disc'].params, windows))
  return jnp.stack([residual, unreal], 2)
