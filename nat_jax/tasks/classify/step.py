"""The classifier: cross-entropy on positives, KL from uniform on negatives.

    trainer = supervised(model=model, objective=objective, tx=tx, ...)
    state = trainer.init(jax.random.key(0))
    state, metrics = trainer.step(state, trainer.frozen(), batch)
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from clu import metrics as clu_metrics

from nat_jax import losses, task
from nat_jax.metrics import THRESHOLDS, informative
from nat_jax.task import GLOBAL, Axis, Net, State
from nat_jax.tasks import updates
from nat_jax.tasks.classify import treatments

Average = clu_metrics.Average


@flax.struct.dataclass
class TrainMetrics(clu_metrics.Collection):
  """Running averages over updates and examples; NaN where there was no example."""

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


def supervised(
    *,
    model: nn.Module,
    objective: losses.Objective,
    tx: optax.GradientTransformation,
    num_classes: int,
    image_shape: tuple[int, int, int],
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    normalise: Callable[[jax.Array], jax.Array],
    ema_decay: float = 0.0,
    threshold: float | None = None,
    treat: treatments.Treatment | None = None,
    extra_loss: Callable[..., jax.Array] | None = None,
    metrics: type[clu_metrics.Collection] = TrainMetrics,
) -> task.Trainer:
  """Returns the trainer of a classifier with negatives (paper eqs 1-4).

  Args:
    model: `apply(variables, images, train=, mask=) -> (logits [n, k], aux)`.
    objective: what is minimised; see `nat_jax.losses`.
    tx: the optimiser.
    num_classes: classes of the positives.
    image_shape: (height, width, channels) of one image.
    augment: (images [n, h, w, c] uint8, keys [n]) -> images.
    normalise: images of any dtype -> float32 images, as the model takes them.
    ema_decay: of the moving average of parameters and statistics; 0: none kept.
    threshold: t of the running NCR_t that `step` reports; None: the smallest of the
      paper's that says something of so many classes.
    treat: changes the negatives of a batch; see `tasks.classify.treatments`.
    extra_loss: (frozen, normalised images, aux of the model) -> [n]; its mean over the
      filled slots is added to the loss, its values go to the metrics as `extra`.
    metrics: what `step` collects.

  Returns:
    A `Trainer` over a `State` of one net, 'model'.
  """
  if threshold is None:
    threshold = informative(
        THRESHOLDS, num_classes, background=objective.num_outputs > num_classes)[0]

  def init(key: jax.Array) -> State:
    init_key, step_key = jax.random.split(key)
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = model.init(init_key, images, train=False)
    params, batch_stats = variables['params'], variables.get('batch_stats', {})
    # Copies: a donated state must not hold one buffer twice.
    net = Net(params, batch_stats, tx.init(params))
    ema = {'model': jax.tree.map(jnp.copy, net.variables)} if ema_decay else {}
    return State(
        step=jnp.zeros((), jnp.int32), key=step_key, nets={'model': net}, ema=ema)

  def step(state, frozen, batch, *, axis: Axis = GLOBAL):
    net = state.nets['model']
    step_key = jax.random.fold_in(state.key, state.step)
    keys = axis.keys(step_key, batch['label'].shape[0])
    batch = {**batch, 'image': normalise(augment(batch['image'], keys))}
    if treat is not None:
      batch = treat(batch, treatments.purpose_key(step_key), confidence_of(net), axis)
    images, labels, weight = batch['image'], batch['label'], batch['weight']
    coefficients = losses.example_weights(labels, weight, objective, axis)

    def loss_fn(params):
      (logits, aux), updates = model.clone(axis_name=axis.name).apply(
          {'params': params, 'batch_stats': net.batch_stats}, images, train=True,
          mask=weight, mutable=['batch_stats'])
      per_example = treatments.per_example(objective, logits, batch)
      terms, extra = coefficients * per_example, None
      if extra_loss is not None:
        extra = extra_loss(frozen, images, aux)
        terms += weight / jnp.maximum(axis.sum(weight > 0), 1) * extra
      return terms, (logits, per_example, extra, updates.get('batch_stats', {}))

    net, (loss, (logits, per_example, extra, batch_stats)), norm = updates.descend(
        net, tx, loss_fn, axis)
    net = net.replace(batch_stats=batch_stats)
    ema = state.ema
    if ema_decay:
      ema = {'model': optax.incremental_update(
          net.variables, ema['model'], 1.0 - ema_decay)}
    collected = task.collect(
        metrics, axis, loss=loss, grad_norm=norm, per_example=per_example, extra=extra,
        filled=weight > 0,
        correct=logits.argmax(-1) == labels,
        confident=losses.max_probability(logits, num_classes) > threshold,
        positive=(weight > 0) & (labels >= 0),
        negative=(weight > 0) & (labels < 0))
    state = state.replace(step=state.step + 1, nets={'model': net}, ema=ema)
    return state, collected

  def confidence_of(net):
    """images -> confidence [n] of the network as it is, in evaluation mode."""
    return lambda images: losses.max_probability(
        model.apply(net.variables, images, train=False)[0], num_classes)

  def forward(state, images) -> Any:
    variables = state.ema.get('model', state.nets['model'].variables)
    return model.apply(variables, normalise(images), train=False)

  return task.Trainer(
      init=init,
      frozen=dict,
      step=step,
      heads={
          'logits': lambda state, images: forward(state, images)[0],
          'features': lambda state, images: forward(state, images)[1]['features'],
          'aux': lambda state, images: forward(state, images)[1],
      },
      figures=figures,
      line=functools.partial(line, threshold=threshold),
  )


def figures(metrics: TrainMetrics) -> dict[str, float]:
  """The averages of `TrainMetrics`, and how many images were seen."""
  images = metrics.loss_positive.count + metrics.loss_negative.count
  return {**task.figures(metrics), 'images': float(images)}


def line(record: dict[str, float], threshold: float) -> str:
  """Losses, accuracy and NCR_t of the updates; what had no examples is left out."""
  parts = {'pos': 'loss_positive', 'neg': 'loss_negative', 'maps': 'loss_attention'}
  losses_ = ' '.join(f'{short} {record[name]:.4f}' for short, name in parts.items()
                     if math.isfinite(record.get(name, math.nan)))
  text = f'loss {record["loss"]:.4f} ({losses_})  accuracy {record["accuracy"]:.3f}'
  if math.isfinite(record['ncr']):
    text += f'  NCR_{threshold} {record["ncr"]:.3f}'
  return text

