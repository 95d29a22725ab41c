"""Several processes, on one host or many, that run one program.

    join()                  # at the start, before any device is touched
    count(path.exists())    # how many of them say yes
"""

import os

import jax
import numpy as np
from jax.experimental import multihost_utils


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
  jax.distributed.initialize(**settings)


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
