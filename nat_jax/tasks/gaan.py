"""GAAN (Dist-GAN): a GAN with an encoder whose reconstructions also train D.

    trainer = build(config, image_shape, others)       # or from networks:
    trainer = gaan(encoder=..., generator=..., discriminator=..., enc_tx=tx, ...)
    state, metrics = trainer.step(state, {}, {'positive': batch, 'negative': batch})

Reference: Tran, Bui, Cheung, "Dist-GAN: An Improved GAN using Distance Constraints",
ECCV 2018 (and "Generative Adversarial Autoencoder Networks", arXiv:1803.08887); the
authors' code, tntrung/gaan, commit 6e67fe3.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from nat_jax import losses, names, registry, task
from nat_jax.runtime import optim
from nat_jax.task import GLOBAL, Axis, Net, Others, State
from nat_jax.tasks import gan, updates
from nat_jax.tasks.gan import build as gan_build
from nat_jax.tasks.gan import metrics as gan_metrics
from nat_jax.tasks.gan import players
from nat_jax.tasks.gan import step as gan_step

LABELS = {'real': -1, 'fake': 1}  # -> sign of the logit in the loss -log of a label
SPACES = ('features', 'data')
FORMS = {  # logit times sign -> loss of D
    'log': jax.nn.softplus, 'hinge': lambda x: jax.nn.relu(1 + x)}
PRIORS = {  # normal noise -> z
    'normal': lambda z: z, 'uniform': lambda z: 2 * jax.scipy.stats.norm.cdf(z) - 1}
OBJECTIVE = losses.make_gan_objective({'name': 'gan'}, 1)


class Setup(NamedTuple):
  """The networks and the settings of a GAN with an encoder.

  Attributes:
    encoder: `apply({'params'}, images, train=False) -> (codes [n, latent], aux)`.
    generator, discriminator, image_shape, augment, normalise, penalties, ema_decay: see
      `tasks.gan.step.Setup`. The discriminator returns one logit and its features.
    enc_tx, gen_tx, disc_tx: the optimisers.
    recon_weight: weight of the reconstructions in D's loss, in [0, 1]; real images have
      the weight 1 - recon_weight.
    reconstruction: 'real': D takes reconstructions for real, as in the paper and in the
      authors' code for images; 'fake': for generated, as in their code for points.
    updates_generator: whether E's loss updates G too, as in their code for MNIST and
      for points.
    space: where E's loss compares: 'features' of D, or 'data', as in their code for
      points.
    distance_weight: weight of the squared distance term in E's loss.
    n_critic: updates of the discriminator per step.
    negative_weight: of external negatives in D's loss; see `tasks.gan.step.Setup`.
    form: of D's loss: 'log', or 'hinge', max(0, 1 - l) and max(0, 1 + l) of the logit l
      in place of -log D and -log(1 - D).
    fade: (from, to), shares of the training between which `recon_weight` falls linearly
      to 0; (0.5, 0.75) in the authors' code for images. (): it is constant.
    prior: of z in each dimension: 'normal', or 'uniform' in [-1, 1], as in their code.
    steps: number of updates of the training, for `fade`.
  """

  encoder: nn.Module
  generator: nn.Module
  discriminator: nn.Module
  enc_tx: optax.GradientTransformation
  gen_tx: optax.GradientTransformation
  disc_tx: optax.GradientTransformation
  image_shape: tuple[int, ...]
  augment: Callable[[jax.Array, jax.Array], jax.Array]
  normalise: Callable[[jax.Array], jax.Array]
  penalties: Sequence[losses.Penalty] = ()
  ema_decay: float = 0.0
  recon_weight: float = 0.05
  distance_weight: float = 1.0
  n_critic: int = 1
  reconstruction: str = 'real'
  updates_generator: bool = False
  space: str = 'features'
  negative_weight: float | None = None
  form: str = 'log'
  fade: Sequence[float] = ()
  prior: str = 'normal'
  steps: int = 1

  @property
  def pair(self) -> gan_step.Setup:
    """Generator and discriminator with the losses of the original GAN."""
    return gan_step.Setup(
        self.generator, self.discriminator, OBJECTIVE, self.gen_tx, self.disc_tx, 1,
        self.image_shape, self.augment, self.normalise, self.penalties, self.ema_decay,
        self.n_critic)


@registry.arguments(Setup)
def gaan(**settings: Any) -> task.Trainer:
  """Returns the trainer of an encoder E, a generator G and a discriminator D.

  A step updates E, D (`n_critic` times) and G, in this order. With the features f of
  dimension d_f and the probability D = sigmoid(logit) of the discriminator, codes of
  dimension d_z and x_r = G(E(x)), the losses are:
  E: mean |f(x) - f(x_r)|^2 / d_f + distance_weight (mean [f(x_r) - f(G(z))]
     - w mean [E(x) - z])^2,  w = sqrt(d_z / d_f), means over examples and dimensions;
     with space='data' f(x) is x. With `updates_generator` this loss updates G too.
  D: (1 - recon_weight) mean -log D(x) + recon_weight mean -log D(x_r)
     + mean -log(1 - D(G(z))) + penalties; with reconstruction='fake' the second term
     is recon_weight mean -log(1 - D(x_r)). External negatives have the loss of
     generated examples, and weights as in other GANs (`losses.disc_weights`).
  G: |mean D(x) - mean D(G(z))|.

  Args:
    **settings: the attributes of `Setup`.

  Returns:
    A `Trainer` over a `State` of 'enc', 'gen' and 'disc'. Its head 'samples' maps {'z':
    normal noise, float32 [n, latent], 'label': not used} to images.

  Raises:
    ValueError: an unknown `reconstruction`, `space`, `form` or `prior`, or shares in
      `fade` that do not rise.
  """
  setup = Setup(**settings)
  for key, known in (('reconstruction', LABELS), ('space', SPACES), ('form', FORMS),
                     ('prior', PRIORS)):
    value = getattr(setup, key)
    if value not in known:
      raise ValueError(names.unknown(f'trainer.{key}', value, known))
  if len(setup.fade) not in (0, 2) or sorted(set(setup.fade)) != list(setup.fade):
    raise ValueError(
        'trainer.fade must be two shares of the training in rising order, such as '
        f'(0.5, 0.75), or (), got {setup.fade}')
  pair = gan_step.gan(**setup.pair._asdict())

  def samples(state, noise):
    return pair.heads['samples'](
        state, {**noise, 'z': PRIORS[setup.prior](noise['z'])})

  return pair._replace(
      init=functools.partial(init, setup), step=functools.partial(step, setup),
      heads={'samples': samples})


def init(setup: Setup, key: jax.Array) -> State:
  """Returns the initial `State` of the networks 'enc', 'gen' and 'disc'."""
  state, images = gan_step.init(setup.pair, key), jnp.zeros((2, *setup.image_shape))
  params = setup.encoder.init(
      jax.random.fold_in(key, 3), images, train=False)['params']
  trained = _autoencoder(params, state.nets['gen'].params, setup.updates_generator)
  return state.replace(
      nets=state.nets | {'enc': Net(params, {}, setup.enc_tx.init(trained))})


def _autoencoder(enc_params, gen_params, updates_generator):
  """The parameters that E's loss updates: those of E, and those of G or not."""
  return {'enc': enc_params, 'gen': gen_params} if updates_generator else enc_params


