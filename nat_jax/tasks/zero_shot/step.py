"""GDAN: a conditional VAE, a regressor and a discriminator of pairs, and their update.

    inputs = load(config, num_devices=1)
    trainer = build(config, inputs.shape, others)
    state, metrics = trainer.step(state, trainer.frozen(), {'model': ..., 'twin': ...})

x is a feature vector and s the embedding of its class. The networks exist twice: the
model, which is trained on all seen classes, and its twin, which is trained without the
held-out classes and without the validation rows, and by which constants are chosen.
Embeddings of unseen classes are no part of anything that a step takes.

Reference: Huang, Wang, Yu, Wang, "Generative Dual Adversarial Network for Generalized
Zero-Shot Learning", CVPR 2019.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from clu import metrics as clu_metrics

from nat_jax import losses, registry, task
from nat_jax.task import GLOBAL, Axis, Net, State
from nat_jax.tasks import updates

COPIES = MODEL, TWIN = 'model', 'twin'
GENERATORS = ('encoder', 'decoder', 'regressor')  # updated together, with one loss
OUTPUTS = {'relu': nn.relu, 'linear': lambda x: x}  # of the decoder
Average = clu_metrics.Average


class Setup(NamedTuple):
  """The networks and the settings of the training.

  Attributes:
    encoder: x [n, d] -> mean and log variance of the code, [n, 2 latent].
    decoder: s and a code, [n, a + latent] -> x [n, d], before `output`.
    regressor: x [n, d] -> s [n, a].
    discriminator: x and s, [n, d + a] -> [n, 1].
    tx, disc_tx: the optimisers, of the first three networks and of the discriminator.
    latent: size of the code.
    shape: (d, a).
    num_copies: 2: the model and its twin; 1: the model alone.
    frozen: () -> {'embedding': [k, a] of the seen classes, 'classes': bool [copies, k],
      the classes that each copy of the networks is trained on}.
    output: what the decoder ends in, a name in `OUTPUTS`.
    mismatch_weight: of pairs (x, embedding of another class) in the discriminator's
      loss; 0: none.
    adversarial_weight: of (D(x', s) - 1)^2.
    cycle_weight, regression_weight, dual_weight: theta_1, theta_2, theta_3 of the
      paper.
    kl_weight: of the CVAE's KL divergence, against the sum of squares over features.
    pretrain: number of the first updates, in which only the CVAE is trained.
  """

  encoder: nn.Module
  decoder: nn.Module
  regressor: nn.Module
  discriminator: nn.Module
  tx: optax.GradientTransformation
  disc_tx: optax.GradientTransformation
  latent: int
  shape: tuple[int, int]
  num_copies: int
  frozen: Callable[[], dict[str, Any]]
  output: str = 'relu'
  mismatch_weight: float = 1.0
  adversarial_weight: float = 1.0
  cycle_weight: float = 0.1
  regression_weight: float = 0.1
  dual_weight: float = 0.1
  kl_weight: float = 1.0
  pretrain: int = 0


@flax.struct.dataclass
class GdanMetrics(clu_metrics.Collection):
  """Averages over updates and examples, of the model."""

  loss_disc: Average.from_output('loss_disc')
  loss_gen: Average.from_output('loss_gen')
  grad_norm_disc: Average.from_output('grad_norm_disc')
  grad_norm_gen: Average.from_output('grad_norm_gen')
  reconstruction: updates.mean_of('reconstruction', 'weight')  # |x - x'|^2
  # D of pairs (x, s), (x', s), (x, R(x)), (x, another class).
  real: updates.mean_of('real', 'weight')
  made: updates.mean_of('made', 'weight')
  regressed: updates.mean_of('regressed', 'weight')
  mismatched: updates.mean_of('mismatched', 'weight')


@registry.arguments(Setup)
def gdan(**settings: Any) -> task.Trainer:
  """Returns the trainer of the four networks, in as many copies as `frozen` says.

  A step updates the discriminator D, and then the encoder, the decoder and the
  regressor R together. With the code z ~ N(m(x), v(x)), x' = Dec(s, z), s' = R(x), the
  embedding t of another seen class, drawn uniformly, and means over the batch:
  D: mean (D(x, s) - 1)^2 + D(x', s)^2 + dual_weight D(x, s')^2
     + mismatch_weight D(x, t)^2;
  others: mean 1/2 |x - x'|^2 + kl_weight KL + adversarial_weight (D(x', s) - 1)^2
     + cycle_weight (|R(x') - s|^2 / a + |Dec(s', z) - x|^2 / d)
     + regression_weight |R(x) - s|^2 / a + dual_weight (D(x, s') - 1)^2.

  Args:
    **settings: the attributes of `Setup`.

  Returns:
    A `Trainer` over a `State` of 'encoder', 'decoder', 'regressor' and 'discriminator',
    each stacked over the copies. Heads take a copy (0: the model, 1: its twin):
    'pairs' (state, x [n, d], embeddings [k, a], copy) -> D of all pairs [n, k];
    'regressed' (state, x, copy) -> [n, a]; 'made' (state, embeddings and codes [n, a +
    latent], copy) -> features [n, d].
  """
  setup = Setup(**settings)
  return task.Trainer(
      init=functools.partial(init, setup), frozen=setup.frozen,
      step=functools.partial(step, setup),
      heads={'pairs': functools.partial(pairs, setup),
             'regressed': lambda state, x, copy: outputs(
                 setup.regressor, params_of(state, 'regressor', copy), x),
             'made': lambda state, codes, copy: decoded(
                 setup, params_of(state, 'decoder', copy), codes)},
      figures=lambda metrics: {
          **task.figures(metrics), 'images': float(metrics.real.count)},
      line=lambda record: (
          f'D: pairs {record["real"]:.2f}, of made features {record["made"]:.2f}, '
          f'mismatched {record["mismatched"]:.2f}'),
      watch=('loss_disc', 'loss_gen', 'grad_norm_disc', 'grad_norm_gen'))


def init(setup: Setup, key: jax.Array) -> State:
  """Returns the initial `State` of the four networks, stacked over the copies."""
  d, a = setup.shape
  inputs = {'encoder': d, 'decoder': a + setup.latent, 'regressor': d,
            'discriminator': d + a}
  step_key, *keys = jax.random.split(key, 1 + len(inputs))
  nets = {}
  for key, (name, size) in zip(keys, inputs.items(), strict=True):
    module, x = getattr(setup, name), jnp.zeros((1, size))
    tx = setup.disc_tx if name == 'discriminator' else setup.tx
    params = jax.vmap(lambda key, module=module, x=x: module.init(key, x)['params'])(
        jax.random.split(key, setup.num_copies))
    nets[name] = Net(params, {}, jax.vmap(tx.init)(params))
  return State(step=jnp.zeros((), jnp.int32), key=step_key, nets=nets, ema={})


def step(setup, state, frozen, batch, *, axis: Axis = GLOBAL):
  """Updates the discriminator and then the other networks, of every copy.

  Args:
    setup: a `Setup`.
    state: from `init`.
    frozen: from `Setup.frozen`; labels are rows of its 'embedding'.
    batch: {'model': batch of features, 'twin': one of as many slots, if there are two
      copies}.
    axis: the devices that share the batch.

  Returns:
    (state, `GdanMetrics`).
  """
  key = jax.random.fold_in(state.key, state.step)
  started = (state.step >= setup.pretrain).astype(jnp.float32)
  stacked = jax.tree.map(
      lambda *x: jnp.stack(x), *(batch[name] for name in COPIES if name in batch))

  def update(nets, one, classes, key):
    keys = jax.random.split(key, 3)
    num = len(one['label'])
    t = frozen['embedding'][other_classes(
        axis.keys(keys[0], num), one['label'], classes)]
    given = {'x': one['image'], 's': frozen['embedding'][one['label']], 't': t,
             'weight': one['weight']}
    disc, seen = update_discriminator(setup, nets, given, started, keys[1], axis)
    nets = nets | {'discriminator': once_started(started, disc, nets['discriminator'])}
    made, others = update_generators(setup, nets, given, started, keys[2], axis)
    made['regressor'] = once_started(started, made['regressor'], nets['regressor'])
    return nets | made, seen | others | {'weight': one['weight']}

  nets, seen = jax.vmap(update)(
      state.nets, stacked, frozen['classes'],
      jax.random.split(key, setup.num_copies))
  of_model = jax.tree.map(lambda x: x[0], seen)
  return state.replace(step=state.step + 1, nets=nets), task.collect(
      GdanMetrics, axis, **of_model)


def once_started(started: jax.Array, after: Net, before: Net) -> Net:
  """A network after an update, or as before it where the update has not `started`.

  A loss of 0 would not do: weights would decay, and the zeros would enter the averages
  of Adam, whose first updates would then be too large. The schedule goes on.
  """
  def scheduled(x):
    return isinstance(x, optax.ScaleByScheduleState)

  return jax.tree.map(
      lambda new, old: new if scheduled(new) else jnp.where(started > 0, new, old),
      after, before, is_leaf=scheduled)


def other_classes(keys: jax.Array, label: jax.Array, classes: jax.Array) -> jax.Array:
  """Draws another class for each example, uniformly, int32 [n].

  Args:
    keys: typed, [n].
    label: int32 [n].
    classes: bool [k], those that may be drawn; two or more.
  """
  def draw(key, own):
    allowed = classes & (jnp.arange(len(classes)) != own)
    return jax.random.categorical(key, jnp.where(allowed, 0.0, -jnp.inf))

  return jax.vmap(draw)(keys, label)


def update_discriminator(setup, nets, given, started, key, axis):
  """Updates the discriminator with the other networks constant.

  Returns:
    (its `Net`, metrics: the loss, the gradient's norm and D of the four kinds of pairs,
    [n] each).
  """
  x, s, weight = given['x'], given['s'], given['weight']
  keys = _keys(key, len(weight), axis)
  made, *_ = reconstructed(setup, nets, x, s, keys)
  regressed = outputs(setup.regressor, nets['regressor'].params, x, keys['regressor'])
  sets = {'real': (x, s), 'made': (made, s), 'regressed': (x, regressed),
          'mismatched': (x, given['t'])}
  total = axis.sum(weight)

  def loss_fn(params, batch_stats, _):
    scores = {name: paired(setup, params, *pair, keys['discriminator'])
              for name, pair in sets.items()}
    terms = losses.pair_discriminator_loss(
        scores, setup.dual_weight, setup.mismatch_weight)
    return started * weight * terms / total, batch_stats, scores

  net, (loss, scores), norm = updates.descend(
      nets['discriminator'], setup.disc_tx, loss_fn, axis)
  return net, {'loss_disc': loss, 'grad_norm_disc': norm, **scores}


def update_generators(setup, nets, given, started, key, axis):
  """Updates the encoder, the decoder and the regressor with D constant.

  Returns:
    ({name: `Net`} of the three, metrics: the loss, the gradient's norm and |x - x'|^2,
    [n]).
  """
  x, s, weight = given['x'], given['s'], given['weight']
  keys, total = _keys(key, len(weight), axis), axis.sum(weight)
  disc = nets['discriminator'].params

  def loss_fn(params, batch_stats, _):
    now = {name: nets[name].replace(params=params[name]) for name in GENERATORS}
    made, z, mean, log_variance = reconstructed(setup, now, x, s, keys)
    regress = functools.partial(
        outputs, setup.regressor, params['regressor'], keys=keys['regressor'])
    regressed = regress(x)
    again = decoded(
        setup, params['decoder'], jnp.concatenate([regressed, z], 1), keys['decoder'])
    fooled = {name: jnp.square(
        paired(setup, disc, *pair, keys['discriminator']) - 1) for name, pair in (
            ('made', (made, s)), ('regressed', (x, regressed)))}
    others = (
        setup.adversarial_weight * fooled['made']
        + setup.cycle_weight * (
            losses.mean_square(regress(made), s) + losses.mean_square(again, x))
        + setup.regression_weight * losses.mean_square(regressed, s)
        + setup.dual_weight * fooled['regressed'])
    terms = losses.vae_loss(
        x, made, mean, log_variance, setup.kl_weight) + started * others
    return weight * terms / total, batch_stats, jnp.square(x - made).sum(1)

  joint = Net(*({name: getattr(nets[name], part) for name in GENERATORS}
                for part in ('params', 'batch_stats', 'opt_state')))
  joint, (loss, error), norm = updates.descend(joint, _each(setup.tx), loss_fn, axis)
  return {name: Net(joint.params[name], {}, joint.opt_state[name])
          for name in GENERATORS}, {
              'loss_gen': loss, 'grad_norm_gen': norm, 'reconstruction': error}


def _each(tx):
  """An optimiser of a dict of networks, with a state of its own for each of them."""
  def update(grads, states, params):
    found = {name: tx.update(grads[name], states[name], params[name])
             for name in params}
    return tuple({name: one[i] for name, one in found.items()} for i in range(2))

  return optax.GradientTransformation(
      lambda params: {name: tx.init(one) for name, one in params.items()}, update)


def _keys(key, num, axis):
  """{purpose: one key per example}: of the code, and of the dropout of each network."""
  names = ('code', *GENERATORS, 'discriminator')
  return {name: axis.keys(one, num)
          for name, one in zip(names, jax.random.split(key, len(names)), strict=True)}


def reconstructed(
    setup: Setup, nets: Mapping[str, Net], x: jax.Array, s: jax.Array,
    keys: Mapping[str, jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Dec(s, z) with z ~ N(mean, exp(log variance)): (x', z, mean, log variance)."""
  found = outputs(setup.encoder, nets['encoder'].params, x, keys['encoder'])
  mean, log_variance = jnp.split(found, 2, axis=1)
  noise = jax.vmap(lambda key: jax.random.normal(key, (setup.latent,)))(keys['code'])
  z = mean + jnp.exp(0.5 * log_variance) * noise
  made = decoded(setup, nets['decoder'].params, jnp.concatenate([s, z], 1),
                 keys['decoder'])
  return made, z, mean, log_variance


def decoded(
    setup: Setup, params: Any, codes: jax.Array, keys: jax.Array | None = None
) -> jax.Array:
  """The features [n, d] that the decoder makes of s and z, [n, a + latent]."""
  return OUTPUTS[setup.output](outputs(setup.decoder, params, codes, keys))


def paired(
    setup: Setup, params: Any, x: jax.Array, s: jax.Array,
    keys: jax.Array | None = None,
) -> jax.Array:
  """D(x, s) of pairs, [n]."""
  return outputs(
      setup.discriminator, params, jnp.concatenate([x, s], 1), keys)[:, 0]


def outputs(
    net: nn.Module, params: Any, inputs: jax.Array, keys: jax.Array | None = None
) -> jax.Array:
  """The outputs of a network; without keys, one per example, nothing is dropped."""
  return net.apply({'params': params}, inputs, keys=keys)[0]


def params_of(state: State, name: str, copy: int) -> Any:
  """The parameters of a copy of a network."""
  return jax.tree.map(lambda x: x[copy], state.nets[name].params)


def pairs(
    setup: Setup, state: State, x: jax.Array, embeddings: jax.Array, copy: int
) -> jax.Array:
  """D(x, s_c) of features x [n, d] with each of k embeddings, [n, k]."""
  params = params_of(state, 'discriminator', copy)
  # One class at a time: all pairs at once would need k times the memory.
  return jax.lax.map(lambda s: paired(
      setup, params, x, jnp.broadcast_to(s, (len(x), len(s)))), embeddings).T


TRAINERS = {'gdan': gdan}
