"""A config -> the runs that it takes, trained one after the other, and their report."""

import contextlib
from collections.abc import Iterator, Sequence

import absl.flags
import jax
from ml_collections import config_flags

from nat_jax import train
from nat_jax.commands import flags, plan, report
from nat_jax.runtime import checkpoint
from nat_jax.runtime import workdir as workdirs


def run(argv: Sequence[str] = ()) -> None:
  """--mode=train: the config, and first what it needs and is compared with."""
  del argv
  config, flag = flags.CONFIG.value, absl.flags.FLAGS['config']
  if config is None or not flags.WORKDIR.value:
    raise ValueError('--mode=train needs --config and --workdir')
  path, _, variant = config_flags.get_config_filename(flag).partition(':')
  needed, planned = plan.plan(
      config, path, variant or None, config_flags.get_override_values(flag),
      flags.WORKDIR.value.rstrip('/'))
  for one, workdir in planned:  # before any work is spent on the first
    train.check(one, workdir, flags.OVERWRITE.value)
  for i, (one, workdir) in enumerate([*needed, *planned]):
    with _interrupted(workdir):
      if jax.process_index() == 0:
        print(f'== {one.name}:{one.variant} -> {workdir}', flush=True)
      # Several runs may be started at once and need one evaluation classifier.
      with workdirs.hold(workdir, wait=i < len(needed)):
        train.train(one, workdir, flags.OVERWRITE.value)
  if jax.process_index() == 0:
    report.show([workdir for _, workdir in planned[::-1]])


@contextlib.contextmanager
def _interrupted(workdir: str) -> Iterator[None]:
  """Says what an interrupted run has saved."""
  try:
    yield
  except KeyboardInterrupt:
    steps = checkpoint.list_steps(workdir)
    raise KeyboardInterrupt(
        f'interrupted; the same command goes on from step {steps[-1]} in {workdir}'
        if steps else
        f'interrupted; nothing of {workdir} is saved yet, so the same command begins '
        'it anew') from None