def step(setup, state, frozen, batch, *, axis: Axis = GLOBAL):
  """Updates the encoder, `n_critic` times the discriminator, and the generator.

  Args:
    setup: a `Setup`.
    state: a `State` of 'enc', 'gen' and 'disc'.
    frozen: not used.
    batch: {'positive': batch, 'negative': batch}, from `data.apart`; the latter is
      optional.
    axis: the devices that share the batch.

  Returns:
    (state, `GanMetrics`).
  """
  del frozen
  setup = setup._replace(recon_weight=recon_weight(setup, state.step))
  enc, gen, disc = (state.nets[name] for name in ('enc', 'gen', 'disc'))
  real_key, enc_key, disc_key, gen_key = jax.random.split(
      jax.random.fold_in(state.key, state.step), 4)
  for j in range(setup.n_critic):
    keys = real_key, disc_key
    if setup.n_critic > 1:
      keys = [jax.random.fold_in(key, j) for key in keys]
    sets = players.prepare(batch, j, keys[0], axis, setup.augment, setup.normalise)
    if not j:
      enc, gen = update_enc(setup, enc, gen, disc, sets['real'], enc_key, axis)
    disc, seen = update_disc(setup, disc, enc, gen, sets, keys[1], axis)
  gen, made = update_gen(setup, gen, disc, sets['real'], gen_key, axis)
  state = state.replace(
      step=state.step + 1, nets={'enc': enc, 'gen': gen, 'disc': disc},
      ema=gan_step.average(setup.ema_decay, state.ema, gen, state.step))
  return state, gan_metrics.collect(OBJECTIVE, seen, made, axis)


