"""Saves and restores checkpoints; the only module that uses orbax.

    manager = open_manager(workdir, keep=2, best='validation/accuracy')
    state, about = restore_latest(manager, abstract_state)  # None, None: no checkpoint
    save(manager, state, step, about, figures={'validation/accuracy': .98})
    wait(manager)
    close(manager)

A checkpoint holds the state, metadata called `about` (with the keys of `ABOUT`: the
config of the run, the shape of an image, ...) and checksums of both, so that one that
was truncated, changed or renamed is detected before it is used. Checkpoints of version
0.1 are converted (`nat_jax.runtime.migrate`); the config in them has no checksum and is
used unverified, with a warning.
"""

import contextlib
import json
import logging as py_logging
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers as policies

from nat_jax import schema
from nat_jax.runtime import files, migrate, processes

FOLDER = 'checkpoints'
DAMAGED = 'damaged_checkpoints'
# Keys and types of the metadata of a checkpoint.
ABOUT = {'config': dict, 'image_shape': list, 'class_names': list}
CHECKSUMS = {'crc32', 'about_crc32'}
OLD_CHECKSUMS = {'crc32'}  # of version 0.1


class Damaged(ValueError):
  """A checkpoint that cannot be read, or is not what was saved."""


class NotSaved(OSError):
  """A checkpoint that could not be written, as on a full disk."""


def open_manager(
    workdir: str, keep: int = 2, best: str = '', lowest: bool = False,
    read_only: bool = False,
) -> ocp.CheckpointManager:
  """Opens `workdir/checkpoints`, where the newest checkpoints and the best are kept.

  Args:
    workdir: of the run.
    keep: how many of the newest checkpoints are kept.
    best: name of a figure in `figures` of `save`; the checkpoint with its highest value
      is kept too, of equal values the newest. '': none.
    lowest: whether the lowest value of `best` is the best one.
    read_only: whether to create and delete nothing.
  """
  logging.get_absl_logger().addFilter(_is_news)
  directory = os.path.join(files.absolute(workdir), FOLDER)
  preserve = [policies.LatestN(max(keep, 1))]
  sign = -1 if lowest else 1
  best_fn = (lambda figures: sign * figures[best]) if best else None
  if best:
    preserve.append(policies.BestN(
        get_metric_fn=best_fn, n=1, keep_checkpoints_without_metrics=False))
  options = ocp.CheckpointManagerOptions(
      preservation_policy=policies.AnyPreservationPolicy(preserve),
      best_fn=best_fn,
      read_only=read_only,
      create=not read_only,
      cleanup_tmp_directories=not read_only,
  )
  return ocp.CheckpointManager(directory, options=options)


def _is_news(record):
  """A log filter that drops what orbax logs, except errors without a traceback.

  Its warnings are about settings that this module chooses; errors with a traceback are
  raised as well.
  """
  return 'orbax' not in record.pathname or (
      record.levelno >= py_logging.ERROR and not record.exc_info)


def save(
    manager: ocp.CheckpointManager, state: Any, step: int, about: Mapping[str, Any],
    figures: Mapping[str, float] | None = None,
) -> None:
  """Saves a checkpoint: copies it to the host now, writes it in the background.

  The state may be donated as soon as this returns.

  Args:
    manager: from `open_manager`.
    state: pytree of arrays.
    step: completed updates.
    about: metadata in JSON types with the keys of `ABOUT`; 'step' and 'format' are
      added to it.
    figures: figures of the evaluation at this step, to choose the best checkpoint by.

  Raises:
    NotSaved: this checkpoint, or the one before it, could not be written.
  """
  # Orbax would slice arrays of several devices, by a program for each shape. The
  # checksum needs them on the host anyway.
  arrays = jax.device_get(_without_keys(state))
  about = json.loads(json.dumps({**about, 'step': step, 'format': schema.FORMAT}))
  crc32 = checksum(arrays)
  checksums = {'crc32': crc32, 'about_crc32': _about_checksum(about, crc32)}
  with _saving(manager):
    manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(arrays),
            about=ocp.args.JsonSave(about),
            checksum=ocp.args.JsonSave(checksums),
        ),
        metrics=dict(figures) if figures else None,
        force=True,
    )


def wait(manager: ocp.CheckpointManager) -> None:
  """Waits until all checkpoints are written.

  Raises:
    NotSaved: a checkpoint could not be written.
  """
  with _saving(manager):
    manager.wait_until_finished()


