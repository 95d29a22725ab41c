"""The program as its users start it: help, killing and stopping it."""

import errno
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import toy
from tensorboard.backend.event_processing import event_file_loader

from nat_jax import commands, train
from nat_jax.commands import report
from nat_jax.runtime import checkpoint

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 3000


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('main')
  toy.write_config(path, STEPS)
  return path


def start(folder, workdir):
  return subprocess.Popen(
      toy.command(folder, workdir), env=toy.environment(folder), cwd=ROOT, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def logged(workdir, kind='train'):
  return [r['step'] for r in toy.records(workdir, kind)]


@pytest.mark.process
@pytest.mark.slow
def test_killed_and_stopped_run_ends_as_an_undisturbed_one(folder):
  """Stopped by three signals, kill -9 three times at random, then left to finish."""
  undisturbed = start(folder, 'undisturbed')
  rng = random.Random(0)

  before = 0
  for number, status in ((signal.SIGTERM, 0), (signal.SIGINT, 130),
                         (signal.SIGHUP, 129)):
    process = start(folder, 'disturbed')
    toy.wait_for(process, f'/{STEPS}')
    process.send_signal(number)
    rest = toy.wait_for(process, f'stopped by {number.name}; saved at step')
    end, _ = process.communicate(timeout=60)
    assert process.returncode == status and 'Traceback' not in rest + end
    assert 'The same command goes on from there' in rest
    stopped = checkpoint.list_steps(folder / 'disturbed')[-1]
    assert f'saved at step {stopped} of {STEPS}' in rest and before < stopped < STEPS
    assert not (folder / 'disturbed' / 'eval.json').exists()
    before = stopped

  for kill in range(3):
    process = start(folder, 'disturbed')
    toy.wait_for(process, 'resuming')
    if kill != 1:  # once right after the start
      toy.wait_for(process, f'/{STEPS}')
      time.sleep(rng.uniform(0, 0.4))
    process.kill()
    process.communicate()
  done = logged(folder / 'disturbed')[-1]
  assert done < STEPS, 'raise STEPS: the run was over before it was killed'

  output, _ = start(folder, 'disturbed').communicate(timeout=120)
  assert f'step {STEPS}/{STEPS}' in output and 'NCR_t' in output
  undisturbed.communicate(timeout=120)
  assert undisturbed.returncode == 0
  one, other = folder / 'undisturbed', folder / 'disturbed'
  jax.tree.map(
      np.testing.assert_array_equal, toy.final_state(one), toy.final_state(other))
  assert (one / 'eval.json').read_bytes() == (other / 'eval.json').read_bytes()
  assert logged(one) == logged(other) == list(range(50, STEPS + 1, 50))
  assert logged(other, 'eval') == [STEPS]
  for a, b in zip(toy.records(one), toy.records(other), strict=True):
    for name in ('loss', 'loss_positive', 'accuracy', 'grad_norm'):
      assert a[name] == pytest.approx(b[name], rel=1e-6), (a['step'], name)
  assert (one / 'report.html').exists()


@pytest.mark.process
def test_interrupted_before_anything_is_saved(folder):
  """One sentence that says so, however often Ctrl-C is pressed."""
  process = start(folder, 'interrupted')
  toy.wait_for(process, '== toy:nat')
  process.send_signal(signal.SIGINT)
  rest, _ = process.communicate(timeout=60)
  assert process.returncode == 130
  assert re.fullmatch(
      r'interrupted; nothing is saved in \S+ yet, so that the same command starts from '
      r'the beginning\n',
      rest)


@pytest.mark.process
def test_lost_viewer_does_not_stop_training(folder):
  """Both outputs go to a reader that leaves after the first line."""
  args = toy.command(folder, 'viewed', '--config.steps=100')
  ran = subprocess.run(
      ['bash', '-c', '"$@" 2>&1 | head -n 1; exit ${PIPESTATUS[0]}', '-', *args],
      env=toy.environment(folder), cwd=ROOT, text=True, capture_output=True,
      timeout=120)
  assert (ran.returncode, ran.stdout.count('\n'), ran.stderr) == (0, 1, '')
  assert logged(folder / 'viewed') == [50, 100]
  assert (folder / 'viewed' / 'report.html').exists()


ALL_MODES = """
from absl import app
from nat_jax import main
from nat_jax.commands import COMMANDS, flags
def run(argv):
  main.main(argv)
  from nat_jax.commands.evaluate import evaluate_run
  evaluate_run(flags.WORKDIR.value)
  COMMANDS['report']([flags.WORKDIR.value])
app.run(run, flags_parser=main.parse)
"""


def forbidding(folder, library):
  """An environment in which importing a library ends in an error of another kind than
  where it is missing."""
  package = folder / f'no_{library}' / library
  package.mkdir(parents=True, exist_ok=True)
  (package / '__init__.py').write_text('raise RuntimeError("not to be imported")')
  return toy.environment(folder, PYTHONPATH=str(package.parent))


@pytest.mark.process
def test_imports_no_tensorflow(folder):
  """Trains with TensorBoard events, evaluates and reports."""
  args = toy.command(folder, 'without', '--config.steps=3', '--config.run.tensorboard')
  ran = subprocess.run(
      [sys.executable, '-c', ALL_MODES, *args[3:]], cwd=ROOT, text=True,
      env=forbidding(folder, 'tensorflow'), capture_output=True, timeout=120)
  assert ran.returncode == 0, ran.stdout + ran.stderr
  workdir = folder / 'without'
  for name in ('report.html', 'eval.json'):
    assert (workdir / name).exists()
  [events] = (workdir / 'tensorboard').iterdir()
  tags = {value.tag for event in event_file_loader.EventFileLoader(
      str(events)).Load() for value in event.summary.value}
  assert {'train/loss', 'eval/evals/test/accuracy'} <= tags


@pytest.mark.process
@pytest.mark.parametrize('args', [
    ['--modd=train'], ['--mode=trian'], ['--config.stepz=3'], ['--config.loss.nam=nat'],
    ['--config.steps=0'], ['stray']])
def test_mistyped_words_are_told_before_jax_is_imported(args, folder):
  ran = subprocess.run(
      toy.command(folder, 'bad', *args), env=forbidding(folder, 'jax'), cwd=ROOT,
      text=True, capture_output=True)
  assert ran.returncode == 1 and ran.stderr.startswith('error: '), ran.stderr
  assert 'not to be imported' not in ran.stderr


@pytest.mark.process
def test_help_and_mistakes_as_processes(folder):
  told = subprocess.run(
      [sys.executable, '-m', 'nat_jax.main', '--help'], cwd=ROOT, text=True,
      capture_output=True, env=forbidding(folder, 'jax'))
  for part in ('--config configs/digits.py', '--workdir', '--mode', '--step',
               '--[no]overwrite', '--images', 'python -m nat_jax.main --mode=report'):
    assert part in told.stdout
  assert max(map(len, told.stdout.splitlines())) <= 90
  ran = subprocess.run(
      toy.command(folder, 'bad', '--config.num_classes=2'), env=toy.environment(folder),
      cwd=ROOT, text=True, capture_output=True)
  assert ran.returncode == 1
  assert re.search('error: num_classes is 2, and data.positives has 3', ran.stderr)
  assert 'Traceback' not in ran.stderr and not (folder / 'bad').exists()


@pytest.mark.parametrize('args, message', [
    (['--config.foo=1'], "'foo'.*batch_size, "),
    (['--config.run.foo=1'], "run.'foo'.*run.checkp"),
    (['--config.model.depth=1'], "'depth'.*--config"),
    (['--config.steps=many'], "'many'"),
    (['--config', '{folder}/toy.py:plain'], "'plain'.*nat"),
    (['--config', '{folder}/nowhere.py'], 'nowhere.py'),
    (['--config', '{folder}/broken.py'], 'broken.py, line 1: '),
    (['--config={folder}/nothing.py'], 'nothing.py: .*get_config.*NoneType'),
    (['--config={folder}/division.py'], 'division.py, line 2: ZeroDivisionError'),
    (['--config.data=3'], 'data is a group.*--config.data.KEY=VALUE'),
    (['--config.schedule.lerning_rate=1'],
     r"'lerning_rate' in schedule .did you mean 'learning_rate'.*--config.KEY"),
    (['--config.batch_size=3'],  # a key of other tasks
     r"'batch_size' in it .did you mean 'data.batch_size'"),
    (['--config.model=resnet'], '--config.model.name=resnet'),
    (['--mode=repotr'], r"'repotr' .did you mean 'report'"),
    (['--config.ema_decay=2'], r'ema_decay.*\[0, 1\).*2'),
    (['--mode=predict', '--images=.', '--threshold=nan'], 'threshold.*0.*1.*nan'),
    (['--mode=generate', '--num=0'], r'num.*\[1, 1e7\].*0'),
    (['--mode=generate', '--seed=-1'], r'seed.*\[0, 4294967295\].*-1'),
    (['--step=x'], '--step=x'),
    (['--mode=foo'], 'train|evaluate|predict|report'),
    (['--wokdir=x'], "'wokdir'.*workdir"),
    (['stray'], r"\['stray'\].*--mode=report"),
    (['--workdir='], r'--mode=train needs --workdir, such as --workdir runs/nat\n'),
    (['--mode=embed', '--images=a'], 'embed needs --backbone, such as --backbone jax:'),
    (['--mode=evaluate'], "give both --config and --out, got --out=''"),
    (['--mode=evaluate', '--out=more'], 'nowhere.*--config CONFIG --workdir'),
    (['--mode=evaluate', '--config.seed=2'],
     '--mode=evaluate.*--config.seed'),
    (['--mode=predict'], '--mode=predict.*--images'),
    (['--mode=report'], 'nowhere is not the workdir of a run'),
    (['--config.data.mean[0]=1'], 'elements of a tuple .* cannot be changed one by'),
    (['--config.run.log_every=0'], r'run.log_every.*\[1, 1e9\].*0'),
])
def test_mistakes_on_the_command_line(args, message, folder, monkeypatch):
  """One message, exit status 1 and no file."""
  (folder / 'broken.py').write_text('def get_config(:')
  (folder / 'nothing.py').write_text('def get_config():\n  pass')
  (folder / 'division.py').write_text('def get_config():\n  return 1 / 0')
  files = lambda: {  # noqa: E731
      p for p in folder.iterdir() if p.name != '__pycache__'}  # Python may keep one
  before = files()
  args = [arg.format(folder=folder) for arg in args]
  mode = next((arg for arg in args if arg.startswith('--mode=')), '--mode=train')
  if mode in ('--mode=train', '--mode=evaluate'):
    args = ['--config', str(folder / 'toy.py'), *args]
  with pytest.raises(SystemExit, match=f'(?s)^error: .*{message}'):
    toy.run_main(monkeypatch, '--workdir', str(folder / 'nowhere'), *args)
  assert files() == before


@pytest.mark.parametrize('error, told', [
    (MemoryError('Unable to allocate 7 TiB'), True), (MemoryError(), True),
    (jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory'), True),
    (jax.errors.JaxRuntimeError('INTERNAL: a mistake of the program'), False)])
def test_lack_of_memory_is_told_in_a_sentence(error, told, folder, monkeypatch):
  def fail(*args):
    raise error

  monkeypatch.setattr(train, 'train', fail)
  expected = SystemExit if told else jax.errors.JaxRuntimeError
  with pytest.raises(expected) as caught:
    toy.run_main(monkeypatch, '--mode=train', '--config', str(folder / 'toy.py'),
             '--workdir', str(folder / 'memory'))
  if told:
    assert caught.value.code.startswith('error: ')
    assert '--config.data.batch_size' in caught.value.code
    assert '--config.run.placement=streamed' in caught.value.code


@pytest.mark.parametrize('number, wanted, status', [
    (signal.SIGTERM, None, 0), (signal.SIGTERM, '143', 143), (signal.SIGHUP, '7', 129)])
def test_exit_status_after_a_signal(number, wanted, status, folder, monkeypatch):
  def stop(*args):
    raise train.Preempted(number, 'saved')

  monkeypatch.setattr(train, 'train', stop)
  if wanted:
    monkeypatch.setenv('NAT_JAX_SIGTERM_STATUS', wanted)
  with pytest.raises(SystemExit) as stopped:
    toy.run_main(monkeypatch, '--mode=train', '--config', str(folder / 'toy.py'),
                 '--workdir', str(folder / 'stopped'))
  assert stopped.value.code == status


@pytest.mark.parametrize('wanted', ['many', '256', '-1'])
def test_exit_status_that_is_none(wanted, folder, monkeypatch):
  monkeypatch.setenv('NAT_JAX_SIGTERM_STATUS', wanted)
  with pytest.raises(SystemExit, match=f'^error: .*0 to 255.*{wanted}'):
    toy.run_main(monkeypatch, '--mode=train', '--config', str(folder / 'toy.py'),
                 '--workdir', str(folder / 'nowhere'))


def test_a_dry_run_checks_and_trains_nothing(folder, monkeypatch, capsys):
  workdir = folder / 'dry'
  args = ('--mode=train', '--dry_run', '--config', f'{folder}/toy.py', '--workdir',
          str(workdir))
  toy.run_main(monkeypatch, *args)
  said = capsys.readouterr().out
  assert said.startswith('trains one run:\n  ') and f'-> {workdir}\n' in said
  with pytest.raises(SystemExit, match=r'^error: steps.*-1'):
    toy.run_main(monkeypatch, *args, '--config.steps=-1')
  assert not workdir.exists()


def test_all_runs_are_checked_before_the_first_is_trained(folder, monkeypatch, capsys):
  """With a comparison run, which is trained first; and its place beside `.`."""
  workdir = folder / 'checked'
  workdir.mkdir()
  monkeypatch.chdir(workdir)
  monkeypatch.setattr(train, 'train', lambda *args: pytest.fail('it was trained'))
  args = ('--mode=train', '--config', 'digits:nat', '--workdir', '.')
  broken = "--config.data.negatives.digits_6_7.source.classes=(77,)"
  for more in ((), ('--dry_run',)):
    with pytest.raises(SystemExit, match='^error: .*77'):
      toy.run_main(monkeypatch, *args, broken, *more)
  assert f'digits:baseline -> {workdir}-baseline' in capsys.readouterr().out
  assert not list(workdir.iterdir())


@pytest.mark.parametrize('error', [AssertionError(), RuntimeError('no backend tpu')])
def test_devices_that_are_not_there(error, folder, monkeypatch):
  def devices(*args):
    there = {'error': error}
    exec(compile('raise error', '/x/jax/_src/xla_bridge.py', 'exec'), there)

  monkeypatch.setattr(train, 'train', devices)
  args = ('--mode=train', '--config', str(folder / 'toy.py'), '--workdir',
          str(folder / 'devices'))
  monkeypatch.setenv('JAX_PLATFORMS', 'x')
  with pytest.raises(SystemExit, match='^error: JAX finds no device of JAX_PLATFORMS='):
    toy.run_main(monkeypatch, *args)
  monkeypatch.delenv('JAX_PLATFORMS')
  with pytest.raises(type(error)):
    toy.run_main(monkeypatch, *args)


def test_an_empty_variant_is_the_default_one(folder, monkeypatch):
  with pytest.raises(SystemExit, match=r'^error: steps.*-1'):
    toy.run_main(monkeypatch, f'--config={folder}/toy.py:', '--mode=train',
                 '--workdir', str(folder / 'nowhere'), '--config.steps=-1')


def test_report_that_cannot_be_written(tmp_path, monkeypatch):
  """The sentence names the place and says that nothing of the runs is lost."""
  def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(report, '_load', lambda workdirs: (None, None))
  monkeypatch.setattr(report, '_as_text', full)
  with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'.*"
                     f'--mode=report {tmp_path}'):
    report.show([str(tmp_path)])


def test_second_run_of_a_pair_is_checked_before_the_first_trains(folder, monkeypatch):
  """A workdir that holds something else is found before any work is spent."""
  trained = []
  monkeypatch.setattr(train, 'train', lambda *args: trained.append(args))
  (folder / 'pair').mkdir()
  (folder / 'pair' / 'config.json').write_text('{}')
  with pytest.raises(SystemExit, match='error: .*pair'):
    toy.run_main(monkeypatch, '--mode=train', '--config', str(folder / 'toy.py'),
             '--config.compare_with=nat', '--workdir', str(folder / 'pair'))
  assert trained == []


def test_a_flag_of_another_mode_is_refused(monkeypatch):
  for args, message in (
      (('--mode=evaluate', '--accept=0.9'), '--mode=evaluate.*--accept.*calibrate'),
      (('--mode=report', '--format=png'), '--mode=report.*--format.*--mode=generate'),
      (('--mode=posthoc', '--top=3'), '--mode=posthoc.*--top.*influence and .*predict'),
      (('--mode=predict', '--config=digits:nat'), '--mode=predict.*--config.*=train'),
  ):
    with pytest.raises(SystemExit, match=message):
      toy.run_main(monkeypatch, *args, '--workdir=nowhere')


@pytest.mark.parametrize('given, message', [
    ((), 'needs --config and --workdir, such as --config digits:nat --workdir runs/'),
    (('--workdir=runs/a',), 'needs --config, such as --config digits:nat\n'),
])
def test_what_a_training_lacks_is_named(given, message, monkeypatch):
  with pytest.raises(SystemExit, match=f'^error: --mode=train {message}'):
    toy.run_main(monkeypatch, *given)


def test_the_help_of_every_flag_names_its_modes():
  found = {flag.name: commands.flags.modes_of(flag)
           for flag in commands.flags.all_flags()}
  assert [name for name, modes in found.items() if not modes] == ['workdir']
  assert set().union(*found.values()) <= set(commands.COMMANDS)
  assert found['top'] == {'predict', 'influence'} and found['on'] == {'sweep'}