def recon_weight(setup: Setup, step: jax.Array) -> float | jax.Array:
  """Returns the weight of reconstructions in D's loss after `step` updates."""
  if not setup.fade:
    return setup.recon_weight
  start, end = setup.fade
  left = (end - step / setup.steps) / (end - start)
  return setup.recon_weight * jnp.clip(left, 0, 1)


def draw(setup: Setup, key: jax.Array, num: int, axis: Axis) -> players.Set:
  """Draws what the generator makes `num` examples from: `players.draw`, z by `prior`.
  """
  drawn = players.draw(setup.generator, key, num, axis)
  return {**drawn, 'z': PRIORS[setup.prior](drawn['z'])}


def update_enc(setup, enc, gen, disc, real, key, axis):
  """Updates the encoder, with `updates_generator` the generator too; D is constant.

  Returns:
    (the `Net` of the encoder, the `Net` of the generator).
  """
  fake_key, key = jax.random.split(key)
  drawn = draw(setup, fake_key, len(real['label']), axis)
  trained = _autoencoder(enc.params, gen.params, setup.updates_generator)

  def loss_fn(params, batch_stats, _):
    enc_params, variables = params, gen.variables
    if setup.updates_generator:
      enc_params, variables = params['enc'], variables | {'params': params['gen']}
    fake, _ = players.made(setup.generator, variables, drawn, axis)
    recon, codes = reconstruct(setup, enc_params, variables, real, axis)
    sets = {'real': real, 'recon': recon, 'fake': fake}
    if setup.space == 'data':
      compared = {name: one['image'].reshape(len(codes), -1)
                  for name, one in sets.items()}
    else:
      seen, _ = _see_apart(setup, disc.variables, sets, key, axis)
      compared = {name: one.features['features'] for name, one in seen.items()}
    loss = encoder_loss(compared, codes, drawn['z'], setup.distance_weight, axis)
    return loss, batch_stats, ()

  net, _, _ = updates.descend(
      Net(trained, {}, enc.opt_state), setup.enc_tx, loss_fn, axis)
  params = net.params['enc'] if setup.updates_generator else net.params
  gen = gen.replace(params=net.params['gen']) if setup.updates_generator else gen
  return Net(params, {}, net.opt_state), gen


def update_disc(setup, disc, enc, gen, sets, key, axis):
  """Updates the discriminator on the sets of a batch and on what the generator makes.

  Returns:
    (the `Net` of the discriminator, a `Seen` for the metrics).
  """
  fake_key, key = jax.random.split(key)
  real, num = sets['real'], len(sets['real']['label'])
  fake, _ = players.made(
      setup.generator, gen.variables, draw(setup, fake_key, num, axis), axis)
  sets = {**sets, 'fake': fake}
  coefficients = losses.disc_weights(
      {name: one['weight'] for name, one in sets.items()}, setup.negative_weight, axis)
  coefficients['recon'] = coefficients['real']
  sets['recon'], _ = reconstruct(setup, enc.params, gen.variables, real, axis)
  penalty_keys = players.penalty_keys(setup.penalties, fake_key, num, axis)
  shares = {'real': 1 - setup.recon_weight, 'recon': setup.recon_weight}
  num_real = axis.sum(real['weight'] > 0)

  def loss_fn(params, batch_stats, _):
    variables = {'params': params, 'batch_stats': batch_stats}
    passes, stats = _see_apart(setup, variables, sets, key, axis, updating='real')
    terms = disc_losses(setup, passes)
    loss = sum(shares.get(name, 1.0) * jnp.sum(coefficients[name] * terms[name])
               for name in terms)
    loss += players.penalty_sum(
        setup.penalties, OBJECTIVE.score, setup.discriminator, variables, passes,
        penalty_keys, axis) / num_real
    return loss, stats, (passes, terms)

  disc, (loss, (passes, terms)), norm = updates.descend(
      disc, setup.disc_tx, loss_fn, axis)
  return disc, gan_metrics.Seen(loss, norm, passes, terms)


def disc_losses(setup: Setup, passes: Mapping[str, task.Pass]) -> dict[str, jax.Array]:
  """Returns D's losses per example, {set: [n]}; the formula stands in `gaan`."""
  labels = {'real': 'real', 'recon': setup.reconstruction}
  return {
      name: FORMS[setup.form](LABELS[labels.get(name, 'fake')] * one.outputs[:, 0])
      for name, one in passes.items()}


