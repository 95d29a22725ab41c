"""From a config to its trainer, and from a workdir to its trained network.

    config = experiment.plain(config)              # a checked, plain dict
    trainer, schedule = experiment.build_trainer(config, image_shape)
    restored = experiment.restore('runs/digits')
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax
from absl import logging

from nat_jax import data, losses, models, registry, schema, trainers
from nat_jax.runtime import checkpoint, optim, parallel
from nat_jax.task import Trainer


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config as JSON would give it back, checked (`schema.plain`).

  A teacher's step and checksum are written into it: a run that is resumed learns from
  the same teacher, or not at all.
  """
  config = schema.plain(config)
  if 'teacher' in config['trainer']:
    config['trainer'].update(_identify_teacher(config['trainer']))
  return config


def build_trainer(
    config: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> tuple[Trainer, optax.Schedule]:
  """Builds the trainer and the learning-rate schedule of a config.

  Raises:
    ValueError, TypeError: a name or an argument that does not exist.
  """
  if config['trainer']['name'] == 'gan':
    return _build_gan(config, image_shape)
  objective = losses.make_objective(config['loss'], config['num_classes'])
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
      ema_decay=config['ema_decay'], treat=treat, **_images(settings),
  )
  return trainer, schedule


def _images(settings):
  """What is done to images on the device."""
  return {
      'augment': data.make_augment(settings['augment']),
      'normalise': functools.partial(
          data.normalise, mean=settings['mean'], std=settings['std']),
  }


def _build_gan(config, image_shape):
  num_classes = config['num_classes']
  objective = losses.make_gan_objective(config['loss'], num_classes)
  predefined = config['trainer'].get('labels') == 'predefined'
  schedule, disc_schedule = (
      optim.make_schedule(spec or config['schedule'], config['steps'])
      for spec in (config['schedule'], config['disc_schedule']))
  n_critic = config['trainer'].get('n_critic', 1)
  txs = [optim.make_optimizer(config['optimizer'], rate, config['grad_clip'])
         # The optimiser of D counts n_critic updates a step.
         for rate in (schedule, lambda count: disc_schedule(count // n_critic))]
  spec = dict(config['trainer'])
  spec['negative_weight'] = spec.get('negative_weight') or None
  trainer = registry.build(
      trainers.TRAINERS, spec, what='trainer',
      generator=registry.build(
          models.GENERATORS, config['generator'], what='generator',
          image_shape=image_shape, num_classes=num_classes if predefined else 0,
          axis_name=None),
      discriminator=registry.build(
          models.DISCRIMINATORS, config['discriminator'], what='discriminator',
          image_shape=image_shape, num_outputs=objective.num_outputs, axis_name=None),
      objective=objective, gen_tx=txs[0], disc_tx=txs[1], num_classes=num_classes,
      image_shape=image_shape, ema_decay=config['ema_decay'], **_images(config['data']),
  )
  return trainer, schedule


class Restored(NamedTuple):
  """A trained network and what is known of it."""

  config: dict[str, Any]
  image_shape: tuple[int, int, int]
  class_names: tuple[str, ...]
  trainer: Trainer
  state: Any
  step: int
  mesh: jax.sharding.Mesh


def restore(
    workdir: str, step: int | None = None, kind: str | None = None
) -> Restored:
  """Restores a run from its checkpoint, which knows its config.

  Args:
    workdir: of the run.
    step: of the checkpoint; None: the newest that can be read.
    kind: what it must be, as `kind_of` says; None: whatever it is.

  Raises:
    ValueError: no checkpoint, or none of that step (those there are listed); a run of
      another kind.
    checkpoint.Damaged: it cannot be read.
  """
  steps = _find_steps(workdir, step)
  mesh = parallel.make_mesh()
  manager = checkpoint.open_manager(workdir, read_only=True)
  for candidate in steps:
    try:
      about = checkpoint.read_about(manager, candidate)
      shape = tuple(about['image_shape'])
      config = schema.with_defaults(about['config'])
      if kind not in (None, kind_of(config)):
        raise ValueError(
            f'expected a {kind} in {workdir}, and the run there is a {kind_of(config)} '
            f'(trainer {config["trainer"]["name"]!r}). {HINTS[kind_of(config)]}')
      trainer, _ = build_trainer(config, shape)
      target = parallel.abstract_state(trainer.init, mesh)
      state = checkpoint.restore(manager, candidate, target)
    except checkpoint.Damaged as error:
      if candidate == steps[-1]:
        raise
      logging.error('%s. Using the one before.', error)
      continue
    checkpoint.close(manager)
    names = tuple(about['class_names'])
    return Restored(config, shape, names, trainer, state, candidate, mesh)


HINTS = {
    'GAN': 'For a GAN there are --mode=generate and --mode=evaluate',
    'classifier': 'For a classifier there are --mode=evaluate, predict and posthoc',
}


def kind_of(config: Mapping[str, Any]) -> str:
  """'GAN' or 'classifier'."""
  return 'GAN' if config['trainer']['name'] == 'gan' else 'classifier'


def find_kind(workdir: str, step: int | None = None) -> str:
  """The same of a run, by its newest checkpoint or that of `step`.

  Raises:
    ValueError: as `restore`.
  """
  steps = _find_steps(workdir, step)
  manager = checkpoint.open_manager(workdir, read_only=True)
  for candidate in steps:
    try:
      about = checkpoint.read_about(manager, candidate)
    except checkpoint.Damaged:
      if candidate == steps[-1]:
        raise
      continue
    checkpoint.close(manager)
    return kind_of(about['config'])


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
  found = restore(workdir, step, 'classifier')
  for key in ('mean', 'std'):
    own, other = config['data'][key], found.config['data'][key]
    if list(own) != list(other):
      raise ValueError(
          f'the teacher in {workdir} was trained with data.{key}={other}, the student '
          f'has {own}; they see the same normalised images: use the same data.{key}')
  return found
