"""Negative transforms, applied to the negatives of a batch on the device.

    treat = mix(alpha=1.0, mode='cutmix')
    batch = treat(batch, key, confidence, axis)
    loss = per_example(objective, logits, batch)    # handles mixed targets

The config key `data.treatment` selects one. A transform gets augmented, normalised
images, and changes filled negative slots only. It uses the global batch and one key per
slot, so that its result does not depend on the number of devices; under pmap images (of
a few hundred slots) or confidences are gathered over the devices for that.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from nat_jax import losses, names
from nat_jax.task import Axis

Batch = dict[str, jax.Array]
# (batch, key, images -> confidence [n] of the current network, axis) -> batch
Treatment = Callable[[Batch, jax.Array, Callable[..., jax.Array], Axis], Batch]

_PURPOSE = 2**32 - 1  # larger than the index of any example
# Purposes of a key of treatments, of which an example has the key of its index.
PAIRS, TURN = 2**32 - 3, 2**32 - 4
_CELLS = 1024  # cells of the quantile table of the Beta distribution


def purpose_key(step_key: jax.Array) -> jax.Array:
  """The negative transform's key, different from all examples' keys of the step."""
  return jax.random.fold_in(step_key, _PURPOSE)


def symmetric_beta(alpha: float) -> Callable[[jax.Array], jax.Array]:
  """Returns key -> a number from Beta(alpha, alpha); ValueError unless alpha > 0.

  By a table of quantiles, since jax.random.beta is a rejection loop, which is slow on
  GPUs and slow to compile. Up to alpha = 4 the variance is right within .3 %; above,
  the tails of 1/1024 on each side are too wide (14 % of the variance at alpha = 100).
  """
  if not alpha > 0:
    raise ValueError(f'alpha of the Beta distribution must be above 0, got {alpha}')
  quantiles = special.betaincinv(alpha, alpha, np.linspace(0, 1, _CELLS + 1))
  quantiles = quantiles.astype(np.float32)

  def draw(key):
    place = _CELLS * jax.random.uniform(key)
    cell = place.astype(int)
    low, high = jnp.asarray(quantiles)[jnp.array([cell, cell + 1])]
    return low + (place - cell) * (high - low)

  return draw


def mix(alpha: float = 1.0, mode: str = 'linear', portion: float = 1.0) -> Treatment:
  """MixOE: mixes negatives with positives, and their targets in proportion.

  x = s x_pos + (1 - s) x_neg,  target = s onehot(y_pos) + (1 - s) u,
  s ~ Beta(alpha, alpha), x_pos a positive of the batch with label y_pos.

  The batch gains 'share' [n] (s; 0 where nothing was mixed) and 'partner' [n] (y_pos).
  A mixed slot keeps the label -1: it is weighted as a negative, and counts in the
  training metrics loss_negative and ncr.

  Args:
    alpha: of the Beta distribution; s is near 1/2 for large values, near 0 or 1 for
      values below 1.
    mode: 'linear', or 'cutmix': a box of the negative is pasted into the positive, and
      s is the share of the area that remains of the positive.
    portion: the expected share of negatives that are mixed; the others are unchanged.

  Raises:
    ValueError: numbers out of range, or another mode.

  Reference: Zhang, Inkawhich, Linderman, Chen, Li, "Mixture Outlier Exposure", WACV
  2023, which uses it with Outlier Exposure of weight 1.
  """
  if mode not in ('linear', 'cutmix'):
    raise ValueError(names.unknown('mode of mix,', mode, ['linear', 'cutmix']))
  _check_portion(portion)
  draw = symmetric_beta(alpha)

  def one(negative, positive, key):
    share_key, box_key = jax.random.split(key)
    share = draw(share_key)
    if mode == 'linear':
      return share * positive + (1 - share) * negative, share
    box = _box(positive.shape[:2], 1 - share, box_key)
    return jnp.where(box[:, :, None], negative, positive), 1 - box.mean()

  def treat(batch, key, confidence, axis):
    del confidence
    chosen, positive, label, keys = _partners(batch, key, portion, axis)
    images, share = jax.vmap(one)(batch['image'], positive, keys)
    return {
        **batch,
        'image': _where(chosen, images, batch['image']),
        'share': jnp.where(chosen, share, 0.0),
        'partner': jnp.where(chosen, label, batch['label']),
    }

  return treat


def mine(keep: float | int = 0.25) -> Treatment:
  """Hard-negative mining: only the negatives with the highest confidence count.

  The candidates are the negatives of the batch, so that data.negatives_per_batch should
  be large. They are ranked over the global batch by their maximum probability (in
  evaluation mode, with the parameters before the update, without gradient). The others
  get weight 0, as empty slots have. They still cost computing time, since shapes do not
  change.

  Args:
    keep: how many negatives of the batch count: a share (a float, at most 1; rounded
      up) or a number (an int).

  Raises:
    ValueError: `keep` is 0 or less, or a share above 1.
  """
  if keep <= 0 or (isinstance(keep, float) and keep > 1):
    raise ValueError(
        'keep must be a share of the negatives (a float above 0, at most 1.0) or a '
        f'number of them (an int of 1 or more), got {keep!r}'
    )

  def treat(batch, key, confidence, axis):
    del key
    negative = _negative(batch)
    score = jnp.where(negative, confidence(batch['image']), -1.0)
    everywhere = axis.gather(score)
    num = keep
    if isinstance(keep, float):
      # Minus a tolerance, since 0.07 * 100 is rounded to a number above 7.
      num = jnp.ceil(keep * (everywhere >= 0).sum() - 1e-3)
    rank = jnp.argsort(jnp.argsort(-everywhere))  # stable: ties in order of position
    rank = jax.lax.dynamic_slice_in_dim(rank, axis.first(len(score)), len(score))
    return {**batch, 'weight': jnp.where(negative & (rank >= num), 0, batch['weight'])}

  return treat


TREATMENTS: dict[str, Callable[..., Treatment]] = {'mine': mine, 'mix': mix}


def per_example(
    objective: losses.Objective, logits: jax.Array, batch: Batch
) -> jax.Array:
  """The loss of each slot, also for the mixed targets of `mix`.

  l = s l(partner) + (1 - s) l(label). For an objective that is linear in its target, l
  is the cross-entropy with the mixed target minus (1 - s) log k, a constant.

  Args:
    objective: of the run.
    logits: [n, k].
    batch: with 'label' [n]; also 'share' and 'partner' [n] if examples were mixed.

  Returns:
    [n] float32.
  """
  loss = objective.per_example(logits, batch['label'])
  if 'share' not in batch:
    return loss
  partner = objective.per_example(logits, batch['partner'])
  return (1 - batch['share']) * loss + batch['share'] * partner


def _negative(batch):
  """Whether each slot holds a negative, [n]."""
  return (batch['weight'] > 0) & (batch['label'] < 0)


def _partners(batch, key, portion, axis) -> tuple[Any, ...]:
  """For each slot: whether it is mixed, a random positive, its label, and a key."""
  num = batch['label'].shape[0]
  keys = jax.vmap(lambda k: jax.random.split(k, 3))(
      axis.keys(key, num))
  images, labels, weight = (
      axis.gather(batch[name]) for name in ('image', 'label', 'weight'))
  positive = (weight > 0) & (labels >= 0)
  count = positive.sum()
  draw = jax.vmap(lambda k: jax.random.randint(k, (), 0, jnp.maximum(count, 1)))
  rows = jnp.argsort(~positive)[draw(keys[:, 0])]  # positives come first
  chosen = jax.vmap(lambda k: jax.random.bernoulli(k, float(portion)))(keys[:, 1])
  chosen = chosen & _negative(batch) & (count > 0)
  return chosen, images[rows], labels[rows], keys[:, 2]


def _where(chosen, images, others):
  return jnp.where(chosen.reshape(-1, *(1,) * (images.ndim - 1)), images, others)


def _box(shape, area, key):
  """A random box as a mask [h, w], with about the share `area` of the image."""
  inside = []
  for size, axis_key in zip(shape, jax.random.split(key), strict=True):
    middle = jax.random.randint(axis_key, (), 0, size)
    length = jnp.round(size * jnp.sqrt(area)).astype(int)
    first = middle - length // 2
    place = jnp.arange(size)
    inside.append((place >= first) & (place < first + length))
  return inside[0][:, None] & inside[1][None, :]


def _check_portion(portion):
  if not 0 < portion <= 1:
    raise ValueError(f'portion must be above 0 and at most 1, got {portion}')