def update_gen(setup, gen, disc, real, key, axis):
  """Updates the generator.

  Returns:
    (the `Net` of the generator, a `Made` for the metrics).
  """
  fake_key, key = jax.random.split(key)
  num = len(real['label'])

  def loss_fn(params, batch_stats, _):
    fake, batch_stats = players.made(
        setup.generator, {'params': params, 'batch_stats': batch_stats},
        draw(setup, fake_key, num, axis), axis, updating=True)
    passes, _ = _see_apart(
        setup, disc.variables, {'fake': fake, 'real': real}, key, axis)
    scores = {name: mean(jax.nn.sigmoid(one.outputs), axis)
              for name, one in passes.items()}
    share = num / axis.sum(jnp.ones(num))
    loss = share * jnp.abs(scores['real'] - scores['fake'])
    return loss, batch_stats, passes['fake']

  gen, (loss, samples), norm = updates.descend(gen, setup.gen_tx, loss_fn, axis)
  return gen, gan_metrics.Made(loss, norm, samples)


def encoder_loss(
    features: Mapping[str, jax.Array], codes: jax.Array, z: jax.Array,
    distance_weight: float, axis: Axis,
) -> jax.Array:
  """Returns this device's share of E's loss, a scalar; the formula stands in `gaan`.

  Args:
    features: of the sets 'real', 'recon' and 'fake', [n, d_f] each; or the data.
    codes: E(x), [n, d_z].
    z: noise of the set 'fake', [n, d_z].
    distance_weight: weight of the squared distance term.
    axis: the devices that share the batch; their shares add up to the loss.
  """
  f = features
  scale = (codes.shape[1] / f['real'].shape[1]) ** 0.5
  distance = mean(f['recon'] - f['fake'], axis) - scale * mean(codes - z, axis)
  share = len(codes) / axis.sum(jnp.ones(len(codes)))  # of the batch, on this device
  error = jnp.square(f['real'] - f['recon']).mean()
  return share * (error + distance_weight * jnp.square(distance))


def reconstruct(
    setup: Setup, enc_params: Any, gen_variables: Mapping[str, Any],
    real: players.Set, axis: Axis,
) -> tuple[players.Set, jax.Array]:
  """Reconstructs real images x.

  Args:
    setup: the networks.
    enc_params: parameters of the encoder.
    gen_variables: of the generator.
    real: the set of real images x.
    axis: the devices that share the batch.

  Returns:
    (the set of images G(E(x)), codes E(x) [n, latent]).
  """
  codes, _ = setup.encoder.clone(axis_name=axis.name).apply(
      {'params': enc_params}, real['image'], train=False)
  images = setup.generator.clone(axis_name=axis.name).apply(gen_variables, codes)
  return {**real, 'image': images}, codes


def _see_apart(setup, variables, sets, key, axis, updating=''):
  """Applies the discriminator to each set in a separate pass; see `players.see`."""
  together = [[name] for name in sets]
  sets = players.with_keys(sets, jax.random.split(key, len(sets)), axis, together)
  return players.see(
      setup.discriminator, None, variables, sets, axis, together=together,
      updating=updating)


def mean(x: jax.Array, axis: Axis) -> jax.Array:
  """Returns the mean of x [n, ...] over the dimensions and the global batch."""
  flat = x.reshape(len(x), -1)
  return axis.sum(flat) / (axis.sum(jnp.ones(len(x))) * flat.shape[1])


def make_encoder(
    spec: Mapping[str, Any], latent: int, image_shape: tuple[int, ...]
) -> nn.Module:
  """Builds the encoder that `spec` names in `models.MODELS`.

  Raises:
    ValueError: an unknown name, or an encoder with batch statistics.
    TypeError: an unknown or a missing argument.
  """
  return updates.stateless(spec, 'encoder', latent, image_shape)


TRAINERS = {'gaan': gaan}


def build(
    config: Mapping[str, Any], image_shape: tuple[int, ...], others: Others
) -> task.Trainer:
  """Builds the trainer of a config.

  Args:
    config: of the task 'gaan'.
    image_shape: (height, width, channels).
    others: not used.

  Raises:
    ValueError: an unknown name, settings that are not valid, or an encoder with batch
      statistics.
    TypeError: an unknown or a missing argument of a spec.
  """
  del others
  pair, schedule = gan_build.pair(config, image_shape, OBJECTIVE)
  encoder = make_encoder(config['encoder'], pair['generator'].latent, image_shape)
  trainer = registry.build(
      TRAINERS, config['trainer'], what='trainer', encoder=encoder,
      steps=config['steps'],
      enc_tx=optim.make_optimizer(
          {**config['optimizer'], 'orthogonal': 0.0}, schedule, config['grad_clip']),
      **pair)
  return trainer._replace(learning_rate=schedule)


TASK = gan.TASK._replace(
    title='GANs with an encoder', build=build, commands=('evaluate', 'generate'),
    resolve=lambda config, others: config)
