"""Pure losses per example, never reduced over the batch; jax only.

    objective = make_objective({'name': 'nat'}, num_classes=10)
    gan_objective = make_gan_objective({'name': 'nat_gan'}, num_classes=10)
"""

from collections.abc import Mapping
from typing import Any

from nat_jax import registry
from nat_jax.losses.attention import attention_loss, attention_map
from nat_jax.losses.gan import PER_SET
from nat_jax.losses.gan_batch import BATCH
from nat_jax.losses.gan_terms import GanObjective, disc_weights
from nat_jax.losses.negative_aware import (
    DIRECTIONS,
    cross_entropy,
    max_probability,
    nat_loss,
    uniform_kl,
)
from nat_jax.losses.objectives import (
    Objective,
    background,
    cross_entropy_objective,
    energy,
    example_weights,
    logit_norm,
    nat,
    outlier_exposure,
)
from nat_jax.losses.pairs import mean_square, pair_discriminator_loss, vae_loss
from nat_jax.losses.penalties import PENALTIES, Penalty

GAN_OBJECTIVES = {**PER_SET, **BATCH}
OBJECTIVES = {
    'cross_entropy': cross_entropy_objective,
    'nat': nat,
    'outlier_exposure': outlier_exposure,
    'background': background,
    'energy': energy,
}

__all__ = [
    'DIRECTIONS',
    'GAN_OBJECTIVES',
    'GanObjective',
    'OBJECTIVES',
    'Objective',
    'PENALTIES',
    'Penalty',
    'attention_loss',
    'attention_map',
    'background',
    'cross_entropy',
    'cross_entropy_objective',
    'energy',
    'example_weights',
    'disc_weights',
    'logit_norm',
    'make_gan_objective',
    'make_objective',
    'max_probability',
    'nat',
    'nat_loss',
    'outlier_exposure',
    'uniform_kl',
    'mean_square',
    'pair_discriminator_loss',
    'vae_loss',
]


def make_objective(spec: Mapping[str, Any], num_classes: int) -> Objective:
  """Builds the classifier objective that `spec` names in `OBJECTIVES`.

  Each of them also takes `logit_norm`, the temperature of LogitNorm.
  """
  spec = dict(spec)
  temperature = spec.pop('logit_norm', None)
  objective = registry.build(OBJECTIVES, spec, what='loss', num_classes=num_classes)
  return objective if temperature is None else logit_norm(objective, temperature)


def make_gan_objective(spec: Mapping[str, Any], num_classes: int) -> GanObjective:
  """Builds the GAN objective that `spec` names in `GAN_OBJECTIVES`."""
  return registry.build(GAN_OBJECTIVES, spec, what='GAN loss', num_classes=num_classes)
