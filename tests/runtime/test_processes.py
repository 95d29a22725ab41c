"""Several processes: how they find each other and agree."""

import os
import pathlib
import random
import signal
import subprocess
import sys

import jax
import numpy as np
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


def test_a_number_of_processes_that_is_none_names_its_variable(monkeypatch):
  monkeypatch.setattr(jax.config, 'update', lambda *args: None)
  monkeypatch.setenv('NAT_JAX_COORDINATOR', 'host:1')
  for name in ('NAT_JAX_NUM_PROCESSES', 'NAT_JAX_PROCESS_ID'):
    with monkeypatch.context() as patch, pytest.raises(
        ValueError, match=f"{name} must be a whole number.*'two'"):
      patch.setenv(name, 'two')
      processes.join()


def test_one_process_counts_itself():
  assert (processes.total(), processes.count(True), processes.count(False)) == (1, 1, 0)


class Together:
  """`agreement` in several processes that call it in turn; call k takes seconds(k)."""

  def __init__(self, seconds, num=3):
    self.now, self.calls, self.asked, self.seconds = 0.0, 0, [], seconds
    self.signals, self.rounds = [0] * num, [[] for _ in range(num)]
    self.stops = [
        processes.agreement(
            lambda k=k: self.signals[k], lambda numbers, k=k: self.start(k, numbers),
            # The clock of each process is wrong by another factor.
            lambda k=k: self.now * (1 + k / 10))
        for k in range(num)]

  def start(self, k, numbers):
    self.rounds[k].append(numbers)
    if k == 0:
      self.asked.append(self.now)
    return Answer(self.rounds, len(self.rounds[k]) - 1)

  def __call__(self, **settings):
    self.now += self.seconds(self.calls)
    self.calls += 1
    return [stop(**settings) for stop in self.stops]


class Answer:
  """The maxima of a round, which exist once all processes have started it."""

  def __init__(self, rounds, number):
    self.rounds, self.number = rounds, number

  def __array__(self, dtype=None, copy=None):
    return np.max([mine[self.number] for mine in self.rounds], 0).astype(np.int32)


@pytest.mark.parametrize('seconds', [0.01, 0.3, 3, 60])
def test_signal_of_one_process_stops_all_after_the_same_call(seconds):
  """Within `AGREE` seconds and two calls, or three calls, at whatever time it comes."""
  most = max(processes.AGREE + 2 * seconds, 3 * seconds) + 1e-6
  for came in (0, 1, 2, 3, 7, 100, 1003):
    together = Together(lambda k: seconds)
    for _ in range(came):
      assert together() == [0, 0, 0]
    together.signals[1] = signal.SIGTERM
    before = together.now
    while not any(stops := together()):
      pass
    assert stops == [signal.SIGTERM] * 3
    assert together.now - before <= most


def test_processes_agree_every_few_seconds():
  """After a slow first call, and again once calls become slower."""
  together = Together(lambda k: 30 if k == 0 else 0.05 if k < 2000 else 1)
  for _ in range(2100):
    together()
  gaps = np.diff(together.asked)
  quick = gaps[8:np.searchsorted(together.asked, 30 + 0.05 * 1900)]
  # The clock of the slowest process is a fifth too fast.
  assert len(quick) > 20 and np.all((0.6 * processes.AGREE < quick) & (quick <= 4))
  assert np.all(gaps[-5:] <= processes.AGREE)


@pytest.mark.parametrize('calls', [0, 1, 2, 50])
def test_agreement_at_the_end_does_not_wait_for_a_later_call(calls):
  together = Together(lambda k: 0.01, num=1)
  for _ in range(calls):
    assert together() == [0]
  together.signals[0] = signal.SIGINT
  assert together(wait=True) == [signal.SIGINT]


SIGNALLED = """
import os, signal, time
from nat_jax.runtime import processes
processes.join()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(20)
"""


@pytest.mark.process
def test_signal_before_training_is_not_ignored():
  """JAX's own service would take it, and the run would go on to its first update."""
  ran = subprocess.run(
      [str(ROOT / 'launch' / 'local.sh'), '1', sys.executable, '-c', SIGNALLED],
      env=os.environ | {'PORT': str(random.randint(20000, 30000))}, cwd=ROOT, text=True,
      capture_output=True, timeout=120)
  assert ran.returncode == 128 + signal.SIGTERM, ran.stdout + ran.stderr


# Each process has a cache of its own; that of the second is emptied between the calls.
CACHES = """
import os, shutil, sys
k = os.environ['NAT_JAX_PROCESS_ID']
os.environ['NAT_JAX_CACHE'] = cache = os.path.join(sys.argv[1], k)
from nat_jax.runtime import parallel, processes
processes.join()
import jax, numpy as np
from nat_jax import data
from nat_jax.tasks.gan import features
run = parallel.wrap_head(lambda state, x: x.astype('float32').sum((1, 2, 3)),
                         parallel.make_mesh())
calls = []
def apply(images):
  calls.append(len(images))
  return {'features': np.asarray(run({}, images))}
judge = features.Features('', 'sum', apply, 0)
source = data.load({'name': 'fake', 'num': 8, 'shape': (4, 4, 1)})
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


READERS = """
import os
from nat_jax import data
from nat_jax.runtime import inference, parallel, processes
processes.join()
import jax, numpy as np
images = np.arange(22 * 4, dtype=np.uint8).reshape(22, 2, 2, 1)
read = []
def rows(chosen):
  read.extend(chosen.tolist())
  return images[chosen]
predict = inference.make_predict(
    lambda state, x: x.astype('float32').sum((1, 2)) + state, parallel.make_mesh(), 8)
found = predict(np.float32(1), data.Rows(rows, 22, (2, 2, 1)))
np.testing.assert_array_equal(found, images.sum((1, 2), dtype=np.float32) + 1)
k = int(os.environ['NAT_JAX_PROCESS_ID'])
expected = [row for row in range(22) if row % 8 // 4 == k]
assert sorted(read) == expected, (k, read)
os.write(1, f'process {k} done\\n'.encode())
"""


@pytest.mark.process
def test_each_host_reads_its_own_rows_to_evaluate():
  """22 images in batches of 8: the last batch has 4 and 2 of its 6 on two hosts."""
  ran = subprocess.run(
      [str(ROOT / 'launch' / 'local.sh'), '2', sys.executable, '-c', READERS],
      env=os.environ | {'PORT': str(random.randint(20000, 30000)),
                        'DEVICES': '2'}, cwd=ROOT, text=True,
      capture_output=True, timeout=120)
  assert ran.returncode == 0, ran.stdout + ran.stderr
  assert 'process 0 done' in ran.stdout and 'process 1 done' in ran.stdout
