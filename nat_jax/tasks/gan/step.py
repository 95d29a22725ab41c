"""A generator and a discriminator, the latter with external negatives if there are any.

    trainer = gan(generator=..., discriminator=..., objective=losses.nat_gan(10), ...)
    state = trainer.init(jax.random.key(0))
    batch = {'positive': {'image': ...}, 'negative': {'image': ...}}
    state, metrics = trainer.step(state, {}, batch)
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from nat_jax import losses, task
from nat_jax.task import GLOBAL, Axis, Net, State
from nat_jax.tasks import updates
from nat_jax.tasks.gan import metrics as gan_metrics
from nat_jax.tasks.gan import players

LABELS = ('dynamic', 'predefined')


def gan(
    *,
    generator: nn.Module,
    discriminator: nn.Module,
    objective: losses.GanObjective,
    gen_tx: optax.GradientTransformation,
    disc_tx: optax.GradientTransformation,
    num_classes: int,
    image_shape: tuple[int, ...],
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    normalise: Callable[[jax.Array], jax.Array],
    penalties: Sequence[losses.Penalty] = (),
    ema_decay: float = 0.0,
    n_critic: int = 1,
    negatives_every: int = 1,
    joint: bool = True,
    negative_weight: float | None = None,
    simultaneous: bool = False,
    labels: str = 'dynamic',
) -> task.Trainer:
  """Returns the trainer of a GAN (paper eqs 7-11, by the objective).

  One step makes `n_critic` updates of the discriminator and one of the generator. Real
  images pass through the discriminator apart from the others, as in AM-GAN.

  Args:
    generator: `apply({'params'}, z [n, latent], labels=) -> images`.
    discriminator: `apply(variables, images, keys=, mask=, train=) -> (outputs, aux)`.
    objective: see `losses.GanObjective`.
    gen_tx, disc_tx: the optimisers.
    num_classes: classes of the positives.
    image_shape: of one image (or point).
    augment, normalise: as in `supervised`; for real images and negatives.
    penalties: added to the discriminator's loss; see `losses.penalties`.
    ema_decay: of the generator's moving average, which then makes the samples; 0: none.
    n_critic: updates of the discriminator per step.
    negatives_every: external negatives take part in every n-th step.
    joint: generated images and negatives in one pass, so with the batch statistics of
      both (the authors' snippet); False: in two.
    negative_weight: None: one mean over generated images and negatives; else mean over
      the former + this * mean over the latter.
    simultaneous: the generator learns from the discriminator as it was before the step.
    labels: of generated images: 'dynamic', the discriminator's own nearest class, or
      'predefined', drawn and given to the generator.

  Returns:
    A `Trainer` over a `State` of 'gen' and 'disc'; its head 'samples' takes {'z': [n,
    latent], 'label': [n]}; its head 'logits' gives the class logits of images, if there
    are classes.

  Raises:
    ValueError: settings that do not fit each other.
  """
  _check(labels, n_critic, negatives_every, simultaneous, objective)
  given_classes = num_classes if labels == 'predefined' else 0

  def step(state, frozen, batch, *, axis: Axis = GLOBAL):
    del frozen
    step_key = jax.random.fold_in(state.key, state.step)
    gen, disc = state.nets['gen'], state.nets['disc']
    for j in range(n_critic):
      key = jax.random.fold_in(step_key, j)
      sets = players.prepare(
          batch, j, key, axis, augment, normalise, state.step % negatives_every == 0)
      disc, seen = update_disc(disc, gen, sets, jax.random.fold_in(key, 2), axis)
    gen, made = update_gen(
        gen, state.nets['disc'] if simultaneous else disc, sets,
        jax.random.fold_in(step_key, n_critic), axis)
    ema = state.ema
    if ema_decay:
      ema = {'gen': optax.incremental_update(gen.params, ema['gen'], 1.0 - ema_decay)}
    state = state.replace(
        step=state.step + 1, nets={'gen': gen, 'disc': disc}, ema=ema)
    return state, gan_metrics.collect(objective, seen, made, axis)

  def update_disc(disc, gen, sets, key, axis):
    fake_key, *keys = jax.random.split(key, 4)
    num = len(sets['real']['label'])
    fake = players.generate(
        generator, gen.params, fake_key, num, axis, given_classes)
    sets = {'real': sets['real'], 'fake': fake,
            **{name: one for name, one in sets.items() if name != 'real'}}
    others = list(sets)[1:]
    together = [['real'], others] if joint else [[name] for name in sets]
    coefficients = losses.disc_weights(
        {name: one['weight'] for name, one in sets.items()}, negative_weight, axis)

    num_real = axis.sum(sets['real']['weight'] > 0)

    def loss_fn(params):
      variables = disc.variables | {'params': params}
      passes, stats = players.see(
          discriminator, objective.class_logits, variables, sets, keys, axis,
          together=together, updating='real')
      terms = objective.disc(passes, axis)
      loss = sum(jnp.sum(coefficients[name] * terms[name]) for name in terms)
      loss += players.penalty_sum(
          penalties, discriminator, variables, passes, fake_key, axis) / num_real
      return loss, (passes, terms, stats)

    disc, (loss, (passes, terms, stats)), norm = updates.descend(
        disc, disc_tx, loss_fn, axis)
    return disc.replace(batch_stats=stats), gan_metrics.Seen(loss, norm, passes, terms)

  def update_gen(gen, disc, sets, key, axis):
    fake_key, *keys = jax.random.split(key, 1 + len(objective.gen_sees))
    num = len(sets['real']['label'])

    def loss_fn(params):
      fake = players.generate(generator, params, fake_key, num, axis, given_classes)
      passes, _ = players.see(
          discriminator, objective.class_logits, disc.variables,
          {name: (sets | {'fake': fake})[name] for name in objective.gen_sees}, keys,
          axis, together=[[name] for name in objective.gen_sees])
      weight = passes['fake'].weight
      loss = jnp.sum(objective.gen(passes, axis) / axis.sum(weight))
      return loss, passes['fake']

    gen, (loss, samples), norm = updates.descend(gen, gen_tx, loss_fn, axis)
    return gen, gan_metrics.Made(loss, norm, samples)

  return task.Trainer(
      init=make_init(generator, discriminator, gen_tx, disc_tx, image_shape, ema_decay),
      frozen=dict, step=step,
      heads=make_heads(
          generator, discriminator, objective, normalise, bool(given_classes)),
      figures=lambda metrics: {
          **task.figures(metrics), 'images': float(metrics.loss_real.count * n_critic)},
      line=gan_metrics.line,
      watch=('loss_disc', 'loss_gen', 'grad_norm_disc', 'grad_norm_gen'))


def make_init(
    generator, discriminator, gen_tx, disc_tx, image_shape, ema_decay
) -> Callable[[jax.Array], State]:
  """Returns key -> State of 'gen' and 'disc'."""

  def init(key: jax.Array) -> State:
    gen_key, disc_key, step_key = jax.random.split(key, 3)
    z, label = jnp.zeros((2, generator.latent)), jnp.zeros(2, jnp.int32)
    gen_params = generator.init(gen_key, z, labels=label)['params']
    variables = dict(discriminator.init(
        disc_key, jnp.zeros((2, *image_shape)), train=False))
    disc_params = variables.pop('params')
    return State(
        step=jnp.zeros((), jnp.int32),
        key=step_key,
        nets={
            'gen': Net(gen_params, {}, gen_tx.init(gen_params)),
            'disc': Net(disc_params, variables.get('batch_stats', {}),
                        disc_tx.init(disc_params))},
        # Copies: a donated state must not hold one buffer twice.
        ema={'gen': jax.tree.map(jnp.copy, gen_params)} if ema_decay else {},
    )

  return init


def make_heads(generator, discriminator, objective, normalise, labelled) -> dict:
  """The heads 'samples' and, where the objective knows classes, 'logits'."""

  def samples(state, noise):
    params = state.ema.get('gen', state.nets['gen'].params)
    return generator.apply(
        {'params': params}, noise['z'], labels=noise['label'] if labelled else None)

  def logits(state, images):
    outputs, _ = discriminator.apply(
        state.nets['disc'].variables, normalise(images), train=False)
    return objective.class_logits(outputs)

  return {'samples': samples} | ({'logits': logits} if objective.class_logits else {})


def _check(labels, n_critic, negatives_every, simultaneous, objective):
  if labels not in LABELS:
    raise ValueError(f'unknown trainer.labels {labels!r}; valid: {", ".join(LABELS)}')
  if n_critic < 1 or negatives_every < 1:
    raise ValueError(
        'trainer.n_critic and trainer.negatives_every must be 1 or more, got '
        f'{n_critic} and {negatives_every}')
  if simultaneous and n_critic > 1:
    raise ValueError('trainer.simultaneous goes with n_critic=1 alone')
  if labels == 'predefined' and not objective.class_logits:
    raise ValueError(
        "trainer.labels='predefined' needs a loss that knows classes: not gan, hinge")
