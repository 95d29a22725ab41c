"""AdaptiveMix: the features of a mix of two positives are those of both, mixed.

    trainer = adaptive_mix(model=..., objective=..., ...)

The network gets a frozen orthogonal output layer, `models.heads.Orthogonal`, also where
it is evaluated.

Reference: Liu et al., "AdaptiveMix: Improving GAN Training via Feature Space
Shrinkage", CVPR 2023, and the code of its classifiers.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nat_jax import losses, registry, task
from nat_jax.models import heads
from nat_jax.tasks.classify import step as supervised
from nat_jax.tasks.classify import treatments


@registry.arguments(supervised.Setup)
def adaptive_mix(
    *,
    model: nn.Module,
    objective: losses.Objective,
    weight: float = 1.0,
    alpha: float = 1.0,
    noise: float = 0.05,
    scale: float = 20.0,
    micro_batches: int = 1,
    **settings: Any,
) -> task.Trainer:
  """Returns the trainer `supervised` with feature-space shrinkage of the positives.

  x' = s x + (1 - s) x_p,  z' = f(x'),  m = s f(x) + (1 - s) f(x_p),
  J = J_supervised(o, s onehot(y) + (1 - s) onehot(y_p))
      + weight * mean over positives of mean_d (z' - m - e)^2,
  o = (g(m) + g(z')) / 2,  s ~ Beta(alpha, alpha),  e ~ N(0, noise^2),

  where f are the features with length 1, g is the output layer, x_p another positive of
  the batch, and m + e in the second term has no gradient. There is one s per batch, and
  the positives are partners of each other in a random circle. Negatives are neither
  mixed nor shrunk: o = g(f(x)). Training accuracy is that of o.

  The reference trains with the sum g(m) + g(z') and evaluates with g alone, which
  halves the logits; their mean has one scale in both. `scale` 20 here is 10 of a sum.

  Args:
    model: the network.
    objective: the loss.
    weight: of the second term.
    alpha: of the Beta distribution.
    noise: standard deviation of e, in each dimension.
    scale: largest logit; see `models.heads.Orthogonal`.
    micro_batches: 1, since partners are in one pass.
    **settings: further arguments of `supervised`.

  Returns:
    A `Trainer`; 'loss_shrinkage' in its metrics is the second term.

  Raises:
    ValueError: micro-batches, or alpha of 0 or less.
  """
  if micro_batches != 1:
    raise ValueError(
        'the trainer adaptive_mix compares the examples of a batch: data.micro_batches '
        f'must be 1, got {micro_batches}')
  treat = functools.partial(
      pair, settings.pop('treat', None), treatments.symmetric_beta(alpha))
  return supervised.supervised(
      model=heads.Orthogonal(model, objective.num_outputs, scale), objective=objective,
      treat=treat, see=see, extra_on='positive',
      extra_loss=functools.partial(shrinkage, weight, noise),
      metrics=supervised.metrics_with('loss_shrinkage', 'positive'), **settings)


def pair(treat, draw, batch, key, confidence, axis):
  """Mixes each positive with the next one of a random circle of all positives.

  Returns:
    The batch with 'mixed' [n, ...] (x'), 'own' [n] (s; 1 for all but positives),
    'other' [n] (position of x_p in the global batch), 'key' [n] (of e), and for
    positives 'share' and 'partner', by which `treatments.per_example` mixes targets.
  """
  if treat is not None:
    batch = treat(batch, key, confidence, axis)
  order_key, part_key, noise_key = jax.random.split(
      jax.random.fold_in(key, treatments.PAIRS), 3)
  num = len(batch['label'])
  images, labels, weight = (
      axis.gather(batch[name]) for name in ('image', 'label', 'weight'))
  positive = (weight > 0) & (labels >= 0)
  other = circle(positive, order_key)
  here = functools.partial(
      jax.lax.dynamic_slice_in_dim, start_index=axis.first(num), slice_size=num)
  other, positive = here(other), here(positive)
  own = jnp.where(positive, draw(part_key), 1.0)
  part = own.reshape(-1, *(1,) * (images.ndim - 1))
  return {
      **batch,
      'mixed': part * batch['image'] + (1 - part) * images[other],
      'own': own, 'other': other, 'key': axis.keys(noise_key, num),
      'share': jnp.where(positive, 1 - own, batch.get('share', 0.0)),
      'partner': jnp.where(
          positive, labels[other], batch.get('partner', batch['label']))}


def circle(chosen: jax.Array, key: jax.Array) -> jax.Array:
  """Returns the position of the next slot of a random circle of the chosen slots.

  Args:
    chosen: bool [n], of the global batch.
    key: equal on all devices.

  Returns:
    int32 [n]; the slot itself where it is not chosen, or is the only one.
  """
  order = jnp.argsort(jnp.where(chosen, jax.random.uniform(key, chosen.shape), 2.0))
  place = (jnp.argsort(order) + 1) % jnp.maximum(chosen.sum(), 1)
  return jnp.where(chosen, order[place], jnp.arange(len(order)))


def see(network, batch, axis):
  """One pass over images and mixed images; see `Setup.see`.

  Returns:
    ((o [n, k], aux with 'mixed' (z') and 'mean' (m) [n, d]), changed variables).
  """
  weight, num = batch['weight'], len(batch['label'])
  (_, aux), changed = network(
      jnp.concatenate([batch['image'], batch['mixed']]), train=True,
      mask=jnp.concatenate([weight, jnp.where(batch['label'] >= 0, weight, 0.0)]),
      mutable=['batch_stats'])
  plain, mixed = aux['embedding'][:num], aux['embedding'][num:]
  own = batch['own'][:, None]
  mean = own * plain + (1 - own) * axis.gather(plain)[batch['other']]
  classify = functools.partial(network, method='classify')
  logits = (classify(mean) + classify(mixed)) / 2
  aux = {**jax.tree.map(lambda x: x[:num], aux), 'mixed': mixed, 'mean': mean}
  return (logits, aux), changed


def shrinkage(weight, noise, frozen, batch, aux):
  """weight * mean_d (z' - m - e)^2 of each slot, [n]."""
  del frozen
  mean = aux['mean']
  draw = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))
  target = jax.lax.stop_gradient(mean) + noise * draw(batch['key'])
  return weight * jnp.square(aux['mixed'] - target).mean(-1)
