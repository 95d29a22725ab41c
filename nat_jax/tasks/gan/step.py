"""The training step of a GAN, whose discriminator may learn from external negatives.

    trainer = gan(generator=..., discriminator=..., objective=losses.nat_gan(10), ...)
    state = trainer.init(jax.random.key(0))
    batch = {'positive': {'image': ...}, 'negative': {'image': ...}}   # of `data.apart`
    state, metrics = trainer.step(state, {}, batch)
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from nat_jax import losses, names, registry, task
from nat_jax.task import GLOBAL, Axis, Net, State
from nat_jax.tasks import updates
from nat_jax.tasks.gan import metrics as gan_metrics
from nat_jax.tasks.gan import players

LABELS = ('dynamic', 'predefined')


class Setup(NamedTuple):
  """The networks, the losses and the settings of a GAN.

  Attributes:
    generator: `apply(variables, z [n, latent], labels=) -> images`.
    discriminator: `apply(variables, images, keys=, mask=, train=) -> (outputs, aux)`.
    objective: the losses; see `losses.GanObjective`.
    gen_tx, disc_tx: the optimisers.
    num_classes: number of classes of the positives.
    image_shape: shape of one image, or (d,) for points.
    augment: (positives or negatives, uint8 [n, h, w, c]; keys [n]) -> images.
    normalise: images of any dtype -> normalised float32 images.
    penalties: terms added to the discriminator's loss; see `losses.penalties`.
    ema_decay: decay per step of the moving average of the generator's parameters, which
      then generates the samples; 0: no average.
    n_critic: updates of the discriminator per step.
    negatives_every: external negatives have a weight above 0 only in every n-th step.
    joint: True: one pass of the discriminator over generated images and negatives, with
      the batch statistics of both (as in the authors' code); False: one pass each.
    negative_weight: None: the discriminator's loss has one mean over generated images
      and negatives; a number: mean over generated images + negative_weight * mean over
      negatives.
    simultaneous: True: the generator's loss uses the discriminator from before the
      step; False: the updated discriminator.
    micro_batches: number of parts of a batch, whose gradients are added; each has batch
      statistics of its own. See `tasks.updates.in_parts`.
    labels: labels of generated images: 'dynamic' (the class with the largest logit of
      the discriminator) or 'predefined' (drawn at random and given to the generator).
    see: applies the discriminator to sets of examples, as `players.see`, whose
      arguments and results it has.
  """

  generator: nn.Module
  discriminator: nn.Module
  objective: losses.GanObjective
  gen_tx: optax.GradientTransformation
  disc_tx: optax.GradientTransformation
  num_classes: int
  image_shape: tuple[int, ...]
  augment: Callable[[jax.Array, jax.Array], jax.Array]
  normalise: Callable[[jax.Array], jax.Array]
  penalties: Sequence[losses.Penalty] = ()
  ema_decay: float = 0.0
  n_critic: int = 1
  negatives_every: int = 1
  joint: bool = True
  negative_weight: float | None = None
  simultaneous: bool = False
  micro_batches: int = 1
  labels: str = 'dynamic'
  see: Callable[..., Any] = players.see

  @property
  def given_classes(self) -> int:
    """Number of classes of the generator's input labels; 0 with dynamic labels."""
    return self.num_classes if self.labels == 'predefined' else 0


@registry.arguments(Setup)
def gan(**settings: Any) -> task.Trainer:
  """Returns the trainer of a GAN (eqs 7-11 of the paper, depending on the objective).

  One step makes `n_critic` updates of the discriminator and one of the generator. Real
  images have a separate pass of the discriminator, as in AM-GAN.

  Args:
    **settings: the attributes of `Setup`.

  Returns:
    A `Trainer` over a `State` of 'gen' and 'disc'. Its head 'samples' maps {'z':
    float32 [n, latent], 'label': int32 [n]} to images; its head 'logits' maps images to
    class logits [n, num_classes], if the objective has classes.

  Raises:
    ValueError: a setting out of range, or a combination that is not valid.
  """
  setup = Setup(**settings)
  _check(setup)
  return task.Trainer(
      init=functools.partial(init, setup),
      frozen=dict,
      step=functools.partial(step, setup),
      heads=make_heads(setup),
      figures=lambda metrics: {
          **task.figures(metrics),
          'images': float(metrics.loss_real.count * setup.n_critic)},
      line=gan_metrics.line,
      watch=('loss_disc', 'loss_gen', 'grad_norm_disc', 'grad_norm_gen'))


def step(setup, state, frozen, batch, *, axis: Axis = GLOBAL, update=None):
  """Updates the discriminator `n_critic` times and the generator once.

  Args:
    setup: a `Setup`.
    state: a `State` of 'gen' and 'disc'.
    frozen: not used.
    batch: {'positive': batch, 'negative': batch}, from `data.apart`; the latter is
      optional.
    axis: the devices that share the batch.
    update: how the generator is updated; None: `update_gen`, whose arguments and
      results it has.

  Returns:
    (state, `GanMetrics`).
  """
  del frozen
  step_key = jax.random.fold_in(state.key, state.step)
  gen, disc = state.nets['gen'], state.nets['disc']
  with_negatives = state.step % setup.negatives_every == 0
  for j in range(setup.n_critic):
    key = jax.random.fold_in(step_key, j)
    sets = players.prepare(
        batch, j, key, axis, setup.augment, setup.normalise, with_negatives)
    disc, seen = update_disc(setup, disc, gen, sets, jax.random.fold_in(key, 2), axis)
  gen, made = (update or update_gen)(
      setup, gen, state.nets['disc'] if setup.simultaneous else disc, sets,
      jax.random.fold_in(step_key, setup.n_critic), axis)
  state = state.replace(
      step=state.step + 1, nets={'gen': gen, 'disc': disc},
      ema=average(setup.ema_decay, state.ema, gen, state.step))
  return state, gan_metrics.collect(setup.objective, seen, made, axis)


def update_disc(setup, disc, gen, sets, key, axis):
  """Updates the discriminator on the sets of a batch and newly generated images.

  Returns:
    (the `Net` of the discriminator, a `Seen` for the metrics).
  """
  fake_key, *keys = jax.random.split(key, 4)
  real, objective = sets['real'], setup.objective
  num = len(real['label'])
  drawn = players.draw(setup.generator, fake_key, num, axis, setup.given_classes)
  sets = {'real': real, 'fake': drawn,
          **{name: one for name, one in sets.items() if name != 'real'}}
  unreal = list(sets)[1:]
  together = [['real'], unreal] if setup.joint else [[name] for name in sets]
  sets = players.with_keys(sets, keys, axis, together)
  coefficients = losses.disc_weights(
      {name: one['weight'] for name, one in sets.items()}, setup.negative_weight, axis)
  penalty_keys = players.penalty_keys(setup.penalties, fake_key, num, axis)
  num_real = axis.sum(real['weight'] > 0)

  def loss_fn(params, _, examples):
    sets, coefficients, penalty_keys = examples
    sets = {**sets, 'fake': players.made(
        setup.generator, gen.variables, sets['fake'], axis)[0]}
    # Of the update before, since spectral norm's u changes once per update.
    variables = disc.variables | {'params': params}
    passes, stats = setup.see(
        setup.discriminator, objective.class_logits, variables, sets, axis,
        together=together, updating='real')
    terms = objective.disc(passes, axis)
    loss = sum(jnp.sum(coefficients[name] * terms[name]) for name in terms)
    loss += players.penalty_sum(
        setup.penalties, objective.score, setup.discriminator, variables, passes,
        penalty_keys, axis) / num_real
    return loss, stats, (gan_metrics.of_examples(passes), terms)

  disc, (loss, (passes, terms)), norm = updates.descend(
      disc, setup.disc_tx, loss_fn, axis, (sets, coefficients, penalty_keys),
      setup.micro_batches)
  return disc, gan_metrics.Seen(loss, norm, passes, terms)


def update_gen(setup, gen, disc, sets, key, axis):
  """Updates the generator; the discriminator is constant.

  Returns:
    (the `Net` of the generator, a `Made` for the metrics).
  """
  objective = setup.objective
  fake_key, *keys = jax.random.split(key, 1 + len(objective.gen_sees))
  num, together = len(sets['real']['label']), [[name] for name in objective.gen_sees]
  drawn = players.draw(setup.generator, fake_key, num, axis, setup.given_classes)
  sets = players.with_keys(
      {name: (sets | {'fake': drawn})[name] for name in objective.gen_sees}, keys, axis,
      together)
  count = axis.sum(drawn['weight'])

  def loss_fn(params, _, sets):
    # Of the update before, since spectral norm's u changes once per update.
    fake, batch_stats = players.made(
        setup.generator, gen.variables | {'params': params}, sets['fake'], axis,
        updating=True)
    passes, _ = setup.see(
        setup.discriminator, objective.class_logits, disc.variables,
        {**sets, 'fake': fake}, axis, together=together)
    loss = jnp.sum(objective.gen(passes, axis) / count)
    return loss, batch_stats, gan_metrics.of_examples(passes)['fake']

  gen, (loss, samples), norm = updates.descend(
      gen, setup.gen_tx, loss_fn, axis, sets, setup.micro_batches)
  return gen, gan_metrics.Made(loss, norm, samples)


def average(
    decay: float, ema: dict[str, Any], net: Net, step: jax.Array, name: str = 'gen'
) -> dict[str, Any]:
  """Returns the updated moving average of a network's parameters.

  After t steps the decay is at most (1 + t) / (10 + t), or 1/2 where this is more, so
  that early samples and those of short runs are not of the initial parameters.

  Args:
    decay: per step, in [0, 1); 0: `ema` is returned unchanged.
    ema: {name: average}.
    net: the network.
    step: t, the number of steps before this one.
    name: of the network.
  """
  if not decay:
    return ema
  decay = jnp.minimum(decay, jnp.maximum((1 + step) / (10 + step), 0.5))
  return {name: optax.incremental_update(net.params, ema[name], 1.0 - decay)}


def init(setup: Setup, key: jax.Array) -> State:
  """Returns the initial `State` of the networks 'gen' and 'disc'."""
  gen_key, disc_key, step_key = jax.random.split(key, 3)
  num = 2 * getattr(setup.generator, 'num', 1)  # of stacked generators
  z, label = jnp.zeros((num, setup.generator.latent)), jnp.zeros(num, jnp.int32)
  gen_variables = setup.generator.init(gen_key, z, labels=label)
  gen_params = gen_variables['params']
  variables = dict(setup.discriminator.init(
      disc_key, jnp.zeros((2, *setup.image_shape)), train=False))
  disc_params = variables.pop('params')
  return State(
      step=jnp.zeros((), jnp.int32),
      key=step_key,
      nets={
          'gen': Net(gen_params, gen_variables.get('batch_stats', {}),
                     setup.gen_tx.init(gen_params)),
          'disc': Net(disc_params, variables.get('batch_stats', {}),
                      setup.disc_tx.init(disc_params))},
      # A copy, because a donated state must not hold one buffer twice.
      ema={'gen': jax.tree.map(jnp.copy, gen_params)} if setup.ema_decay else {},
  )


def make_heads(setup: Setup) -> dict[str, Callable[..., jax.Array]]:
  """Returns the heads 'samples' and, if the objective has class logits, 'logits'."""
  objective = setup.objective

  def samples(state, noise):
    gen = state.nets['gen']
    variables = gen.variables | {'params': state.ema.get('gen', gen.params)}
    labels = noise['label'] if setup.given_classes else None
    return setup.generator.apply(variables, noise['z'], labels=labels)

  def logits(state, images):
    outputs, _ = setup.discriminator.apply(
        state.nets['disc'].variables, setup.normalise(images), train=False)
    return objective.class_logits(outputs)

  return {'samples': samples} | ({'logits': logits} if objective.class_logits else {})


def _check(setup):
  if setup.labels not in LABELS:
    raise ValueError(names.unknown('trainer.labels', setup.labels, LABELS))
  if setup.n_critic < 1 or setup.negatives_every < 1:
    raise ValueError(
        'trainer.n_critic and trainer.negatives_every must be 1 or more, got '
        f'{setup.n_critic} and {setup.negatives_every}')
  if setup.simultaneous and setup.n_critic > 1:
    raise ValueError(
        'trainer.simultaneous=True needs trainer.n_critic=1, got '
        f'{setup.n_critic}; change one of them')
  if setup.micro_batches > 1 and setup.objective.whole_batch:
    raise ValueError(
        f'micro_batches={setup.micro_batches} does not go with this loss, which needs '
        'the whole batch at once; set micro_batches=1, or choose another loss')
  _check_classes(setup)
  _check_slope(setup)


def unmixed(discriminator: Any) -> str:
  """The settings, for a message, with which D would not mix the examples of a batch.

  Args:
    discriminator: whose attribute `mixes` is True.
  """
  settings = {'batch_norm': False, 'kernels': 0}
  return ' and '.join(
      f'discriminator.{name}={value}' for name, value in settings.items()
      if getattr(discriminator, name, value) != value)


def _check_classes(setup):
  """Raises ValueError unless labels, loss and discriminator go together."""
  projection = getattr(setup.discriminator, 'projection', 0)
  if setup.given_classes and not (setup.objective.class_logits or projection):
    raise ValueError(
        "trainer.labels='predefined' needs a loss with class logits, which gan, hinge "
        'and others without classes do not have, or a discriminator that is '
        'conditional by discriminator.projection; choose one of these, or '
        "labels='dynamic'")
  if projection and setup.objective.class_logits:
    raise ValueError(
        'discriminator.projection needs a loss without class logits, such as gan or '
        'hinge; choose one of them, or set discriminator.projection=0')
  if projection and setup.objective.num_outputs > 1:
    raise ValueError(
        'discriminator.projection adds a class term to one output, but this loss has '
        f'{setup.objective.num_outputs}; choose gan or hinge, or set '
        'discriminator.projection=0')
  if projection and setup.labels != 'predefined':
    raise ValueError(
        'discriminator.projection needs the labels of generated examples; set '
        f"trainer.labels='predefined' (got {setup.labels!r})")
  if projection not in (0, setup.num_classes):
    raise ValueError(
        f'discriminator.projection must be the number of classes, {setup.num_classes}, '
        f'or 0, got {projection}')


def _check_slope(setup):
  """Raises ValueError if D's gradient penalty or bounded slope is not defined."""
  players.check_score(setup.penalties, setup.objective.score)
  if setup.penalties and getattr(setup.discriminator, 'mixes', False):
    raise ValueError(
        'penalties are of the gradient of D at one example, but this discriminator '
        f'mixes the examples of a batch; set {unmixed(setup.discriminator)}, or '
        'penalties=[]')
  spectral = getattr(setup.discriminator, 'norm', '') == 'spectral'
  free = getattr(setup.discriminator, 'batch_norm', False)  # its scale is not bounded
  if not (setup.objective.bounded or setup.penalties or spectral and not free):
    raise ValueError(
        "the loss 'wgan' has no minimum unless D's slope is bounded; set "
        "penalties=[{'name': 'gradient'}], or discriminator.norm='spectral' and "
        'discriminator.batch_norm=False')
