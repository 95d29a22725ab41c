"""Tests of the allocator's settings, each in a process of its own."""

import os
import subprocess
import sys

import pytest

# Fills 80 MB five times, in a thread; prints how many pages the last ones took.
PROGRAM = """
import resource, threading
import numpy as np
from nat_jax.runtime import allocator
{}
def faults():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def fill():
  for _ in range(5):
    before = faults()
    np.full(10_000_000, 1.5)
    found.append(faults() - before)
found = []
for run in (fill, fill):
  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
print(max(found[-4:]))
"""
CLEAN = {name: value for name, value in os.environ.items()
         if not name.startswith(('MALLOC_', 'GLIBC_TUNABLES'))}


def pages(call='allocator.keep_memory()', **env):
  ran = subprocess.run(
      [sys.executable, '-c', PROGRAM.format(call)], capture_output=True, text=True,
      env={**CLEAN, 'JAX_PLATFORMS': 'cpu', **env}, check=True)
  return int(ran.stdout)


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='glibc on Linux')
def test_freed_memory_is_kept():
  without = pages('')
  if without < 100:
    pytest.skip('huge pages, or another allocator')
  assert pages() < 100
  assert pages(MALLOC_ARENA_MAX='2') > 100  # the user's settings count
  assert pages(JAX_PLATFORMS='cuda') > 100  # threads of the host matter more
