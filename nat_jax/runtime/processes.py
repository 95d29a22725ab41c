"""Several processes, on one or many hosts, that train one run together.

    join()                  # at the start, before any device is used
    count(path.exists())    # in how many processes the path exists
    stop = agreement(received, parallel.make_most(mesh))
    stop()                  # after each call: the signal of any process, or 0
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

AGREE = 4.0  # seconds between two agreements on whether to stop
HEARTBEAT = 30  # seconds without a heartbeat after which a process counts as lost
LOST = ('a process was lost; start again to resume from the last checkpoint (what the '
        'lost process wrote says why)')
# Error messages of JAX, its coordination service, Gloo and NCCL for a lost process.
SIGNS = re.compile(
    r'Gloo .*failed|[Cc]oordination ?[Ss]ervice|heartbeat|remote process exited')
# When the first process is lost, JAX's C++ code ends the others within a millisecond
# (jax 0.10) with long stack traces. READER, a program that standard error is piped
# through, replaces these by one line.
FATAL = ('Polled an error from coordination service|'
         'JAX distributed service detected fatal errors')
READER = """
import re, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
  signal.signal(number, signal.SIG_IGN)
fatal, text, lost = re.compile(sys.argv[1].encode()), sys.argv[2].encode(), False
for line in iter(sys.stdin.buffer.readline, b''):
  if not lost:
    lost = text in line or bool(fatal.search(line))
    sys.stderr.buffer.write(b'error: ' + text + b'\\n' if lost else line)
    sys.stderr.buffer.flush()
"""


def join() -> None:
  """Joins the other processes of the run.

  On TPU pods and under Slurm JAX finds them; elsewhere they are given by the variables
  NAT_JAX_COORDINATOR (host:port), NAT_JAX_NUM_PROCESSES and NAT_JAX_PROCESS_ID.

  Raises:
    ValueError: one of the latter two is not a whole number.
  """
  # Gloo, between CPU hosts, hangs when many updates are dispatched at once (jax 0.10).
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  # JAX's service would ignore a SIGTERM that comes before training catches signals.
  jax.config.update('jax_enable_preemption_service', False)
  names = {'coordinator_address': 'COORDINATOR', 'num_processes': 'NUM_PROCESSES',
           'process_id': 'PROCESS_ID'}
  given = {key: os.environ.get(f'NAT_JAX_{name}') for key, name in names.items()}
  settings = {
      key: value if key == 'coordinator_address' else _number(names[key], value)
      for key, value in given.items() if value}
  if shown := os.environ.get('CUDA_VISIBLE_DEVICES'):
    # All visible GPUs; under Slurm JAX would use only the one numbered SLURM_LOCALID.
    settings['local_device_ids'] = list(range(len(shown.split(','))))
  jax.distributed.initialize(**settings, heartbeat_timeout_seconds=HEARTBEAT)


def _number(name, text):
  """The whole number of a variable NAT_JAX_..."""
  if not text.isdecimal():
    raise ValueError(
        f'NAT_JAX_{name} must be a whole number, such as 2, got {text!r}')
  return int(text)


def read_errors() -> None:
  """Pipes this process's standard error through `READER` from now on."""
  reader = subprocess.Popen(
      [sys.executable, '-ISc', READER, FATAL, LOST], stdin=subprocess.PIPE)
  os.dup2(reader.stdin.fileno(), 2)
  reader.stdin.close()


def lost_one(error: BaseException) -> bool:
  """Whether an error means that another process was lost."""
  return jax.distributed.is_initialized() and bool(SIGNS.search(str(error)))


def leave(text: str, status: int) -> None:
  """Prints `text` and exits at once if there are other processes.

  A normal exit would wait for them while they wait for this process.
  """
  if jax.distributed.is_initialized():
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
    os._exit(status)


def total() -> int:
  """The number of processes."""
  return jax.process_count()


def barrier(name: str) -> None:
  """Waits until all processes have called this with the same `name`."""
  if total() > 1:
    multihost_utils.sync_global_devices(name)


def count(flag: bool) -> int:
  """The number of processes in which `flag` is true; all of them must call this."""
  if total() == 1:
    return int(flag)
  return int(multihost_utils.process_allgather(np.array(flag, np.int32)).sum())


def alike(number: int) -> bool:
  """Whether all processes gave the same number below 2^31; all must call this."""
  if total() == 1:
    return True
  numbers = multihost_utils.process_allgather(np.array(number, np.int32))
  return bool((numbers == numbers[0]).all())


def first(number: int) -> int:
  """The number below 2^31 that the first process gave; all must call this."""
  if total() == 1:
    return number
  return int(multihost_utils.broadcast_one_to_all(np.array(number, np.int32)))


def agreement(
    received: Callable[[], int], most: Callable[[Sequence[int]], jax.Array],
    clock: Callable[[], float] = time.monotonic,
) -> Callable[..., int]:
  """Returns the function by which all processes stop after the same update.

  Each process calls it after it has dispatched a call of updates. Every n calls it
  starts the maximum of the processes' signals on the devices and reads it one call
  later, so that the devices never wait for it. With it the processes agree on the
  seconds per call of the slowest one, and so on the next n: as many calls as take
  about `AGREE` seconds, at most twice as many as before. A signal that any process
  receives is therefore returned `AGREE` seconds and two calls later at most, or, if a
  call takes longer than `AGREE`, three calls later.

  `multihost_utils.reached_preemption_sync_point` is no substitute: it knows SIGTERM
  only.

  Args:
    received: () -> number of the signal that this process received, or 0.
    most: from `parallel.make_most`.
    clock: () -> seconds.

  Returns:
    stop(wait=False) -> number of the signal that any process received, or 0. With
    `wait`, which all processes must give, they agree in this call.
  """
  answer, n, calls, began = None, 1, 0, clock()

  def start():
    nonlocal answer, calls, began
    now = clock()
    milliseconds = min((now - began) / max(calls, 1) * 1000, 1e9)
    answer, calls, began = most([received(), int(milliseconds)]), 0, now

  def read():
    nonlocal answer, n
    if answer is None:
      return 0
    number, milliseconds = map(int, np.asarray(answer))
    answer, n = None, max(min(2 * n, int(AGREE * 1000 / max(milliseconds, 1))), 1)
    return number

  def stop(wait=False):
    nonlocal calls
    calls += 1
    number = read()
    if wait or calls >= n:
      start()
    return max(number, read()) if wait else number

  return stop
