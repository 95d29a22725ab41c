"""Builds the inputs and the trainer of an AdvGAN from its config.

    config = resolve(config, others)                # adds the checkpoint of the target
    inputs = load(config, num_devices=1)
    trainer = build(config, image_shape, others)
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

from nat_jax import data, models, registry
from nat_jax.runtime import optim
from nat_jax.task import Inputs, Others, Trainer
from nat_jax.tasks import images, updates
from nat_jax.tasks.advgan import target as target_lib
from nat_jax.tasks.advgan.step import advgan

TRAINERS = {'advgan': advgan}


def resolve(config: dict[str, Any], others: Others) -> dict[str, Any]:
  """Returns the config with the checkpoints of the target and of other classifiers.

  Args:
    config: of an AdvGAN.
    others: reads their checkpoints.

  Raises:
    ValueError: see `target.resolve`.
  """
  evals = {}
  for name, entry in config['evals'].items():
    evals[name] = entry
    if entry.get('classifier'):
      evals[name] = {**entry, 'classifier': target_lib.resolve(
          entry['classifier'], f'evals.{name}.classifier', others)}
  found = target_lib.resolve(config['target'], 'target', others)
  return {**config, 'target': found, 'evals': evals}


def load(
    config: Mapping[str, Any], num_devices: int = 1, others: Others | None = None
) -> Inputs:
  """Loads the positives; there are no negatives.

  Args:
    config: of an AdvGAN.
    num_devices: number of devices that share a batch.
    others: unused.

  Raises:
    ValueError: a mistake in the data or the batch; the message says how to correct it.
  """
  settings = config['data']
  images.check_devices(settings, num_devices)
  positives = images.load_source(config, settings['positives'])
  if data.is_vectors(positives.image.shape[1:]):
    raise ValueError(
        'an AdvGAN changes pictures; the source '
        f'{settings["positives"]["name"]!r} gives vectors')
  return images.make_inputs(config, positives, {}, num_devices)


def build(
    config: Mapping[str, Any], image_shape: tuple[int, ...], others: Others
) -> Trainer:
  """Builds the trainer of a config.

  Args:
    config: of an AdvGAN, from `resolve`.
    image_shape: (height, width, channels).
    others: restores the target.

  Raises:
    ValueError: an unknown name, settings that are not valid, or a generator with batch
      statistics.
    TypeError: an unknown or a missing argument of a spec.
  """
  generator = updates.stateless(
      config['perturber'], 'perturber', math.prod(image_shape), image_shape)
  schedule = optim.make_schedule(config['schedule'], config['steps'])

  def optimizer():
    return optim.make_optimizer(config['optimizer'], schedule, config['grad_clip'])

  student = config['student'] and registry.build(
      models.MODELS, config['student'], what='student',
      num_outputs=config['num_classes'], axis_name=None)
  trainer = registry.build(
      TRAINERS, config['trainer'], what='trainer', generator=generator,
      discriminator=registry.build(
          models.DISCRIMINATORS, config['discriminator'], what='discriminator',
          image_shape=image_shape, num_outputs=1, axis_name=None),
      student=student or None, gen_tx=optimizer(), disc_tx=optimizer(),
      student_tx=optimizer(), num_classes=config['num_classes'],
      image_shape=tuple(image_shape),
      target=functools.partial(
          target_lib.open_target, config['target'], 'target', config, image_shape, (),
          others),
      **images.transforms(config['data']))
  return trainer._replace(learning_rate=schedule)
