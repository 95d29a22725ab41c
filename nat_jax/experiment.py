"""From a config to the things it names: data, trainer, evaluation sets.

    config = experiment.plain(config)              # a checked, plain dict
    training = experiment.load_training(config)    # pool of pixels, stream of indices
    trainer, schedule = experiment.build_trainer(config, training.image_shape)
    sets = experiment.load_evals(config)
"""

import functools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax
from absl import logging

from nat_jax import data, losses, models, presets, registry, trainers
from nat_jax.runtime import checkpoint, optim, parallel


class Training(NamedTuple):
  """What the updates read.

  Attributes:
    pool: all pixels, positives first (numpy).
    stream: which rows of the pool each step takes.
    image_shape: (height, width, channels).
    class_names: of the positives; () where the source has none.
  """

  pool: data.Pool
  stream: data.Stream
  image_shape: tuple[int, int, int]
  class_names: tuple[str, ...]


class EvalSet(NamedTuple):
  """One set of images to evaluate on.

  Attributes:
    arrays: images and labels (-1 in a negative set).
    positive: whether its images belong to the classes.
    seen: a negative set from a source whose classes were training negatives.
    overlap: how many of its images are, pixel by pixel, training negatives.
  """

  arrays: data.Arrays
  positive: bool
  seen: bool
  overlap: int


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config as JSON would give it back, checked for unknown keys.

  A teacher's step and checksum are written into it: a run that is resumed learns from
  the same teacher, or not at all.
  """
  if hasattr(config, 'to_dict'):
    config = config.to_dict()
  config = json.loads(json.dumps(config))
  presets.check_config(config)
  if 'teacher' in config['trainer']:
    config['trainer'].update(_identify_teacher(config['trainer']))
  return config


def build_trainer(
    config: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> tuple[trainers.Trainer, optax.Schedule]:
  """Builds the trainer and the learning-rate schedule of a config.

  Raises:
    ValueError, TypeError: a name or an argument that does not exist.
  """
  objective = _objective(config)
  model = registry.build(
      models.MODELS, config['model'], what='model',
      num_outputs=objective.num_outputs, axis_name=None,
  )
  schedule = optim.make_schedule(config['schedule'], config['steps'])
  tx = optim.make_optimizer(config['optimizer'], schedule, config['grad_clip'])
  settings = config['data']
  treat = None
  if settings['treatment'] and objective.uses_negatives:
    treat = registry.build(
        trainers.TREATMENTS, settings['treatment'], what='treatment')
  trainer = registry.build(
      trainers.TRAINERS, _trainer_spec(config), what='trainer',
      model=model, objective=objective, tx=tx,
      num_classes=config['num_classes'], image_shape=tuple(image_shape),
      augment=data.make_augment(settings['augment']),
      normalise=functools.partial(
          data.normalise, mean=settings['mean'], std=settings['std']
      ),
      ema_decay=config['ema_decay'], treat=treat,
  )
  return trainer, schedule


def load_training(config: Mapping[str, Any], num_devices: int = 1) -> Training:
  """Loads positives and negatives and lays out the batches.

  An objective that does not use negatives gets none, whatever the config lists.

  Raises:
    ValueError: what is wrong with the data or the batch, and how to mend it.
  """
  settings = config['data']
  if settings['batch_size'] % num_devices:
    raise ValueError(
        f'data.batch_size {settings["batch_size"]} does not divide over '
        f'{num_devices} devices; choose a multiple of {num_devices}'
    )
  uses_negatives = _objective(config).uses_negatives
  if uses_negatives and not (settings['negatives'] and _most(settings)):
    raise ValueError(
        f'the loss {config["loss"]["name"]!r} learns from negatives, and the config '
        f'gives it none (data.negatives: {sorted(settings["negatives"])}, '
        f'data.negatives_per_batch: {settings["negatives_per_batch"]}); add some, or '
        "train the plain classifier with loss={'name': 'cross_entropy'}"
    )
  positives = data.load(settings['positives'])
  negatives = load_negatives(config, positives) if uses_negatives else {}
  pool = data.make_pool(
      positives, negatives, config['num_classes'], settings['mean'], settings['std']
  )
  stream = data.make_stream(
      len(positives.label),
      {name: len(arrays.label) for name, arrays in negatives.items()},
      {name: settings['negatives'][name].get('weight', 1.0) for name in negatives},
      batch_size=settings['batch_size'],
      negatives_per_batch=settings['negatives_per_batch'] if negatives else 0,
      inside=settings['inside'],
      seed=config['seed'],
      multiple_of=num_devices,
  )
  return Training(pool, stream, tuple(pool.image.shape[1:]), positives.names)


def load_negatives(
    config: Mapping[str, Any], positives: data.Arrays
) -> dict[str, data.Arrays]:
  """Loads the training negatives of a config, by name."""
  return {
      name: data.load(spec['source'], like=positives)
      for name, spec in config['data']['negatives'].items()
  }


def load_evals(config: Mapping[str, Any]) -> dict[str, EvalSet]:
  """Loads the evaluation sets of a config, the reference first.

  Warns of every negative set that holds training negatives.

  Raises:
    ValueError: no positive set of the name `config['reference']`.
  """
  specs, name = dict(config['evals']), config['reference']
  if not specs.get(name, {}).get('positive'):
    raise ValueError(
        f'evals must hold a positive set named {name!r} (the config key reference), '
        f'which the negative sets are compared with; it holds: {sorted(specs)}'
    )
  reference = data.load(specs[name]['source'])
  trained = {}
  if _objective(config).uses_negatives:
    trained = load_negatives(config, data.load(config['data']['positives']))
  sets = {name: EvalSet(reference, True, False, 0)}
  for name, spec in specs.items():
    if name in sets:
      continue
    arrays = data.load(spec['source'], like=reference)
    if arrays.image.shape[1:] != reference.image.shape[1:]:
      raise ValueError(
          f'evaluation set {name!r} has images of shape {arrays.image.shape[1:]}, the '
          f'positives {reference.image.shape[1:]}; choose the size and mode of its '
          'source to match'
      )
    positive = bool(spec.get('positive', False))
    overlap = sum(data.count_overlap(arrays, other) for other in trained.values())
    if overlap and not positive:
      logging.warning(
          'Evaluation set %r: %d of its %d images are training negatives; its figures '
          'tell nothing about new images.', name, overlap, len(arrays.label),
      )
    seen = spec.get('seen')
    if seen is None:
      seen = bool(trained) and any(
          _same_kind(spec['source'], other['source'])
          for other in config['data']['negatives'].values()
      )
    if not positive:
      arrays = arrays._replace(label=arrays.label * 0 - 1)
    sets[name] = EvalSet(arrays, positive, bool(seen) and not positive, overlap)
  return sets


class Restored(NamedTuple):
  """A trained network and what is known of it."""

  config: dict[str, Any]
  image_shape: tuple[int, int, int]
  class_names: tuple[str, ...]
  trainer: trainers.Trainer
  state: Any
  step: int
  mesh: jax.sharding.Mesh


def restore(workdir: str, step: int | None = None) -> Restored:
  """Restores a run from its checkpoint, which knows its config.

  Args:
    workdir: of the run.
    step: of the checkpoint; None: the newest that can be read.

  Raises:
    ValueError: no checkpoint, or none of that step (those there are listed).
    checkpoint.Damaged: it cannot be read.
  """
  steps = _find_steps(workdir, step)
  mesh = parallel.make_mesh()
  manager = checkpoint.open_manager(workdir, read_only=True)
  for candidate in steps:
    try:
      about = checkpoint.read_about(manager, candidate)
      shape = tuple(about['image_shape'])
      trainer, _ = build_trainer(about['config'], shape)
      target = parallel.abstract_state(trainer.init, mesh)
      state = checkpoint.restore(manager, candidate, target)
    except checkpoint.Damaged as error:
      if candidate == steps[-1]:
        raise
      logging.error('%s. Using the one before.', error)
      continue
    checkpoint.close(manager)
    names = tuple(about['class_names'])
    return Restored(about['config'], shape, names, trainer, state, candidate, mesh)


def _find_steps(workdir, step=None):
  """The steps that may be restored, the best choice first."""
  steps = checkpoint.list_steps(workdir)
  if not steps:
    raise ValueError(
        f'no checkpoints in {workdir}; train first: '
        f'python -m nat_jax.main --config CONFIG --workdir {workdir}'
    )
  if step is not None and step not in steps:
    raise ValueError(f'no checkpoint of step {step} in {workdir}; there are: {steps}')
  return steps[::-1] if step is None else [step]


def _identify_teacher(spec):
  workdir, chosen = spec['teacher'], spec.get('teacher_step')
  step = _find_steps(workdir, chosen)[0]
  manager = checkpoint.open_manager(workdir, read_only=True)
  about = checkpoint.read_about(manager, step)
  checkpoint.close(manager)
  steps = about['config']['steps']
  if chosen is None and step != steps:
    raise ValueError(
        f'the teacher in {workdir} stopped at step {step} of {steps}; train it to its '
        f'end, or say that this is what you want: trainer.teacher_step={step}')
  return {'teacher_step': step, 'teacher_crc32': about['crc32']}


def _trainer_spec(config):
  """The trainer's spec with a function that restores the teacher for its workdir."""
  spec = dict(config['trainer'])
  if 'teacher' in spec:
    spec.pop('teacher_crc32', None)
    spec['teacher'] = functools.partial(
        _restore_teacher, config, spec['teacher'], spec.pop('teacher_step', None))
  return spec


def _restore_teacher(config, workdir, step):
  found = restore(workdir, step)
  for key in ('mean', 'std'):
    own, other = config['data'][key], found.config['data'][key]
    if list(own) != list(other):
      raise ValueError(
          f'the teacher in {workdir} was trained with data.{key}={other}, the student '
          f'has {own}; they see the same normalised images: use the same data.{key}')
  return found


def _objective(config) -> losses.Objective:
  return registry.build(
      losses.OBJECTIVES, config['loss'], what='loss', num_classes=config['num_classes']
  )


def _most(settings) -> int:
  count = settings['negatives_per_batch']
  return count if isinstance(count, int) else max(count)


def _same_kind(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
  """Whether two sources draw from one data set and share a class of it."""
  if any(one.get(key) != other.get(key) for key in ('name', 'dataset', 'path')):
    return False
  classes, others = one.get('classes'), other.get('classes')
  return classes is None or others is None or bool(set(classes) & set(others))
