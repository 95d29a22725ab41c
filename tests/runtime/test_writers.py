"""metrics.jsonl over restarts, and the line of progress in a log and on a terminal."""

import fcntl
import json
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import types

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from nat_jax.runtime import writers


def read(folder):
  return [json.loads(x) for x in (folder / 'metrics.jsonl').read_text().splitlines()]


def test_records_after_the_restored_step_are_dropped(tmp_path):
  with writers.open_writers(str(tmp_path), 0, tensorboard=False) as write:
    for step in (1, 2, 3):
      write({'step': step, 'kind': 'train', 'loss': step / 2})
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 4, "lo')
  with writers.open_writers(str(tmp_path), 2, tensorboard=False) as write:
    write({'step': 3, 'kind': 'train', 'loss': float('nan')})
  found = [(r['step'], r['loss']) for r in read(tmp_path)]
  assert found == [(1, 0.5), (2, 1), (3, None)]


def test_flat_names_the_finite_numbers():
  record = {'step': 3, 'kind': 'eval', 'evals': {
      'test': {'accuracy': 0.5, 'ncr': {'0.4': 1}, 'n': float('nan'), 'x': [1, 2]}}}
  assert dict(writers.flat(record)) == {
      'evals/test/accuracy': 0.5, 'evals/test/ncr/0.4': 1}


def test_clock():
  assert [writers.clock(s) for s in (5, 75, 3700)] == ['0:05', '1:15', '1:01:40']


def test_rate_and_time_left(monkeypatch, capsys):
  """100 updates of 8 images in 4 s, without 6 s of evaluation; 300 updates to go."""
  now = iter([0.0, 1.0, 7.0, 10.0])
  monkeypatch.setattr(writers.time, 'monotonic', lambda: next(now))
  progress = writers.Progress(total=600, start=200)
  progress.pause()()
  assert progress(300, images=800, text='loss 1') == 200
  assert capsys.readouterr().out == 'step 300/600  loss 1  ETA 0:12  200 images/s\n'


def test_a_line_fits_80_columns(monkeypatch, capsys):
  """What is at its end is left out first: images/s, then ETA, then the last metrics."""
  monkeypatch.setattr(writers.time, 'monotonic', lambda: 1e5)
  progress = writers.Progress(total=1_000_000, start=0)
  metrics = 'loss 0.6234  accuracy 0.744  NCR_0.4 0.882'
  progress(100_000, images=10**8, text=metrics, now=2e5)
  progress(200_000, images=10**8, text=f'{metrics}  {"m" * 15}', now=3e5)
  progress(300_000, images=10**8, text=f'{metrics}  {"m" * 16}', now=4e5)
  assert capsys.readouterr().out.splitlines() == [
      f'step 100000/1000000  {metrics}  ETA 250:00:00',
      f'step 200000/1000000  {metrics}  {"m" * 15}',
      f'step 300000/1000000  {metrics}']
  assert writers.fit(['a' * 90], 80) == 'a' * 90


def test_compiling_is_told(capsys):
  writers.Progress(10).compiling('1 x NVIDIA H200')
  writers.Progress(10, quiet=True).compiling('1 x NVIDIA H200')
  assert capsys.readouterr().out == (
      'compiling the first update for 1 x NVIDIA H200\n')
  progress, shown = writers.Progress(10), []
  progress.bar = types.SimpleNamespace(set_description_str=shown.append)
  progress.compiling('1 x NVIDIA H200')
  assert shown == ['compiling for 1 x NVIDIA H200']


def test_quiet_says_nothing(capsys):
  progress = writers.Progress(10, quiet=True)
  progress.say('hello')
  progress(5, 1, 'loss')
  progress.close()
  assert capsys.readouterr().out == ''


SHOW = """
from nat_jax.runtime import writers
progress = writers.Progress(total=4, start=1)
progress.say('resuming')
for step in (2, 3, 4):
  progress(step, images=8, text=f'loss {step}')
  if step == 3:
    progress.say('evaluation')
progress.close()
print('end')
"""


