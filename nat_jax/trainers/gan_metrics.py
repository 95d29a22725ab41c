"""What a GAN's step tells: losses, confidence, and the signs of a collapse.

    collected = base.collect(GanMetrics, None, **outputs(objective, told, None))
    print(line(base.figures(collected)))
"""

import math
from typing import Any

import flax
import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics

from nat_jax import losses
from nat_jax.trainers import base

Average = clu_metrics.Average
COLLAPSED = 0.1  # spread of the samples below which they are nearly all alike


def _of(name, weight):
  """The average over examples of `name`, weighted by whether slots are filled."""
  return Average.from_fun(
      lambda **outputs: dict(values=outputs[name], mask=outputs[weight] > 0))


@flax.struct.dataclass
class GanMetrics(clu_metrics.Collection):
  """Averages over updates and examples; NaN where there was no example."""

  loss_disc: Average.from_output('loss_disc')
  loss_gen: Average.from_output('loss_gen')
  loss_real: _of('real', 'real_weight')
  loss_fake: _of('fake', 'fake_weight')
  loss_negative: _of('negative', 'negative_weight')
  accuracy: _of('correct', 'class_weight')  # of the discriminator, on real images
  confidence_real: _of('confidence_real', 'class_weight')  # largest class probability
  confidence_fake: _of('confidence_fake', 'class_weight')
  spread: Average.from_output('spread')  # of samples, as a share of the real images'
  top_class: Average.from_output('top_class')  # largest share of a class in samples
  grad_norm_disc: Average.from_output('grad_norm_disc')
  grad_norm_gen: Average.from_output('grad_norm_gen')


def outputs(
    objective: losses.GanObjective, told: dict[str, Any], axis_name: str | None
) -> dict[str, jax.Array]:
  """What `GanMetrics` is made of, from what the two updates of a step told."""
  total = base.cross_device_sum(axis_name)
  sets, terms = told['sets'], told['terms']
  real, samples = sets['real'], told['samples']
  found = {name: told[name] for name in (
      'loss_disc', 'loss_gen', 'grad_norm_disc', 'grad_norm_gen')}
  nothing = jnp.zeros(1)
  for name in ('real', 'fake', 'negative'):
    found[name] = terms.get(name, nothing)
    found[f'{name}_weight'] = sets[name]['weight'] if name in sets else nothing
  found['spread'] = _spread(samples, total) / jnp.maximum(
      _spread(real['image'], total), 1e-9)
  if objective.class_logits is None:
    names = ('correct', 'class_weight', 'confidence_real', 'confidence_fake')
    return {**found, **dict.fromkeys(names, nothing), 'top_class': jnp.nan}
  real_logits = objective.class_logits(told['outputs']['real'])
  logits = objective.class_logits(told['sample_outputs'])
  counts = jax.vmap(total, 1)(jax.nn.one_hot(logits.argmax(-1), logits.shape[-1]))
  return {
      **found,
      'class_weight': real['weight'],
      'correct': real_logits.argmax(-1) == real['label'],
      'confidence_real': losses.max_probability(real_logits, logits.shape[-1]),
      'confidence_fake': losses.max_probability(logits, logits.shape[-1]),
      'top_class': counts.max() / counts.sum(),
  }


def _spread(images, total):
  """Root mean square distance from the mean image; no matter how many devices."""
  num = total(jnp.ones(len(images)))
  flat = images.reshape(len(images), -1)
  mean = jax.vmap(total, 1)(flat) / num
  return jnp.sqrt(total(jnp.square(flat - mean[None])) / num)


def line(record: dict[str, float]) -> str:
  """What the line of progress says; it warns of samples that are nearly all alike."""
  parts = {'real': 'loss_real', 'fake': 'loss_fake', 'neg': 'loss_negative'}
  terms = ' '.join(f'{short} {record[name]:.3f}' for short, name in parts.items()
                   if math.isfinite(record[name]))
  text = f'D {record["loss_disc"]:.3f} ({terms})  G {record["loss_gen"]:.3f}'
  if math.isfinite(record['accuracy']):
    text += f'  accuracy {record["accuracy"]:.3f}'
  text += f'  spread {record["spread"]:.2f}'
  if record['spread'] < COLLAPSED:
    text += (f'  COLLAPSED: the samples spread {record["spread"]:.1%} as far as the '
             'real images')
  return text
