"""Mixup of GANs: the discriminator sees mixed images only, with mixed targets.

    trainer = mixup(generator=..., discriminator=..., objective=..., ...)
    state, metrics = trainer.step(state, {}, batch)

Reference: Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk
Minimization", ICLR 2018; within a set, as in AdaptiveMix.
"""

import functools
from typing import Any

import jax.numpy as jnp

from nat_jax import losses, registry, task
from nat_jax.tasks.classify import treatments
from nat_jax.tasks.gan import adaptive_mix, players
from nat_jax.tasks.gan import step as gan_step


@registry.arguments(gan_step.Setup)
def mixup(
    *, objective: losses.GanObjective, alpha: float = 1.0, **settings: Any
) -> task.Trainer:
  """Returns the trainer `gan` on mixed images.

  x' = s x + (1 - s) x_p,  s ~ Beta(alpha, alpha),
  loss = s l(D(x'), y) + (1 - s) l(D(x'), y_p),

  for real images in D's loss and for generated images in the losses of D and of G,
  with partners x_p, labels and one s per set and update as in `adaptive_mix`. External
  negatives are not mixed. Penalties see the mixed images.

  Args:
    objective: the losses l of D and G.
    alpha: of the Beta distribution.
    **settings: further attributes of `gan_step.Setup`.

  Raises:
    ValueError: as `adaptive_mix`.
  """
  adaptive_mix.check('mixup', settings)
  return gan_step.gan(
      objective=adaptive_mix.with_partners(objective, weight=0.0),
      see=functools.partial(see, treatments.symmetric_beta(alpha)), **settings)


def see(
    draw, discriminator, class_logits, variables, sets, axis, *, together, updating='',
):
  """`players.see` of mixed images.

  Args:
    draw: key -> share.
    discriminator, class_logits, variables, sets, axis, together, updating: see
      `players.see`.

  Returns:
    ({name: Pass}, batch_stats). The features of mixed sets have 'share' (s), 'partner'
    (y_p) and 'gap' (0), each [n].
  """
  pairs = {name: adaptive_mix.pairs_of(draw, sets[name], axis)
           for name in adaptive_mix.MIXED if name in sets}
  mixed = {name: {**sets[name], 'image': one.mean(sets[name]['image'], axis)}
           for name, one in pairs.items()}
  passes, stats = players.see(
      discriminator, class_logits, variables, {**sets, **mixed}, axis,
      together=together, updating=updating)
  for name, one in pairs.items():
    seen = adaptive_mix.with_labels(one, sets[name], passes[name], axis)
    passes[name] = seen._replace(features={
        **seen.features, 'gap': jnp.zeros(len(seen.weight)),
        'share': jnp.broadcast_to(one.share, len(seen.weight))})
  return passes, stats
