"""Runs the jobs of a sweep as processes that share the devices of this machine.

    slots = make_slots(*find_devices(), num=None)   # a share of the devices each
    runs = [Run(job) for job in jobs]
    number = run_all(runs, slots)                   # 0, or the signal that stopped it

A run writes its output to WORKDIR.log. Signals are passed on to the runs, which are
saved; they have process groups of their own, so that Ctrl-C reaches each once.
"""

import contextlib
import dataclasses
import heapq
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import tqdm

from nat_jax import runs as runs_lib
from nat_jax.commands import jobs as jobs_lib
from nat_jax.commands import plan
from nat_jax.runtime import checkpoint, parallel, signals, writers
from nat_jax.runtime import workdir as workdirs

POLL = 0.2  # seconds between two looks at the runs
TELL = 60  # seconds between two lines on the progress, where there is no terminal
PATIENCE = 30  # seconds that a run may take to end after it was stopped at once
MEMORY = 0.75  # of a GPU's memory, for all runs on it: what JAX reserves for one
MOST = 16  # runs on one GPU
FRACTION = 'XLA_CLIENT_MEM_FRACTION'  # the variable that tells JAX what to reserve
RESERVED = {FRACTION, 'XLA_PYTHON_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_PREALLOCATE'}
TAIL = 1 << 16  # bytes at the end of a file that are looked at
# Prints the platform and the number of chips that JAX finds (TPU v2 and v3 have two
# devices on a chip). A process of its own, since it would keep the accelerators.
PROBE = ('import jax; found = jax.local_devices(); print(found[0].platform, '
         'len({getattr(each, "coords", each.id) for each in found}))')


class Slot(NamedTuple):
  """The share of the machine that a run gets.

  Attributes:
    env: environment variables that select its accelerators, and what it reserves of
      the memory of a GPU that other runs use too.
    cores: CPU cores to run on; none: all.
  """

  env: Mapping[str, str] = {}
  cores: tuple[int, ...] = ()


@dataclasses.dataclass
class Run:
  """A job and how far it is.

  Attributes:
    job: what to train.
    state: 'waiting', 'running', 'done', 'failed', or 'stopped' by a signal.
    process: while it is running.
    slot: while it is running.
    began: time by `time.monotonic()` at which its process was started.
    first: share of its updates that was saved before, from which the process goes on.
    seconds: duration of the process, at its end.
    reason: what its log tells, if it failed.
  """

  job: jobs_lib.Job
  state: str = 'waiting'
  process: subprocess.Popen | None = None
  slot: Slot | None = None
  began: float = 0.0
  first: float = 0.0
  seconds: float = 0.0
  reason: str = ''


# ---- devices ------------------------------------------------------------------------


def find_devices() -> tuple[str, list[str]]:
  """Finds the accelerators of this machine, without keeping them.

  Returns:
    (the platform of JAX, names of its chips); ('cpu', numbers of the usable cores).

  Raises:
    ValueError: JAX cannot be started on this machine.
  """
  if os.environ.get('JAX_PLATFORMS') != 'cpu':
    ran = subprocess.run(
        [sys.executable, '-c', PROBE], capture_output=True, text=True,
        stdin=subprocess.DEVNULL)
    if ran.returncode:
      raise ValueError(f'JAX finds no device: {_last_line(ran.stderr)}')
    platform, count = ran.stdout.split()[-2:]
    if platform != 'cpu':
      numbers = [str(i) for i in range(int(count))]
      visible = os.environ.get('CUDA_VISIBLE_DEVICES')
      return platform, visible.split(',') if visible and platform != 'tpu' else numbers
  return 'cpu', [str(core) for core in parallel.usable_cores()]


