"""Several processes that train one run: agreement, losses, restarts, outputs."""

import json
import pathlib
import re
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy

from nat_jax.runtime import checkpoint

pytestmark = [pytest.mark.process, pytest.mark.slow]

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 160
OFTEN = ('--config.run.log_every=10', '--config.run.checkpoint_every=10')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('hosts')
  toy.write_config(path, STEPS)
  return path


@pytest.fixture(scope='module')
def alone(folder):
  """The workdir of a run of one process that nothing disturbed."""
  [process] = start(folder, 1, 'alone')
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 0, output
  return folder / 'alone'


def start(folder, num, *workdirs, args=OFTEN, program=()):
  """Starts `num` processes of one device each, all in one workdir or in one each."""
  env = dict(NAT_JAX_NUM_PROCESSES=str(num), NAT_JAX_COORDINATOR=f'127.0.0.1:{port()}')
  started = []
  for k in range(num):
    command = toy.command(folder, workdirs[k % len(workdirs)], *args)
    if program:
      command = [sys.executable, '-c', *program, *command[3:]]
    joined = dict(env, NAT_JAX_DISTRIBUTED='1', NAT_JAX_PROCESS_ID=str(k))
    started.append(subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=toy.environment(folder, **(joined if num > 1 else {}))))
  return started


def port():
  """A TCP port that no other program uses."""
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    return found.getsockname()[1]


def ended(started, seconds=120):
  """The outputs and exit statuses of processes, once all have ended.

  Without the line that Gloo, which connects CPUs, prints itself.
  """
  outputs = [process.communicate(timeout=seconds)[0] for process in started]
  outputs = [re.sub(r'(?m)^\[Gloo\] Rank .*\n', '', output) for output in outputs]
  return outputs, [process.returncode for process in started]


def assert_close(one, other):
  toy.assert_trees_close(toy.final_state(one), toy.final_state(other), atol=1e-5)


def test_two_processes_train_as_one(folder, alone):
  """launch/local.sh: two processes of two devices each."""
  ran = subprocess.run(
      [str(ROOT / 'launch' / 'local.sh'), '2', *toy.command(folder, 'two', *OFTEN)],
      env=toy.environment(folder, DEVICES='2', PORT=str(port())),
      cwd=ROOT, text=True, capture_output=True, timeout=180)
  assert ran.returncode == 0, ran.stdout + ran.stderr
  assert ran.stdout.count(f'step {STEPS}/{STEPS}  evaluation') == 1
  assert ran.stdout.count('report: ') == 1
  assert_close(alone, folder / 'two')
  one, two = (json.loads((workdir / 'eval.json').read_text())
              for workdir in (alone, folder / 'two'))
  assert one['evals']['test']['accuracy'] == two['evals']['test']['accuracy']


WRITES = """
import os, sys
workdir = os.path.abspath(sys.argv[sys.argv.index('--workdir') + 1])
changed = []
def hook(event, args):
  writes = event == 'open' and isinstance(args[2], int) and args[2] & (
      os.O_WRONLY | os.O_RDWR | os.O_CREAT)
  if writes or event in ('os.mkdir', 'os.rename', 'os.remove', 'os.rmdir'):
    path = os.path.abspath(os.fsdecode(args[0])) if not isinstance(args[0], int) else ''
    if path.startswith(workdir) and os.sep + 'checkpoints' not in path:
      changed.append(os.path.relpath(path, os.path.dirname(workdir)))
sys.addaudithook(hook)
from absl import app
from nat_jax import main
def run(argv):
  main.main(argv)
  print('written:', *sorted(set(changed)))
app.run(run, flags_parser=main.parse)
"""


