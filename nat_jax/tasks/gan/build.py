"""Builds the inputs and the trainer of a GAN from its config.

    inputs = load(config, num_devices=1)
    trainer = build(config, image_shape, others)
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from nat_jax import data, losses, models, registry
from nat_jax.runtime import optim
from nat_jax.task import Inputs, Others, Trainer
from nat_jax.tasks import images
from nat_jax.tasks.gan.active import active
from nat_jax.tasks.gan.adaptive_mix import adaptive_mix
from nat_jax.tasks.gan.evolution import egan
from nat_jax.tasks.gan.mixup import mixup
from nat_jax.tasks.gan.step import gan

TRAINERS = {'gan': gan, 'egan': egan, 'adaptive_mix': adaptive_mix, 'mixup': mixup,
            'active': active}


def resolve(config: dict[str, Any], others: Others) -> dict[str, Any]:
  """Returns the config unchanged, if its batches can be split as it says.

  Args:
    config: of a GAN.
    others: not used.

  Raises:
    ValueError: `data.micro_batches` above 1, with losses or networks that need the
      whole batch.
  """
  del others
  num = config['data']['micro_batches']
  if num == 1:
    return config
  objective = losses.make_gan_objective(config['loss'], config['num_classes'])
  marginal = ', or loss.marginal=0' if config['loss'].get('marginal') else ''
  for key, whole, remedy in (
      ('loss', objective.whole_batch, f'choose another loss{marginal}'),
      ('generator', config['generator']['name'] == 'stacked',
       'choose another generator'),
      ('discriminator', config['discriminator'].get('kernels'),
       'set discriminator.kernels to 0')):
    if whole:
      raise ValueError(
          f'data.micro_batches={num} does not go with {key} {config[key]["name"]!r}, '
          'which needs the whole batch at once; set data.micro_batches to 1, or '
          f'{remedy}')
  return config


def load(
    config: Mapping[str, Any], num_devices: int = 1, others: Others | None = None
) -> Inputs:
  """Loads the positives and the external negatives, if the config has any.

  Positives and negatives have separate indices in the stream (`data.apart`).

  Args:
    config: of a GAN.
    num_devices: number of devices that share a batch.
    others: opens the runs that negatives are drawn from.

  Raises:
    ValueError: a mistake in the data or the batch; the message says how to correct it.
  """
  settings, most = config['data'], images.most_negatives(config['data'])
  images.check_devices(settings, num_devices)
  if most and not settings['negatives']:
    raise ValueError(
        f'data.negatives_per_batch={settings["negatives_per_batch"]} needs a set in '
        'data.negatives to draw negatives from, got none; choose a variant with '
        'negatives, such as nat3, or set data.negatives_per_batch=0')
  if settings['negatives'] and not most:
    logging.warning(
        'data.negatives (%s) are not used, because data.negatives_per_batch is 0.',
        ', '.join(sorted(settings['negatives'])))
  positives, negatives = images.load_sets(
      config, bool(settings['negatives'] and most), others)
  if data.is_vectors(positives.image.shape[1:]):
    raise ValueError(
        'GANs are trained on pictures here (or on points, task="points"); the source '
        f'{settings["positives"]["name"]!r} gives vectors')
  images.check_classes(positives.names, config['num_classes'])
  check_range(settings)
  inputs = images.make_inputs(config, positives, negatives, num_devices)
  stream = data.apart(
      inputs.stream, len(positives.label), settings['batch_size'],
      most if negatives else 0, repeats=config['trainer'].get('n_critic', 1),
      multiple_of=images.num_parts(settings, num_devices))
  return inputs._replace(stream=stream)


def check_range(settings: Mapping[str, Any]) -> None:
  """Raises ValueError unless normalised pixels are in [-1, 1], as those generated are.

  Args:
    settings: `config['data']`.
  """
  black_and_white = np.array([[0.0], [1.0]])
  reach = np.abs((black_and_white - settings['mean']) / settings['std']).max()
  if reach > 1.01:
    raise ValueError(
        'the pixels that a generator makes are in [-1, 1], and those of the positives '
        f'reach {reach:.2f} with data.mean={settings["mean"]} and '
        f'data.std={settings["std"]}; leave out data.mean and data.std of the config')


def build(
    config: Mapping[str, Any], image_shape: tuple[int, ...], others: Others
) -> Trainer:
  """Builds the trainer of a config.

  Args:
    config: of a GAN.
    image_shape: (height, width, channels).
    others: not used.

  Raises:
    ValueError: an unknown name, or settings that are not valid.
    TypeError: an unknown or a missing argument of a spec.
  """
  del others
  objective = losses.make_gan_objective(config['loss'], config['num_classes'])
  settings, schedule = pair(config, image_shape, objective)
  trainer = registry.build(
      TRAINERS, config['trainer'], what='trainer', objective=objective,
      num_classes=config['num_classes'],
      micro_batches=config['data']['micro_batches'], **settings)
  return trainer._replace(learning_rate=schedule)


def pair(
    config: Mapping[str, Any], image_shape: tuple[int, ...],
    objective: losses.GanObjective,
) -> tuple[dict[str, Any], Callable[[int], Any]]:
  """Builds the networks, optimisers and settings shared by all trainers of GANs.

  Args:
    config: of a GAN.
    image_shape: (height, width, channels).
    objective: its `num_outputs` is the number of outputs of the discriminator.

  Returns:
    ({attribute of `step.Setup`: value}, the generator's schedule: update -> rate).

  Raises:
    ValueError: an unknown name, or settings that are not valid.
    TypeError: an unknown or a missing argument of a spec.
  """
  spec = config['trainer']
  num_labels = config['num_classes'] if spec.get('labels') == 'predefined' else 0
  schedule, disc_schedule = (
      optim.make_schedule(each or config['schedule'], config['steps'])
      for each in (config['schedule'], config['disc_schedule']))
  n_critic = spec.get('n_critic', 1)
  gen_tx = optim.make_optimizer(config['optimizer'], schedule, config['grad_clip'])
  # Orthogonal regularisation is of the generator. The count of D's optimiser increases
  # by n_critic per step.
  disc_tx = optim.make_optimizer(
      {**config['optimizer'], 'orthogonal': 0.0},
      lambda count: disc_schedule(count // n_critic), config['grad_clip'])
  return dict(
      generator=registry.build(
          models.GENERATORS, config['generator'], what='generator',
          image_shape=image_shape, num_classes=num_labels, axis_name=None),
      discriminator=registry.build(
          models.DISCRIMINATORS, config['discriminator'], what='discriminator',
          image_shape=image_shape, num_outputs=objective.num_outputs, axis_name=None),
      gen_tx=gen_tx, disc_tx=disc_tx, image_shape=image_shape,
      ema_decay=config['ema_decay'],
      penalties=[registry.build(losses.PENALTIES, penalty, what='penalty')
                 for penalty in config['penalties']],
      **images.transforms(config['data'])), schedule
