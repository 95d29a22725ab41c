"""The training step of a classifier that also learns from unlabelled examples.

    trainer = semi_supervised(generator=..., discriminator=..., objective=..., ...)
    state = trainer.init(jax.random.key(0))
    state, metrics = trainer.step(state, {}, {'labelled': batch, 'unlabelled': batch})

The discriminator of a GAN is the classifier. Labelled examples have the loss of a
classifier; unlabelled and generated ones have that of a GAN objective with class
logits, such as K + 1 classes with an implicit logit, or uniform predictions on what is
generated.

Reference: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016,
section 5.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from clu import metrics as clu_metrics

from nat_jax import losses, registry, task
from nat_jax.task import GLOBAL, Axis, State
from nat_jax.tasks import updates
from nat_jax.tasks.gan import metrics as gan_metrics
from nat_jax.tasks.gan import step as gan_step

# Set of a GAN's step -> part of a batch. 'real' is what the generator imitates.
PARTS = {'real': 'unlabelled', 'labelled': 'labelled'}


class Setup(NamedTuple):
  """The networks, the losses and the settings.

  Attributes:
    generator, discriminator, gen_tx, disc_tx, num_classes, image_shape, augment,
      normalise, penalties: see `tasks.gan.step.Setup`.
    supervised: the loss of labelled examples, on class logits.
    objective: the losses of unlabelled and generated examples, with class logits; its
      losses of D on 'real' examples are those of unlabelled ones, whose label is the
      class with the largest logit.
    unlabelled_weight, fake_weight: factors of D's losses on unlabelled and on generated
      examples.
    ema_decay: decay per step of the moving average of the classifier's parameters, by
      which it is evaluated, lower at first (see `tasks.gan.step.average`); 0: none.
  """

  generator: nn.Module
  discriminator: nn.Module
  supervised: losses.Objective
  objective: losses.GanObjective
  gen_tx: optax.GradientTransformation
  disc_tx: optax.GradientTransformation
  num_classes: int
  image_shape: tuple[int, ...]
  augment: Callable[[jax.Array, jax.Array], jax.Array]
  normalise: Callable[[jax.Array], jax.Array]
  penalties: Sequence[losses.Penalty] = ()
  ema_decay: float = 0.0
  unlabelled_weight: float = 1.0
  fake_weight: float = 1.0

  @property
  def pair(self) -> gan_step.Setup:
    """Generator and discriminator with the losses of all sets."""
    return gan_step.Setup(
        self.generator, self.discriminator, with_labelled(
            self.objective, self.supervised, self.unlabelled_weight, self.fake_weight),
        self.gen_tx, self.disc_tx, self.num_classes, self.image_shape, self.augment,
        self.normalise, self.penalties, joint=False)


@flax.struct.dataclass
class Metrics(clu_metrics.Collection):
  """Averages over updates and examples.

  `loss_unlabelled` and `loss_fake` contain their factors, as they do in `loss_disc`.
  """

  loss_disc: clu_metrics.Average.from_output('loss_disc')
  loss_gen: clu_metrics.Average.from_output('loss_gen')
  loss_labelled: updates.mean_of('loss_labelled')
  loss_unlabelled: updates.mean_of('loss_unlabelled')
  loss_fake: updates.mean_of('loss_fake')
  accuracy: updates.mean_of('accuracy')  # on labelled examples
  # Largest class probability.
  confidence_unlabelled: updates.mean_of('confidence_unlabelled')
  confidence_fake: updates.mean_of('confidence_fake')
  grad_norm_disc: clu_metrics.Average.from_output('grad_norm_disc')
  grad_norm_gen: clu_metrics.Average.from_output('grad_norm_gen')


@registry.arguments(Setup)
def semi_supervised(**settings: Any) -> task.Trainer:
  """Returns the trainer of a classifier, the discriminator D of a GAN.

  A step updates D and the generator G, in this order. D's loss is
  mean l(x, y) + unlabelled_weight mean d_real(x') + fake_weight mean d_fake(G(z)),
  with the loss l of labelled examples (x, y) and the losses d of the objective on
  unlabelled examples x' and on generated ones. G's loss is that of the objective, with
  x' as real examples.

  Args:
    **settings: the attributes of `Setup`.

  Returns:
    A `Trainer` over a `State` of 'gen' and 'disc'. Its head 'logits' maps images to
    class logits [n, num_classes], its head 'samples' {'z': float32 [n, latent]} to
    images.

  Raises:
    ValueError: an objective without class logits, a loss that uses negatives, or a
      discriminator whose outputs depend on the other examples of a batch.
  """
  setup = Setup(**settings)
  if setup.objective.class_logits is None:
    raise ValueError(
        'expected a gan_loss with class logits, since the discriminator is the '
        "classifier; got one without, such as gan, hinge or mmd; choose 'implicit_gan' "
        "or 'nat_gan_unlabelled'")
  if setup.supervised.uses_negatives:
    raise ValueError(
        'expected a loss that uses no negatives, of which a semi-supervised classifier '
        "has none but what it generates; set loss={'name': 'cross_entropy'}")
  _check_alone(setup.discriminator)
  return task.Trainer(
      init=functools.partial(init, setup),
      frozen=dict,
      step=functools.partial(step, setup),
      heads={'logits': functools.partial(logits, setup),
             'samples': gan_step.make_heads(setup.pair)['samples']},
      figures=lambda metrics: {
          **task.figures(metrics), 'images': float(
              metrics.loss_labelled.count + metrics.loss_unlabelled.count)},
      line=line,
      watch=('loss_disc', 'loss_gen', 'grad_norm_disc', 'grad_norm_gen'))


def _check_alone(discriminator):
  """Raises ValueError if a prediction needs other examples, or the example's label."""
  if getattr(discriminator, 'projection', False):
    raise ValueError(
        'expected a discriminator that predicts the class, got one that is given it; '
        'set discriminator.projection=0')
  if getattr(discriminator, 'mixes', False):
    raise ValueError(
        'expected a discriminator that predicts the class of each example alone, since '
        'it is the classifier; got one whose outputs depend on the other examples of '
        f'the batch; set {gan_step.unmixed(discriminator)}')


def with_labelled(
    objective: losses.GanObjective, supervised: losses.Objective,
    unlabelled_weight: float, fake_weight: float,
) -> losses.GanObjective:
  """Returns an objective whose loss of D has a third set, 'labelled'.

  Args:
    objective, supervised, unlabelled_weight, fake_weight: see `Setup`.
  """
  factors = {'real': unlabelled_weight, 'fake': fake_weight}

  def disc(passes, axis):
    passes = dict(passes)
    labelled, real = passes.pop('labelled'), passes['real']
    passes['real'] = real._replace(
        labels=objective.class_logits(real.outputs).argmax(-1))
    terms = {name: factors[name] * values
             for name, values in objective.disc(passes, axis).items()}
    return terms | {'labelled': supervised.per_example(
        objective.class_logits(labelled.outputs), labelled.labels)}

  return objective._replace(disc=disc)


def init(setup: Setup, key: jax.Array) -> State:
  """Returns the initial `State` of the networks 'gen' and 'disc'."""
  state = gan_step.init(setup.pair, key)
  if not setup.ema_decay:
    return state
  # A copy, because a donated state must not hold one buffer twice.
  return state.replace(ema={'disc': jax.tree.map(
      jnp.copy, state.nets['disc'].params)})


def step(setup, state, frozen, batch, *, axis: Axis = GLOBAL):
  """Updates the discriminator and the generator once.

  Args:
    setup: a `Setup`.
    state: a `State` of 'gen' and 'disc'.
    frozen: not used.
    batch: {'labelled': batch, 'unlabelled': batch}; labels of the latter are not read.
    axis: the devices that share the batch.

  Returns:
    (state, `Metrics`).
  """
  del frozen
  key, disc_key, gen_key = jax.random.split(
      jax.random.fold_in(state.key, state.step), 3)
  gen, disc, sets = state.nets['gen'], state.nets['disc'], {}
  for i, (name, part) in enumerate(PARTS.items()):
    one = batch[part]
    each = axis.keys(jax.random.fold_in(key, i), len(one['label']))
    sets[name] = {**one, 'image': setup.normalise(setup.augment(one['image'], each))}
  disc, seen = gan_step.update_disc(setup.pair, disc, gen, sets, disc_key, axis)
  gen, made = gan_step.update_gen(setup.pair, gen, disc, sets, gen_key, axis)
  state = state.replace(
      step=state.step + 1, nets={'gen': gen, 'disc': disc}, ema=gan_step.average(
          setup.ema_decay, state.ema, disc, state.step, 'disc'))
  return state, collect(setup, seen, made, axis)


def collect(
    setup: Setup, seen: gan_metrics.Seen, made: gan_metrics.Made, axis: Axis
) -> Metrics:
  """Returns the metrics of a step, over the global batch.

  Args:
    setup: a `Setup`.
    seen: from the update of the discriminator.
    made: from the update of the generator.
    axis: the devices that share the batch.
  """
  found = {
      'loss_disc': seen.loss, 'grad_norm_disc': seen.grad_norm,
      'loss_gen': made.loss, 'grad_norm_gen': made.grad_norm}
  passes = {'unlabelled': seen.passes['real'], 'labelled': seen.passes['labelled'],
            'fake': made.samples}
  of = {name: setup.objective.class_logits(one.outputs) for name, one in passes.items()}
  per_example = {
      'loss_labelled': ('labelled', seen.terms['labelled']),
      'loss_unlabelled': ('unlabelled', seen.terms['real']),
      'loss_fake': ('fake', seen.terms['fake']),
      'accuracy': (
          'labelled', of['labelled'].argmax(-1) == passes['labelled'].labels),
      **{f'confidence_{name}': (
          name, losses.max_probability(of[name], setup.num_classes))
         for name in ('unlabelled', 'fake')}}
  for name, (part, values) in per_example.items():
    found |= {name: values, f'{name}_weight': passes[part].weight}
  return task.collect(Metrics, axis, **found)


def logits(setup: Setup, state: State, pictures: jax.Array) -> jax.Array:
  """Returns class logits [n, num_classes], of the moving average if there is one."""
  disc = state.nets['disc']
  variables = disc.variables | {'params': state.ema.get('disc', disc.params)}
  outputs, _ = setup.discriminator.apply(
      variables, setup.normalise(pictures), train=False)
  return setup.objective.class_logits(outputs)


def line(record: dict[str, float]) -> str:
  """Returns the text of the progress line.

  Args:
    record: name of a metric of `Metrics` -> value.
  """
  return (f'D {record["loss_disc"]:.3f}  G {record["loss_gen"]:.3f}  '
          f'accuracy of labelled {record["accuracy"]:.3f}')
