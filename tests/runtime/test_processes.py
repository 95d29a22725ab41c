"""Several processes: how they find each other and agree."""

import os
import pathlib
import random
import subprocess
import sys

import jax
import pytest

from nat_jax.runtime import processes

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize('env, expected', [
    ({}, {}),
    ({'NAT_JAX_COORDINATOR': 'host:1', 'NAT_JAX_NUM_PROCESSES': '2',
      'NAT_JAX_PROCESS_ID': '0'},
     {'coordinator_address': 'host:1', 'num_processes': 2, 'process_id': 0}),
    # A task of Slurm that sees one GPU, and one that sees all.
    ({'CUDA_VISIBLE_DEVICES': '3'}, {'local_device_ids': [0]}),
    ({'CUDA_VISIBLE_DEVICES': 'GPU-3,GPU-1'}, {'local_device_ids': [0, 1]}),
])
def test_join(env, expected, monkeypatch):
  for key in ('COORDINATOR', 'NUM_PROCESSES', 'PROCESS_ID'):
    monkeypatch.delenv(f'NAT_JAX_{key}', raising=False)
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  for key, value in env.items():
    monkeypatch.setenv(key, value)
  called = []
  monkeypatch.setattr(jax.config, 'update', lambda *args: None)
  monkeypatch.setattr(
      jax.distributed, 'initialize', lambda **kwargs: called.append(kwargs))
  processes.join()
  assert called == [{**expected, 'heartbeat_timeout_seconds': processes.HEARTBEAT}]


def test_one_process_counts_itself():
  assert (processes.total(), processes.count(True), processes.count(False)) == (1, 1, 0)


# Each process has a cache of its own; that of the second is emptied between the calls.
CACHES = """
import os, shutil, sys
k = os.environ['NAT_JAX_PROCESS_ID']
os.environ['NAT_JAX_CACHE'] = cache = os.path.join(sys.argv[1], k)
from nat_jax.runtime import parallel, processes
processes.join()
import jax, numpy as np
from nat_jax.tasks.gan import features
run = parallel.wrap_head(lambda state, x: x.astype('float32').sum((1, 2, 3)),
                         parallel.make_mesh())
calls = []
def apply(images):
  calls.append(len(images))
  return {'features': np.asarray(run({}, images))}
judge = features.Features('', 'sum', apply, 0)
source = {'name': 'fake', 'num': 8, 'shape': (4, 4, 1)}
first, found = features.reference(source, 8, judge, (4, 4, 1))
_, again = features.reference(source, 8, judge, (4, 4, 1))
assert calls == [8]
if k == '1':
  shutil.rmtree(cache)
_, third = features.reference(source, 8, judge, (4, 4, 1))
assert calls == [8, 8]
for one in (found, again, third):
  np.testing.assert_array_equal(one['features'], first.image.sum((1, 2, 3)))
os.write(1, f'process {k} done\\n'.encode())
"""


@pytest.mark.process
def test_caches_of_two_hosts(tmp_path):
  """What one host alone has kept is worked out by all again, and none hangs."""
  ran = subprocess.run(
      [str(ROOT / 'launch' / 'local.sh'), '2', sys.executable, '-c', CACHES,
       str(tmp_path)],
      env=os.environ | {'PORT': str(random.randint(20000, 30000))}, cwd=ROOT, text=True,
      capture_output=True, timeout=120)
  assert ran.returncode == 0, ran.stdout + ran.stderr
  done = [line for line in ran.stdout.splitlines() if line.startswith('process')]
  assert sorted(done) == ['process 0 done', 'process 1 done']