@contextlib.contextmanager
def _saving(manager):
  """Turns errors of writing a checkpoint into `NotSaved`."""
  try:
    yield
  except (MemoryError, jax.errors.JaxRuntimeError):
    raise
  except Exception as error:  # orbax and tensorstore raise many kinds
    raise NotSaved(
        f'a checkpoint cannot be written to {manager.directory}: {_first_line(error)}'
    ) from error


def _first_line(error):
  text = str(error).strip() or repr(error)
  return text.splitlines()[0][:300]


def restore(manager: ocp.CheckpointManager, step: int, target: Any) -> Any:
  """Restores the state of a checkpoint with the shapes and shardings of `target`.

  Args:
    manager: from `open_manager`.
    step: of the checkpoint, one of `manager.all_steps()`.
    target: pytree of `jax.ShapeDtypeStruct`, from `parallel.abstract_state`.

  Returns:
    The state, a pytree like `target`.

  Raises:
    Damaged: the checkpoint is damaged, or its network has other shapes.
  """
  abstract = jax.eval_shape(_without_keys, target)
  abstract = jax.tree.map(
      lambda a, t: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=t.sharding),
      abstract, target,
  )
  expected = _checksums(manager, step)['crc32']
  old = migrate.is_old(read_about(manager, step)['config'])
  if old:
    abstract = migrate.to_old(abstract)
  state = _read(manager, step, state=ocp.args.StandardRestore(abstract)).state
  if checksum(state) != expected:
    raise Damaged(f'checkpoint {step} is damaged: its checksum does not match')
  if old:
    state = migrate.from_old(state)
  return jax.tree.map(
      lambda t, x: jax.random.wrap_key_data(x) if _is_key(t) else x, target, state)


def _read(manager, step, **items):
  """Reads items of a checkpoint; raises Damaged where that fails."""
  try:
    return manager.restore(step, args=ocp.args.Composite(**items))
  except (MemoryError, jax.errors.JaxRuntimeError):
    raise  # such as a full device: the checkpoint may be intact
  except Exception as error:  # orbax raises many kinds for damaged files
    raise Damaged(
        f'checkpoint {step} cannot be read: {_first_line(error)}') from error


def _checksums(manager, step):
  """The checksums in a checkpoint; raises Damaged if there are none."""
  found = _read(manager, step, checksum=ocp.args.JsonRestore()).checksum
  # Exactly these keys: a damaged key must not look like version 0.1.
  if not isinstance(found, dict) or set(found) not in (CHECKSUMS, OLD_CHECKSUMS):
    raise Damaged(f'checkpoint {step} is damaged: it has no checksums')
  return found


def restore_latest(
    manager: ocp.CheckpointManager, target: Any
) -> tuple[Any | None, dict[str, Any] | None]:
  """Restores the newest checkpoint that can be read.

  Newer checkpoints that are damaged are logged and moved to `damaged_checkpoints/`, so
  that the run can save those steps again; nothing is deleted.

  Args:
    manager: from `open_manager`.
    target: pytree of `jax.ShapeDtypeStruct`, from `parallel.abstract_state`.

  Returns:
    (state, metadata from `read_about`), or (None, None) if there is no checkpoint.

  Raises:
    Damaged: there are checkpoints and none can be read.
  """
  steps = sorted(manager.all_steps(), reverse=True)
  for i, step in enumerate(steps):
    try:
      about = read_about(manager, step)
      state = restore(manager, step, target)
    except Damaged as error:
      if step == steps[-1]:
        raise Damaged(
            f'none of the checkpoints {sorted(steps)} in {manager.directory} can be '
            f'read; the last failure: {error}. Choose another --workdir, or move '
            'this one away to start again'
        ) from error
      logging.error('%s. Falling back to checkpoint %d.', error, steps[i + 1])
    else:
      for damaged in steps[:i]:
        _set_aside(manager, damaged)
      return state, about
  return None, None


def best_step(manager: ocp.CheckpointManager) -> int | None:
  """The step of the best checkpoint, of equally good ones the newest.

  Args:
    manager: from `open_manager` with `best`.

  Returns:
    The step; None if no checkpoint was saved with the figure `best`.
  """
  return manager.best_step()


