"""Resolves configs, and restores runs from the checkpoints of their workdirs.

    config = resolve(config)                   # a checked, plain dict
    run = restore('runs/digits')               # Run: config, trainer, state, step ...
    run = restore('runs/gan', task='gan')
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from nat_jax import data, metrics, schema
from nat_jax.runtime import checkpoint, parallel
from nat_jax.task import Others, Run, Trainer
from nat_jax.tasks import TASKS, generated, subsets


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the config, checked, in plain JSON types and with its task's additions.

  The task adds what the config depends on in other runs, such as the step and the
  checksum of a teacher: a resumed run uses exactly the same teacher, or is refused.
  Sources of pictures without a size get that of `data.image_size`; with
  `data.skip_unreadable` all of them skip damaged pictures. `data.mean` and `data.std`
  of vectors, where they are (), get those of the training positives. Files of rows
  (`data.drop`, `data.keep`) get a checksum, and sources that draw from other runs the
  step and the checksum of their checkpoints.

  Raises:
    ValueError: a mistake in the config, or a run that it depends on is missing.
  """
  config = schema.plain(config)
  size, skip = (
      config['data'].get(key) for key in ('image_size', 'skip_unreadable'))
  if size and not _takes_size(config):
    raise ValueError(
        f'data.image_size={size} has no effect, since no source of this config takes a '
        f'size ({config["data"].get("positives", {}).get("name", "none")!r} has images '
        'of one size); leave it out')
  for key, value in (('size', size), ('skip_unreadable', skip)):
    if value:
      config = {**config, **{part: _with_argument(config[part], key, value)
                             for part in ('data', 'evals', 'measures')
                             if part in config}}
  config = {**config, **{part: _with_identities(config[part])
                         for part in ('data', 'evals') if part in config}}
  config = _with_moments(_with_rows(config))
  return TASKS[config['task']].resolve(config, OTHERS)


def _takes(spec, key):
  """Whether a spec is one of a source with an argument."""
  source = {**data.SOURCES, **data.PAIRS}.get(spec.get('name'))
  return source is not None and key in inspect.signature(source).parameters


def _takes_size(spec):
  """Whether a part of a config has a source of pictures of any size."""
  return isinstance(spec, dict) and (
      _takes(spec, 'size') or any(map(_takes_size, spec.values())))


def _with_argument(spec, key, value):
  """A part of a config in which sources that take an argument, and do not have it (it
  is missing, None or False), have it."""
  if not isinstance(spec, dict):
    return spec
  spec = {name: _with_argument(part, key, value) for name, part in spec.items()}
  lacks = spec.get(key) is None or spec.get(key) is False
  return {**spec, key: value} if lacks and _takes(spec, key) else spec


def _with_identities(spec):
  """A part of a config in which sources that draw from runs name their checkpoints."""
  if not isinstance(spec, dict):
    return spec
  if spec.get('name') in generated.FROM_RUNS:
    return generated.identify(spec, OTHERS)
  return {name: _with_identities(part) for name, part in spec.items()}


def _with_rows(config):
  """The config with the checksums of its files of rows, `data.drop` and `data.keep`."""
  settings = config['data']
  found = {key: subsets.identify(settings[key])
           for key in subsets.KEYS if settings.get(key)}
  return {**config, 'data': {**settings, **found}}


def _with_moments(config):
  """The config with the moments of the training positives where it has ()."""
  settings = config['data']
  wanted = [key for key in ('mean', 'std') if settings.get(key) == []]
  if not wanted:
    return config
  found = data.moments(data.load(settings['positives']))
  return {**config, 'data': {**settings, **{key: found[key] for key in wanted}}}


def build_trainer(config: Mapping[str, Any], shape: tuple[int, ...]) -> Trainer:
  """Builds the trainer of a resolved config for examples of shape `shape`.

  Raises:
    ValueError, TypeError: the config has an unknown name or argument.
  """
  return parallel.traced_once(TASKS[config['task']].build(config, shape, OTHERS))