def make_slots(
    platform: str, devices: Sequence[str], num: int | None
) -> list[Slot]:
  """Shares out the devices of a machine and, unless they are TPUs, its CPU cores.

  Where there are fewer GPUs than shares, several runs have one GPU. Each of them then
  reserves its part of `MEMORY`, unless the environment says what a run reserves. Where
  there are fewer CPU cores than runs on GPUs, all runs have all cores.

  Args:
    platform, devices: from `find_devices`.
    num: number of shares; None: one for each accelerator, and 1 on CPUs.

  Returns:
    `num` slots. One alone has all devices.

  Raises:
    ValueError: there are fewer CPU cores than `num`; there would be more than `MOST`
      runs on a GPU; or the devices are TPU chips, and `num` is neither 1 nor their
      number.
  """
  on_cpu = platform == 'cpu'
  count = len(devices)
  num = num or (1 if on_cpu else count)
  if on_cpu and num > count:
    raise ValueError(
        f'--jobs must be at most the number of CPU cores, which is {count}, got {num}')
  if num == 1:
    return [Slot()]
  if on_cpu:
    return [Slot({}, tuple(map(int, share))) for share in _shares(devices, num)]
  if platform == 'tpu':
    if num != count:
      raise ValueError(
          f'--jobs must be 1 or the number of TPU chips, which is {count}, got {num}')
    return [Slot(_one_chip(name)) for name in devices]
  if num > MOST * count:
    raise ValueError(
        f'--jobs must be at most {MOST} for each GPU, {MOST * count} in all, got {num}')
  cores = parallel.usable_cores()
  shares = _shares(cores, num) if num <= len(cores) else [()] * num
  return [Slot(env, tuple(share)) for env, share in zip(
      _shares_of_gpus(devices, num), shares, strict=True)]


