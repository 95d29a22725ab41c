"""From a config to a resolved one, and from a workdir to its restored run.

    config = resolve(config)                   # a checked, plain dict
    run = restore('runs/digits')               # Run: config, trainer, state, step ...
    run = restore('runs/gan', task='gan')
"""

from collections.abc import Mapping
from typing import Any

from absl import logging

from nat_jax import schema
from nat_jax.runtime import checkpoint, parallel
from nat_jax.task import Others, Run, Trainer
from nat_jax.tasks import TASKS


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config as JSON would give it back, checked (`schema.plain`).

  What it takes from other runs is written into it, such as the step and the checksum of
  a teacher: a run that is resumed learns from the same teacher, or not at all.

  Raises:
    ValueError: a mistake in the config, or another run that is not there.
  """
  config = schema.plain(config)
  return TASKS[config['task']].resolve(config, OTHERS)


def build_trainer(config: Mapping[str, Any], shape: tuple[int, ...]) -> Trainer:
  """Builds the trainer of a resolved config, for examples of a shape.

  Raises:
    ValueError, TypeError: a name or an argument that does not exist.
  """
  return parallel.traced_once(TASKS[config['task']].build(config, shape, OTHERS))


def restore(workdir: str, step: int | None = None, task: str | None = None) -> Run:
  """Restores a run from its checkpoint, which knows its config.

  Args:
    workdir: of the run.
    step: of the checkpoint; None: the newest that can be read.
    task: what it must be, a name of `TASKS`; None: whatever it is.

  Raises:
    ValueError: no checkpoint, or none of that step (those there are listed); a run of
      another task.
    checkpoint.Damaged: it cannot be read.
  """
  mesh = parallel.make_mesh()

  def read(manager, candidate):
    about = checkpoint.read_about(manager, candidate)
    config, shape = schema.upgrade(about['config']), tuple(about['image_shape'])
    _check_task(workdir, config, task)
    trainer = build_trainer(config, shape)
    target = parallel.abstract_state(trainer.init, mesh)
    state = checkpoint.restore(manager, candidate, target)
    return Run(
        config, shape, tuple(about['class_names']), trainer, state, candidate, mesh)

  return _newest(workdir, step, read)


def about(workdir: str, step: int | None = None) -> dict[str, Any]:
  """What a checkpoint says of its run: 'config', 'step', 'crc32' ...; see `restore`."""
  found = _newest(workdir, step, checkpoint.read_about)
  return {**found, 'config': schema.upgrade(found['config'])}


def _newest(workdir, step, read):
  """`read(manager, step)` of the newest checkpoint for which it succeeds."""
  steps = _find_steps(workdir, step)
  manager = checkpoint.open_manager(workdir, read_only=True)
  with checkpoint.closing(manager):
    for candidate in steps:
      try:
        return read(manager, candidate)
      except checkpoint.Damaged as error:
        if candidate == steps[-1]:
          raise
        logging.error('%s. Using the one before.', error)


def _find_steps(workdir, step):
  """The steps that may be restored, the best choice first."""
  steps = checkpoint.list_steps(workdir)
  if not steps:
    raise ValueError(
        f'no checkpoints in {workdir}; train first: '
        f'python -m nat_jax.main --config CONFIG --workdir {workdir}')
  if step is not None and step not in steps:
    raise ValueError(f'no checkpoint of step {step} in {workdir}; there are: {steps}')
  return steps[::-1] if step is None else [step]


def _check_task(workdir, config, task):
  if task in (None, config['task']):
    return
  found = TASKS[config['task']]
  raise ValueError(
      f'expected {TASKS[task].title} in {workdir}, and the run there is one of '
      f'{found.title}, for which there are --mode={", ".join(found.commands)}, report')


OTHERS = Others(about, restore)
