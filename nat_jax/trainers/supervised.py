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

from nat_jax import losses
from nat_jax.metrics import THRESHOLDS, informative
from nat_jax.trainers import base
from nat_jax.trainers import negatives as treatments

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
) -> base.Trainer:
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
    treat: changes the negatives of a batch; see `trainers.negatives`.
    extra_loss: (frozen, normalised images, aux of the model) -> [n]; its mean over the
      filled slots is added to the loss, its values go to the metrics as `extra`.
    metrics: what `step` collects.

  Returns:
    A `Trainer` over a `TrainState`.
  """
  if threshold is None:
    threshold = informative(
        THRESHOLDS, num_classes, background=objective.num_outputs > num_classes)[0]

  def init(key: jax.Array) -> base.TrainState:
    init_key, step_key = jax.random.split(key)
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = model.init(init_key, images, train=False)
    params, batch_stats = variables['params'], variables.get('batch_stats', {})
    # Copies: a donated state must not hold one buffer twice.
    ema = jax.tree.map(jnp.copy, _variables(params, batch_stats))
    return base.TrainState(
        step=jnp.zeros((), jnp.int32),
        key=step_key,
        net=base.Net(params, batch_stats, tx.init(params)),
        ema=ema if ema_decay else None,
    )

  def step(state, frozen, batch, *, axis_name: str | None = None):
    total = base.cross_device_sum(axis_name)
    net = state.net
    step_key = jax.random.fold_in(state.key, state.step)
    keys = base.example_keys(step_key, batch['label'].shape[0], axis_name)
    batch = {**batch, 'image': normalise(augment(batch['image'], keys))}

    def confidence(images):
      variables = _variables(net.params, net.batch_stats)
      logits, _ = model.apply(variables, images, train=False)
      return losses.max_probability(logits, num_classes)

    if treat is not None:
      batch = treat(batch, treatments.purpose_key(step_key), confidence, axis_name)
    images, labels, weight = batch['image'], batch['label'], batch['weight']
    coefficients = losses.example_weights(labels, weight, objective, total)
    filled = total(weight)

    def loss_fn(params):
      (logits, aux), updates = model.clone(axis_name=axis_name).apply(
          _variables(params, net.batch_stats), images, train=True, mask=weight,
          mutable=['batch_stats'],
      )
      per_example = treatments.per_example(objective, logits, batch)
      terms, extra = coefficients * per_example, None
      if extra_loss is not None:
        extra = extra_loss(frozen, images, aux)
        terms += weight / jnp.maximum(filled, 1) * extra
      batch_stats = updates.get('batch_stats', {})
      return terms.sum(), (logits, per_example, extra, terms, batch_stats)

    grads, (logits, per_example, extra, terms, batch_stats) = jax.grad(
        loss_fn, has_aux=True)(net.params)
    if axis_name is not None:
      grads = jax.lax.psum(grads, axis_name)
    updates, opt_state = tx.update(grads, net.opt_state, net.params)
    params = optax.apply_updates(net.params, updates)
    ema = state.ema
    if ema_decay:
      ema = optax.incremental_update(
          _variables(params, batch_stats), ema, 1.0 - ema_decay
      )

    collected = base.collect(
        metrics,
        axis_name,
        loss=total(terms),
        grad_norm=optax.tree.norm(grads),
        per_example=per_example,
        extra=extra,
        filled=weight > 0,
        correct=logits.argmax(-1) == labels,
        confident=losses.max_probability(logits, num_classes) > threshold,
        positive=(weight > 0) & (labels >= 0),
        negative=(weight > 0) & (labels < 0),
    )
    state = state.replace(
        step=state.step + 1, net=base.Net(params, batch_stats, opt_state), ema=ema
    )
    return state, collected

  def forward(state, images) -> Any:
    variables = state.ema or _variables(state.net.params, state.net.batch_stats)
    return model.apply(variables, normalise(images), train=False)

  return base.Trainer(
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
  return {**base.figures(metrics), 'images': float(images)}


def line(record: dict[str, float], threshold: float) -> str:
  """Losses, accuracy and NCR_t of the updates; what had no examples is left out."""
  parts = {'pos': 'loss_positive', 'neg': 'loss_negative', 'maps': 'loss_attention'}
  losses_ = ' '.join(f'{short} {record[name]:.4f}' for short, name in parts.items()
                     if math.isfinite(record.get(name, math.nan)))
  text = f'loss {record["loss"]:.4f} ({losses_})  accuracy {record["accuracy"]:.3f}'
  if math.isfinite(record['ncr']):
    text += f'  NCR_{threshold} {record["ncr"]:.3f}'
  return text


def _variables(params, batch_stats):
  return {'params': params, 'batch_stats': batch_stats}
