"""What a run tells: metrics.jsonl, TensorBoard events, and the line of progress.

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
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import tqdm
from absl import logging

from nat_jax.runtime import files

METRICS = 'metrics.jsonl'


@contextlib.contextmanager
def open_writers(
    workdir: str, step: int, tensorboard: bool = True
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
  """Yields `write(record)`; a record has 'step', 'kind' and figures, nested or not.

  Records of updates after `step`, left by a run that was cut off, are dropped first,
  so that each update stands in the file once. Only the first process writes.
  """
  if jax.process_index():
    yield lambda record: None
    return
  path = os.path.join(workdir, METRICS)
  _drop_after(path, step)
  with _events(workdir if tensorboard else None) as write_events:

    def write(record):
      # Opened for each record: nothing is left in a buffer when the disk is full.
      with files.named(path), open(path, 'a', encoding='utf-8') as file:
        file.write(json.dumps(finite(record)) + '\n')
      write_events(record)

    yield write


@contextlib.contextmanager
def _events(workdir):
  """Yields a function that writes a record as TensorBoard events, if it can.

  They repeat what metrics.jsonl holds: a failure is told once and stops nothing.
  """
  file = None

  def attempt(what):
    nonlocal file
    try:
      return what()
    except Exception as error:  # of the disk, and of packages that do not go together
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
  """A new file of events in `folder`, which holds their version so far.

  Its name is of the form by which TensorBoard finds such files and orders them in time.
  """
  os.makedirs(folder, exist_ok=True)
  name = f'events.out.tfevents.{time.time_ns() / 1e9:.6f}.{os.getpid()}'
  file = open(os.path.join(folder, name), 'xb')  # noqa: SIM115
  _write_event(file, file_version='brain.Event:2')
  return file


def _write_scalars(file, record):
  from tensorboard.compat.proto import summary_pb2

  scalars = [
      summary_pb2.Summary.Value(tag=f'{record["kind"]}/{name}', simple_value=value)
      for name, value in flat(record)]
  _write_event(file, step=record['step'], summary=summary_pb2.Summary(value=scalars))


def _write_event(file, **content):
  """Adds an event to a file, for a reader to see at once."""
  # Not tensorboard's EventFileWriter, which imports TensorFlow where that is installed.
  from tensorboard.compat.proto import event_pb2
  from tensorboard.summary.writer import record_writer

  event = event_pb2.Event(wall_time=time.time(), **content)
  writer = record_writer.RecordWriter(file)
  writer.write(event.SerializeToString())
  writer.flush()


def has_record(workdir: str, step: int, kind: str) -> bool:
  """Whether metrics.jsonl has a record of this step and kind."""
  return any(
      (record['step'], record['kind']) == (step, kind)
      for record in files.read_records(os.path.join(workdir, METRICS)))


def _drop_after(path, step):
  """Leaves the records of updates up to `step`; damaged lines go."""
  if not os.path.exists(path):
    return
  kept = [record for record in files.read_records(path) if record['step'] <= step]
  with files.replacing(path) as file:
    file.writelines(json.dumps(record) + '\n' for record in kept)


def flat(record: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, float]]:
  """Yields ('a/b', number) for the numbers of a nested record, but the step."""
  for key, value in record.items():
    if isinstance(value, Mapping):
      yield from flat(value, f'{prefix}{key}/')
    elif isinstance(value, int | float) and key != 'step' and math.isfinite(value):
      yield prefix + key, value


def finite(value: Any) -> Any:
  """NaN and infinity as None, so that the file is JSON for every reader."""
  if isinstance(value, Mapping):
    return {k: finite(v) for k, v in value.items()}
  if isinstance(value, list):
    return [finite(v) for v in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


class Progress:
  """One line: step, images/s, ETA and the text of the figures.

  A bar on a terminal; in a log a plain line for each call. Images/s and ETA are of
  the updates since the last call. With `quiet` nothing is shown (hosts but the first).
  """

  def __init__(self, total: int, start: int = 0, quiet: bool = False):
    self.total, self.step, self.quiet = total, start, quiet
    self.time = time.monotonic()
    self.bar = None
    if sys.stdout.isatty() and not quiet:
      self.bar = tqdm.tqdm(
          total=total, initial=start, file=sys.stdout, dynamic_ncols=True,
          bar_format='step {n_fmt}/{total_fmt} |{bar:12}| {desc}',
      )

  def __call__(
      self, step: int, images: int, text: str, now: float | None = None
  ) -> float:
    """Reports; `images` were seen since the last call. Returns images/s.

    `now`: when the updates were done, by `time.monotonic()`, if that is past.
    """
    now = now or time.monotonic()
    seconds = max(now - self.time, 1e-9)
    rate = images / seconds
    eta = seconds / max(step - self.step, 1) * (self.total - step)
    line = f'{rate:,.0f} images/s  ETA {clock(eta)}  {text}'
    if self.bar is None:
      self.say(f'step {step}/{self.total}  {line}')
    else:
      self.bar.set_description_str(line, refresh=False)
      self.bar.update(step - self.step)
    self.step, self.time = step, now
    return rate

  def say(self, text: str) -> None:
    """Prints a line of its own, above the bar if there is one."""
    if self.bar is not None:
      self.bar.write(text, file=sys.stdout)
    elif not self.quiet:
      print(text, flush=True)

  def pause(self) -> Callable[[], None]:
    """Stops the clock; call what it returns to go on (evaluation, say)."""
    before = time.monotonic()

    def resume():
      self.time += time.monotonic() - before

    return resume

  def close(self) -> None:
    if self.bar is not None:
      self.bar.close()


def clock(seconds: float) -> str:
  """75 -> '1:15', 3700 -> '1:01:40'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
