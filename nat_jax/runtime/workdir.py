"""The folder of a run: its lock, and whether a config may be trained there.

    with hold(workdir):                                 # excludes other runs
      ...
    check(workdir, config)                              # changes nothing
    prepare(workdir, config, overwrite=False, num_bytes=1_000_000)
"""

import contextlib
import errno
import os
import pathlib
import secrets
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import filelock
import jax
from absl import logging

from nat_jax import schema
from nat_jax.runtime import checkpoint, files, processes

CONFIG = 'config.json'
FREE_TO_CHANGE = ('run', 'compare_with')  # config keys that do not affect training
LOCK = '.{}.lock'  # name of the lock file of a workdir, in the folder above it
MARK = '.shared-{}'  # name of a file by which processes find that they share a folder
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
NOT_SHARED = (
    'the processes of this run do not share the folder --workdir {} ({}); choose a '
    'folder on a disk that all hosts mount')
REMEDY = (  # of a run of another config
    'Choose another --workdir, or move that run aside with --overwrite (nothing is '
    'deleted)')
POLL = 0.2  # seconds between two attempts to acquire a lock


@contextlib.contextmanager
def hold(workdir: str, wait: bool = False) -> Iterator[None]:
  """Locks `workdir` against other runs, on all hosts that share its disk.

  The lock is an operating-system lock (`flock`) on the file `.NAME.lock` beside the
  workdir, or inside it where the parent folder is not writable; it ends with the
  process. The file is removed at the end if there is no workdir. Of several processes
  of one run the first holds the lock.

  It has no effect between hosts that mount a shared disk with local locks (NFS with
  `nolock` or `local_lock=flock`, Lustre with `localflock`). On a disk without locks,
  and in an object store, it has no effect at all, and a warning is logged.

  Args:
    workdir: of a run; it need not exist.
    wait: whether to wait for a run that is under way there.

  Raises:
    ValueError: a run is under way and `wait` is False, or the lock file cannot be
      written.
  """
  if jax.process_index():
    yield
    return
  if files.is_remote(workdir):
    logging.warning(
        '%s is in an object store, which has no locks: do not start a second run '
        'there.', workdir)
    yield
    return
  lock = _make_lock(workdir)
  try:
    try:
      lock.acquire(timeout=0)
    except filelock.Timeout as error:
      if not os.path.exists(lock.lock_file):
        raise ValueError(
            f'cannot write to --workdir {workdir}: no file can be made in '
            f'{os.path.dirname(lock.lock_file)}') from error
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
        'The disk of %s has no locks (%s): do not start a second run there.',
        workdir, error)
  try:
    yield
  finally:
    if lock.is_locked and not os.path.isdir(workdir):
      # Removed while it is held: a process that waits for it then makes a new file.
      with contextlib.suppress(OSError):
        os.remove(lock.lock_file)
    lock.release()


def _make_lock(workdir):
  """The lock of a workdir, not yet acquired; all paths of a workdir have one lock."""
  workdir = os.path.realpath(workdir)
  folder, name = os.path.split(workdir)
  try:
    os.makedirs(folder, exist_ok=True)
  except OSError as error:
    raise ValueError(f'cannot write to --workdir {workdir}: {error}') from error
  if not os.access(folder, os.W_OK):  # as where the workdir is a mount point
    folder = workdir
  # Soft locks would outlive a process that is killed.
  return filelock.FileLock(
      os.path.join(folder, LOCK.format(name)), fallback_to_soft=False)


