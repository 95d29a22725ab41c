"""What one command trains: the runs needed, the one compared with, the config."""

import errno
import fcntl
import json
import os
import pathlib
import subprocess
import sys
import types

import filelock
import ml_collections
import pytest

from nat_jax import schema
from nat_jax.commands import config_file, plan, train
from nat_jax.runtime import processes, results
from nat_jax.runtime import workdir as workdirs

CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'


def planned(file, which=None, **changes):
  """The runs needed and asked for; changes of 'a__b' as of the command line."""
  path = str(CONFIGS / file)
  changes = {key.replace('__', '.'): value for key, value in changes.items()}
  config = config_file.load(path, which)
  config.update_from_flattened_dict(changes)
  return plan.plan(config, path, which, changes, 'runs/x')


def test_rival_comes_first_and_has_none_of_its_own():
  needed, runs = planned('digits.py')
  assert needed == []
  assert [(c.variant, c.loss.name, c.compare_with, w) for c, w in runs] == [
      ('baseline', 'cross_entropy', '', 'runs/x-baseline'),
      ('nat', 'nat', 'baseline', 'runs/x')]
  assert [w for _, w in planned('digits.py', 'baseline')[1]] == ['runs/x']


def test_changes_hold_for_both_but_where_the_two_differ():
  _, [(rival, _), (config, _)] = planned(
      'digits.py', 'nat', steps=7, model__name='mlp', loss__name='outlier_exposure',
      data__negatives_per_batch=12, variant='mine', data__treatment={'name': 'x'})
  assert (config.steps, rival.steps) == (7, 7)
  assert (config.model.name, rival.model.name) == ('mlp', 'mlp')
  assert (config.loss.name, rival.loss.name) == ('outlier_exposure', 'cross_entropy')
  assert config.data.negatives_per_batch == 12
  assert rival.data.negatives_per_batch == config_file.load(
      str(CONFIGS / 'digits.py'), 'baseline').data.negatives_per_batch
  assert (config.variant, rival.variant) == ('mine', 'baseline')
  assert not rival.data.treatment


def test_plain_gan_of_points_gets_no_negatives():
  _, [(rival, _), (config, _)] = planned('gan/rings2d.py', negatives=True, steps=100)
  assert (config.negatives, rival.negatives) == (True, False)
  assert (config.steps, rival.steps) == (100, 100)


