"""The training step of a classifier, whose loss may use negatives.

    trainer = supervised(model=model, objective=objective, tx=tx, ...)
    state = trainer.init(jax.random.key(0))
    state, metrics = trainer.step(state, trainer.frozen(), batch)
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from clu import metrics as clu_metrics

from nat_jax import losses, registry, task
from nat_jax.metrics import THRESHOLDS, informative
from nat_jax.task import GLOBAL, Axis, Net, State
from nat_jax.tasks import updates
from nat_jax.tasks.classify import treatments

Average = clu_metrics.Average
ATTACK = 2**32 - 2  # purpose of keys; larger than the index of any example


@flax.struct.dataclass
class TrainMetrics(clu_metrics.Collection):
  """Averages over updates and examples; NaN without examples."""

  loss: Average.from_output('loss')
  loss_positive: Average.from_fun(lambda per_example, positive, **_: dict(
      values=per_example, mask=positive))
  loss_negative: Average.from_fun(lambda per_example, negative, **_: dict(
      values=per_example, mask=negative))
  accuracy: Average.from_fun(lambda correct, positive, **_: dict(
      values=correct, mask=positive))
  ncr: Average.from_fun(lambda confident, negative, **_: dict(
      values=confident, mask=negative))
  grad_norm: Average.from_output('grad_norm')


def metrics_with(name: str, on: str = 'filled') -> type[clu_metrics.Collection]:
  """Returns `TrainMetrics` with the average of the extra loss.

  Args:
    name: of the average.
    on: the slots that it is over, as in `Setup.extra_on`.
  """
  def values(extra, **slots):
    return dict(values=extra, mask=slots[on])

  return clu_metrics.Collection.create(
      **TrainMetrics.__annotations__, **{name: Average.from_fun(values)})


def plain_view(network: Callable[..., Any], batch: treatments.Batch, axis: Axis) -> Any:
  """Passes the images of a batch through the network; see `Setup.see`."""
  del axis
  return network(
      batch['image'], train=True, mask=batch['weight'], mutable=['batch_stats'])


class Setup(NamedTuple):
  """The network, the loss and the settings of a classifier.

  Attributes:
    model: `apply(variables, images, train=, mask=) -> (logits [n, num_outputs], aux)`.
    objective: the loss; see `nat_jax.losses`.
    tx: the optimiser.
    num_classes: number of classes of the positives.
    image_shape: (height, width, channels) of one image, or (columns,) of a vector.
    augment: (images [n, h, w, c] uint8, keys [n]) -> images.
    normalise: images of any dtype -> normalised float32 images.
    ema_decay: decay per update of the moving average of parameters and batch
      statistics, which evaluations then use; 0: no average.
    threshold: t of the NCR_t in the training metrics; None: the smallest of
      `metrics.THRESHOLDS` that `metrics.informative` returns for `num_classes`.
    treat: changes a batch, mostly its negatives, before the pass over it; see
      `tasks.classify.treatments`.
    attack: (images [n, ...] -> logits, images, labels [n], keys [n]) -> images, changes
      that mislead the network before the update, in evaluation mode. They become
      'attacked' of the batch, for `see`.
    micro_batches: number of parts of a batch, whose gradients are added; each has
      BatchNorm statistics of its own. See `tasks.updates.in_parts`.
    see: (network, batch, axis) -> ((logits [n, num_outputs], aux), changed variables),
      the pass over a batch in training; `network` is `model.apply` of the current
      variables. It may use what `treat` has added to the batch.
    extra_loss: (frozen, batch, aux of `see`) -> [n]; its mean over the slots of
      `extra_on` is added to the loss, and `metrics` gets its values as `extra`.
    extra_on: 'filled' or 'positive' slots.
    metrics: class of the collection that `step` returns; see `metrics_with`.
  """

  model: nn.Module
  objective: losses.Objective
  tx: optax.GradientTransformation
  num_classes: int
  image_shape: tuple[int, ...]
  augment: Callable[[jax.Array, jax.Array], jax.Array]
  normalise: Callable[[jax.Array], jax.Array]
  ema_decay: float = 0.0
  threshold: float | None = None
  treat: treatments.Treatment | None = None
  attack: Callable[..., jax.Array] | None = None
  micro_batches: int = 1
  see: Callable[..., Any] = plain_view
  extra_loss: Callable[..., jax.Array] | None = None
  extra_on: str = 'filled'
  metrics: type[clu_metrics.Collection] = TrainMetrics


@registry.arguments(Setup)
def supervised(**settings: Any) -> task.Trainer:
  """Returns the trainer of a classifier with negatives (eqs 1-4 of the paper).

  Args:
    **settings: the attributes of `Setup`.

  Returns:
    A `Trainer` over a `State` of the network 'model'. Its heads map images to 'logits',
    'features' (the input of the output layer) and 'aux' (all feature maps by name).
  """
  setup = Setup(**settings)
  if setup.threshold is None:
    background = setup.objective.num_outputs > setup.num_classes
    setup = setup._replace(threshold=informative(
        THRESHOLDS, setup.num_classes, background=background)[0])
  see = functools.partial(forward, setup)
  return task.Trainer(
      init=functools.partial(init, setup),
      frozen=dict,
      step=functools.partial(step, setup),
      heads={
          'logits': lambda state, images: see(state, images)[0],
          'features': lambda state, images: see(state, images)[1]['features'],
          'aux': lambda state, images: see(state, images)[1],
      },
      figures=figures,
      line=functools.partial(line, threshold=setup.threshold),
  )


def init(setup: Setup, key: jax.Array) -> State:
  """Returns the initial `State` of the network 'model'."""
  init_key, step_key = jax.random.split(key)
  images = jnp.zeros((1, *setup.image_shape), jnp.float32)
  variables = setup.model.init(init_key, images, train=False)
  params, batch_stats = variables['params'], variables.get('batch_stats', {})
  # The average is a copy, because a donated state must not hold one buffer twice.
  net = Net(params, batch_stats, setup.tx.init(params))
  ema = {'model': jax.tree.map(jnp.copy, net.variables)} if setup.ema_decay else {}
  return State(
      step=jnp.zeros((), jnp.int32), key=step_key, nets={'model': net}, ema=ema)


def step(setup, state, frozen, batch, *, axis: Axis = GLOBAL):
  """Updates the network once.

  Args:
    setup: a `Setup`.
    state: a `State` of 'model'.
    frozen: first argument of `extra_loss`.
    batch: {'image', 'label', 'weight'}, see `task.Trainer`.
    axis: the devices that share the batch.

  Returns:
    (state, a collection of `setup.metrics`).
  """
  net, objective = state.nets['model'], setup.objective
  step_key = jax.random.fold_in(state.key, state.step)
  keys = axis.keys(step_key, batch['label'].shape[0])
  batch = {**batch, 'image': setup.normalise(setup.augment(batch['image'], keys))}
  if setup.treat is not None:
    batch = setup.treat(
        batch, treatments.purpose_key(step_key), confidence_of(setup, net, axis), axis)
  if setup.attack is not None:
    batch = {**batch, 'attacked': attacked(setup, net, batch, step_key, axis)}
  labels, weight = batch['label'], batch['weight']
  coefficients = losses.example_weights(labels, weight, objective, axis)
  slots = {'filled': weight > 0, 'positive': (weight > 0) & (labels >= 0),
           'negative': (weight > 0) & (labels < 0)}
  extra_slots = slots[setup.extra_on]
  share = weight * extra_slots / jnp.maximum(axis.sum(extra_slots), 1)

  def loss_fn(params, batch_stats, examples):
    batch, coefficients, share = examples
    network = functools.partial(setup.model.clone(axis_name=axis.name).apply, {
        'params': params, 'batch_stats': batch_stats})
    (logits, aux), changed = setup.see(network, batch, axis)
    per_example = treatments.per_example(objective, logits, batch)
    terms, extra = coefficients * per_example, None
    if setup.extra_loss is not None:
      extra = setup.extra_loss(frozen, batch, aux)
      terms += share * extra
    return terms, changed.get('batch_stats', {}), (logits, per_example, extra)

  net, (loss, (logits, per_example, extra)), norm = updates.descend(
      net, setup.tx, loss_fn, axis, (batch, coefficients, share), setup.micro_batches)
  ema = state.ema
  if setup.ema_decay:
    ema = {'model': optax.incremental_update(
        net.variables, ema['model'], 1.0 - setup.ema_decay)}
  confidence = losses.max_probability(logits, setup.num_classes)
  collected = task.collect(
      setup.metrics, axis, loss=loss, grad_norm=norm, per_example=per_example,
      extra=extra, correct=logits.argmax(-1) == labels,
      confident=confidence > setup.threshold, **slots)
  state = state.replace(step=state.step + 1, nets={'model': net}, ema=ema)
  return state, collected


def confidence_of(
    setup: Setup, net: Net, axis: Axis
) -> Callable[[jax.Array], jax.Array]:
  """Returns images -> confidence [n] of the current network in evaluation mode."""
  def confidence(carry, images):
    logits, _ = setup.model.apply(net.variables, images, train=False)
    return carry, losses.max_probability(logits, setup.num_classes)

  return lambda images: updates.in_parts(
      confidence, (), images, setup.micro_batches, axis)[1]


def attacked(
    setup: Setup, net: Net, batch: treatments.Batch, step_key: jax.Array, axis: Axis
) -> jax.Array:
  """Returns the images of a batch as `setup.attack` changes them, [n, ...]."""
  def logits(images):
    return setup.model.apply(net.variables, images, train=False)[0]

  def one(carry, examples):
    images, labels, words = examples
    return carry, setup.attack(logits, images, labels, jax.random.wrap_key_data(words))

  keys = axis.keys(jax.random.fold_in(step_key, ATTACK), len(batch['label']))
  examples = batch['image'], batch['label'], jax.random.key_data(keys)
  return updates.in_parts(one, (), examples, setup.micro_batches, axis)[1]


def forward(setup: Setup, state: State, images: jax.Array) -> Any:
  """Returns (logits, aux) of images [n, h, w, c] in evaluation mode.

  The moving average of the parameters is used, if the state has one.
  """
  variables = state.ema.get('model', state.nets['model'].variables)
  return setup.model.apply(variables, setup.normalise(images), train=False)


def figures(metrics: TrainMetrics) -> dict[str, float]:
  """Returns the averages of `TrainMetrics`, and the number of 'images'."""
  images = metrics.loss_positive.count + metrics.loss_negative.count
  return {**task.figures(metrics), 'images': float(images)}


def line(record: dict[str, float], threshold: float) -> str:
  """Returns the text of the progress line, without metrics that had no examples.

  Args:
    record: name of a metric -> value.
    threshold: t of NCR_t.
  """
  text = f'loss {record["loss"]:.3f}  accuracy {record["accuracy"]:.3f}'
  if math.isfinite(record['ncr']):
    text += f'  NCR_{threshold} {record["ncr"]:.3f}'
  return text
