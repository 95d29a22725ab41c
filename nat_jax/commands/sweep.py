"""Trains configs with several seeds, on this machine or others, and reports on them.

    run(['configs/digits.py:nat', 'configs/digits.py:baseline', '--config.steps=9'])
"""

import os
import shlex
import sys
from collections.abc import Sequence

import jax
from absl import logging

from nat_jax import data, schema, train
from nat_jax.commands import config_file, flags, plan, pool, prepare, remote, report
from nat_jax.commands import jobs as jobs_lib
from nat_jax.commands.jobs import Job


def run(argv: Sequence[str] = ()) -> None:
  """--mode=sweep: trains each config with each of --seeds in a folder of --workdir.

  Everything is checked before the first run is started. Runs that are done are skipped,
  and runs that were interrupted go on.

  Args:
    argv: configs, as files or names, each optionally with ':VARIANT', and changes of
      all, --config.KEY=VALUE.

  Raises:
    ValueError, OSError: a mistake; nothing was started.
    train.Preempted: a signal came, and was passed on to the runs.
    SystemExit: a run failed; its status is 1.
  """
  # The runs need the accelerators; what this process computes is little.
  jax.config.update('jax_platforms', 'cpu')
  jobs = jobs_lib.asked(argv)
  check(jobs)
  PLACES[flags.ON.value](jobs, flags.WORKDIR.value.rstrip('/'))


def check(jobs: Sequence[Job]) -> None:
  """Checks all that can be checked without training; changes nothing.

  Raises:
    ValueError: a mistake in a config, a workdir with a run of another config, a run
      that a config depends on has another config, or configs of several tasks, which
      have no report in common.
  """
  tasks: dict[str, str] = {}
  for job in jobs:
    # plan.plan also checks the runs that are needed, such as evaluation classifiers.
    _, planned = plan.plan(
        job.config, *config_file.split(job.source), job.changes, job.workdir)
    for config, workdir in planned:
      train.check(config, workdir, flags.OVERWRITE.value)
    tasks.setdefault(schema.plain(job.config)['task'], job.source)
  if len(tasks) > 1:
    kinds = ', '.join(f'{source} ({task})' for task, source in tasks.items())
    raise ValueError(
        f'expected configs of one task, which one report can compare, got {kinds}; '
        'sweep each task in a folder of its own')


def _here(jobs: Sequence[Job], out: str) -> None:
  """Trains the jobs on this machine."""
  runs = [pool.Run(job, 'done' if pool.is_done(job) else 'waiting') for job in jobs]
  _check_data(each.job for each in runs if each.state == 'waiting')
  if flags.DRY_RUN.value:
    for each in runs:
      _print(jobs_lib.command(each.job.args),
             '# done: ' if each.state == 'done' else '')
    _print(_report(jobs, out))
    return
  for each in runs:
    if each.state == 'done':
      print(f'done {each.job.workdir} before', flush=True)
  waiting = sum(each.state == 'waiting' for each in runs)
  if os.path.exists(out) and not os.path.isdir(out):
    raise ValueError(f'--workdir must be a folder, got {out}, which is a file')
  if waiting:
    slots = pool.make_slots(*pool.find_devices(), flags.JOBS.value)
    os.makedirs(out, exist_ok=True)
    stopped = pool.run_all(runs, slots)
    if stopped:
      done = sum(each.state == 'done' for each in runs)
      raise train.Preempted(
          stopped, f'{done} of {len(runs)} runs are done. The same command goes on')
  done = [each.job.workdir for each in runs if each.state == 'done']
  failed = [each for each in runs if each.state == 'failed']
  if done:
    report.show(done, out, [f'{each.job.workdir} failed: {each.reason}'
                            for each in failed])
  if failed:
    sys.exit('\n'.join([
        f'error: {len(failed)} of {len(runs)} runs failed; the same command tries them '
        'again',
        *(f'  {each.job.workdir}: {each.reason} ({pool.log_of(each.job)})'
          for each in failed)]))


def _on_slurm(jobs: Sequence[Job], out: str) -> None:
  """Submits an array of Slurm jobs, and one that reports when these have ended."""
  todo = [i for i, job in enumerate(jobs) if not pool.is_done(job)]
  if not todo:
    report.show([job.workdir for job in jobs], out)
    return
  try:
    _check_data(jobs[i] for i in todo)
  except data.NotPrepared as error:  # the nodes may have them on disks of their own
    logging.warning('On this machine %s', error)
  script = remote.slurm_script(jobs, out, sys.executable)
  commands = remote.slurm_commands(
      todo, len(jobs), shlex.split(flags.SUBMIT.value), flags.JOBS.value)
  if flags.DRY_RUN.value:
    print(script)
    for command in commands:
      _print(command, '# ')
    return
  os.makedirs(out, exist_ok=True)  # for the logs
  array, reporter = remote.submit_slurm(script, commands)
  print(f'submitted {len(todo)} of {len(jobs)} runs as job array {array}, and job '
        f'{reporter} for the report; logs: {out}/slurm-{array}_*.log. When they have '
        'ended, the same command submits the runs that are not done')


def _on_skypilot(jobs: Sequence[Job], out: str) -> None:
  """Launches a managed job of SkyPilot for each run.

  Which runs in the bucket are done is not known here: their jobs end at once.
  """
  options = shlex.split(flags.SUBMIT.value)
  text = remote.skypilot_yaml(jobs, out)
  commands = remote.skypilot_commands(jobs, out, 'sweep.yaml', options)
  if flags.DRY_RUN.value:
    print(text)
    for command in commands:
      _print(command, '# ')
    return
  remote.submit_skypilot(text, jobs, out, options)
  print(f'launched {len(jobs)} jobs, which `sky jobs queue` lists. When they have '
        'ended, launch the report, with the output of --dry_run as sweep.yaml:')
  _print(commands[-1])


def _check_data(jobs):
  """Raises data.NotPrepared if data sets of jobs are missing on this machine."""
  prepare.check((job.source, job.config) for job in jobs)


PLACES = {'here': _here, 'slurm': _on_slurm, 'skypilot': _on_skypilot}


def _report(jobs, out):
  """The command of the report on all jobs."""
  workdirs = [job.workdir for job in jobs]
  return jobs_lib.command(['--mode=report', '--workdir', out, *workdirs])


def _print(command, before=''):
  print(before + shlex.join(command), flush=True)
