"""Checkpoints: the only file that knows orbax.

    manager = open_manager(workdir, keep=2, best='val/accuracy')
    state, step = restore_latest(manager, abstract_state)   # (None, 0) if there is none
    save(manager, state, step, about={'config': config}, figures={'val/accuracy': .98})
    close(manager)

A checkpoint holds the state, what is to be known about it (the config that made it,
the shape of an image, the names of the classes) and a checksum of the state: a file
that was cut short or changed is found out before it is used.
"""

import contextlib
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers as policies

from nat_jax.runtime import processes

FOLDER = 'checkpoints'
DAMAGED = 'damaged_checkpoints'


class Damaged(ValueError):
  """A checkpoint that cannot be read, or is not what was saved."""


def open_manager(
    workdir: str, keep: int = 2, best: str = '', lowest: bool = False,
    read_only: bool = False,
) -> ocp.CheckpointManager:
  """Opens `workdir/checkpoints`; keeps the `keep` newest and the best.

  Args:
    workdir: of the run.
    keep: how many of the newest checkpoints stay.
    best: the figure (as given to `save`) whose highest value also stays; '': none.
    lowest: the lowest value stays instead.
    read_only: nothing is created or deleted.
  """
  directory = os.path.join(os.path.abspath(workdir), FOLDER)
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


def save(
    manager: ocp.CheckpointManager, state: Any, step: int, about: Mapping[str, Any],
    figures: Mapping[str, float] | None = None,
) -> None:
  """Saves in the background; the state may be donated as soon as this returns."""
  arrays = _without_keys(state)
  manager.save(
      step,
      args=ocp.args.Composite(
          state=ocp.args.StandardSave(arrays),
          about=ocp.args.JsonSave(dict(about)),
          checksum=ocp.args.JsonSave({'crc32': checksum(arrays)}),
      ),
      metrics=dict(figures) if figures else None,
      force=True,
  )


def restore(manager: ocp.CheckpointManager, step: int, target: Any) -> Any:
  """Restores the state of `step` onto the shapes and shardings of `target`.

  Args:
    manager: of `open_manager`.
    step: one of `manager.all_steps()`.
    target: tree of `jax.ShapeDtypeStruct`, from `jax.eval_shape`.

  Raises:
    Damaged: the checkpoint is damaged, or belongs to another network.
  """
  abstract = jax.eval_shape(_without_keys, target)
  abstract = jax.tree.map(
      lambda a, t: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=t.sharding),
      abstract, target,
  )
  args = ocp.args.Composite(
      state=ocp.args.StandardRestore(abstract), checksum=ocp.args.JsonRestore()
  )
  try:
    restored = manager.restore(step, args=args)
  except (MemoryError, jax.errors.JaxRuntimeError):
    raise  # such as a device that is full: the checkpoint may be sound
  except Exception as error:  # orbax raises many kinds for damaged files
    raise Damaged(f'checkpoint {step} cannot be read: {error}') from error
  if checksum(restored.state) != restored.checksum['crc32']:
    raise Damaged(f'checkpoint {step} is damaged: its checksum does not match')
  return jax.tree.map(
      lambda t, x: jax.random.wrap_key_data(x) if _is_key(t) else x,
      target, restored.state,
  )


def restore_latest(
    manager: ocp.CheckpointManager, target: Any
) -> tuple[Any | None, int]:
  """Restores the newest checkpoint that can be read.

  Damaged ones that are newer are reported and moved to `damaged_checkpoints/`, so that
  the run can save those steps again; nothing is deleted.

  Returns:
    (state, step), or (None, 0) where there is no checkpoint at all.

  Raises:
    Damaged: there are checkpoints and none can be read.
  """
  steps = sorted(manager.all_steps(), reverse=True)
  for i, step in enumerate(steps):
    try:
      state = restore(manager, step, target)
    except Damaged as error:
      if step == steps[-1]:
        raise Damaged(
            f'none of the checkpoints {sorted(steps)} in {manager.directory} can be '
            f'read; the last failure: {error}'
        ) from error
      logging.error('%s. Falling back to checkpoint %d.', error, steps[i + 1])
    else:
      for damaged in steps[:i]:
        _set_aside(manager, damaged)
      return state, step
  return None, 0


def read_about(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
  """Returns what `save` was told about the run, and the state's checksum `crc32`.

  Raises:
    Damaged: it cannot be read.
  """
  args = ocp.args.Composite(
      about=ocp.args.JsonRestore(), checksum=ocp.args.JsonRestore())
  try:
    restored = manager.restore(step, args=args)
    return {**restored.about, **restored.checksum}
  except Exception as error:  # orbax raises many kinds for damaged files
    raise Damaged(f'checkpoint {step} cannot be read: {error}') from error


def list_steps(workdir: str) -> list[int]:
  """The steps of which `workdir` has a checkpoint, rising; [] if there is none."""
  folder = os.path.join(os.path.abspath(workdir), FOLDER)
  if not os.path.isdir(folder):
    return []
  return sorted(int(name) for name in os.listdir(folder) if name.isdigit())


def close(manager: ocp.CheckpointManager) -> None:
  """Waits for the saves under way, and raises what went wrong in them."""
  manager.wait_until_finished()
  manager.close()


@contextlib.contextmanager
def closing(manager: ocp.CheckpointManager) -> Iterator[None]:
  """Closes the manager in the end, whatever happens."""
  try:
    yield
  finally:
    close(manager)


def checksum(tree: Any) -> int:
  """CRC-32 of all arrays of a tree, in order."""
  crc = 0
  for leaf in jax.tree.leaves(tree):
    crc = zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).reshape(-1), crc)
  return crc


def _is_key(x):
  return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _without_keys(tree):
  """Typed keys as the integers they are made of."""
  return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _set_aside(manager, step):
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
