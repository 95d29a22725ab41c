"""Rotation prediction: an auxiliary task on the positives, which needs no labels.

    trainer = rotation(weight=0.5, model=..., objective=..., ...)

Only the step uses the rotated images: the network is evaluated on images as they are,
and its scores are those of its class probabilities.

Reference: Hendrycks, Mazeika, Kadavath, Song, "Using Self-Supervised Learning Can
Improve Model Robustness and Uncertainty", NeurIPS 2019.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from nat_jax import data, registry, task
from nat_jax.models import heads
from nat_jax.tasks.classify import step as supervised
from nat_jax.tasks.classify import treatments

TURNS = 4


@registry.arguments(supervised.Setup)
def rotation(
    *,
    model: nn.Module,
    image_shape: tuple[int, ...],
    weight: float = 0.5,
    views: int = TURNS,
    **settings: Any,
) -> task.Trainer:
  """Returns the trainer `supervised` with a loss on the rotation of the positives.

  J = J_supervised + weight * mean over positives of CE(r(x_k), k),

  where x_k is x after k quarter turns and r a second output layer on the features. The
  term is the mean over k = 0..3, or of one random k per image. The classes are learned
  from images that are not rotated. Negatives are not rotated, so that the features need
  not describe them. BatchNorm statistics are those of images and rotated images.

  Args:
    model: the network; its features are shared.
    image_shape: (side, side, channels).
    weight: of the rotation loss.
    views: 4: all rotations of each image, for about four times the computing time. 1: a
      random one, for twice the time.
    **settings: further arguments of `supervised`.

  Returns:
    A `Trainer`; 'loss_rotation' in its metrics is the term that is added.

  Raises:
    ValueError: images that are not square, or another number of views.
  """
  if data.is_vectors(image_shape) or image_shape[0] != image_shape[1]:
    raise ValueError(
        'the trainer rotation turns square pictures by 90 degrees, got examples of '
        f'shape {tuple(image_shape)}; set data.image_size to one number, or choose the '
        "trainer 'supervised'")
  if views not in (1, TURNS):
    raise ValueError(
        f'trainer.views must be {TURNS} (all rotations) or 1 (a random one), got '
        f'{views}')
  treat = settings.pop('treat', None)
  return supervised.supervised(
      model=heads.WithRotation(model), image_shape=image_shape,
      treat=treat if views == TURNS else functools.partial(turn, treat),
      see=functools.partial(see, views),
      extra_loss=functools.partial(rotation_loss, weight, views), extra_on='positive',
      metrics=supervised.metrics_with('loss_rotation', 'positive'), **settings)


def turn(treat, batch, key, confidence, axis):
  """Adds 'turn' [n], a random number of quarter turns, to a batch."""
  if treat is not None:
    batch = treat(batch, key, confidence, axis)
  keys = axis.keys(jax.random.fold_in(key, treatments.TURN), len(batch['label']))
  draw = jax.vmap(lambda k: jax.random.randint(k, (), 0, TURNS))
  return {**batch, 'turn': draw(keys)}


def see(views, network, batch, axis):
  """One pass over the images and their rotations; see `Setup.see`.

  Returns:
    ((logits [n, k], aux with 'rotations' [n, views, 4]), changed variables).
  """
  del axis
  images, weight = batch['image'], batch['weight']
  turned = [jnp.rot90(images, k, axes=(1, 2)) for k in range(TURNS)]
  if views == TURNS:
    others = turned[1:]
  else:
    where = [(batch['turn'] == k)[:, None, None, None] for k in range(TURNS)]
    others = [jnp.select(where, turned)]
  shown = jnp.where(batch['label'] >= 0, weight, 0.0)
  (logits, aux), changed = network(
      jnp.concatenate([images, *others]), train=True,
      mask=jnp.concatenate([weight] + [shown] * len(others)), mutable=['batch_stats'])
  num = len(images)
  rotations = aux['rotation'].reshape(-1, num, TURNS)[-views:].swapaxes(0, 1)
  aux = {**jax.tree.map(lambda x: x[:num], aux), 'rotations': rotations}
  return (logits[:num], aux), changed


def rotation_loss(weight, views, frozen, batch, aux):
  """weight * the mean cross-entropy of the rotations of each image, [n]."""
  del frozen
  num = len(batch['label'])
  turns = jnp.broadcast_to(jnp.arange(TURNS), (num, TURNS)) if views == TURNS else (
      batch['turn'][:, None])
  return weight * optax.softmax_cross_entropy_with_integer_labels(
      aux['rotations'], turns).mean(1)
