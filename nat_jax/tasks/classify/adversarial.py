"""Adversarial pictures of the positives as further negatives, made in each step.

    trainer = adversarial(budget=0.15, steps=5, model=..., objective=..., ...)

A small change of a picture that makes the network predict a wrong class is a negative
in the sense of NAT where "none of these" is a better answer than a confident error.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from nat_jax import losses, names, registry, task
from nat_jax.tasks import attacks
from nat_jax.tasks.classify import step as supervised

LABELS = ('negative', 'own')


@registry.arguments(supervised.Setup)
def adversarial(
    *,
    objective: losses.Objective,
    image_shape: tuple[int, ...],
    normalise: Any,
    budget: float,
    steps: int = 5,
    weight: float = 1.0,
    labels: str = 'negative',
    **settings: Any,
) -> task.Trainer:
  """Returns the trainer `supervised` with a loss on PGD's changes of the positives.

  J = J_supervised + weight * mean over positives of l(o(x'), t),

  where x' is what `attacks.pgd` makes of the positive x by raising the cross-entropy of
  the network before the update, in evaluation mode, and l the loss of an example of
  `objective`. A step takes about 1 + `steps` times the computing time.

  Args:
    objective: the loss.
    image_shape: (height, width, channels).
    normalise: uint8 images -> normalised float32 images.
    budget: largest change of a pixel, as a share of the range from black to white.
    steps: of PGD.
    weight: of the second term.
    labels: 'negative': t is that of negatives, so that x' is to be refused. With a
      small budget x' resembles the positives, whose confidence and accuracy fall too
      (docs/adversarial.md). 'own': t is the label of x (adversarial training), so that
      x' is to be recognised.
    **settings: further arguments of `supervised`.

  Returns:
    A `Trainer`; 'loss_adversarial' in its metrics is the second term.

  Raises:
    ValueError: a budget out of range, vectors, other `labels`, or labels='negative' and
      a loss that does not use negatives.

  Reference: Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models
  Resistant to Adversarial Attacks", ICLR 2018, for labels='own'.
  """
  if labels not in LABELS:
    raise ValueError(names.unknown('trainer.labels', labels, LABELS))
  if labels == 'negative' and not objective.uses_negatives:
    raise ValueError(
        "trainer.labels='negative' needs a loss that uses negatives, such as loss="
        "{'name': 'nat'}; with this loss only labels='own' is possible")
  limits = attacks.make_limits(budget, normalise, image_shape)
  return supervised.supervised(
      objective=objective, image_shape=image_shape, normalise=normalise,
      attack=functools.partial(mislead, limits, steps), see=see,
      extra_loss=functools.partial(adversarial_loss, objective, weight, labels),
      extra_on='positive',
      metrics=supervised.metrics_with('loss_adversarial', 'positive'), **settings)


def mislead(limits, steps, logits, images, labels, keys):
  """PGD on the cross-entropy of positives; negatives, whose loss is 0, get noise."""
  def loss(images):
    return losses.cross_entropy(logits(images), labels)

  return attacks.pgd(limits, loss, images, keys, steps)


def see(network, batch, axis):
  """One pass over images and changed positives; see `Setup.see`.

  Returns:
    ((logits [n, k], aux with 'attacked' [n, k]), changed variables).
  """
  del axis
  weight, num = batch['weight'], len(batch['label'])
  (logits, aux), changed = network(
      jnp.concatenate([batch['image'], batch['attacked']]), train=True,
      mask=jnp.concatenate([weight, jnp.where(batch['label'] >= 0, weight, 0.0)]),
      mutable=['batch_stats'])
  aux = {**jax.tree.map(lambda x: x[:num], aux), 'attacked': logits[num:]}
  return (logits[:num], aux), changed


def adversarial_loss(objective, weight, labels, frozen, batch, aux):
  """weight * the loss of each slot's changed image, [n]."""
  del frozen
  own = batch['label']
  target = own if labels == 'own' else jnp.full_like(own, -1)
  return weight * objective.per_example(aux['attacked'], target)
