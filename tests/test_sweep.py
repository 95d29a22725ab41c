"""--mode=sweep: the list of jobs, the processes of this machine, Slurm and SkyPilot."""

import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
import toy
import yaml
from PIL import Image

from nat_jax.commands import jobs, pool, sweep
from nat_jax.data import tfds_source
from nat_jax.runtime import checkpoint

# `lazy` needs a folder of pictures beside the file, which the checks do not look into.
CONFIG = """
import pathlib
from nat_jax.schema import presets

def get_config(variant='good'):
  if variant not in ('good', 'long', 'lazy', 'other'):
    raise ValueError(f'unknown variant {variant!r}; valid: good, long, lazy, other')
  source = {'name': 'fake', 'num': 32, 'shape': (6, 6, 1), 'classes': (0, 1)}
  folder = str(pathlib.Path(__file__).parent / 'pictures')
  return presets.experiment(
      name='toy', variant=variant, num_classes=2, compare_with='other',
      steps=200_000 if variant == 'long' else 4,
      model={'name': 'small_conv', 'widths': (4,)}, loss={'name': 'cross_entropy'},
      data=dict(batch_size=4, negatives_per_batch=0, positives=(
          {'name': 'folder', 'path': folder, 'size': 6, 'mode': 'L'}
          if variant == 'lazy' else source)),
      evals={'test': {'source': source, 'positive': True}},
      run=dict(log_every=2, tensorboard=False))
"""


@pytest.fixture
def config(tmp_path):
  """A config file, as text."""
  path = tmp_path / 'toy.py'
  path.write_text(CONFIG)
  return str(path)


def sweep_command(out, *args):
  return [sys.executable, '-m', 'nat_jax.main', '--mode=sweep', '--workdir', str(out),
          *args]


