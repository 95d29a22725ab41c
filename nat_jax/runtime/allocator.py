"""Keeps the memory that programs of XLA's CPU backend use from one call to the next.

    keep_memory()                       # at the start, before JAX is imported

XLA allocates the memory of a program anew at each call. The C library (glibc) takes
blocks of more than 32 MB from the operating system and returns them at once, so that
the system maps and clears the same pages at each update again: 37,000 pages for the
GAN of MNIST (`_small`), and a tenth of its CPU time (tests/bench/kept_memory.py).
"""

import ctypes
import glob
import os
import sys

# Parameters of glibc's mallopt, from malloc.h, and their values.
SETTINGS = {
    -8: 1,  # M_ARENA_MAX: all threads share one heap; others have at most 64 MB
    -4: 0,  # M_MMAP_MAX: no block is mapped by itself
    -1: -1,  # M_TRIM_THRESHOLD: what is free at the end of the heap is kept
}
VARIABLES = 'MALLOC_', 'GLIBC_TUNABLES'  # with which a user sets the allocator
ACCELERATORS = '/dev/nvidia[0-9]*', '/dev/kfd', '/dev/accel*', '/dev/vfio/[0-9]*'


def keep_memory() -> None:
  """Makes the allocator keep what is freed, on Linux without an accelerator.

  The process keeps the largest amount of memory that it has used. Nothing is changed
  where an environment variable sets the allocator, nor in other C libraries. With an
  accelerator the threads of the host, which would share a lock, matter more.
  """
  asked = any(name.startswith(VARIABLES) for name in os.environ)
  if asked or not sys.platform.startswith('linux') or not _on_cpu():
    return
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt:
    for parameter, value in SETTINGS.items():
      mallopt(parameter, value)


def _on_cpu():
  platforms = os.environ.get('JAX_PLATFORMS', '')
  return platforms == 'cpu' or not (
      platforms or any(glob.glob(pattern) for pattern in ACCELERATORS))