@pytest.mark.process
def test_one_bar_on_a_terminal():
  """What a person sees: each text on a line of its own, and one bar that moves."""
  ours, theirs = pty.openpty()
  fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('4H', 30, 120, 0, 0))
  process = subprocess.Popen([sys.executable, '-c', SHOW], stdout=theirs, stderr=theirs)
  os.close(theirs)
  output = b''
  while True:
    try:
      part = os.read(ours, 4096)
    except OSError:  # how a terminal ends on Linux
      break
    if not part:
      break
    output += part
  assert process.wait() == 0
  lines = []
  for line in output.decode().replace('\r\n', '\n').split('\n'):
    line = re.sub(r'\x1b\[[A-Z]', '', line)
    shown = [part.strip() for part in line.split('\r') if part.strip()]
    lines.append(shown[-1] if shown else '')  # what overwrote the rest
  assert lines[:2] == ['resuming', 'evaluation'] and lines[3:] == ['end', '']
  assert re.fullmatch(r'step 4/4 \|\S+\| loss 4  ETA 0:00  \S+ images/s', lines[2])
  assert ', ' not in lines[2]


def events_in(folder):
  """(tag, step, value) of each scalar, as TensorBoard's accumulator reads them."""
  reader = event_accumulator.EventAccumulator(str(folder))
  reader.Reload()
  return [(tag, event.step, event.value)
          for tag in reader.Tags()['scalars'] for event in reader.Scalars(tag)]


def test_events_are_what_tensorboard_reads(tmp_path):
  """Every finite figure, in float32; those of a resumed run in a file of their own."""
  with writers.open_writers(str(tmp_path), 0) as write:
    write({'step': 1, 'kind': 'train', 'loss': 0.1, 'nothing': math.nan})
    assert events_in(tmp_path / 'tensorboard'), 'not before it is closed'
    write({'step': 1, 'kind': 'eval', 'evals': {'test': {'ncr': {'0.4': 1}, 'n': 9}}})
  with writers.open_writers(str(tmp_path), 1) as write:
    write({'step': 2, 'kind': 'train', 'loss': 3e9})
  assert len(list((tmp_path / 'tensorboard').iterdir())) == 2
  assert sorted(events_in(tmp_path / 'tensorboard')) == [
      ('eval/evals/test/n', 1, 9), ('eval/evals/test/ncr/0.4', 1, 1),
      ('train/loss', 1, np.float32(0.1)), ('train/loss', 2, 3e9)]


def test_no_events_where_they_are_not_asked_for(tmp_path):
  with writers.open_writers(str(tmp_path), 0, tensorboard=False) as write:
    write({'step': 1, 'kind': 'train', 'loss': 0.5})
  assert [path.name for path in tmp_path.iterdir()] == [writers.METRICS]


def full_disk(monkeypatch, tmp_path):
  """A file of events on a disk that is full."""
  def open_full(folder):
    return open('/dev/full', 'wb')

  monkeypatch.setattr(writers, '_open_events', open_full)
  return 'No space left on device'


def no_folder(monkeypatch, tmp_path):
  (tmp_path / 'tensorboard').touch()
  return 'File exists'


def no_tensorboard(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'tensorboard.compat.proto', None)
  return 'tensorboard.compat.proto'


@pytest.mark.parametrize('trouble', [full_disk, no_folder, no_tensorboard])
def test_events_that_cannot_be_written_stop_nothing(
    trouble, tmp_path, monkeypatch, caplog):
  """They are told of once, and metrics.jsonl has every record."""
  reason = trouble(monkeypatch, tmp_path)
  with writers.open_writers(str(tmp_path), 0) as write:
    for step in (1, 2):
      write({'step': step, 'kind': 'train', 'loss': 0.5})
  assert [r['step'] for r in read(tmp_path)] == [1, 2]
  assert caplog.text.count('TensorBoard events cannot be written') == 1
  assert reason in caplog.text
