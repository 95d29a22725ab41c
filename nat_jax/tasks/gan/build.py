"""From the config of a GAN to its images and its trainer.

    inputs = load(config, num_devices=1)
    trainer = build(config, image_shape, others)
"""

from collections.abc import Callable, Mapping
from typing import Any

from nat_jax import data, losses, models, registry
from nat_jax.runtime import optim
from nat_jax.task import Inputs, Others, Trainer
from nat_jax.tasks import images
from nat_jax.tasks.gan.step import gan

TRAINERS = {'gan': gan}


def load(config: Mapping[str, Any], num_devices: int = 1) -> Inputs:
  """Loads positives and, where there are any, external negatives.

  Its batches have positives and negatives apart (`data.apart`).

  Raises:
    ValueError: what is wrong with the data or the batch, and how to mend it.
  """
  settings, most = config['data'], images.most_negatives(config['data'])
  images.check_devices('data.batch_size', settings['batch_size'], num_devices)
  if most and not settings['negatives']:
    raise ValueError(
        f'data.negatives_per_batch is {settings["negatives_per_batch"]}, and '
        'data.negatives names no set to draw them from; choose a variant that does, '
        'such as nat3, or set it to 0')
  positives, negatives = images.load_sets(config, bool(settings['negatives'] and most))
  inputs = images.make_inputs(config, positives, negatives, num_devices)
  stream = data.apart(
      inputs.stream, len(positives.label), settings['batch_size'],
      most if negatives else 0, repeats=config['trainer'].get('n_critic', 1),
      multiple_of=num_devices)
  return inputs._replace(stream=stream)


def build(
    config: Mapping[str, Any], image_shape: tuple[int, ...], others: Others
) -> Trainer:
  """Builds the trainer of a config.

  Raises:
    ValueError, TypeError: a name or an argument that does not exist.
  """
  del others
  objective = losses.make_gan_objective(config['loss'], config['num_classes'])
  settings, schedule = pair(config, image_shape, objective)
  trainer = registry.build(
      TRAINERS, config['trainer'], what='trainer', objective=objective,
      num_classes=config['num_classes'], **settings)
  return trainer._replace(learning_rate=schedule)


def pair(
    config: Mapping[str, Any], image_shape: tuple[int, ...],
    objective: losses.GanObjective,
) -> tuple[dict[str, Any], Callable[[int], Any]]:
  """What trainers of a generator and a discriminator take, apart from the losses.

  Args:
    config: of a GAN.
    image_shape: of one image.
    objective: says how many outputs the discriminator has.

  Returns:
    (attributes of `step.Setup` by name, the generator's schedule).

  Raises:
    ValueError, TypeError: a name or an argument that does not exist.
  """
  spec = config['trainer']
  num_labels = config['num_classes'] if spec.get('labels') == 'predefined' else 0
  schedule, disc_schedule = (
      optim.make_schedule(each or config['schedule'], config['steps'])
      for each in (config['schedule'], config['disc_schedule']))
  n_critic = spec.get('n_critic', 1)
  gen_tx, disc_tx = (
      optim.make_optimizer(config['optimizer'], rate, config['grad_clip'])
      # The optimiser of D counts n_critic updates per step.
      for rate in (schedule, lambda count: disc_schedule(count // n_critic)))
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