def environment(folder):
  return os.environ | {
      'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1', 'PYTHONUNBUFFERED': '1',
      'JAX_COMPILATION_CACHE_DIR': str(folder / 'cache'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}


def run(folder, out, *args):
  return subprocess.run(
      sweep_command(out, *args), env=environment(folder), cwd=toy.ROOT, text=True,
      capture_output=True, timeout=600)


# ---- the list of jobs ---------------------------------------------------------------


def test_a_folder_that_is_a_file(tmp_path, monkeypatch):
  (tmp_path / 'out').touch()
  with pytest.raises(SystemExit, match='^error: --workdir must be a folder.*is a file'):
    toy.run_main(monkeypatch, '--mode=sweep', '--workdir', f'{tmp_path}/out', 'digits')


def test_dry_run_lists_jobs_and_report(tmp_path, monkeypatch, capsys):
  """A workdir for each config and seed, the changes with each, a report at the end."""
  monkeypatch.setattr(sweep.prepare, 'check', lambda configs: list(configs))
  monkeypatch.chdir(toy.ROOT)
  for folder in ('pets/cat', 'pets/dog', 'others'):
    (tmp_path / folder).mkdir(parents=True)
  out, pictures = tmp_path / 'out', f'{tmp_path}/pets,{tmp_path}/others'
  sources = ['configs/digits.py', 'configs/nat/svhn.py:nat_small',
             f'configs/pictures.py:{pictures}']
  toy.run_main(
      monkeypatch, '--mode=sweep', '--workdir', f'{out}/', '--seeds', '0,1', *sources,
      '--config.steps=9', '--dry_run')
  *lines, last = capsys.readouterr().out.splitlines()
  names = ['digits', 'svhn-nat_small', 'pictures-' + pictures.replace('/', '_')]
  workdirs = [f'{out}/{name}-{seed}' for seed in (0, 1) for name in names]
  assert lines == [
      f'python -m nat_jax.main --config {source} --workdir {workdir} '
      f'--config.seed={workdir[-1]} --config.compare_with= --config.steps=9'
      for source, workdir in zip(sources * 2, workdirs, strict=True)]
  assert last == (
      f'python -m nat_jax.main --mode=report --workdir {out} {" ".join(workdirs)}')
  assert not out.exists()


def test_jobs_have_the_configs_that_their_commands_train(config):
  first, second = jobs.list_jobs(
      [config, '--config.data.batch_size=16', '--config.run.tensorboard'],
      ['3', '5'], 'out', ['--overwrite'])
  assert (first.config.seed, second.config.seed) == (3, 5)
  assert first.config.compare_with == '' and first.config.run.tensorboard
  assert first.config.data.batch_size == 16
  assert first.changes == {'seed': 3, 'compare_with': '', 'data.batch_size': 16,
                           'run.tensorboard': True}
  assert second.name == 'toy-5' and second.workdir == 'out/toy-5'
  assert jobs.command(second.args, '/bin/python') == [
      '/bin/python', '-m', 'nat_jax.main', '--config', config, '--workdir', 'out/toy-5',
      '--config.seed=5', '--config.compare_with=', '--config.data.batch_size=16',
      '--config.run.tensorboard', '--overwrite']


@pytest.mark.process
def test_accelerators_are_left_to_the_runs(tmp_path):
  """The sweep itself does not start a backend, which here is one that is missing."""
  env = environment(tmp_path) | {'JAX_PLATFORMS': 'cuda'}
  config = 'configs/gan/digits.py:nat3'  # asks whether its classifier is trained
  ran = [subprocess.run(
      sweep_command(tmp_path / 'out', config, *args), env=env, cwd=toy.ROOT, text=True,
      capture_output=True) for args in (['--dry_run'], [])]
  assert ran[0].returncode == 0 and f'--config {config}' in ran[0].stdout, ran[0].stderr
  assert ran[1].returncode == 1 and 'error: JAX finds no device: ' in ran[1].stderr
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('args, message', [
    ([], 'at least one config.*configs/digits.py:nat'),
    (['{}/nowhere.py'], 'nowhere.py'),
    (['{}/toy.py:bad'], "'bad'.*valid: good"),
    (['{}/toy.py', '{}/toy.py'], 'toy.py is listed twice'),
    (['{}/toy.py:good', '{}/copy/toy.py:good'], 'toy.py:good and .*copy/toy.py:good.*'
     'out/toy-good-0.*two folders'),
    (['{}/toy.py', '--seeds=0,x'], "--seeds.*0,1,2.*'x'"),
    (['{}/toy.py', '--seeds='], '--seeds.*0,1,2.*none'),
    (['{}/toy.py', '--seeds=1,0,1'], '--seeds must differ.* 1 '),
    (['{}/toy.py', '--seeds=-1'], 'seed.*-1'),
    (['{}/toy.py', '--config.seed=3'], '--seeds.*--config.seed=3'),
    (['{}/toy.py', '--config.stepz=3'], "'stepz'"),
    (['{}/toy.py', '--config.model.depth=3'], "'depth'.*--config.KEY"),
    (['{}/toy.py', '--config.steps=few'], 'few'),
    (['{}/toy.py', '--config.steps=0'], 'steps.*0'),
    (['{}/toy.py', '--config.steps', '9'], 'steps'),
    (['--config={}/toy.py'], 'without --config'),
    (['{}/toy.py', '--workdir='], '--mode=sweep needs --workdir'),
    (['{}/toy.py', '--on=moon'], "moon.*here"),
    (['{}/toy.py', '--jobs=0'], '--jobs=0'),
    (['{}/toy.py', '--jobs=1000'], r'--jobs.*CPU cores.*1000'),
    (['{}/toy.py', '--distributed'], 'NAT_JAX_DISTRIBUTED'),
    (['{}/toy.py', '--on=skypilot'], 'bucket.*gs://.*/out'),
    (['{}/toy.py', '--submit=--qos low'], '--on=here has no --submit'),
    (['{}/toy.py', '--on=skypilot', '--jobs=2'], '--on=skypilot has no --jobs'),
    (['{}/toy.py', '--on=slurm', '--overwrite'],
     '--on=slurm has no --overwrite.*another --workdir'),
    (['{}/toy.py', '--on=skypilot', '--overwrite'], '--on=skypilot has no --overwrite'),
    (['{}/toy.py', '--workdir=gs://a/b'], 'local --workdir.*gs://a/b.*--on=skypilot'),
    (['{}/toy.py', 'configs/gan/digits.py:nat3'], r'one task.*classify.*\(gan\)'),
])
def test_mistakes_are_told_before_anything_is_started(
    args, message, config, tmp_path, monkeypatch):
  monkeypatch.setattr(pool, 'run_all', lambda *args: pytest.fail('started'))
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.chdir(toy.ROOT)
  (tmp_path / 'copy').mkdir()
  (tmp_path / 'copy' / 'toy.py').write_text(CONFIG)
  args = [arg.format(tmp_path) for arg in args]
  with pytest.raises(SystemExit, match=f'(?s)^error: .*{message}'):
    try:
      toy.run_main(monkeypatch, '--mode=sweep', '--workdir', f'{tmp_path}/out', *args)
    finally:
      toy.flags.FLAGS['distributed'].unparse()
  assert not (tmp_path / 'out').exists()


@pytest.mark.process
def test_mistakes_are_told_without_jax(config, tmp_path):
  package = tmp_path / 'no_jax' / 'jax'
  package.mkdir(parents=True)
  (package / '__init__.py').write_text('raise RuntimeError("not to be imported")')
  for args in (
      [], [config, '--config.stepz=1'], [config, '--seeds=x'], [config, config]):
    ran = subprocess.run(
        sweep_command(tmp_path / 'out', *args), cwd=toy.ROOT, text=True,
        env=os.environ | {'PYTHONPATH': str(package.parent)}, capture_output=True)
    assert ran.returncode == 1 and ran.stderr.startswith('error: '), ran.stderr


def test_workdir_of_another_config_stops_the_sweep(config, tmp_path, monkeypatch):
  """Found in the last job before the first is started; --overwrite moves it aside."""
  monkeypatch.setattr(pool, 'run_all', lambda *args: pytest.fail('started'))
  *_, last = jobs.list_jobs([config], ['0', '1'], str(tmp_path / 'out'))
  pathlib.Path(last.workdir).mkdir(parents=True)
  saved = sweep.schema.plain(last.config) | {'steps': 9}
  (pathlib.Path(last.workdir) / 'config.json').write_text(json.dumps(saved))
  args = ['--mode=sweep', '--workdir', f'{tmp_path}/out', '--seeds=0,1', config]
  with pytest.raises(SystemExit, match='toy-1.*steps: 9 -> 4.*--overwrite'):
    toy.run_main(monkeypatch, *args)
  with monkeypatch.context() as patch:
    patch.setattr(pool, 'run_all', lambda runs, slots: 0)
    toy.run_main(monkeypatch, *args, '--overwrite', '--jobs=1')
  toy.flags.FLAGS['overwrite'].unparse()


def test_a_done_run_of_another_config_is_trained_again(config, tmp_path, monkeypatch):
  """With --overwrite; its evaluation is not one of the new config."""
  job, = jobs.list_jobs([config], ['0'], str(tmp_path / 'out'))
  for name, found in (('config', sweep.schema.plain(job.config)),
                      ('eval', {'step': job.config.steps, 'evals': {}})):
    pathlib.Path(job.workdir).mkdir(parents=True, exist_ok=True)
    (pathlib.Path(job.workdir) / f'{name}.json').write_text(json.dumps(found))
  states = []
  monkeypatch.setattr(pool, 'run_all', lambda runs, slots: states.append(
      runs[0].state) or pool.signal.SIGTERM)
  monkeypatch.setattr(sweep.report, 'show', lambda done, *args: states.append('done'))
  args = ['--mode=sweep', '--workdir', f'{tmp_path}/out', config, '--overwrite']
  toy.run_main(monkeypatch, *args)
  with pytest.raises(SystemExit):
    toy.run_main(monkeypatch, *args, '--config.num_classes=3')
  toy.flags.FLAGS['overwrite'].unparse()
  assert states == ['done', 'waiting']


@pytest.mark.parametrize('place', ['here', 'slurm'])
def test_a_dry_run_looks_for_the_data(place, tmp_path, monkeypatch, capsys, caplog):
  """Nodes of Slurm may have what this machine does not."""
  monkeypatch.chdir(toy.ROOT)
  monkeypatch.setenv('NAT_JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(tfds_source, 'prepared_root', lambda: str(tmp_path))
  monkeypatch.setattr(tfds_source, '_open', missing)
  args = ['--mode=sweep', f'--on={place}', '--workdir', f'{tmp_path}/out', '--dry_run',
          'configs/nat/svhn.py:nat_small']
  if place == 'here':
    with pytest.raises(SystemExit, match='svhn_cropped(.|\n)*--mode=prepare'):
      toy.run_main(monkeypatch, *args)
    assert capsys.readouterr().out == ''
  else:
    toy.run_main(monkeypatch, *args)
    assert capsys.readouterr().out.startswith('#!')
    assert 'On this machine these data sets are neither' in caplog.text


def missing(*args):
  raise tfds_source.NotPrepared('missing')


# ---- on this machine ----------------------------------------------------------------


def test_devices_are_shared_out(monkeypatch):
  monkeypatch.setattr(pool.parallel, 'usable_cores', lambda: list(range(8)))

  def variables(*args):
    return [dict(slot.env) for slot in pool.make_slots(*args)]

  name = 'CUDA_VISIBLE_DEVICES'
  four = ['0', '1', '2', '3']
  assert variables('gpu', four, None) == [{name: x} for x in four]
  assert variables('gpu', ['2', '5', '7'], 2) == [{name: '2'}, {name: '5,7'}]
  assert variables('gpu', four, 1) == variables('tpu', four, 1) == [{}]
  chips = variables('tpu', four, None)
  assert [chip['TPU_VISIBLE_CHIPS'] for chip in chips] == four
  assert all(chip['TPU_PROCESS_BOUNDS'] == '1,1,1' for chip in chips)
  assert pool.make_slots('cpu', ['0', '1'], None) == [pool.Slot()]
  two = pool.make_slots('cpu', ['1', '3', '4', '6', '7'], 2)
  assert [slot.cores for slot in two] == [(1, 3), (4, 6, 7)]
  assert [slot.cores for slot in pool.make_slots('gpu', four, None)] == [
      (0, 1), (2, 3), (4, 5), (6, 7)]
  with pytest.raises(ValueError, match='at most.*CPU cores, which is 2, got 3'):
    pool.make_slots('cpu', ['0', '1'], 3)
  with pytest.raises(ValueError, match='1 or the number of TPU chips, which is 4'):
    pool.make_slots('tpu', four, 2)


def test_runs_share_a_gpu(monkeypatch):
  for name in pool.RESERVED:
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(pool.parallel, 'usable_cores', lambda: [0, 1, 2, 3])
  name, memory = 'CUDA_VISIBLE_DEVICES', 'XLA_CLIENT_MEM_FRACTION'
  assert pool.make_slots('gpu', ['4', '6'], 3) == [
      pool.Slot({name: '4', memory: '0.375'}, (0,)),
      pool.Slot({name: '4', memory: '0.375'}, (1,)),
      pool.Slot({name: '6', memory: '0.750'}, (2, 3))]
  five = pool.make_slots('gpu', ['0'], 5)  # fewer cores than runs: all cores for all
  assert {slot.cores for slot in five} == {()}
  assert {slot.env[memory] for slot in five} == {'0.150'}
  with pytest.raises(ValueError, match='at most 16 for each GPU, 32 in all, got 33'):
    pool.make_slots('gpu', ['4', '6'], 33)
  monkeypatch.setenv('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  assert pool.make_slots('gpu', ['4'], 2) == [
      pool.Slot({name: '4'}, (0, 1)), pool.Slot({name: '4'}, (2, 3))]


@pytest.mark.process
def test_devices_are_found_by_another_process(monkeypatch):
  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  probe = 'import os; print("gpu", 3)'
  monkeypatch.setattr(pool, 'PROBE', probe)
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  assert pool.find_devices() == ('gpu', ['0', '1', '2'])
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,6,7')
  assert pool.find_devices() == ('gpu', ['4', '6', '7'])
  monkeypatch.setattr(pool, 'PROBE', 'raise SystemExit("no such backend")')
  with pytest.raises(ValueError, match='JAX finds no device: no such backend'):
    pool.find_devices()
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert pool.find_devices()[0] == 'cpu'


def make_runs(config, out, *seeds):
  return [pool.Run(job) for job in jobs.list_jobs([config], seeds, str(out))]


def test_time_left_is_estimated_from_done_and_current_runs(config, tmp_path):
  runs = make_runs(config, tmp_path, *'01234')
  assert pool.seconds_left(runs, 2, now=100.0) is None
  runs[0].state, runs[0].seconds = 'done', 40.0
  assert pool.seconds_left(runs, 2, now=100.0) == 80  # 4 runs of 40 s in two slots
  runs[1].state, runs[1].began = 'running', 90.0
  metrics = pathlib.Path(runs[1].job.workdir, 'metrics.jsonl')
  metrics.parent.mkdir()
  metrics.write_text('{"step": 1, "kind": "train"}\n{"step": 3, "kind": "train"}\n'
                     '{"step": 2, "kind": "eval"}\n{"st')
  assert pool.share_done(runs[1].job) == 0.75
  # 10 s left of one; three of 40 s, of which two are put into the slot that is free.
  assert pool.seconds_left(runs, 2, now=100.0) == 80
  assert pool.seconds_left(runs, 1, now=100.0) == 130
  runs[0].first = 0.5  # was resumed: a whole run takes 80 s
  assert pool.seconds_left(runs, 1, now=100.0) == 20 + 3 * 80
  runs[0].state = 'failed'  # says nothing; 0.75 of a run took 10 s
  assert pool.seconds_left(runs, 1, now=100.0) == pytest.approx((0.25 + 3) / 0.075)
  assert pool.summary(runs, 1, now=100.0) == (
      '0 of 5 done, 1 running (toy-1 75%), 1 failed, ETA 0:43')


@pytest.fixture
def pretend(monkeypatch):
  """Makes jobs run a piece of Python instead, with their arguments."""
  def use(code):
    monkeypatch.setattr(
        jobs, 'command', lambda args, python='python': [python, '-c', code, *args])
  return use


@pytest.mark.process
def test_each_slot_has_a_run_at_a_time(config, tmp_path, pretend, capsys):
  """Variables and cores of the slots; a failure is told by the last line of its log."""
  pretend('''
import os, pathlib, sys, time
workdir = pathlib.Path(sys.argv[4])
workdir.mkdir()
begun = time.monotonic()
time.sleep(0.3)
alone = os.getpgrp() == os.getpid()
print(os.environ.get('SLOT'), len(os.sched_getaffinity(0)), begun, time.monotonic(),
      alone, file=open(workdir / 'told', 'w'))
if workdir.name == 'toy-1':
  sys.exit('error: no luck\\n(NAT_JAX_TRACEBACK=1 shows the traceback)')
(workdir / 'eval.json').write_text('{"step": 4, "evals": {}}')
''')
  core = min(os.sched_getaffinity(0))
  slots = [pool.Slot({'SLOT': 'a'}, (core,)), pool.Slot({'SLOT': 'b'}, (core,))]
  runs = make_runs(config, tmp_path, *'0123')
  assert pool.run_all(runs, slots) == 0
  assert [run.state for run in runs] == ['done', 'failed', 'done', 'done']
  assert runs[1].reason == 'error: no luck'
  told = [(pathlib.Path(run.job.workdir) / 'told').read_text().split() for run in runs]
  assert {cores for _, cores, *_ in told} == {'1'}
  # In a process group of its own: Ctrl-C on a terminal is for the sweep alone.
  assert {alone for *_, alone in told} == {'True'}
  for name in 'ab':
    spans = sorted((float(x), float(y)) for slot, _, x, y, _ in told if slot == name)
    assert spans and all(
        end < begin for (_, end), (begin, _) in itertools.pairwise(spans))
  out = capsys.readouterr().out
  assert f'failed {tmp_path}/toy-1: error: no luck' in out
  assert '4 running' not in out and '2 running' in out
  assert (tmp_path / 'toy-0.log').read_text().startswith(f'$ {sys.executable} -c ')


@pytest.mark.process
def test_a_failed_run_has_not_the_results_of_the_one_before(config, tmp_path, pretend):
  """With --overwrite it fails before it moves that run aside."""
  job, = jobs.list_jobs([config], ['0'], str(tmp_path), [jobs.OVERWRITE])
  saved = sweep.schema.plain(job.config) | {'num_classes': 3}
  for name, found in (('config', saved), ('eval', {'step': 4, 'evals': {}})):
    pathlib.Path(job.workdir).mkdir(exist_ok=True)
    (pathlib.Path(job.workdir) / f'{name}.json').write_text(json.dumps(found))
  pretend('import sys; sys.exit("error: no luck")')
  one = pool.Run(job)
  assert pool.run_all([one], [pool.Slot()]) == 0
  assert (one.state, one.reason) == ('failed', 'error: no luck')


@pytest.mark.process
@pytest.mark.parametrize('code, reason', [
    ('print("step 2/4"); os.kill(os.getpid(), 9)',
     'it was killed by SIGKILL, as for lack of memory'),
    ('os.abort()', 'it was killed by SIGABRT'),
    ('sys.exit(7)', 'it ended with status 7'),
    ('sys.exit("KeyError: x")', 'KeyError: x')])
def test_the_reason_is_that_of_the_last_attempt(
    code, reason, config, tmp_path, pretend):
  runs = make_runs(config, tmp_path, '0')
  pathlib.Path(pool.log_of(runs[0].job)).write_text(
      '$ python -m nat_jax.main\nerror: no luck\n')
  pretend(f'import os, sys; sys.stdout.flush(); {code}')
  pool.run_all(runs, [pool.Slot()])
  assert runs[0].reason == reason


@pytest.mark.process
def test_a_run_goes_on_from_its_checkpoint(config, tmp_path, pretend):
  """Later records, which it drops, are no progress; nor are those of another run."""
  pretend('pass')
  for flags_of_all, first in (((), 0.5), ((jobs.OVERWRITE,), 0.5),
                              ((jobs.OVERWRITE, 'other'), 0.0)):
    job, = jobs.list_jobs([config], ['0'], str(tmp_path), flags_of_all)
    workdir = pathlib.Path(job.workdir)
    (workdir / 'checkpoints' / '2').mkdir(parents=True, exist_ok=True)
    (workdir / 'metrics.jsonl').write_text('{"step": 3, "kind": "train"}\n')
    if 'other' in flags_of_all:
      (workdir / 'config.json').write_text(json.dumps(
          sweep.schema.plain(job.config) | {'num_classes': 3}))
    one = pool.Run(job)
    pool.run_all([one], [pool.Slot()])
    assert one.first == first


PATIENT = '''
import os, pathlib, signal, sys, time
workdir = pathlib.Path(sys.argv[4])
workdir.mkdir()
def stop(number, frame):
  with open(workdir / 'signals', 'a') as file:
    print(number, file=file)
  if number == signal.SIGTERM or len(open(workdir / 'signals').readlines()) == 2:
    sys.exit(0)
for number in (signal.SIGTERM, signal.SIGINT):
  signal.signal(number, stop)
(workdir / 'ready').touch()
time.sleep(60)
time.sleep(60)
'''


def interrupt_when(paths, *numbers):
  """A thread that sends this process signals, each once its file is there."""
  def send():
    for path, number in zip(paths, numbers, strict=True):
      while not path.exists():
        time.sleep(0.02)
      os.kill(os.getpid(), number)

  thread = threading.Thread(target=send, daemon=True)
  thread.start()
  return thread


@pytest.mark.process
def test_signals_are_passed_on_once(config, tmp_path, pretend):
  pretend(PATIENT)
  runs = make_runs(config, tmp_path, *'012')
  first = pathlib.Path(runs[0].job.workdir)
  thread = interrupt_when([first / 'ready'], signal.SIGTERM)
  assert pool.run_all(runs, [pool.Slot()]) == signal.SIGTERM
  thread.join()
  assert [run.state for run in runs] == ['stopped', 'waiting', 'waiting']
  assert (first / 'signals').read_text() == f'{int(signal.SIGTERM)}\n'
  assert not pathlib.Path(runs[1].job.workdir).exists()


@pytest.mark.process
def test_second_interrupt_stops_the_runs_at_once(config, tmp_path, pretend):
  pretend(PATIENT)
  runs = make_runs(config, tmp_path, *'01')
  first = pathlib.Path(runs[0].job.workdir)
  before = signal.getsignal(signal.SIGINT)
  thread = interrupt_when(
      [first / 'ready', first / 'signals'], signal.SIGINT, signal.SIGINT)
  try:
    with pytest.raises(KeyboardInterrupt):
      pool.run_all(runs, [pool.Slot()])
  finally:
    signal.signal(signal.SIGINT, before)
  thread.join()
  assert (first / 'signals').read_text() == f'{int(signal.SIGINT)}\n' * 2
  assert runs[0].process.returncode == 0


@pytest.mark.process
def test_sweep_goes_on_after_a_failure(config, tmp_path):
  """A job fails and the other is reported; the second start does the rest only."""
  out = tmp_path / 'out'
  args = [f'{config}:lazy', f'{config}:good', '--config.run.log_every=1']
  ran = run(tmp_path, out, *args)
  assert ran.returncode == 1, ran.stdout + ran.stderr
  assert f'done {out}/toy-good-0' in ran.stdout
  assert f'report: {out}/report.html' in ran.stdout
  told = ran.stderr.strip().splitlines()
  assert told[0].startswith('error: 1 of 2 runs failed')
  assert f'{out}/toy-lazy-0: error: ' in told[1] and f'{tmp_path}/pictures' in told[1]
  assert f'({out}/toy-lazy-0.log)' in told[1] and len(told) == 2
  assert len(toy.records(out / 'toy-good-0')) == 4
  assert not (tmp_path / 'out' / 'toy-good-0-other').exists()  # no comparison run

  for name in ('pattern 0/1', 'pattern 0/2', 'pattern 1/1', 'pattern 1/2'):
    path = tmp_path / 'pictures' / f'{name}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('L', (6, 6)).save(path)
  log = (out / 'toy-good-0.log').read_text()
  ran = run(tmp_path, out, *args, '--dry_run')
  assert [line.startswith('# done: ') for line in ran.stdout.splitlines()] == [
      False, True, False]
  ran = run(tmp_path, out, *args)
  assert ran.returncode == 0, ran.stdout + ran.stderr
  assert f'done {out}/toy-good-0 before' in ran.stdout
  assert '2 of 2' not in ran.stdout and f'started {out}/toy-lazy-0' in ran.stdout
  assert (out / 'toy-good-0.log').read_text() == log
  assert (out / 'toy-lazy-0.log').read_text().count('$ ') == 2
  rows = (out / 'report.csv').read_text()
  assert 'toy:good seed 0' in rows and 'toy:lazy seed 0' in rows


@pytest.mark.process
def test_stopped_sweep_saves_its_run_and_goes_on(config, tmp_path):
  """SIGTERM ends it with status 0; the run resumes at the step at which it stopped."""
  out = tmp_path / 'out'
  args = [f'{config}:long', f'{config}:good']
  process = subprocess.Popen(
      sweep_command(out, *args), env=environment(tmp_path), cwd=toy.ROOT, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  metrics = out / 'toy-long-0' / 'metrics.jsonl'
  while process.poll() is None and not metrics.exists():
    time.sleep(0.05)
  process.terminate()
  told, _ = process.communicate(timeout=300)
  assert process.returncode == 0 and f'stopped {out}/toy-long-0' in told, told
  assert told.endswith(
      'stopped by SIGTERM; 0 of 2 runs are done. The same command goes on\n')
  assert not (out / 'toy-good-0').exists() and not (out / 'report.html').exists()
  [step] = checkpoint.list_steps(out / 'toy-long-0')
  log = (out / 'toy-long-0.log').read_text()
  assert f'stopped by SIGTERM; saved at step {step} of 200000' in log
  process = subprocess.Popen(
      sweep_command(out, *args), env=environment(tmp_path), cwd=toy.ROOT, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  log = out / 'toy-long-0.log'
  while process.poll() is None and f'at step {step}\n' not in log.read_text():
    time.sleep(0.05)
  process.send_signal(signal.SIGINT)
  told, _ = process.communicate(timeout=300)
  assert process.returncode == 130 and 'Traceback' not in told
  assert f'resuming {out}/toy-long-0 at step {step}\n' in log.read_text()


# ---- Slurm and SkyPilot -------------------------------------------------------------

SCRIPT = """\
#!/usr/bin/env bash
# A run of a sweep for each number of the array, and number 2 for the report.
#SBATCH --job-name=nat_jax-out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --output={out}/slurm-%A_%a.log
set -euo pipefail
# srun does not inherit it from the job since Slurm 22.05.
export SRUN_CPUS_PER_TASK=${{SLURM_CPUS_PER_TASK:-1}}
run() {{ srun --kill-on-bad-exit=1 {python} "$@"; }}
case $SLURM_ARRAY_TASK_ID in
  0) run -m nat_jax.main --config {config} --workdir {out}/toy-0 --config.seed=0 \
--config.compare_with= ;;
  1) run -m nat_jax.main --config {config} --workdir {out}/toy-1 --config.seed=1 \
--config.compare_with= ;;
  2)
    ended=()
    for workdir in {out}/toy-0 {out}/toy-1; do
      if [ -e "$workdir/eval.json" ]; then ended+=("$workdir"); fi
    done
    JAX_PLATFORMS=cpu run -m nat_jax.main --mode=report --workdir {out} \
"${{ended[@]}}" ;;
esac
"""

TASK = """\
# A run of a sweep for each value of NAT_JAX_JOB: 0 to 1, or report.
name: nat_jax-small
workdir: .
resources:
  accelerators: [L4:1, A100:1, H100:1]
file_mounts:
  /nat_jax:
    source: s3://my-bucket
    mode: MOUNT_CACHED  # the mode in which files can be appended to and renamed
envs:
  NAT_JAX_JOB: null
setup: |
  pip install -q uv
  uv venv -q --allow-existing --python 3.12 ~/nat_jax_venv
  uv pip install -q --python ~/nat_jax_venv/bin/python -e '.[cuda]'
run: |
  set -euo pipefail
  run() {{ ~/nat_jax_venv/bin/python "$@"; }}
  case $NAT_JAX_JOB in
    0) run -m nat_jax.main --config {config} --workdir {out}/toy-0 --config.seed=0 \
--config.compare_with= ;;
    1) run -m nat_jax.main --config {config} --workdir {out}/toy-1 --config.seed=1 \
--config.compare_with= ;;
    report)
      ended=()
      for workdir in {out}/toy-0 {out}/toy-1; do
        if [ -e "$workdir/eval.json" ]; then ended+=("$workdir"); fi
      done
      JAX_PLATFORMS=cpu run -m nat_jax.main --mode=report --workdir {out} \
"${{ended[@]}}" ;;
  esac
"""


def program(folder, name, code):
  """A program of the name, which the first folder of PATH holds."""
  path = folder / 'bin' / name
  path.parent.mkdir(exist_ok=True)
  path.write_text(f'#!/usr/bin/env bash\n{code}\n')
  path.chmod(0o755)
  return f'{path.parent}:{os.environ["PATH"]}'


def test_slurm_dry_run(config, tmp_path, monkeypatch, capsys):
  """The script, and the commands that submit what is not done; nothing is written."""
  out = tmp_path / 'out'
  args = ['--mode=sweep', '--on=slurm', '--workdir', str(out), '--seeds=0,1', config,
          '--dry_run']
  toy.run_main(monkeypatch, *args)
  script, commands = capsys.readouterr().out.split('\n\n')
  assert f'{script}\n' == SCRIPT.format(out=out, config=config, python=sys.executable)
  assert commands.splitlines() == [
      '# sbatch --parsable --array=0,1',
      '# sbatch --parsable --array=2 --dependency=afterany:ARRAY']
  assert not out.exists()
  (out / 'toy-0').mkdir(parents=True)
  (out / 'toy-0' / 'eval.json').write_text('{"step": 4, "evals": {}}')
  toy.run_main(monkeypatch, *args, '--jobs=3', '--submit', '--partition=gpu --qos low')
  commands = capsys.readouterr().out.split('\n\n')[1]
  assert commands.splitlines() == [
      '# sbatch --parsable --array=1%3 --partition=gpu --qos low',
      '# sbatch --parsable --array=2 --dependency=afterany:ARRAY --partition=gpu '
      '--qos low']


@pytest.mark.process
def test_slurm_submission(config, tmp_path, monkeypatch, capsys):
  """sbatch reads the script; the report waits for the number that the array got."""
  out = tmp_path / 'out'
  monkeypatch.setenv('PATH', program(
      tmp_path, 'sbatch', f'cat > {tmp_path}/script; echo "$@" >> {tmp_path}/told; '
      'echo "7$(wc -l < ' + f'{tmp_path}/told' + ');cluster"'))
  args = ['--mode=sweep', '--on=slurm', '--workdir', str(out), '--seeds=0,1', config]
  toy.run_main(monkeypatch, *args)
  assert (tmp_path / 'told').read_text().splitlines() == [
      '--parsable --array=0,1', '--parsable --array=2 --dependency=afterany:71']
  assert 'submitted 2 of 2 runs as job array 71, and job 72' in capsys.readouterr().out
  assert out.is_dir()
  assert (tmp_path / 'script').read_text() == SCRIPT.format(
      out=out, config=config, python=sys.executable)

  # What the script runs, with an srun that tells its arguments.
  path = program(
      tmp_path, 'srun', 'echo "$SRUN_CPUS_PER_TASK ${JAX_PLATFORMS:-} $@"')
  (out / 'toy-1').mkdir()
  (out / 'toy-1' / 'eval.json').touch()
  environ = {k: v for k, v in os.environ.items() if k != 'JAX_PLATFORMS'}

  def started(number):
    ran = subprocess.run(
        ['bash', tmp_path / 'script'], text=True, capture_output=True, check=True,
        env=environ | {'PATH': path, 'SLURM_ARRAY_TASK_ID': str(number),
                       'SLURM_CPUS_PER_TASK': '8'})
    return ran.stdout

  before = f' --kill-on-bad-exit=1 {sys.executable} -m nat_jax.main'
  assert started(1) == (f'8 {before} --config {config} --workdir {out}/toy-1 '
                        '--config.seed=1 --config.compare_with=\n')
  assert started(2) == f'8 cpu{before} --mode=report --workdir {out} {out}/toy-1\n'

  program(tmp_path, 'sbatch', 'echo "invalid partition" >&2; exit 1')
  with pytest.raises(SystemExit, match='error: sbatch .* failed: invalid partition'):
    toy.run_main(monkeypatch, *args)
  monkeypatch.setenv('PATH', str(tmp_path / 'empty'))
  with pytest.raises(SystemExit, match='no program sbatch.*--dry_run'):
    toy.run_main(monkeypatch, *args)


def test_skypilot_dry_run(config, tmp_path, monkeypatch, capsys):
  toy.run_main(
      monkeypatch, '--mode=sweep', '--on=skypilot', '--seeds=0,1', config, '--dry_run',
      '--workdir', 's3://my-bucket/runs/small', '--submit', '--use-spot')
  text = capsys.readouterr().out
  task, commands = text.split('\n\n')
  assert f'{task}\n' == TASK.format(out='/nat_jax/runs/small', config=config)
  launch = '# sky jobs launch --yes --detach-run --name nat_jax-small'
  assert commands.splitlines() == [
      f'{launch}-{name} --env NAT_JAX_JOB={number} --use-spot sweep.yaml'
      for name, number in (('toy-0', 0), ('toy-1', 1), ('report', 'report'))]
  # The whole output is a YAML file, as the message after a submission says.
  parsed = yaml.safe_load(text)
  assert parsed['resources'] == {'accelerators': ['L4:1', 'A100:1', 'H100:1']}
  assert parsed['envs'] == {'NAT_JAX_JOB': None}
  for key in ('setup', 'run'):
    subprocess.run(['bash', '-n'], input=parsed[key], text=True, check=True)


@pytest.mark.process
def test_skypilot_submission(config, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('PATH', program(
      tmp_path, 'sky', f'cat "${{@: -1}}" > {tmp_path}/task; '
      f'echo "$@" >> {tmp_path}/told; echo launched'))
  toy.run_main(
      monkeypatch, '--mode=sweep', '--on=skypilot', '--seeds=0,1', config,
      '--workdir', 's3://my-bucket/runs/small')
  lines = (tmp_path / 'told').read_text().splitlines()
  assert len(lines) == 2
  for i, line in enumerate(lines):
    assert line.startswith(
        f'jobs launch --yes --detach-run --name nat_jax-small-toy-{i} '
        f'--env NAT_JAX_JOB={i} /')
  assert (tmp_path / 'task').read_text() == TASK.format(
      out='/nat_jax/runs/small', config=config)
  out = capsys.readouterr().out
  assert out.startswith('launched\nlaunched\nlaunched 2 jobs')
  assert out.endswith('--env NAT_JAX_JOB=report sweep.yaml\n')