def test_missing_and_unfinished_runs_come_first(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = CONFIGS / 'gan' / 'digits.py'
  config = config_file.load(str(path), 'nat3')
  spec = config.measures.features
  spec.config = str(CONFIGS.parent / spec.config)
  workdir = tmp_path / spec.workdir

  def needed():
    return [(c.name, c.variant, w) for c, w in plan.plan(
        config, str(path), 'nat3', {}, 'runs/x')[0]]

  assert needed() == [('classifier', 'digits', spec.workdir)]
  workdir.mkdir(parents=True)
  assert len(needed()) == 1
  (workdir / results.EVALUATION).write_text('{')  # damaged: it is evaluated again
  assert len(needed()) == 1
  (workdir / results.EVALUATION).write_text('{"step": 1, "evals": {}}')
  assert len(needed()) == 1  # it was stopped there
  path_of, _, which = spec.config.partition(':')
  step = config_file.load(path_of, which).steps
  (workdir / results.EVALUATION).write_text(f'{{"step": {step}, "evals": {{}}}}')
  assert needed() == []
  other = schema.plain(config_file.load(path_of, which)) | {'seed': 7}
  (workdir / 'config.json').write_text(json.dumps(other))
  with pytest.raises(ValueError, match=(
      f'{workdir.name}.*seed: 7 -> 0.*--config.measures.features.workdir=DIR$')):
    needed()  # not any evaluation that happens to lie there
  (workdir / 'config.json').unlink()
  monkeypatch.setattr(processes, 'total', lambda: 4)
  monkeypatch.setattr(processes, 'count', lambda done: 3)
  with pytest.raises(
      ValueError,
      match=f'{workdir.name}.*3 of 4.*--config.measures.features.workdir='):
    needed()


@pytest.mark.parametrize('text, message', [
    ('x = 1', 'get_config'),
    ('\n\ndef get_config(:', ', line 3: '),
    ('def get_config():\n  return 1 / 0', 'line 2: ZeroDivisionError: '),
    ('import nowhere_at_all', 'line 1: ModuleNotFoundError: .*nowhere_at_all'),
    ('def get_config():\n  open("/nowhere/x")', r'line 2: .*/nowhere/x'),
    ('def get_config():\n  pass', 'get_config.*presets.experiment.*NoneType'),
    ('def get_config():\n  return {}', 'get_config.*presets.experiment.*dict'),
    ('def get_config():\n  return 3', 'get_config.*presets.experiment.*int'),
    ('from nat_jax.schema import presets\ndef get_config():\n'
     '  return presets.experiment(\n'
     '    data=None)', 'line 3: .*data.*batch_size.*None'),
])
def test_mistakes_in_a_config_file_are_placed(text, message, tmp_path):
  (tmp_path / 'config.py').write_text(text)
  with pytest.raises(ValueError, match=f'(?s)^{tmp_path}/config.py.*{message}'):
    config_file.load(str(tmp_path / 'config.py'))


def test_a_variant_that_a_config_does_not_take(tmp_path):
  (tmp_path / 'config.py').write_text('def get_config():\n  pass')
  with pytest.raises(ValueError, match='config.py: TypeError: .*get_config'):
    config_file.load(str(tmp_path / 'config.py'), 'nat')
  with pytest.raises(ValueError, match='nowhere.py: '):
    config_file.load(str(tmp_path / 'nowhere.py'))


def test_a_config_of_its_own_making_is_checked_first():
  config = ml_collections.ConfigDict({'steps': 1})
  with pytest.raises(ValueError, match='presets.experiment'):
    plan.plan(config, 'x.py', None, {}, 'runs/x')


def test_a_needed_run_has_a_workdir():
  config = config_file.load(str(CONFIGS / 'gan' / 'digits.py'), 'nat3')
  config.measures.features.workdir = ''
  with pytest.raises(ValueError, match='measures.features.*workdir.*classifier'):
    plan.plan(config, 'x.py', None, {}, 'runs/x')


def test_all_runs_are_announced():
  """In their order; how the comparison run is left out."""
  def run(variant, workdir):
    return types.SimpleNamespace(name='a', variant=variant), workdir

  needed, planned = [run('c', 'w/c')], [run('baseline', 'w-baseline'), run('nat', 'w')]
  assert train._announcement(needed, planned).splitlines() == [
      'trains 3 runs, one after the other:',
      '  a:c -> w/c  (needed by the last run)',
      '  a:baseline -> w-baseline  (for comparison; --config.compare_with= leaves it '
      'out)',
      '  a:nat -> w']


HOLDER = """
import sys
from nat_jax.runtime import workdir
with workdir.hold(sys.argv[1], wait='wait' in sys.argv):
  print('held', flush=True)
  sys.stdin.read()
"""


@pytest.mark.process
def test_one_run_at_a_time_in_a_workdir(tmp_path):
  """Another start is refused, or waits until the first has ended or was killed."""
  workdir, link = tmp_path / 'run', tmp_path / 'link'
  link.symlink_to(tmp_path, target_is_directory=True)

  def start(*args):
    return subprocess.Popen(
        [sys.executable, '-c', HOLDER, str(workdir), *args], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

  first = start()
  assert first.stdout.readline() == 'held\n'
  for path in (workdir, link / 'run'):
    with pytest.raises(ValueError, match=f'{path}.*--workdir'):
      with workdirs.hold(str(path)):
        pass
  with workdirs.hold(str(tmp_path / 'other')):
    pass
  second = start('wait')
  assert second.stdout.readline().startswith('waiting for the run')
  first.kill()
  assert second.stdout.readline() == 'held\n'
  second.communicate()
  first.communicate()
  with workdirs.hold(str(workdir)):
    pass
  # Where no run came to be nothing is left, for a workdir may have been a mistake.
  assert list(tmp_path.iterdir()) == [link]


def test_a_lock_that_cannot_be_made_is_no_run(tmp_path, monkeypatch):
  def time_out(self, **kwargs):
    raise filelock.Timeout(self.lock_file)

  monkeypatch.setattr(filelock.FileLock, 'acquire', time_out)
  with pytest.raises(ValueError, match=f'cannot write to --workdir.*file.*{tmp_path}$'):
    with workdirs.hold(str(tmp_path / 'run')):
      pass
  (tmp_path / '.run.lock').write_text('')
  with pytest.raises(ValueError, match='a run is under way'):
    with workdirs.hold(str(tmp_path / 'run')):
      pass


def test_the_lock_lies_beside_the_workdir(tmp_path, monkeypatch, caplog):
  """On the disk of the run, where other hosts see it; it is not taken for a run."""
  workdir, config = tmp_path / 'deep' / 'run', {'steps': 1}
  lock = tmp_path / 'deep' / '.run.lock'
  with workdirs.hold(str(workdir)):
    assert lock.exists() and not workdir.exists()
    assert not workdirs.check(str(workdir), config)
    workdirs.prepare(str(workdir), config)
  assert sorted(path.name for path in workdir.parent.iterdir()) == ['.run.lock', 'run']
  assert [path.name for path in workdir.iterdir()] == ['config.json']
  # A folder that is a disk by itself, in one that cannot be written.
  with monkeypatch.context() as patch:
    patch.setattr(os, 'access', lambda path, mode: False)
    with workdirs.hold(str(workdir)):
      assert (workdir / '.run.lock').exists()
  # A disk without locks: runs are not kept apart, and the log says so.
  with monkeypatch.context() as patch:
    patch.setattr(fcntl, 'flock', _no_locks)
    with workdirs.hold(str(workdir)):
      assert 'has no locks' in caplog.text
  (tmp_path / 'file').write_text('mine')
  with pytest.raises(ValueError, match=f'--workdir.*{tmp_path}/file/run'):
    with workdirs.hold(str(tmp_path / 'file' / 'run')):
      pass


def _no_locks(*args):
  raise OSError(errno.ENOLCK, 'No locks available')
