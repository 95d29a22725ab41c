"""Output that cannot be written any more stops nothing, and shows no traceback."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

TALK = """
import sys
from absl import logging
from nat_jax.runtime import console, writers
console.guard()
console.guard()
progress = writers.Progress(total=100)
for step in range(1, 101):
  progress(step, images=8, text='x' * 1000)
logging.error('y' * 1000)
print('z', file=sys.stderr, flush=True)
progress.close()
with open(sys.argv[1], 'w') as file:
  file.write(f'{type(sys.stdout.stream).__name__} {sys.stdout.isatty()}')
"""


@pytest.mark.process
@pytest.mark.parametrize('redirection', [
    '| head -n 1', '2>&1 | head -n 1', '> /dev/full', '> /dev/full 2>&1', '>&-',
    '>&- 2>&-'])
def test_lost_output(redirection, tmp_path):
  """The program goes on, ends with status 0, and Python's end says nothing either."""
  ran = subprocess.run(
      ['bash', '-c', f'"$0" -c "$1" "$2" {redirection}; exit ${{PIPESTATUS[0]}}',
       sys.executable, TALK, str(tmp_path / 'end')],
      cwd=ROOT, text=True, capture_output=True)
  assert ran.returncode == 0, ran.stderr
  assert 'Traceback' not in ran.stderr and 'Exception ignored' not in ran.stderr
  assert (tmp_path / 'end').read_text() == 'TextIOWrapper False'
  if '2>' not in redirection:
    assert ran.stderr.endswith('z\n')


@pytest.mark.process
def test_names_that_the_encoding_lacks():
  ran = subprocess.run(
      [sys.executable, '-c', 'from nat_jax.runtime import console; console.guard(); '
       'print("\u732b")'],
      cwd=ROOT, env={'PYTHONIOENCODING': 'ascii'}, text=True, capture_output=True)
  assert (ran.returncode, ran.stdout) == (0, '\\u732b\n')
