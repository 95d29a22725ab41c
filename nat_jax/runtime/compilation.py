"""Compiled programs kept on disk: a second start need not compile them again.

    keep_programs()                  # before anything is compiled
"""

import hashlib
import os
import pathlib
import platform

import filelock
import jax
from absl import logging

from nat_jax import data

FOLDER = 'compiled-programs'
MAX_BYTES = 500_000_000  # of the folder of one version of JAX and one processor
PATIENCE = 10  # seconds that another process may hold the lock of the folder
# Of /proc/cpuinfo: what XLA compiles for. Other lines change from core to core.
ABOUT_CPU = ('vendor_id', 'model name', 'flags', 'CPU implementer', 'CPU part',
             'Features')


def keep_programs() -> None:
  """Has JAX keep compiled programs in $NAT_JAX_CACHE, or else ~/.cache/nat_jax.

  The folder is one for each version of JAX and kind of processor: a program for another
  processor may stop with an illegal instruction. It is of this user alone, since
  whoever can write to it can run code as its readers. The programs that were used last
  stay, up to `MAX_BYTES`. Where the folder cannot be used a warning says so, and
  nothing is kept.

  JAX's own settings come first: a folder in JAX_COMPILATION_CACHE_DIR is used as it is,
  and JAX_ENABLE_COMPILATION_CACHE=0 keeps nothing.
  """
  given = jax.config.jax_compilation_cache_dir
  if given or not jax.config.jax_enable_compilation_cache:
    return
  folder = data.cache_root() / FOLDER / f'jax{jax.__version__}-{processor()}'
  try:
    _make_ready(folder)
  except (OSError, NotImplementedError) as error:  # the latter: no locks on this disk
    logging.warning(
        'Compiled programs are not kept, so the next start compiles them again: %s '
        'cannot be used (%s). NAT_JAX_CACHE names another place, '
        'JAX_ENABLE_COMPILATION_CACHE=0 does without.', folder, error)
    return
  for name, value in {'jax_compilation_cache_dir': str(folder),
                      'jax_compilation_cache_max_size': MAX_BYTES,
                      'jax_persistent_cache_min_compile_time_secs': 0.0}.items():
    if name.upper() not in os.environ:
      jax.config.update(name, value)


def processor() -> str:
  """A word for the kind of processor: programs for one may not run on another."""
  try:
    first = pathlib.Path('/proc/cpuinfo').read_text().partition('\n\n')[0]
    about = '\n'.join(x for x in first.splitlines() if x.startswith(ABOUT_CPU))
  except OSError:  # not Linux
    about = platform.processor()
  return f'{platform.machine()}-{hashlib.sha256(about.encode()).hexdigest()[:12]}'


def _make_ready(folder):
  """Makes a folder of this user's; raises OSError where JAX could not use it."""
  folder.mkdir(mode=0o700, parents=True, exist_ok=True)
  if hasattr(os, 'getuid') and folder.stat().st_uid != os.getuid():
    raise PermissionError('it belongs to another user')
  # The lock that JAX takes; soft ones, which JAX would fall back to where the disk has
  # no locks, outlive a process that is killed, and would be waited for.
  lock = filelock.FileLock(
      folder / '.lockfile', timeout=PATIENCE, fallback_to_soft=False)
  with lock:
    probe = folder / f'.{os.getpid()}'
    probe.touch()
    probe.unlink()
