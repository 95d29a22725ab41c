"""Outputs of a run: metrics.jsonl, TensorBoard events and the progress line.

    with open_writers(workdir, step, tensorboard=True) as write:
      write({'step': 100, 'kind': 'train', 'loss': 0.5})
    progress = Progress(total=600, start=0)
    progress(100, images=8000, text='loss 0.50')
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import tqdm
from absl import logging

from nat_jax.runtime import files

METRICS = 'metrics.jsonl'
START, END = 'start', 'end'  # kinds of the records of a process about itself


@contextlib.contextmanager
def open_writers(
    workdir: str, step: int, tensorboard: bool = True
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
  """Yields `write(record)`, which appends a record to the outputs of a run.

  A record is a dict of 'step', 'kind' and figures, which may be nested. Records of
  steps after `step`, which an interrupted run has left, are removed first, so that the
  file has one record per step and kind. Only the first process writes.

  Args:
    workdir: of the run.
    step: completed updates.
    tensorboard: whether to write TensorBoard events too.

  Raises:
    OSError: metrics.jsonl cannot be read or written.
  """
  if jax.process_index():
    yield lambda record: None
    return
  path = os.path.join(workdir, METRICS)
  _drop_after(path, step)
  with _events(workdir if tensorboard else None) as write_events:

    def write(record):
      files.append(path, (json.dumps(files.finite(record)) + '\n').encode())
      if record['kind'] not in (START, END):
        write_events(record)

    yield write


@contextlib.contextmanager
def _events(workdir):
  """Yields a function that writes a record as TensorBoard events.

  metrics.jsonl holds all these figures too. After a failure one warning is logged, no
  further events are written, and the run continues.
  """
  file = None

  def attempt(what):
    nonlocal file
    try:
      return what()
    except Exception as error:  # a full disk, or incompatible versions of packages
      logging.warning(
          'TensorBoard events cannot be written to %s (%s); metrics.jsonl has every '
          'figure.', workdir, ' '.join((str(error) or repr(error)).split())[:200])
      if file is not None:
        with contextlib.suppress(OSError):
          file.close()
      file = None

  def write(record):
    if file is not None:
      attempt(lambda: _write_scalars(file, record))

  if workdir is not None:
    file = attempt(lambda: _open_events(os.path.join(workdir, 'tensorboard')))
  try:
    yield write
  finally:
    if file is not None:
      attempt(file.close)


def _open_events(folder):
  """Opens a new file of events in `folder` and writes the event of its format version.

  TensorBoard finds files of events by the form of their name, and sorts them by it.
  """
  files.as_path(folder).mkdir(parents=True, exist_ok=True)
  name = f'events.out.tfevents.{time.time_ns() / 1e9:.6f}.{os.getpid()}'
  path = os.path.join(folder, name)
  file = files.Upload(path) if files.is_remote(path) else open(path, 'xb')  # noqa: SIM115
  _write_event(file, file_version='brain.Event:2')
  return file


def _write_scalars(file, record):
  from tensorboard.compat.proto import summary_pb2

  scalars = [
      summary_pb2.Summary.Value(tag=f'{record["kind"]}/{name}', simple_value=value)
      for name, value in flat(record)]
  _write_event(file, step=record['step'], summary=summary_pb2.Summary(value=scalars))


def _write_event(file, **content):
  """Appends an event to a file and flushes it."""
  # Not tensorboard's EventFileWriter, which imports TensorFlow where that is installed.
  from tensorboard.compat.proto import event_pb2
  from tensorboard.summary.writer import record_writer

  event = event_pb2.Event(wall_time=time.time(), **content)
  writer = record_writer.RecordWriter(file)
  writer.write(event.SerializeToString())
  writer.flush()


def has_record(workdir: str, step: int, kind: str) -> bool:
  """Whether metrics.jsonl of a workdir has a record of this step and kind."""
  return any(
      (record['step'], record['kind']) == (step, kind)
      for record in files.read_records(os.path.join(workdir, METRICS)))


def _drop_after(path, step):
  """Removes the records of steps after `step`, and damaged lines."""
  if not files.exists(path):
    return
  kept = [record for record in files.read_records(path) if record['step'] <= step]
  with files.replacing(path) as file:
    file.writelines(json.dumps(record) + '\n' for record in kept)


def flat(record: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, float]]:
  """Yields ('a/b', number) for the finite numbers of a nested record, except the step.

  Args:
    record: dict of numbers, other values (left out) and such dicts.
    prefix: put before the names.
  """
  for key, value in record.items():
    if isinstance(value, Mapping):
      yield from flat(value, f'{prefix}{key}/')
    elif isinstance(value, int | float) and key != 'step' and math.isfinite(value):
      yield prefix + key, value


WIDTH = 80  # columns of a progress line, as terminals have
BAR = 'step {n_fmt}/{total_fmt} |{bar:8}| {desc}'


class Progress:
  """The progress line: step, a text with metrics, ETA and images/s, in 80 columns.

  On a terminal it is a bar, elsewhere one plain line per report. Images/s and ETA are
  computed from the updates since the previous report.
  """

  def __init__(self, total: int, start: int = 0, quiet: bool = False):
    """Starts the clock.

    Args:
      total: updates of the run.
      start: completed updates.
      quiet: whether to print nothing, as on all hosts but the first.
    """
    self.total, self.step, self.quiet = total, start, quiet
    self.time = time.monotonic()
    self.bar = None
    if sys.stdout.isatty() and not quiet:
      self.bar = tqdm.tqdm(
          total=total, initial=start, file=sys.stdout, dynamic_ncols=True,
          bar_format=BAR,
      )

  def __call__(
      self, step: int, images: int, text: str, now: float | None = None,
      further: str = '',
  ) -> float:
    """Reports progress and returns images/s.

    Args:
      step: completed updates.
      images: number of images of the updates since the previous report.
      text: metrics, the important ones first, separated by two spaces.
      now: time by `time.monotonic()` at which the updates ended; None: now.
      further: metrics that are shown behind the ETA, where there is room.
    """
    now = now or time.monotonic()
    seconds = max(now - self.time, 1e-9)
    rate = images / seconds
    eta = seconds / max(step - self.step, 1) * (self.total - step)
    begin = f'step {step}/{self.total}  '
    width = WIDTH - len(begin) - (0 if self.bar is None else len('|12345678|') - 1)
    line = fit(
        [text, f'ETA {clock(eta)}', further, f'{rate:,.0f} images/s'], width)
    if self.bar is None:
      self.say(begin + line)
    else:
      self.bar.set_description_str(line, refresh=False)
      self.bar.update(step - self.step)
    self.step, self.time = step, now
    return rate

  def compiling(self, devices: str) -> None:
    """Says that the first update is being compiled, which takes a while.

    Args:
      devices: in words, for which it is compiled.
    """
    if self.bar is not None:
      self.bar.set_description_str(f'compiling for {devices}')
    else:
      self.say(f'compiling the first update for {devices}')

  def say(self, text: str) -> None:
    """Prints a separate line, above the bar if there is one."""
    if self.bar is not None:
      self.bar.write(text, file=sys.stdout)
    elif not self.quiet:
      print(text, flush=True)

  def pause(self) -> Callable[[], None]:
    """Stops the clock, for example for an evaluation; the result resumes it."""
    before = time.monotonic()

    def resume():
      self.time += time.monotonic() - before

    return resume

  def close(self) -> None:
    """Closes the bar."""
    if self.bar is not None:
      self.bar.close()


def fit(parts: Sequence[str], width: int) -> str:
  """Joins texts by two spaces, without the last parts that exceed `width` columns.

  Args:
    parts: texts, whose own parts are separated by two spaces. The first is kept.
    width: number of columns.
  """
  parts = [part for text in parts for part in text.split('  ') if part]
  while len(parts) > 1 and len('  '.join(parts)) > width:
    parts.pop()
  return '  '.join(parts)


def clock(seconds: float) -> str:
  """Formats seconds: 75 -> '1:15', 3700 -> '1:01:40'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
