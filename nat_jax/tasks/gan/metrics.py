"""The training metrics of a GAN: losses, confidence and indicators of mode collapse.

    metrics = collect(objective, Seen(...), Made(...), axis)
    print(line(task.figures(metrics)))
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics

from nat_jax import losses, task
from nat_jax.task import Axis, Pass
from nat_jax.tasks import updates

Average = clu_metrics.Average
COLLAPSED = 0.1  # samples with a spread below this count as collapsed


@flax.struct.dataclass
class GanMetrics(clu_metrics.Collection):
  """Averages over updates and examples; NaN without examples."""

  loss_disc: Average.from_output('loss_disc')
  loss_gen: Average.from_output('loss_gen')
  loss_real: updates.mean_of('real')
  loss_fake: updates.mean_of('fake')
  loss_negative: updates.mean_of('negative')
  accuracy: updates.mean_of('correct', 'class_weight')  # of D, on real images
  # Largest class probability.
  confidence_real: updates.mean_of('confidence_real', 'class_weight')
  confidence_fake: updates.mean_of('confidence_fake', 'class_weight')
  spread: Average.from_output('spread')  # of samples, relative to real images
  top_class: Average.from_output('top_class')  # share of the most frequent class
  grad_norm_disc: Average.from_output('grad_norm_disc')
  grad_norm_gen: Average.from_output('grad_norm_gen')


class Seen(NamedTuple):
  """Outputs of an update of the discriminator, for the metrics.

  Attributes:
    loss: of the global batch, scalar.
    grad_norm: global norm of the gradient, scalar.
    passes: {set: Pass}.
    terms: {set: losses per example, [n]}.
  """

  loss: jax.Array
  grad_norm: jax.Array
  passes: dict[str, Pass]
  terms: dict[str, jax.Array]


def of_examples(passes: Mapping[str, Pass]) -> dict[str, Pass]:
  """Returns the passes with what the metrics read: arrays of a row per example."""
  return {name: one._replace(marginal=None, features=None)
          for name, one in passes.items()}


class Made(NamedTuple):
  """Outputs of an update of the generator, for the metrics.

  Attributes:
    loss: of the global batch, scalar.
    grad_norm: global norm of the gradient, scalar.
    samples: the discriminator's pass over the generated examples.
  """

  loss: jax.Array
  grad_norm: jax.Array
  samples: Pass


def collect(
    objective: losses.GanObjective, seen: Seen, made: Made, axis: Axis
) -> GanMetrics:
  """Returns the metrics of a step, over the global batch.

  Args:
    objective: its `class_logits` are used for accuracy, confidence and classes.
    seen: from the last update of the discriminator.
    made: from the update of the generator.
    axis: the devices that share the batch.
  """
  nothing = jnp.zeros(1)
  found = {
      'loss_disc': seen.loss, 'grad_norm_disc': seen.grad_norm,
      'loss_gen': made.loss, 'grad_norm_gen': made.grad_norm}
  for name in ('real', 'fake', 'negative'):
    found[name] = seen.terms.get(name, nothing)
    found[f'{name}_weight'] = (
        seen.passes[name].weight if name in seen.passes else nothing)
  real, samples = seen.passes['real'], made.samples
  found['spread'] = _spread(samples.images, axis) / jnp.maximum(
      _spread(real.images, axis), 1e-9)
  return task.collect(
      GanMetrics, axis, **found, **_of_classes(objective, real, samples, axis))


def _of_classes(objective, real, samples, axis) -> dict[str, Any]:
  """The metrics of D's class logits; empty averages if D has no class outputs."""
  if objective.class_logits is None:
    names = ('correct', 'class_weight', 'confidence_real', 'confidence_fake')
    return {**dict.fromkeys(names, jnp.zeros(1)), 'top_class': jnp.nan}
  real_logits = objective.class_logits(real.outputs)
  logits = objective.class_logits(samples.outputs)
  num_classes = logits.shape[-1]
  counts = axis.sums(jax.nn.one_hot(logits.argmax(-1), num_classes))
  return {
      'class_weight': real.weight,
      'correct': real_logits.argmax(-1) == real.labels,
      'confidence_real': losses.max_probability(real_logits, num_classes),
      'confidence_fake': losses.max_probability(logits, num_classes),
      'top_class': counts.max() / counts.sum(),
  }


def _spread(images, axis):
  """The root mean square distance of the images of the global batch from their mean."""
  num = axis.sum(jnp.ones(len(images)))
  flat = images.reshape(len(images), -1)
  mean = axis.sums(flat) / num
  return jnp.sqrt(axis.sum(jnp.square(flat - mean[None])) / num)


def line(record: dict[str, float]) -> str:
  """Returns the text of the progress line, with a warning if the samples collapsed,
  that is, spread much less than the real images.

  Args:
    record: name of a metric of `GanMetrics` -> value.
  """
  text = f'D {record["loss_disc"]:.3f}  G {record["loss_gen"]:.3f}'
  if math.isfinite(record['accuracy']):
    text += f'  accuracy {record["accuracy"]:.3f}'
  text += f'  spread {record["spread"]:.2f}'
  if record['spread'] < COLLAPSED:
    text += ' COLLAPSED'
  return text
