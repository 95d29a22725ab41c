"""The folder of a run: what may be started there, and what must not be lost.

    with hold(workdir):                                 # no other run meanwhile
      ...
    check(workdir, config)                              # changes nothing
    prepare(workdir, config, overwrite=False, num_bytes=1_000_000)
"""

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import filelock
import jax
from absl import logging

from nat_jax import schema
from nat_jax.runtime import checkpoint, files

CONFIG = 'config.json'
FREE_TO_CHANGE = ('run', 'compare_with')  # keys that do not change what is learned
LOCK = '.{}.lock'  # beside the workdir of this name
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
POLL = 0.2  # seconds between two tries to take a lock


@contextlib.contextmanager
def hold(workdir: str, wait: bool = False) -> Iterator[None]:
  """Keeps other runs out of `workdir`, those of all hosts that share its disk.

  The lock is one of the operating system (`flock`) on the file `.NAME.lock` beside the
  workdir, or in it where the folder above cannot be written; it ends with the process,
  however that ends. The file stays beside a run and is removed where there is none. Of
  several processes of one run the first holds the lock.

  It does not hold between hosts that mount a shared disk with local locks (NFS with
  `nolock` or `local_lock=flock`, Lustre with `localflock`): neither sees the other. On
  a disk without any locks a warning says so, and nothing keeps other runs out.

  Args:
    workdir: of a run, there or not.
    wait: wait until a run that is under way there has ended.

  Raises:
    ValueError: one is, and `wait` is not set; or the lock file cannot be written.
  """
  if jax.process_index():
    yield
    return
  lock = _make_lock(workdir)
  try:
    try:
      lock.acquire(timeout=0)
    except filelock.Timeout as error:
      if not wait:
        raise ValueError(
            f'a run is under way in {workdir}; wait for its end, or choose another '
            '--workdir') from error
      print(f'waiting for the run that is under way in {workdir}', flush=True)
      lock.acquire(timeout=-1, poll_interval=POLL)
  except OSError as error:
    if error.errno not in NO_LOCKS:
      raise ValueError(f'cannot write to --workdir {workdir}: {error}') from error
    logging.warning(
        'The disk of %s has no locks (%s): nothing keeps a second run out of it.',
        workdir, error)
  try:
    yield
  finally:
    if lock.is_locked and not os.path.isdir(workdir):
      # While it is held: whoever waits for it finds that it is gone and makes another.
      with contextlib.suppress(OSError):
        os.remove(lock.lock_file)
    lock.release()


def _make_lock(workdir):
  """The lock of a workdir, by whichever of its paths it is named; not yet taken."""
  workdir = os.path.realpath(workdir)
  folder, name = os.path.split(workdir)
  try:
    os.makedirs(folder, exist_ok=True)
  except OSError as error:
    raise ValueError(f'cannot write to --workdir {workdir}: {error}') from error
  if not os.access(folder, os.W_OK):  # a disk that is mounted there
    folder = workdir
  # Soft locks would outlive a process that is killed.
  return filelock.FileLock(
      os.path.join(folder, LOCK.format(name)), fallback_to_soft=False)


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
    schema.Newer: that run is of a later version, and overwrite is not set.
  """
  there: dict[str, dict[str, Any]] = {}  # where a config stands -> config
  path = os.path.join(workdir, CONFIG)
  try:
    about = checkpoint.read_all_about(workdir)
    there[path] = files.read_json(
        path, 'choose another --workdir, or mend or remove that file')
    schema.check_format(there[path], path)
    schema.check_config(schema.upgrade(there[path]))
  except (FileNotFoundError, NotADirectoryError):
    pass
  except schema.Newer:
    if not overwrite:
      raise
    return True
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

  config.json holds the config and the number of its format.

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
  files.write_json(
      os.path.join(workdir, CONFIG), {'format': schema.FORMAT, **config})


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