def check(
    workdir: str, config: dict[str, Any], overwrite: bool = False, remedy: str = REMEDY
) -> bool:
  """Checks whether a run of `config` may be started in `workdir`; changes nothing.

  The config is compared with that of config.json and with those in the checkpoints; if
  config.json cannot be read, with those in the checkpoints only.

  Args:
    workdir: a new folder, or one with a run of an equal config.
    config: in plain JSON types, from `schema.plain`.
    overwrite: whether a run of another config may be moved aside.
    remedy: what to do about a run of another config, for the message.

  Returns:
    Whether a run of another config is there.

  Raises:
    ValueError: a run of another config is there and `overwrite` is not set (the keys
      that differ are listed); or config.json cannot be read and there is no checkpoint;
      or processes of one run see different checkpoints; or `workdir` is in a folder of
      pictures of the config.
    schema.Newer: a run of a later version is there and `overwrite` is not set.
  """
  _check_reachable(workdir)
  _check_outside(workdir, config)
  # Otherwise orbax, which reads in all processes, would wait forever.
  steps = checkpoint.list_steps(workdir)
  if not processes.alike(zlib.crc32(str(steps).encode()) >> 1):
    raise ValueError(NOT_SHARED.format(
        workdir, f'this process sees the checkpoints {steps}, another one others'))
  saved: dict[str, dict[str, Any]] = {}  # path -> the config that is saved there
  path = os.path.join(workdir, CONFIG)
  try:
    about = checkpoint.read_all_about(workdir)
    saved[path] = files.read_json(
        path, 'choose another --workdir, or repair or remove that file')
    schema.check_format(saved[path], path)
    schema.check_config(schema.upgrade(saved[path]))
  except (FileNotFoundError, NotADirectoryError):
    pass
  except schema.Newer:
    if not overwrite:
      raise
    return True
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    saved.pop(path, None)
    if not (about or overwrite):
      if isinstance(error, files.Unreadable):
        raise
      raise files.Unreadable(
          path, f'it is no config of a run: {error}',
          'choose another --workdir, or repair or remove that file') from error
    logging.warning('%s; using the config in the checkpoints instead.', error)
    if not about:
      return True
  for step, metadata in about.items():
    saved[os.path.join(workdir, checkpoint.FOLDER, str(step))] = metadata['config']
  wanted = _learned(schema.upgrade(config))
  differences = {
      place: keys for place, other in saved.items()
      if (keys := differing_keys(_learned(schema.upgrade(other)), wanted))}
  beyond = [step for step in about if step > config['steps']]
  if overwrite or not (differences or beyond):
    return bool(differences or beyond)
  if beyond and not differences:
    raise ValueError(
        f'{workdir} holds a checkpoint of step {beyond[0]}, beyond the '
        f'{config["steps"]} steps of the config: it is not of this run. {remedy}')
  place, keys = next(iter(differences.items()))
  where = f'{workdir} holds a run' if place == path else f'{place} is of a run'
  raise ValueError(
      f'{where} with another config; these keys differ (saved -> asked for): '
      f'{"; ".join(keys)}. {remedy}')


def prepare(
    workdir: str, config: dict[str, Any], overwrite: bool = False, num_bytes: int = 0
) -> None:
  """Creates `workdir` for a run of `config` and writes config.json into it.

  config.json holds the config and the key 'format'. Only the first process writes.

  Args:
    workdir: a new folder, or one with a run of an equal config.
    config: in plain JSON types, from `schema.plain`.
    overwrite: whether to move a run of another config aside, to `workdir.old-TIME`.
    num_bytes: disk space that the run needs beside what is in the workdir, in bytes.

  Raises:
    ValueError: an error of `check`, a folder that is not writable, that not all
      processes share, or a disk that is too full.
  """
  workdir = files.absolute(workdir)
  other = check(workdir, config, overwrite)  # in all processes: orbax waits for all
  new = not files.exists(workdir)
  if not jax.process_index():
    _create(workdir, other, num_bytes)
  seen = _count_sharing(workdir)
  if seen < processes.total():
    if new and not (jax.process_index() or files.is_remote(workdir)):
      os.rmdir(workdir)
    raise ValueError(NOT_SHARED.format(
        workdir, f'{seen} of {processes.total()} see what the first one writes'))
  if not jax.process_index():
    write_config(workdir, config)