def restore(
    workdir: str, step: int | None = None, task: str | Sequence[str] | None = None
) -> Run:
  """Restores a run from a checkpoint and the config that is saved in it.

  Args:
    workdir: of the run.
    step: of the checkpoint; None: the newest that can be read, and with early stopping
      the best (`patience` in the config).
    task: the task that the run must be of, a name in `TASKS`, or several; None: any.

  Returns:
    The `Run`: config, image shape, class names, trainer, state, step and mesh.

  Raises:
    ValueError: no checkpoint, or none of that step (the existing ones are listed); or a
      run of another task.
    checkpoint.Damaged: no checkpoint, or not that of `step`, can be read.
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
        config, shape, tuple(about['class_names']), trainer, state, candidate, mesh,
        about['crc32'])

  return _newest(workdir, step, read)


def about(workdir: str, step: int | None = None) -> dict[str, Any]:
  """Reads the metadata of a checkpoint without its state: 'config', 'step', 'crc32' ...

  'complete' tells whether the training is: it has ended, with early stopping too.
  Arguments and errors are those of `restore`.
  """
  found = _newest(workdir, step, checkpoint.read_about)
  config = schema.upgrade(found['config'])
  complete = found['step'] == config['steps']
  if config.get('patience') and not complete:
    complete = saved_result_step(workdir, config) is not None
  return {**found, 'config': config, 'complete': complete}


def sampler(
    workdir: str, step: int | None = None
) -> tuple[tuple[int, ...], Callable[..., np.ndarray]]:
  """Restores a run that generates examples, on one device of this process.

  So the examples depend neither on the number of devices nor on that of processes.

  Args:
    workdir: of the run.
    step: of the checkpoint; None: the newest that can be read.

  Returns:
    (shape of an example, function (num, seed) -> uint8 images [num, h, w, c] or float32
    vectors [num, d]).

  Raises:
    ValueError: no checkpoint, or a run that generates nothing.
    checkpoint.Damaged: no checkpoint, or not that of `step`, can be read.
  """
  found = TASKS[about(workdir, step)['config']['task']]
  if found.sampler is None:
    able = ', '.join(task.title for task in TASKS.values() if task.sampler)
    raise ValueError(
        f'expected a run that generates examples in {workdir} ({able}), got a run of '
        f'{found.title}')
  run = restore(workdir, step)
  state, mesh = parallel.on_one_device(run.state)
  return run.shape, found.sampler(run._replace(state=state, mesh=mesh))


def open_checkpoints(workdir: str, config: Mapping[str, Any], read_only: bool = False):
  """Opens the checkpoints of a run, which are ranked by the key `best` of its config.

  Args:
    workdir: of the run.
    config: of the run.
    read_only: whether to create and delete nothing.

  Returns:
    An orbax manager, from `checkpoint.open_manager`.
  """
  best = config.get('best', '')
  return checkpoint.open_manager(
      workdir, config['run']['keep'], best, metrics.lower_is_better(best), read_only)


def result_step(config: Mapping[str, Any], manager, step: int) -> int | None:
  """Returns the step of the checkpoint that the results of a run are of.

  Args:
    config: of the run.
    manager: from `open_checkpoints`.
    step: completed updates, after which a checkpoint is saved.

  Returns:
    The last step or, with early stopping, that of the best checkpoint; None while the
    run is not over.
  """
  patience, best = config.get('patience', 0), None
  if patience:
    best = checkpoint.best_step(manager)
    if best is not None and step - best >= patience:
      return best
  if step < config['steps']:
    return None
  return step if best is None else best


def saved_result_step(workdir: str, config: Mapping[str, Any]) -> int | None:
  """`result_step` of what is saved in a workdir; None without checkpoints too."""
  steps = checkpoint.list_steps(workdir)
  if not steps:
    return None
  manager = open_checkpoints(workdir, config, read_only=True)
  with checkpoint.closing(manager):
    return result_step(config, manager, steps[-1])


def _newest(workdir, step, read):
  """Returns `read(manager, step)` for the newest checkpoint that is not damaged.

  With early stopping the best checkpoint is tried first.
  """
  steps = _find_steps(workdir, step)
  if step is None:
    steps = _best_first(workdir, steps)
  manager = checkpoint.open_manager(workdir, read_only=True)
  with checkpoint.closing(manager):
    for candidate in steps:
      try:
        return read(manager, candidate)
      except checkpoint.Damaged as error:
        if candidate == steps[-1]:
          if step is None and set(_find_steps(workdir, None)) != set(steps):
            return _newest(workdir, None, read)  # a training has replaced them
          raise
        logging.error('%s. Using the checkpoint before it.', error)


def _best_first(workdir, steps):
  """The steps, with that of the best checkpoint first if the run stops early."""
  found = checkpoint.read_all_about(workdir)
  config = schema.upgrade(found[max(found)]['config']) if found else {}
  if not config.get('patience'):
    return steps
  manager = open_checkpoints(workdir, config, read_only=True)
  with checkpoint.closing(manager):
    best = checkpoint.best_step(manager)
  return sorted(steps, key=lambda one: one != best)  # keeps the order of the others


def _find_steps(workdir, step):
  """The steps to try to restore, in order of preference."""
  steps = checkpoint.list_steps(workdir)
  if not steps:
    raise ValueError(
        f'no checkpoints in {workdir}; train first: '
        f'python -m nat_jax.main --config CONFIG --workdir {workdir}')
  if step is not None and step not in steps:
    raise ValueError(f'no checkpoint of step {step} in {workdir}; there are: {steps}')
  return steps[::-1] if step is None else [step]


def _check_task(workdir, config, task):
  """Raises ValueError unless the config is of `task`, see `restore`."""
  wanted = [task] if isinstance(task, str) else task
  if wanted is None or config['task'] in wanted:
    return
  found = TASKS[config['task']]
  expected = ' or '.join(TASKS[name].title for name in wanted)
  raise ValueError(
      f'expected {expected} in {workdir}, got a run of {found.title}; valid '
      f'modes for it: --mode={", ".join(found.commands)}, report')


OTHERS = Others(about, restore, sampler)
