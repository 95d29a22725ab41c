"""The folder of a run: what may be started there, and what must not be lost.

    with hold(workdir):                                 # no other run of this machine
      ...
    check(workdir, config)                              # changes nothing
    prepare(workdir, config, overwrite=False, num_bytes=1_000_000)
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging

from nat_jax import schema
from nat_jax.runtime import checkpoint, files

CONFIG = 'config.json'
FREE_TO_CHANGE = ('run', 'compare_with')  # keys that do not change what is learned


@contextlib.contextmanager
def hold(workdir: str, wait: bool = False) -> Iterator[None]:
  """Keeps other runs of this user and machine out of `workdir`; writes nothing there.

  Args:
    workdir: of a run, there or not.
    wait: wait until a run that is under way there has ended.

  Raises:
    ValueError: one is, and `wait` is not set.
  """
  if jax.process_index():
    yield
    return
  folder = os.path.join(tempfile.gettempdir(), f'nat_jax-{os.getuid()}')
  os.makedirs(folder, mode=0o700, exist_ok=True)
  name = hashlib.sha256(os.path.realpath(workdir).encode()).hexdigest()
  with open(os.path.join(folder, f'{name[:32]}.lock'), 'w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      if not wait:
        raise ValueError(
            f'a run is under way in {workdir}; wait for its end, or choose another '
            '--workdir') from error
      print(f'waiting for the run that is under way in {workdir}', flush=True)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield  # the lock ends with the file, or with the process


def check(workdir: str, config: dict[str, Any], overwrite: bool = False) -> bool:
  """Looks whether a run of `config` may be started in `workdir`; changes nothing.

  What stands there is told by config.json and by the config in each checkpoint. Without
  a config.json that can be read the checkpoints alone tell it.

  Args:
    workdir: a new folder, or one with a run of the same config.
    config: plain, as JSON gives it back.
    overwrite: whether a run of another config may be moved aside.

  Returns:
    Whether a run of another config stands there.

  Raises:
    ValueError: that is so, and overwrite is not set (the keys that differ are named);
      or config.json cannot be read and there is no checkpoint.
  """
  there: dict[str, dict[str, Any]] = {}  # where a config stands -> config
  about = checkpoint.read_all_about(workdir)
  path = os.path.join(workdir, CONFIG)
  try:
    there[path] = files.read_json(
        path, 'choose another --workdir, or mend or remove that file')
    schema.check_config(schema.upgrade(there[path]))
  except (FileNotFoundError, NotADirectoryError):
    pass
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    there.pop(path, None)
    if not (about or overwrite):
      if isinstance(error, files.Unreadable):
        raise
      raise files.Unreadable(
          path, f'it is no config of a run: {error}',
          'choose another --workdir, or mend or remove that file') from error
    logging.warning('%s; going by the config in the checkpoints.', error)
    if not about:
      return True
  for step, one in about.items():
    there[os.path.join(workdir, checkpoint.FOLDER, str(step))] = one['config']
  differences = {
      place: found for place, one in there.items()
      if (found := differing_keys(_learned(schema.upgrade(one)),
                                  _learned(config)))}
  beyond = [step for step in about if step > config['steps']]
  if overwrite or not (differences or beyond):
    return bool(differences or beyond)
  remedy = ('Choose another --workdir, or move that run aside with --overwrite '
            '(nothing is deleted)')
  if beyond and not differences:
    raise ValueError(
        f'{workdir} holds a checkpoint of step {beyond[0]}, beyond the '
        f'{config["steps"]} steps of the config: it is not of this run. {remedy}')
  place, found = next(iter(differences.items()))
  where = f'{workdir} holds a run' if place == path else f'{place} is of a run'
  raise ValueError(
      f'{where} with another config; these keys differ (there -> asked for): '
      f'{"; ".join(found)}. {remedy}')


def prepare(
    workdir: str, config: dict[str, Any], overwrite: bool = False, num_bytes: int = 0
) -> None:
  """Makes `workdir` ready for a run of `config` and writes config.json there.

  Of several processes the first does it.

  Args:
    workdir: as for `check`.
    config: as for `check`.
    overwrite: move a run of another config aside (to `workdir.old-TIME`).
    num_bytes: disk space that the run will need.

  Raises:
    ValueError: as `check`; the folder cannot be written, or the disk is too full.
  """
  workdir = os.path.abspath(workdir)
  other = check(workdir, config, overwrite)  # by all: opening checkpoints awaits all
  if jax.process_index():
    return
  if other:
    aside = f'{workdir}.old-{time.strftime("%Y%m%d-%H%M%S")}'
    os.rename(workdir, aside)
    print(f'moved the run in {workdir} to {aside}', flush=True)
  try:
    free = shutil.disk_usage(_existing(workdir)).free
    if free < num_bytes:
      raise ValueError(
          f'this run needs about {num_bytes / 1e6:,.0f} MB in '
          f'{workdir} and {free / 1e6:,.0f} MB are free; free some space, choose '
          'another --workdir, or keep fewer with --config.run.keep=1'
      )
    os.makedirs(workdir, exist_ok=True)
    with tempfile.TemporaryFile(dir=workdir):
      pass
  except OSError as error:
    raise ValueError(f'cannot write to --workdir {workdir}: {error}') from error
  files.write_json(os.path.join(workdir, CONFIG), config)


def _existing(path):
  """The nearest folder above `path` (or itself) that is there."""
  while not os.path.exists(path):
    path = os.path.dirname(path)
  return path


def differing_keys(one: Any, other: Any, prefix: str = '') -> list[str]:
  """Lists the keys in which two configs differ, as 'a.b: 1 -> 2'."""
  if isinstance(one, dict) and isinstance(other, dict):
    found = []
    for key in sorted(set(one) | set(other)):
      found += differing_keys(
          one.get(key, '(none)'), other.get(key, '(none)'), f'{prefix}{key}.'
      )
    return found
  return [] if one == other else [f'{prefix[:-1]}: {one} -> {other}']


def _learned(config):
  return {k: v for k, v in config.items() if k not in FREE_TO_CHANGE}
