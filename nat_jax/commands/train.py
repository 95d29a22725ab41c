"""Trains the runs that a config needs, one after the other, and reports on them."""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence

import absl.flags
import jax
from ml_collections import config_flags

from nat_jax import train
from nat_jax.commands import config_file, flags, plan, prepare, report
from nat_jax.runtime import checkpoint, processes
from nat_jax.runtime import workdir as workdirs


def run(argv: Sequence[str] = ()) -> None:
  """--mode=train: trains what the config depends on, its comparison run, and itself."""
  del argv
  flags.require([flags.CONFIG, flags.WORKDIR], 'train')
  config, flag = flags.CONFIG.value, absl.flags.FLAGS['config']
  source, workdir = config_flags.get_config_filename(flag), flags.WORKDIR.value
  if os.path.basename(workdir.rstrip('/')) in ('', '.', '..'):
    workdir = os.path.abspath(workdir)  # beside which the comparison run is
  needed, planned = plan.plan(
      config, *config_file.split(source), config_flags.get_override_values(flag),
      workdir.rstrip('/'))
  for run_config, workdir in planned:  # before any time is spent on training
    train.check(run_config, workdir, flags.OVERWRITE.value)
  prepare.check([(source, run_config) for run_config, _ in planned])
  dry = flags.DRY_RUN.value
  if jax.process_index() == 0 and (dry or len(needed) + len(planned) > 1):
    print(_announcement(needed, planned), flush=True)
  # The first run finds its mistakes when it is trained; others cannot be built before
  # the runs that they need are there.
  first = needed[:1] or planned
  for run_config, workdir in first if dry else first[1:]:
    train.rehearse(run_config, workdir)
  if dry:
    return
  for i, (run_config, workdir) in enumerate([*needed, *planned]):
    with _interrupted(workdir):
      if jax.process_index() == 0:
        print(f'== {run_config.name}:{run_config.variant} -> {workdir}', flush=True)
      # Runs that are started together may depend on one evaluation classifier: wait.
      with workdirs.hold(workdir, wait=i < len(needed)):
        processes.barrier(f'hold {i}')  # of which the first process alone may wait
        train.train(
            run_config, workdir, flags.OVERWRITE.value, flags.PROFILE.value,
            f'python -m nat_jax.main {shlex.join(sys.argv[1:])}')
  if jax.process_index() == 0:
    report.show([workdir for _, workdir in planned[::-1]])


def _announcement(needed: Sequence[plan.Run], planned: Sequence[plan.Run]) -> str:
  """The runs that will be trained, in order, and how the comparison is left out."""
  count = len(needed) + len(planned)
  lines = [f'trains {count} runs, one after the other:' if count > 1
           else 'trains one run:']
  for what, runs in (('needed by the last run', needed),
                     ('for comparison; --config.compare_with= leaves it out',
                      planned[:-1]), ('', planned[-1:])):
    lines += [f'  {config.name}:{config.variant} -> {workdir}'
              + (f'  ({what})' if what else '') for config, workdir in runs]
  return '\n'.join(lines)


@contextlib.contextmanager
def _interrupted(workdir: str) -> Iterator[None]:
  """Adds to a KeyboardInterrupt what the interrupted run has saved."""
  try:
    yield
  except KeyboardInterrupt:
    steps = checkpoint.list_steps(workdir)
    raise KeyboardInterrupt(
        f'interrupted; the same command goes on from step {steps[-1]} in {workdir}'
        if steps else
        f'interrupted; nothing is saved in {workdir} yet, so that the same command '
        'starts from the beginning') from None
