"""Builds the trainer of a classifier from its config.

    config = resolve(config, others)               # adds the step of a teacher
    trainer = build(config, image_shape, others)
"""

import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from nat_jax import data, losses, models, registry
from nat_jax.models import weights
from nat_jax.runtime import backbones, optim
from nat_jax.task import Others, Run, Trainer
from nat_jax.tasks import checkpoints, images
from nat_jax.tasks.classify.adaptive_mix import adaptive_mix
from nat_jax.tasks.classify.adversarial import adversarial
from nat_jax.tasks.classify.attention_transfer import attention_transfer
from nat_jax.tasks.classify.mixup import mixup
from nat_jax.tasks.classify.rotation import rotation
from nat_jax.tasks.classify.step import supervised
from nat_jax.tasks.classify.treatments import TREATMENTS

TRAINERS = {
    'adaptive_mix': adaptive_mix,
    'adversarial': adversarial,
    'attention_transfer': attention_transfer,
    'mixup': mixup,
    'rotation': rotation,
    'supervised': supervised,
}


def resolve(config: dict[str, Any], others: Others) -> dict[str, Any]:
  """Returns the config with the step and the checksum of the teacher, if it has one.

  Args:
    config: of a classifier.
    others: reads the teacher's checkpoint.

  Raises:
    ValueError: the teacher does not exist, or its training is not complete.
  """
  spec = config['trainer']
  if 'teacher' not in spec:
    return config
  found = checkpoints.identity(
      spec['teacher'], spec.get('teacher_step'), 'trainer.teacher_step', others)
  return {**config, 'trainer': {
      **spec, 'teacher_step': found['step'], 'teacher_crc32': found['crc32']}}


def build(
    config: Mapping[str, Any], image_shape: tuple[int, ...], others: Others
) -> Trainer:
  """Builds the trainer of a config.

  Args:
    config: of a classifier, from `resolve`.
    image_shape: (height, width, channels), or (columns,) of vectors.
    others: restores the teacher.

  Raises:
    ValueError: an unknown name, or settings that are not valid.
    TypeError: an unknown or a missing argument of a spec.
  """
  if data.is_vectors(image_shape):
    _check_vectors(config)
  objective = losses.make_objective(config['loss'], config['num_classes'])
  model = registry.build(
      models.MODELS, config['model'], what='model',
      num_outputs=objective.num_outputs, axis_name=None)
  schedule = optim.make_schedule(config['schedule'], config['steps'])
  tx = optim.make_optimizer(
      config['optimizer'], schedule, config['grad_clip'], **_stages(config))
  settings, treat = config['data'], None
  if settings['treatment'] and objective.uses_negatives:
    treat = registry.build(TREATMENTS, settings['treatment'], what='treatment')
  trainer = registry.build(
      TRAINERS, _trainer_spec(config, others), what='trainer',
      model=model, objective=objective, tx=tx,
      num_classes=config['num_classes'], image_shape=tuple(image_shape),
      ema_decay=config['ema_decay'], treat=treat,
      micro_batches=settings['micro_batches'], **images.transforms(settings))
  if config['weights']:
    trainer = trainer._replace(start=functools.partial(_start, config))
  return trainer._replace(learning_rate=schedule)


def _stages(config):
  """Arguments of `optim.make_optimizer` for frozen stages and layer-wise rates."""
  name, decay = config['model']['name'], config['layer_decay']
  frozen = config['model'].get('frozen', 0)
  if decay == 1 and not frozen:
    return {}
  if name not in weights.STAGES:
    raise ValueError(
        f'layer_decay={decay} is for the networks {", ".join(weights.STAGES)}, got '
        f'the network {name!r}; set it to 1')
  num = weights.STAGES[name]
  if frozen >= num:
    raise ValueError(
        f'model.frozen must leave the output layer of {name}, its stage {num - 1}, to '
        f'train, got {frozen}')
  return {
      'stage': functools.partial(weights.stage, name),
      'rates': [0.0 if k < frozen else decay ** (num - 1 - k) for k in range(num)]}


def _start(config, shapes):
  """Reads the pretrained weights; returns a function that puts them into a state.

  Args:
    config: of a classifier, with `weights`.
    shapes: of its state.
  """
  name, path = config['model']['name'], config['weights']
  if not os.path.dirname(path):  # a name alone is also looked for in the cache
    path = path if os.path.isfile(path) else backbones.place(weights=path)
  found = weights.from_torch(
      name, weights.read(path, name), shapes.nets['model'].variables)

  def put(variables):
    return jax.tree.map(
        lambda new, own: new if isinstance(new, np.ndarray) else own, found,
        variables)

  def begin(state):
    net = state.nets['model']
    new = put(net.variables)
    net = net.replace(params=new['params'], batch_stats=new['batch_stats'])
    ema = {'model': put(state.ema['model'])} if state.ema else {}
    return state.replace(nets={'model': net}, ema=ema)

  return begin


def _check_vectors(config):
  """Raises ValueError for what a classifier of vectors cannot be made of."""
  name, treatment = config['model']['name'], config['data']['treatment']
  if name in models.FOR_PICTURES:
    others = sorted(set(models.MODELS) - set(models.FOR_PICTURES))
    raise ValueError(
        f'the network {name!r} takes pictures, and the positives are vectors; networks '
        f'for vectors: {", ".join(others)}')
  if treatment.get('mode') == 'cutmix':
    raise ValueError(
        "data.treatment cuts boxes out of pictures (mode='cutmix'), and the positives "
        "are vectors; mix them with mode='linear'")


def _trainer_spec(config, others):
  """The trainer's spec with a function that restores the teacher for its workdir."""
  spec = dict(config['trainer'])
  if 'teacher' in spec:
    spec.pop('teacher_crc32', None)
    spec['teacher'] = functools.partial(
        _restore_teacher, config, spec['teacher'], spec.pop('teacher_step', None),
        others)
  return spec


def _restore_teacher(config, workdir, step, others) -> Run:
  found = others.restore(workdir, step, 'classify')
  for key in ('mean', 'std'):
    own, other = config['data'][key], found.config['data'][key]
    if list(own) != list(other):
      raise ValueError(
          f'the teacher in {workdir} was trained with data.{key}={other}, the student '
          f'has {own}; both get the same normalised images, so set data.{key} of the '
          "student to the teacher's value")
  return found