def write_config(folder: str, config: Mapping[str, Any]) -> None:
  """Writes a config in plain JSON types to the config.json of an existing folder."""
  files.write_json(os.path.join(folder, CONFIG), {'format': schema.FORMAT, **config})


def _create(workdir, other, num_bytes):
  """Creates a folder with room for `num_bytes`; moves the run `other` there aside."""
  if files.is_remote(workdir):  # which has neither folders nor a size nor renaming
    if other:
      raise ValueError(
          f'--overwrite cannot move the run in {workdir} aside, because objects cannot '
          f'be renamed; choose another --workdir, or: gcloud storage mv {workdir} '
          f'{workdir}.old')
    return
  workdir = os.path.realpath(workdir)  # a link stays, and with it the path of the lock
  try:
    free = shutil.disk_usage(_existing(workdir)).free
    if free < num_bytes:
      raise ValueError(
          f'this run needs about {num_bytes / 1e6:,.0f} MB more in '
          f'{workdir} and {free / 1e6:,.0f} MB are free; free some space, choose '
          'another --workdir, or keep fewer checkpoints with --config.run.keep=1'
      )
    if other:
      aside = f'{workdir}.old-{time.strftime("%Y%m%d-%H%M%S")}'
      os.rename(workdir, aside)
      print(f'moved the run in {workdir} to {aside}', flush=True)
    os.makedirs(workdir, exist_ok=True)
    with tempfile.TemporaryFile(dir=workdir):
      pass
  except OSError as error:
    raise ValueError(f'cannot write to --workdir {workdir}: {error}') from error


def _count_sharing(workdir):
  """The number of processes that see a file which the first one writes in `workdir`."""
  if processes.total() == 1:
    return 1
  mark = os.path.join(workdir, MARK.format(processes.first(secrets.randbits(31))))
  mark = files.as_path(mark)
  if not jax.process_index():
    mark.write_bytes(b'')
  processes.barrier('mark')
  seen = processes.count(mark.exists())
  if not jax.process_index():
    mark.unlink()
  return seen


def _check_reachable(workdir):
  """Raises ValueError unless a workdir in an object store can be looked up."""
  files.check_store(workdir)
  if not files.is_remote(workdir):
    return
  try:
    files.as_path(workdir).exists()
  except Exception as error:  # each library raises errors of kinds of its own
    text = (str(error).strip() or repr(error)).splitlines()[0]
    raise ValueError(
        f'cannot reach --workdir {workdir}: {text}; check the name of the bucket and '
        'your credentials (gcloud auth application-default login)') from error


def _check_outside(workdir, config):
  """Raises ValueError if a folder of pictures holds the workdir.

  Its figures, and its folders as classes, would be read with the pictures.
  """
  if files.is_remote(workdir):
    return
  place = pathlib.Path(os.path.realpath(workdir))
  for path in _folders_of_pictures(config):
    folder = pathlib.Path(os.path.realpath(os.path.expanduser(path)))
    if not place.is_relative_to(folder):
      continue
    inner = place.relative_to(folder).parts
    if not any(name.startswith('.') for name in inner):  # hidden folders are not read
      raise ValueError(
          f'--workdir {workdir} is in the folder of pictures {path}, where its files '
          'would be read as pictures and classes; choose a folder outside of it')


def _folders_of_pictures(value):
  """Yields the paths of the sources `folder` in a config."""
  if isinstance(value, dict):
    if value.get('name') == 'folder' and isinstance(value.get('path'), str):
      yield value['path']
    for part in value.values():
      yield from _folders_of_pictures(part)


def _existing(path):
  """`path` if it exists, else the nearest parent folder that exists."""
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
  """The keys of a config that affect training or what is evaluated, if not default."""
  found = {k: v for k, v in config.items() if k not in FREE_TO_CHANGE}
  if 'evals' in found:
    found['evals'] = {
        name: {k: v for k, v in entry.items()
               if k != 'optional' and (k, v) != ('part', schema.TEST)}
        for name, entry in found['evals'].items()}
  return found