def read_about(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
  """Reads the metadata of a checkpoint.

  Args:
    manager: from `open_manager`.
    step: of the checkpoint.

  Returns:
    `about` as given to `save`, with 'step' and the checksum of the state, 'crc32'.

  Raises:
    Damaged: the metadata cannot be read, or differs from what was saved.
    schema.Newer: a later version of nat_jax saved the checkpoint.
  """
  checksums = _checksums(manager, step)
  about = _read(manager, step, about=ocp.args.JsonRestore()).about
  if 'about_crc32' in checksums:
    if _about_checksum(about, checksums['crc32']) != checksums['about_crc32']:
      raise Damaged(
          f'checkpoint {step} is damaged: the checksum of its config does not match')
    if about['step'] != step:
      raise Damaged(f'checkpoint {step} was saved as that of step {about["step"]}')
  else:
    logging.warning(
        'Checkpoint %d is of version 0.1, which kept no checksum of the config in a '
        'checkpoint: the config is used unverified.', step)
    wrong = [key for key, kind in ABOUT.items()
             if not isinstance(about, dict) or not isinstance(about.get(key), kind)]
    if wrong or 'format' in about:
      raise Damaged(f'checkpoint {step} is damaged: it has no '
                    f'{wrong[0] if wrong else "checksum of its config"}')
  schema.check_format(about, f'checkpoint {step} in {manager.directory}')
  return {**about, 'step': step, 'crc32': checksums['crc32']}


def read_all_about(workdir: str) -> dict[int, dict[str, Any]]:
  """Reads the metadata of all checkpoints of `workdir` that are not damaged.

  Returns:
    {step: metadata from `read_about`}.
  """
  found = {}
  if not list_steps(workdir):
    return found
  manager = open_manager(workdir, read_only=True)
  with closing(manager):
    for step in manager.all_steps():
      with contextlib.suppress(Damaged):
        found[step] = read_about(manager, step)
  return found


def list_steps(workdir: str) -> list[int]:
  """The steps of the checkpoints in `workdir`, in rising order."""
  folder = os.path.join(files.absolute(workdir), FOLDER)
  if files.is_remote(folder):  # where steps are not renamed when they are complete
    return sorted(ocp.utils.checkpoint_steps(folder))
  if not os.path.isdir(folder):
    return []
  return sorted(int(name) for name in os.listdir(folder) if name.isdigit())


def last_sound(workdir: str) -> str:
  """A sentence that names the newest checkpoint, for messages of failed runs."""
  steps = list_steps(workdir)
  return (f'The last sound checkpoint is of step {steps[-1]}.' if steps else
          'There is no checkpoint yet.')


def close(manager: ocp.CheckpointManager) -> None:
  """Waits until all checkpoints are written, and closes the manager.

  Raises:
    NotSaved: a checkpoint could not be written.
  """
  try:
    wait(manager)
  finally:
    with contextlib.suppress(Exception):  # its errors were raised above
      manager.close()


@contextlib.contextmanager
def closing(manager: ocp.CheckpointManager) -> Iterator[None]:
  """Closes the manager when the block ends, also after an error."""
  try:
    yield
  finally:
    close(manager)


def checksum(tree: Any) -> int:
  """CRC-32 of the bytes of all arrays of a pytree, in the order of its leaves."""
  crc = 0
  for leaf in jax.tree.leaves(tree):
    crc = zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).reshape(-1), crc)
  return crc


def _about_checksum(about, crc32):
  """CRC-32 of the metadata (in any order of its keys) and the state's checksum."""
  return zlib.crc32(json.dumps([about, crc32], sort_keys=True).encode())


def _is_key(x):
  return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _without_keys(tree):
  """The pytree with typed PRNG keys replaced by their integer data."""
  return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _set_aside(manager, step):
  """Moves a damaged checkpoint to `damaged_checkpoints/`, under a free name."""
  if files.is_remote(manager.directory):
    at = manager.directory / str(step)
    raise Damaged(
        f'checkpoint {step} is damaged, and cannot be moved aside in an object store; '
        f'move it yourself: gcloud storage mv {at} '
        f'{manager.directory.parent / DAMAGED / str(step)}')
  if jax.process_index() == 0:
    folder = os.path.join(os.path.dirname(manager.directory), DAMAGED)
    os.makedirs(folder, exist_ok=True)
    name, number = str(step), 0
    while os.path.exists(os.path.join(folder, name)):
      number += 1
      name = f'{step}.{number}'
    os.rename(os.path.join(manager.directory, str(step)), os.path.join(folder, name))
  processes.barrier(f'set aside {step}')
  manager.reload()
