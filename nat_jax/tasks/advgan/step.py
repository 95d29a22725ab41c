"""The training step of an AdvGAN: a generator G of changes, against a frozen target F.

    trainer = advgan(generator=..., discriminator=..., target=lambda: run, ...)
    state = trainer.init(jax.random.key(0))
    state, metrics = trainer.step(state, trainer.frozen(), batch)
    changed = trainer.heads['adversarial'](state, images)
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from clu import metrics as clu_metrics

from nat_jax import registry, task
from nat_jax.task import GLOBAL, Axis, Net, Run, State
from nat_jax.tasks import attacks, updates
from nat_jax.tasks.gan import players

Average = clu_metrics.Average


class Setup(NamedTuple):
  """The networks and the settings of an AdvGAN.

  Attributes:
    generator: `apply({'params'}, images, train=False) -> (outputs [n, h w c], aux)`.
    discriminator: see `tasks.gan.step.Setup`; it has one output.
    target: () -> the restored classifier F that is attacked. It is called once, by
      `frozen` or the first `step`.
    gen_tx, disc_tx, student_tx: the optimisers.
    num_classes: number of classes of the positives.
    image_shape: (height, width, channels).
    augment, normalise: see `tasks.gan.step.Setup`.
    student: a classifier that is distilled from F and attacked in its place (black box:
      only predictions of F are used); None: F itself is attacked (semi-white box: its
      gradients are used in training).
    budget: largest change of a pixel, as a share of the range from black to white.
    adversarial_weight: of the term that misleads the classifier.
    gan_weight: of the term by which D takes changed pictures for real.
    hinge_weight: of the length of the change above `hinge`.
    hinge: length of a change that costs nothing, as a multiple of the largest possible
      one: budget sqrt(h w c).
    kappa: logits by which the wrong class shall win.
  """

  generator: nn.Module
  discriminator: nn.Module
  target: Callable[[], Run]
  gen_tx: optax.GradientTransformation
  disc_tx: optax.GradientTransformation
  student_tx: optax.GradientTransformation
  num_classes: int
  image_shape: tuple[int, ...]
  augment: Callable[[jax.Array, jax.Array], jax.Array]
  normalise: Callable[[jax.Array], jax.Array]
  student: nn.Module | None = None
  budget: float = 0.03
  adversarial_weight: float = 1.0
  gan_weight: float = 0.1
  hinge_weight: float = 0.0
  hinge: float = 0.0
  kappa: float = 0.0

  @property
  def limits(self) -> attacks.Limits:
    """The pictures that the generator may make."""
    return attacks.make_limits(self.budget, self.normalise, self.image_shape)


@flax.struct.dataclass
class AdvGanMetrics(clu_metrics.Collection):
  """Averages over updates and examples."""

  loss_gen: Average.from_output('loss_gen')
  loss_disc: Average.from_output('loss_disc')
  loss_student: Average.from_output('loss_student')  # 0 without a student
  success: Average.from_output('success')  # of the attacked classifier's predictions
  length: Average.from_output('length')  # of the change, 1: the largest
  grad_norm_gen: Average.from_output('grad_norm_gen')
  grad_norm_disc: Average.from_output('grad_norm_disc')


@registry.arguments(Setup)
def advgan(**settings: Any) -> task.Trainer:
  """Returns the trainer of a generator G of changes and a discriminator D.

  x' = clip(x + budget tanh(G(x))), in pixels from 0 (black) to 1 (white).
  D: mean (D(x) - 1)^2 + mean D(x')^2.
  G: adversarial_weight mean max(m(x'), -kappa) + gan_weight mean (D(x') - 1)^2
     + hinge_weight mean max(0, |x' - x| / (budget sqrt(h w c)) - hinge),

  where m is by how many logits the classifier still prefers the right class
  (`attacks.margin`). With a student F^ a step first descends the cross-entropy of F^
  with the probabilities of F, for x and x', and m is of F^. All means are over the
  batch: the reference code has sums in some of them, which multiplies the weights by
  the batch size, and a margin of probabilities, whose gradient vanishes where the
  classifier is sure.

  Args:
    **settings: the attributes of `Setup`.

  Returns:
    A `Trainer` over a `State` of 'gen', 'disc' and, in a black-box attack, 'student'.
    Its head 'adversarial' maps images to x', normalised; 'student' maps images to the
    logits of the student.

  Raises:
    ValueError: a budget that is not in [1/255, 1], or vectors instead of pictures.
  """
  setup = Setup(**settings)
  setup = setup._replace(target=functools.cache(setup.target))
  limits = setup.limits
  return task.Trainer(
      init=functools.partial(init, setup),
      frozen=lambda: {'target': setup.target().state},
      step=functools.partial(step, setup),
      heads={
          'adversarial': lambda state, images: perturb(
              setup, limits, state.nets['gen'].params, setup.normalise(images),
              GLOBAL)[0],
          'student': lambda state, images: student_logits(
              setup, state.nets['student'], images),
      },
      figures=lambda metrics: {
          **task.figures(metrics), 'images': float(metrics.success.count)},
      line=line,
      watch=('loss_disc', 'loss_gen', 'grad_norm_disc', 'grad_norm_gen',
             'loss_student'))


def init(setup: Setup, key: jax.Array) -> State:
  """Returns the initial `State` of 'gen', 'disc' and, if there is one, 'student'."""
  gen_key, disc_key, student_key, step_key = jax.random.split(key, 4)
  images = jnp.zeros((2, *setup.image_shape))

  def net(module, tx, key):
    variables = dict(module.init(key, images, train=False))
    params = variables['params']
    return Net(params, variables.get('batch_stats', {}), tx.init(params))

  nets = {'gen': net(setup.generator, setup.gen_tx, gen_key),
          'disc': net(setup.discriminator, setup.disc_tx, disc_key)}
  if setup.student is not None:
    nets['student'] = net(setup.student, setup.student_tx, student_key)
  return State(step=jnp.zeros((), jnp.int32), key=step_key, nets=nets, ema={})


def step(setup, state, frozen, batch, *, axis: Axis = GLOBAL):
  """Updates the student, if there is one, the discriminator and the generator once.

  Args:
    setup: a `Setup`.
    state: a `State` of 'gen', 'disc' and, in a black-box attack, 'student'.
    frozen: {'target': state of the target}.
    batch: {'image', 'label', 'weight'}, of positives.
    axis: the devices that share the batch.

  Returns:
    (state, `AdvGanMetrics`).
  """
  nets, num = dict(state.nets), len(batch['label'])
  step_key = jax.random.fold_in(state.key, state.step)
  augment_key, disc_key, gen_key = jax.random.split(step_key, 3)
  images = setup.normalise(setup.augment(batch['image'], axis.keys(augment_key, num)))
  real = {**batch, 'image': images}
  changed, _ = perturb(setup, setup.limits, nets['gen'].params, images, axis)
  logits = functools.partial(
      setup.target().trainer.heads['logits'], frozen['target'])
  loss_student = jnp.zeros(())
  if setup.student is not None:
    nets['student'], loss_student = update_student(
        setup, nets['student'], real, changed, logits, axis)
    logits = functools.partial(student_logits, setup, nets['student'])
  nets['disc'], loss_disc, norm_disc = update_disc(
      setup, nets['disc'], real, {**real, 'image': changed}, disc_key, axis)
  nets['gen'], loss_gen, norm_gen, (fooled, length) = update_gen(
      setup, nets['gen'], nets['disc'], real, logits, gen_key, axis)
  metrics = task.collect(
      AdvGanMetrics, axis, loss_gen=loss_gen, loss_disc=loss_disc,
      loss_student=loss_student, success=fooled, length=length, grad_norm_gen=norm_gen,
      grad_norm_disc=norm_disc)
  return state.replace(step=state.step + 1, nets=nets), metrics


def perturb(
    setup: Setup, limits: attacks.Limits, params: Any, images: jax.Array, axis: Axis
) -> tuple[jax.Array, jax.Array]:
  """Changes images by the generator.

  Args:
    setup: the networks.
    limits: of the changes.
    params: of the generator.
    images: normalised, [n, h, w, c].
    axis: the devices that share the batch.

  Returns:
    (x' [n, h, w, c], length of the change [n], 1 for the largest possible one).
  """
  outputs, _ = setup.generator.clone(axis_name=axis.name).apply(
      {'params': params}, images, train=False)
  changes = jnp.tanh(outputs).reshape(images.shape)
  changed = attacks.project(limits, images, images + limits.radius * changes)
  share = (changed - images) / limits.radius
  # Not quite 0, where the root has no derivative.
  return changed, jnp.sqrt(jnp.square(share).mean((1, 2, 3)) + 1e-12)


def student_logits(setup: Setup, student: Net, images: jax.Array) -> jax.Array:
  """Returns the logits [n, num_classes] of the student in evaluation mode."""
  return setup.student.apply(
      student.variables, setup.normalise(images), train=False)[0]


def update_student(setup, student, real, changed, logits, axis):
  """Distils the target into the student, on images and changed images.

  Returns:
    (the `Net` of the student, the loss over the global batch).
  """
  images = jnp.concatenate([real['image'], changed])
  wanted = jax.nn.softmax(logits(images))
  # A background output is no class: the student learns how the others compare.
  wanted = wanted[:, :setup.num_classes]
  wanted /= wanted.sum(1, keepdims=True)
  weight = jnp.concatenate([real['weight'], real['weight']])
  count = axis.sum(weight > 0)

  def loss_fn(params, batch_stats, _):
    (found, _), after = setup.student.clone(axis_name=axis.name).apply(
        {'params': params, 'batch_stats': batch_stats}, images, train=True,
        mask=weight, mutable=['batch_stats'])
    terms = weight * optax.softmax_cross_entropy(found, wanted) / count
    return terms, after.get('batch_stats', {}), ()

  student, (loss, _), _ = updates.descend(student, setup.student_tx, loss_fn, axis)
  return student, loss


def update_disc(setup, disc, real, fake, key, axis):
  """Updates the discriminator on real and on changed images.

  Returns:
    (the `Net` of the discriminator, the loss, the norm of the gradient).
  """
  sets, together = {'real': real, 'fake': fake}, [['real'], ['fake']]
  sets = players.with_keys(sets, jax.random.split(key), axis, together)
  share = real['weight'] / axis.sum(real['weight'] > 0)

  def loss_fn(params, batch_stats, _):
    passes, stats = players.see(
        setup.discriminator, None, {'params': params, 'batch_stats': batch_stats}, sets,
        axis, together=together, updating='real')
    terms = sum(jnp.square(passes[name].outputs[:, 0] - wanted)
                for name, wanted in (('real', 1.0), ('fake', 0.0)))
    return share * terms, stats, ()

  disc, (loss, _), norm = updates.descend(disc, setup.disc_tx, loss_fn, axis)
  return disc, loss, norm


def update_gen(setup, gen, disc, real, logits, key, axis):
  """Updates the generator; the discriminator and the classifier are constant.

  Returns:
    (the `Net` of the generator, the loss, the norm of the gradient, (whether the
    classifier predicts a wrong class, length of the change), [n] each).
  """
  share = real['weight'] / axis.sum(real['weight'] > 0)

  def loss_fn(params, batch_stats, _):
    images, length = perturb(setup, setup.limits, params, real['image'], axis)
    margin = attacks.margin(logits(images), real['label'], setup.num_classes)
    sets = players.with_keys(
        {'fake': {**real, 'image': images}}, [key], axis, [['fake']])
    passes, _ = players.see(
        setup.discriminator, None, disc.variables, sets, axis, together=[['fake']])
    terms = (
        setup.adversarial_weight * jnp.maximum(margin, -setup.kappa)
        + setup.gan_weight * jnp.square(passes['fake'].outputs[:, 0] - 1)
        + setup.hinge_weight * jnp.maximum(length - setup.hinge, 0))
    return share * terms, batch_stats, (margin < 0, length)

  gen, (loss, seen), norm = updates.descend(gen, setup.gen_tx, loss_fn, axis)
  return gen, loss, norm, seen


def line(record: dict[str, float]) -> str:
  """Returns the text of the progress line; `record`: name of a metric -> value."""
  return (f'loss_gen {record["loss_gen"]:.3f}  loss_disc {record["loss_disc"]:.3f}  '
          f'success {record["success"]:.3f}')