def test_first_process_alone_writes_and_prints(folder):
  outputs, statuses = ended(start(
      folder, 2, 'written', args=(*OFTEN, '--config.steps=20'), program=(WRITES,)))
  assert statuses == [0, 0], outputs
  assert outputs[1] == 'written:\n'
  written = outputs[0].split('written:')[1].split()
  for name in ('config.json', 'metrics.jsonl', 'report.html'):
    assert any(f'written/{name}' in path for path in written), (name, written)
  records = [r['step'] for r in toy.records(folder / 'written')]
  assert records == [10, 20]  # each once


@pytest.mark.parametrize('which', ['new', 'resumed'])
def test_folder_that_is_not_shared(which, folder):
  """All processes say so, and nothing is left behind or changed."""
  own = [f'{which}-{k}' for k in range(2)]
  if which == 'resumed':  # as if the first host had trained alone before
    [process] = start(folder, 1, own[0], args=(*OFTEN, '--config.steps=20'))
    assert ended([process])[1] == [0]
  before = sorted(folder.rglob('*'))
  outputs, statuses = ended(start(
      folder, 2, *own, args=(*OFTEN, '--config.steps=20')), 60)
  assert statuses == [1, 1], outputs
  for name, output in zip(own, outputs, strict=True):
    assert re.search(rf'error: .*do not share the folder .*{name}', output)
    assert 'Traceback' not in output
  after = sorted(folder.rglob('*'))
  assert [path for path in after if 'cache' not in path.parts] == [
      path for path in before if 'cache' not in path.parts]


def test_signal_of_one_process_saves_and_another_number_resumes(folder, alone):
  """2 processes, then 1, then 4: each goes on where the one before was stopped."""
  at = 0
  for num, victim in ((2, 1), (1, 0)):
    started = start(folder, num, 'changing')
    toy.wait_for(started[0], f'step {at + 20}/{STEPS}')
    started[victim].send_signal(signal.SIGTERM)
    outputs, statuses = ended(started, 60)
    assert statuses == [0] * num, outputs
    at = checkpoint.list_steps(folder / 'changing')[-1]
    assert f'stopped by SIGTERM; saved at step {at} of {STEPS}' in outputs[0]
    assert at < STEPS and not any(outputs[1:])
  outputs, statuses = ended(start(folder, 4, 'changing'), 240)
  assert statuses == [0] * 4, outputs
  assert f'resuming {folder / "changing"} at step {at}' in outputs[0]
  assert_close(alone, folder / 'changing')
  assert [r['step'] for r in toy.records(folder / 'changing')] == [
      *range(10, STEPS + 1, 10)]


@pytest.mark.parametrize('num, victims', [(2, (1, 0)), (4, (2,))])
def test_lost_process(num, victims, folder, request):
  """kill -9: the others say so and end; the same command ends as if undisturbed."""
  name = request.node.callspec.id
  undisturbed = folder / f'undisturbed-{num}'
  if not undisturbed.exists():
    outputs, statuses = ended(start(folder, num, undisturbed.name), 240)
    assert statuses == [0] * num, outputs
  for i, victim in enumerate(victims):
    started = start(folder, num, name)
    step = 40 * (i + 1)
    toy.wait_for(started[0], f'step {step}/{STEPS}')
    started[victim].kill()
    outputs, statuses = ended(started, 60)
    for k in set(range(num)) - {victim}:
      assert statuses[k] != 0
      assert outputs[k].count('a process was lost; start again to resume') == 1
      for words in ('stack trace', 'Traceback', 'Fatal Python error', 'Gloo all'):
        assert words not in outputs[k]
    saved = checkpoint.list_steps(folder / name)[-1]
    # Checkpoints are written in the background: of the last one it may be a part.
    assert step - 20 <= saved < STEPS
  outputs, statuses = ended(start(folder, num, name), 240)
  assert statuses == [0] * num, outputs
  assert f'resuming {folder / name} at step {saved}' in outputs[0]
  jax.tree.map(np.testing.assert_array_equal,
               toy.final_state(undisturbed), toy.final_state(folder / name))
  assert (undisturbed / 'eval.json').read_bytes() == (
      folder / name / 'eval.json').read_bytes()
