"""Builds the inputs and the trainer of a semi-supervised classifier from its config.

    inputs = load(config, num_devices=1)            # chooses the labelled examples
    trainer = build(config, inputs.shape, others)
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nat_jax import data, losses, registry, task
from nat_jax.data import rows
from nat_jax.task import Inputs, Others
from nat_jax.tasks import images
from nat_jax.tasks.gan import build as gan_build
from nat_jax.tasks.semi_supervised.step import semi_supervised

_CHOICE = 7  # purpose of the random numbers that choose the labelled examples
TRAINERS = {'semi_supervised': semi_supervised}


def choose(
    label: np.ndarray, per_class: int, num_classes: int, seed: int
) -> np.ndarray:
  """Chooses the labelled examples of a run, `per_class` of each class, at random.

  With one seed, those of a smaller number are among those of a larger one.

  Args:
    label: of all training examples, int [n] in 0..num_classes-1.
    per_class: number of labelled examples of each class.
    num_classes: number of classes.
    seed: of the choice.

  Returns:
    Rows, int [num_classes * per_class], in rising order.

  Raises:
    ValueError: per_class below 1; labels out of range; a class with fewer examples; or
      no example is left without a label.
  """
  if per_class < 1:
    raise ValueError(f'data.labels_per_class must be 1 or more, got {per_class}')
  if not len(label) or label.min() < 0 or label.max() >= num_classes:
    raise ValueError(
        f'labels of the positives must be 0..{num_classes - 1}, got '
        f'{sorted(set(label.tolist()))[:20]}; set num_classes, or choose classes=(...) '
        'of the source, which renumbers')
  counts = np.bincount(label, minlength=num_classes)
  least = int(counts.argmin())
  if counts[least] < per_class:
    raise ValueError(
        f'data.labels_per_class={per_class}, but class {least} has '
        f'{counts[least]} training positives; set data.labels_per_class to at most '
        'that number, or add examples of the class to data.positives')
  if len(label) == num_classes * per_class:
    raise ValueError(
        f'data.labels_per_class={per_class} leaves none of the {len(label)} training '
        "positives unlabelled; set it lower, or use the task 'classify'")
  order = np.random.default_rng((seed, _CHOICE)).permutation(len(label))
  return np.sort(np.concatenate([
      order[label[order] == k][:per_class] for k in range(num_classes)]))


def load(
    config: Mapping[str, Any], num_devices: int = 1, others: Others | None = None
) -> Inputs:
  """Loads the positives, chooses the labelled ones and makes the stream of batches.

  The pool holds the labelled examples and then the others, with the label -1.

  Args:
    config: of a semi-supervised classifier.
    num_devices: number of devices that share a batch.
    others: opens the runs that sources draw from.

  Raises:
    ValueError: a mistake in the data or the batch; the message says how to correct it.
  """
  settings = config['data']
  images.check_devices(settings, num_devices)
  if settings['labelled_per_batch'] % num_devices:
    raise ValueError(
        f'data.labelled_per_batch {settings["labelled_per_batch"]} does not divide '
        f'over {num_devices} devices; choose a multiple of {num_devices}')
  positives = images.load_source(config, settings['positives'], others=others)
  if data.is_vectors(positives.image.shape[1:]):
    raise ValueError(
        'semi-supervised classifiers are trained on pictures here; the source '
        f'{settings["positives"]["name"]!r} gives vectors')
  gan_build.check_range(settings)
  chosen = choose(
      positives.label, settings['labels_per_class'], config['num_classes'],
      config['seed'])
  left = np.setdiff1d(np.arange(len(positives.label)), chosen)
  labelled, unlabelled = (
      positives._replace(image=rows.select(positives.image, some),
                         label=positives.label[some], files=None, hashes=None)
      for some in (chosen, left))
  # For the pool, unlabelled examples are a set without labels, as negatives are.
  inputs = images.make_inputs(
      {**config, 'data': {
          **settings, 'negatives': {'unlabelled': {}}, 'negatives_per_batch': 0}},
      labelled, {'unlabelled': unlabelled}, num_devices)
  streams = {
      name: data.make_stream(
          num, {}, {}, batch_size=size, negatives_per_batch=0, inside=False,
          seed=config['seed'])
      for name, num, size in (
          ('labelled', len(chosen), settings['labelled_per_batch']),
          ('unlabelled', len(left), settings['batch_size']))}
  first = {'labelled': 0, 'unlabelled': len(chosen)}  # rows of the pool
  stream = data.Stream(
      sum(one.num_slots for one in streams.values()),
      lambda at: {name: first[name] + one.index(at) for name, one in streams.items()})
  return inputs._replace(stream=stream, negatives={}, positives=positives)


def build(
    config: Mapping[str, Any], image_shape: tuple[int, ...], others: Others
) -> task.Trainer:
  """Builds the trainer of a config.

  Args:
    config: of a semi-supervised classifier.
    image_shape: (height, width, channels).
    others: not used.

  Raises:
    ValueError: an unknown name, or settings that are not valid.
    TypeError: an unknown or a missing argument of a spec.
  """
  del others
  classes = config['num_classes']
  if config['gan_loss'].get('labelled'):
    raise ValueError(
        'gan_loss.labelled is of examples with labels, whose loss is the config key '
        f'`loss` here; leave it out, got {config["gan_loss"]["labelled"]}')
  objective = losses.make_gan_objective(config['gan_loss'], classes)
  pair, schedule = gan_build.pair(config, image_shape, objective)
  trainer = registry.build(
      TRAINERS, config['trainer'], what='trainer', objective=objective,
      supervised=losses.make_objective(config['loss'], classes), num_classes=classes,
      **pair)
  return trainer._replace(learning_rate=schedule)
