"""Builds the inputs and the trainer of a segmenter from its config.

    config = resolve(config, others)      # the rare classes, the factors of the classes
    inputs = load(config, num_devices=1)
    trainer = build(config, inputs.shape, others)
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import data, losses, models, registry
from nat_jax.runtime import optim
from nat_jax.task import Inputs, Others, Trainer
from nat_jax.tasks import images
from nat_jax.tasks.segment.step import PLAYERS, segment

TRAINERS = {'segment': segment}


def resolve(config: dict[str, Any], others: Others) -> dict[str, Any]:
  """Returns the config with the rare classes and the factors of the classes.

  Args:
    config: of a segmenter.
    others: not used.

  Raises:
    ValueError: see `load_training`; a class of `rare` that does not exist; or synthetic
      pairs that would come after the last update.
  """
  del others
  settings, rare, classes = config['data'], config['rare'], config['num_classes']
  wrong = [label for label in rare if label >= classes]
  if wrong:
    raise ValueError(
        f'rare={list(rare)} must be of the classes 0..{classes - 1}, got {wrong[0]}')
  data.check_void(classes, settings['void'])
  begin, steps = config['trainer'].get('synthetic_from', 0), config['steps']
  if settings['pasted_per_batch'] and begin >= steps:
    raise ValueError(
        f'trainer.synthetic_from={begin} must be below steps={steps}, since the '
        'segmenter would see no synthetic pair; lower trainer.synthetic_from, or raise '
        'steps')
  balanced = settings['class_weights'] == 'balanced'
  if rare and not balanced:
    return config
  pairs = load_training(config)
  counts = data.class_counts(pairs.mask, classes)
  factors = (counts.sum() / (classes * counts)).tolist()
  return {**config, 'rare': rare or list(data.rare_classes(pairs.mask, classes)),
          'data': {**settings, 'class_weights':
                   factors if balanced else settings['class_weights']}}


def load_training(config: Mapping[str, Any]) -> data.Pairs:
  """Loads the training pairs.

  Raises:
    ValueError: a mistake in the source, or a class that is in none of the masks.
  """
  pairs = load_pairs(config, config['data']['pairs'])
  data.check_training(pairs, config['num_classes'])
  return pairs


def load_pairs(config: Mapping[str, Any], spec: Mapping[str, Any]) -> data.Pairs:
  """Loads a source of pictures and masks for a config."""
  return data.load_pairs(spec, config['num_classes'], config['data']['void'])


def as_arrays(pairs: data.Pairs) -> data.Arrays:
  """Pairs as examples: `joined`, with label 0."""
  return data.Arrays(
      joined(pairs), np.zeros(len(pairs.mask), np.int32), pairs.names)


def joined(pairs: data.Pairs) -> np.ndarray:
  """Pictures with the mask as one more channel, uint8 [n, h, w, c + 1]."""
  return np.concatenate([pairs.image, pairs.mask[..., None]], -1)


def load(
    config: Mapping[str, Any], num_devices: int = 1, others: Others | None = None
) -> Inputs:
  """Loads the training pairs and makes the stream of batches.

  The pool holds the pairs and then the regions of the rare classes, with label -1. The
  pairs of a batch, real ones and those that regions are pasted into, are of one epoch.

  Args:
    config: of a segmenter, from `resolve`.
    num_devices: number of devices that share a batch.
    others: not used.

  Raises:
    ValueError: a mistake in the data or the batch; the message says how to correct it.
  """
  del others
  settings, seed = config['data'], config['seed']
  size, num_pasted = settings['batch_size'], settings['pasted_per_batch']
  images.check_devices(settings, num_devices)
  if num_pasted % num_devices:
    raise ValueError(
        f'data.pasted_per_batch {num_pasted} does not divide over {num_devices} '
        f'devices; choose a multiple of {num_devices}')
  pairs = load_training(config)
  image, num = joined(pairs), len(pairs.mask)
  cut = data.regions(pairs, config['rare']) if num_pasted else None
  pool = image if cut is None else np.concatenate([image, joined(cut)])

  num_drawn = size if config['generator'] else 0
  num_rare = round(settings['rare_share'] * num_drawn)

  def stream(total, taken):
    return data.make_stream(
        total, {}, {}, batch_size=max(taken, 1), negatives_per_batch=0, inside=False,
        seed=seed).index

  of_pairs = stream(num, size + num_pasted + num_drawn - num_rare)
  rare = np.flatnonzero(np.isin(pairs.mask, config['rare']).any((1, 2)))
  of_rare = stream(max(len(rare), 1), num_rare)
  of_regions = stream(max(len(pool) - num, 1), num_pasted)

  def index(step):
    real, base, usual = np.split(of_pairs(step), [size, size + num_pasted])
    if not num_pasted:
      return {'real': real}
    found = {'real': real, 'base': base, 'region': num + of_regions(step)}
    if num_drawn:
      rows = rare[of_rare(step)[:num_rare]].astype(np.int32)
      found['drawn'] = np.concatenate([usual, rows])
    return found

  label = np.where(np.arange(len(pool)) < num, 0, -1).astype(np.int32)
  return Inputs(
      data.Pool(pool, label), data.Stream(size + 2 * num_pasted + num_drawn, index),
      image.shape[1:], pairs.names,
      positives=data.Arrays(pool[:num], label[:num], pairs.names))


def build(
    config: Mapping[str, Any], shape: tuple[int, ...], others: Others
) -> Trainer:
  """Builds the trainer of a config.

  Args:
    config: of a segmenter, from `resolve`.
    shape: (height, width, channels + 1); the mask is the last channel.
    others: not used.

  Raises:
    ValueError: an unknown name, or settings that are not valid.
    TypeError: an unknown or a missing argument of a spec.
  """
  del others
  (h, w, channels), classes = (*shape[:2], shape[2] - 1), config['num_classes']
  if config['discriminator'] and not config['generator']:
    raise ValueError(
        'a discriminator needs a generator, got generator={}; set discriminator={} too')
  if config['generator'] and not config['data']['pasted_per_batch']:
    raise ValueError(
        'a generator makes pictures of masks with pasted regions, got '
        'data.pasted_per_batch=0; set it above 0, or generator={}')
  outputs = {'segmenter': classes, 'generator': channels, 'discriminator': 1}
  nets = {name: registry.build(
      models.PIXEL_MODELS, config[name], what=name, num_outputs=outputs[name])
          for name in PLAYERS if config[name]}
  for name in sorted({'segmenter', 'generator'} & set(nets)):
    _check_map(config[name]['name'], nets[name], name, h, w)
  objective = losses.make_objective(config['loss'], classes)
  if objective.num_outputs != classes:
    raise ValueError(
        f'loss must have one output for each class, and {config["loss"]["name"]!r} has '
        'one more; choose nat or cross_entropy')
  factors = data.class_weights(
      config['data']['class_weights'], np.arange(classes), classes)
  schedule, gan_schedule = (
      optim.make_schedule(spec or config['schedule'], config['steps'])
      for spec in (config['schedule'], config['gan_schedule']))
  trainer = registry.build(
      TRAINERS, config['trainer'], what='trainer', objective=objective,
      tx=optim.make_optimizer(config['optimizer'], schedule, config['grad_clip']),
      gan_tx=optim.make_optimizer(config['gan_optimizer'], gan_schedule),
      num_classes=classes, image_shape=(h, w, channels),
      class_weights=[1.0] * classes if factors is None else factors.tolist(), **nets)
  return trainer._replace(learning_rate=schedule)


def _check_map(chosen, net, name, h, w):
  """Raises ValueError unless a network has an output for each pixel."""
  found, _ = jax.eval_shape(
      lambda key: net.init_with_output(key, jnp.zeros((1, h, w, 1))), jax.random.key(0))
  if found.shape[1:3] != (h, w):
    raise ValueError(
        f'{name} must have an output for each of {h} x {w} pixels, and {chosen!r} has '
        f'{found.shape[1]} x {found.shape[2]}; choose unet')