def _shares_of_gpus(devices, num):
  """Environment variables that give each of `num` runs some GPUs, or a part of one."""
  if num <= len(devices):
    return [{'CUDA_VISIBLE_DEVICES': ','.join(share)}
            for share in _shares(devices, num)]
  names = [devices[i * len(devices) // num] for i in range(num)]
  found = [{'CUDA_VISIBLE_DEVICES': name} for name in names]
  if not RESERVED.intersection(os.environ):
    for env, name in zip(found, names, strict=True):
      env[FRACTION] = f'{MEMORY / names.count(name):.3f}'
  return found


def _shares(items, num):
  """Splits a list into `num` parts whose lengths differ by at most 1."""
  return [items[i * len(items) // num:(i + 1) * len(items) // num] for i in range(num)]


def _one_chip(name):
  """Variables that give a process one chip of a TPU host, as JAX's own tests do."""
  return {'TPU_VISIBLE_CHIPS': name, 'TPU_CHIPS_PER_PROCESS_BOUNDS': '1,1,1',
          'TPU_PROCESS_BOUNDS': '1,1,1', 'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}


# ---- runs ---------------------------------------------------------------------------


def run_all(runs: Sequence[Run], slots: Sequence[Slot]) -> int:
  """Trains the runs that are waiting, one in each slot at a time.

  A run that fails does not stop the others. SIGTERM, SIGINT and SIGHUP are passed on to
  the runs that are under way, and no further one is started.

  Args:
    runs: their states are changed.
    slots: from `make_slots`.

  Returns:
    The number of the signal that stopped the sweep, or 0.

  Raises:
    KeyboardInterrupt: a second SIGINT; the runs were stopped at once.
  """
  free, told = list(slots), 0
  with signals.caught() as came, _display(runs, len(slots)) as (say, show):
    try:
      while True:
        for run in _running(runs):
          if run.process.poll() is not None:
            free.append(run.slot)
            _end(run, bool(came()), say)
        if came() and not told:
          told = came()
          _pass_on(runs, told)
        waiting = [] if told else [run for run in runs if run.state == 'waiting']
        for run, slot in zip(waiting, list(free), strict=False):
          free.remove(slot)
          _start(run, slot, say)
        if not _running(runs):
          return told
        show()
        time.sleep(POLL)
    except BaseException:
      _stop_at_once(runs)
      raise


def is_done(job: jobs_lib.Job) -> bool:
  """Whether a job has nothing to do; with --overwrite a run of another config has."""
  return plan.is_done(job.workdir, job.config) and not _moves_aside(job)


def share_done(job: jobs_lib.Job) -> float:
  """The share of the updates of a job that metrics.jsonl in its workdir records.

  An evaluation is recorded after later updates have been, so that the last line need
  not have the last step.
  """
  steps = [0]
  for line in _tail(os.path.join(job.workdir, writers.METRICS)).splitlines():
    with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off at an end
      steps.append(json.loads(line)['step'])
  return min(max(steps) / job.config.steps, 1.0)


def log_of(job: jobs_lib.Job) -> str:
  """The path of the log of a job."""
  return f'{job.workdir}.log'


def _moves_aside(job):
  """Whether a job moves a run of another config in its workdir aside."""
  return jobs_lib.OVERWRITE in job.args and workdirs.check(
      job.workdir, runs_lib.resolve(job.config), overwrite=True)


def _share_saved(job):
  """The share of the updates of a job from which it goes on.

  Records in metrics.jsonl may be of later updates, or of a run that is moved aside.
  """
  steps = checkpoint.list_steps(job.workdir)
  return steps[-1] / job.config.steps if steps and not _moves_aside(job) else 0.0


def _running(runs):
  return [run for run in runs if run.state == 'running']


def _start(run, slot, say):
  command = jobs_lib.command(run.job.args, sys.executable)
  env = os.environ | {'PYTHONUNBUFFERED': '1'} | slot.env
  run.slot, run.first, run.began = slot, _share_saved(run.job), time.monotonic()
  with open(log_of(run.job), 'a', encoding='utf-8') as log:
    print(f'$ {shlex.join(command)}', file=log, flush=True)
    run.process = subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=log,
        stderr=subprocess.STDOUT, process_group=0)
  run.state = 'running'
  if slot.cores and hasattr(os, 'sched_setaffinity'):  # its threads inherit it
    with contextlib.suppress(ProcessLookupError):
      os.sched_setaffinity(run.process.pid, slot.cores)
  where = ' '.join(f'{key}={value}' for key, value in slot.env.items()
                   if 'VISIBLE' in key)
  say(f'started {run.job.workdir}{where and f" on {where}"}, log: {log_of(run.job)}')


def _end(run, stopping, say):
  """Takes down how a run ended; not by its status, which is 0 after SIGTERM."""
  run.seconds = time.monotonic() - run.began
  status, run.process, run.slot = run.process.returncode, None, None
  if is_done(run.job):
    run.state = 'done'
    say(f'done {run.job.workdir} in {writers.clock(run.seconds)}')
  elif stopping:
    run.state = 'stopped'
    say(f'stopped {run.job.workdir}')
  else:
    run.state = 'failed'
    run.reason = _reason(_tail(log_of(run.job)), status)
    say(f'failed {run.job.workdir}: {run.reason}')


def _pass_on(runs, number):
  for run in _running(runs):
    with contextlib.suppress(ProcessLookupError):
      run.process.send_signal(number)


def _stop_at_once(runs):
  """Stops all runs without waiting until they are saved: SIGINT twice, then SIGKILL."""
  _pass_on(runs, signal.SIGINT)
  deadline = time.monotonic() + PATIENCE
  for run in _running(runs):
    with contextlib.suppress(subprocess.TimeoutExpired):
      run.process.wait(max(deadline - time.monotonic(), 0))
  for run in _running(runs):
    run.process.kill()
    run.process.wait()


def _tail(path):
  """The end of a text file; '' if there is none."""
  try:
    with open(path, 'rb') as file:
      file.seek(max(os.path.getsize(path) - TAIL, 0))
      return file.read().decode('utf-8', 'replace')
  except OSError:
    return ''


def _reason(text, status):
  """Why a run failed: the signal that ended it; or the last error, its first line, that
  its log tells since the run was started; or the last line there."""
  if status < 0:
    names = {each.value: each.name for each in signal.Signals}
    name = names.get(-status, f'signal {-status}')
    return f'it was killed by {name}' + (
        ', as for lack of memory' if name == 'SIGKILL' else '')
  text = re.split(r'^\$ ', text, flags=re.MULTILINE)[-1]
  errors = re.findall(r'^error: .*', text, re.MULTILINE)
  return errors[-1] if errors else (
      _last_line(text.partition('\n')[2]) or f'it ended with status {status}')


def _last_line(text):
  """The last line that says something; the program ends errors with a hint in ()."""
  lines = [line.strip() for line in text.splitlines()]
  lines = [line for line in lines if line and not line.startswith(('(', '$ '))]
  return lines[-1] if lines else ''


# ---- progress -----------------------------------------------------------------------


@contextlib.contextmanager
def _display(
    runs: Sequence[Run], num_slots: int
) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
  """Yields say(text), which prints a line, and show(), which renews the progress.

  The progress is a bar on a terminal, and elsewhere a line each minute.
  """
  interactive = sys.stdout.isatty()
  shown = -math.inf
  with tqdm.tqdm(
      total=len(runs), file=sys.stdout, disable=not interactive, dynamic_ncols=True,
      bar_format='{n_fmt}/{total_fmt} |{bar:12}| {desc}') as bar:

    def say(text):
      nonlocal shown
      bar.write(text, file=sys.stdout)
      sys.stdout.flush()
      shown = -math.inf

    def show():
      nonlocal shown
      if time.monotonic() - shown < (1 if interactive else TELL):
        return
      shown = time.monotonic()
      text = summary(runs, num_slots, shown)
      if interactive:
        bar.n = sum(run.state == 'done' for run in runs)
        bar.set_description_str(text)
      else:
        print(text, flush=True)

    yield say, show


def summary(runs: Sequence[Run], num_slots: int, now: float) -> str:
  """The progress of a sweep in a line.

  Args:
    runs: of the sweep.
    num_slots: number of runs at a time.
    now: time by `time.monotonic()`.
  """
  def count(state):
    return sum(run.state == state for run in runs)

  under_way = ', '.join(
      f'{run.job.name} {share_done(run.job):.0%}' for run in _running(runs))
  text = f'{count("done")} of {len(runs)} done, {count("running")} running'
  text += f' ({under_way})' if under_way else ''
  text += f', {count("failed")} failed' if count('failed') else ''
  seconds = seconds_left(runs, num_slots, now)
  return text + ('' if seconds is None else f', ETA {writers.clock(seconds)}')


def seconds_left(runs: Sequence[Run], num_slots: int, now: float) -> float | None:
  """Estimates when the last run ends.

  A whole run takes as long as runs of its config took, or else runs of all configs: the
  mean of seconds / share of the updates over the runs that are done, or over those that
  are under way where none is done. The waiting runs are put, in their order, where a
  slot is free first.

  Args:
    runs: of the sweep.
    num_slots: number of runs at a time.
    now: time by `time.monotonic()`.

  Returns:
    Seconds from now; None if no run has made an update yet.
  """
  ended = [(run.job.source, run.seconds, 1 - run.first) for run in runs
           if run.state == 'done' and run.seconds]
  current = [(run.job.source, now - run.began, share_done(run.job) - run.first)
             for run in _running(runs)]

  def whole(source):
    for kind in (ended, current):
      for same in (True, False):
        taken = [seconds / share for name, seconds, share in kind
                 if share > 0 and (name == source or not same)]
        if taken:
          return sum(taken) / len(taken)
    return None

  ends = []
  for run in _running(runs):
    total = whole(run.job.source)
    if total is None:
      return None
    ends.append(total * (1 - share_done(run.job)))
  ends += [0.0] * (num_slots - len(ends))
  heapq.heapify(ends)
  for run in runs:
    if run.state == 'waiting':
      total = whole(run.job.source)
      if total is None:
        return None
      heapq.heapreplace(ends, ends[0] + total * (1 - share_done(run.job)))
  return max(ends)
