"""Several processes, on one host or many, that run one program.

    join()                  # at the start, before any device is touched
    count(path.exists())    # how many of them say yes
"""

import os
import re
import subprocess
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

HEARTBEAT = 30  # seconds without one after which a process counts as lost
LOST = ('a process was lost; start again to resume from the last checkpoint (what the '
        'lost process wrote says why)')
# What JAX, its coordination service, Gloo and NCCL say when a process is gone.
SIGNS = re.compile(
    r'Gloo .*failed|[Cc]oordination ?[Ss]ervice|heartbeat|remote process exited')
# Where the first process is lost, the C++ of JAX ends the others within a millisecond
# (jax 0.10). This reads what they write to standard error, and leaves the stacks out.
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
  """Joins the other processes.

  They are found by JAX on TPU pods and under Slurm, else told by NAT_JAX_COORDINATOR
  (host:port), NAT_JAX_NUM_PROCESSES and NAT_JAX_PROCESS_ID.
  """
  # Gloo, between CPU hosts, hangs where many updates are under way at once (jax 0.10).
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  names = {'coordinator_address': 'COORDINATOR', 'num_processes': 'NUM_PROCESSES',
           'process_id': 'PROCESS_ID'}
  given = {key: os.environ.get(f'NAT_JAX_{name}') for key, name in names.items()}
  settings = {key: value if key == 'coordinator_address' else int(value)
              for key, value in given.items() if value}
  if shown := os.environ.get('CUDA_VISIBLE_DEVICES'):
    # All that this process may see; under Slurm JAX would take number SLURM_LOCALID.
    settings['local_device_ids'] = list(range(len(shown.split(','))))
  jax.distributed.initialize(**settings, heartbeat_timeout_seconds=HEARTBEAT)


def read_errors() -> None:
  """Lets a `READER` write what this process writes to standard error from now on."""
  reader = subprocess.Popen(
      [sys.executable, '-ISc', READER, FATAL, LOST], stdin=subprocess.PIPE)
  os.dup2(reader.stdin.fileno(), 2)
  reader.stdin.close()


def lost_one(error: BaseException) -> bool:
  """Whether an error says that another process is gone."""
  return jax.distributed.is_initialized() and bool(SIGNS.search(str(error)))


def leave(text: str, status: int) -> None:
  """Ends this process with a message if there are others, which learn of it by that.

  An ordinary end would wait for them, while they wait for this one.
  """
  if jax.distributed.is_initialized():
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
    os._exit(status)


def total() -> int:
  """The number of processes."""
  return jax.process_count()


def barrier(name: str) -> None:
  """Waits until all processes have come here."""
  if total() > 1:
    multihost_utils.sync_global_devices(name)


def count(flag: bool) -> int:
  """How many processes say yes; all of them must ask."""
  if total() == 1:
    return int(flag)
  return int(multihost_utils.process_allgather(np.array(flag, np.int32)).sum())
