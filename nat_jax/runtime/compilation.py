"""Keeps compiled programs on disk, so that later starts do not compile them again.

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
MAX_BYTES = 500_000_000  # size of the folder of one version of JAX and one processor
PATIENCE = 10  # seconds to wait for another process that holds the folder's lock
# Lines of /proc/cpuinfo that determine the programs that XLA compiles. Other lines
# differ between the cores of a processor.
ABOUT_CPU = ('vendor_id', 'model name', 'flags', 'CPU implementer', 'CPU part',
             'Features')


def keep_programs() -> None:
  """Makes JAX keep compiled programs in $NAT_JAX_CACHE, by default ~/.cache/nat_jax.

  Each version of JAX and kind of processor has its own folder: a program for another
  processor may stop with an illegal instruction. The folder must belong to this user,
  since whoever can write to it can run code as the users who read it. It keeps the most
  recently used programs, up to `MAX_BYTES`. If it cannot be used, a warning is logged
  and no programs are kept.

  JAX's own settings have precedence: a folder in JAX_COMPILATION_CACHE_DIR is used
  unchanged, and with JAX_ENABLE_COMPILATION_CACHE=0 no programs are kept.
  """
  given = jax.config.jax_compilation_cache_dir
  if given or not jax.config.jax_enable_compilation_cache:
    return
  folder = data.cache_root() / FOLDER / f'jax{jax.__version__}-{processor()}'
  try:
    _make_ready(folder)
  except (OSError, NotImplementedError) as error:  # NotImplementedError: no file locks
    logging.warning(
        'Compiled programs are not kept, so the next start compiles them again: %s '
        'cannot be used (%s). Set NAT_JAX_CACHE to another folder, or '
        'JAX_ENABLE_COMPILATION_CACHE=0 to keep no programs.', folder, error)
    return
  for name, value in {'jax_compilation_cache_dir': str(folder),
                      'jax_compilation_cache_max_size': MAX_BYTES,
                      'jax_persistent_cache_min_compile_time_secs': 0.0}.items():
    if name.upper() not in os.environ:
      jax.config.update(name, value)


def processor() -> str:
  """Returns a name for the kind of processor, such as 'x86_64-1f3a5c7e9b0d'."""
  try:
    first = pathlib.Path('/proc/cpuinfo').read_text().partition('\n\n')[0]
    about = '\n'.join(x for x in first.splitlines() if x.startswith(ABOUT_CPU))
  except OSError:  # not Linux
    about = platform.processor()
  return f'{platform.machine()}-{hashlib.sha256(about.encode()).hexdigest()[:12]}'


def _make_ready(folder):
  """Makes the folder; raises OSError or NotImplementedError if JAX could not use it."""
  folder.mkdir(mode=0o700, parents=True, exist_ok=True)
  if hasattr(os, 'getuid') and folder.stat().st_uid != os.getuid():
    raise PermissionError('it belongs to another user')
  # This is the lock that JAX takes. On a disk without locks JAX would use soft locks,
  # which a killed process leaves behind, so that later processes wait for them.
  lock = filelock.FileLock(
      folder / '.lockfile', timeout=PATIENCE, fallback_to_soft=False)
  with lock:
    probe = folder / f'.{os.getpid()}'
    probe.touch()
    probe.unlink()
