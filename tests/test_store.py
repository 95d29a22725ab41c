"""Runs whose workdir is in an object store, which a folder stands in for.

As in an object store, nothing can be renamed or appended to, and there are no folders.
What a real bucket adds (credentials, latency, errors of the network) is not tested.
"""

import errno
import json
import os
import pathlib
import signal

import jax
import numpy as np
import pytest
import toy
from etils import epath
from etils.epath import testing
from orbax.checkpoint._src.path import gcs_utils
from tensorboard.backend.event_processing import event_file_loader

from nat_jax import runs, train
from nat_jax.commands import report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.runtime import checkpoint, feed, files, results
from nat_jax.runtime import workdir as workdirs
from nat_jax.schema import presets

URL = 'gs://bucket/runs/toy'


def refuse(original, path, *args, **settings):
  if not str(path).startswith('gs://'):
    return original(path, *args, **settings)
  raise OSError(errno.EOPNOTSUPP, 'an object store does not do this', str(path))


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """The folder that stands in for gs://bucket, while nothing is in the local one."""
  folder, here = tmp_path / 'bucket', tmp_path / 'here'
  folder.mkdir()
  here.mkdir()
  monkeypatch.chdir(here)

  def at(path):
    path = os.fspath(path)
    return path.replace('gs://bucket', str(folder), 1)

  def on_folder(original, path, **settings):
    return original(at(path), **settings)

  def open_object(original, path, mode):
    remote = str(path).startswith('gs://')
    assert not remote or 'a' not in mode, f'{path} would be appended to'
    if remote and 'w' in mode:
      pathlib.Path(at(path)).parent.mkdir(parents=True, exist_ok=True)
    return original(at(path), mode)

  def make_folder(original, path, **settings):
    if not str(path).startswith('gs://'):
      return original(path, **settings)
    pathlib.Path(at(path)).mkdir(parents=True, exist_ok=True)

  def walk(original, path, **settings):
    for top, *names in original(at(path), **settings):
      yield str(top).replace(str(folder), 'gs://bucket', 1), *names

  def glob(original, path):
    return [name.replace(str(folder), 'gs://bucket', 1) for name in original(at(path))]

  monkeypatch.setattr(files, 'check_store', lambda path: None)
  # Tensorstore, which holds the arrays of checkpoints, reads and writes by itself.
  monkeypatch.setattr(gcs_utils, 'get_kvstore_for_gcs', lambda path: {
      'driver': 'file', 'path': at(path)})
  monkeypatch.setattr(gcs_utils, 'get_bucket', lambda name: None)
  with testing.mock_epath(
      open=open_object, mkdir=make_folder, makedirs=make_folder, walk=walk, glob=glob,
      rename=refuse, replace=refuse, copy=refuse,
      **dict.fromkeys(['exists', 'isdir', 'listdir', 'rmtree', 'remove', 'stat'],
                      on_folder)):
    yield folder
  assert list(here.iterdir()) == [], 'files of the bucket are in the local folder'


def make_config(steps=6, **run):
  return presets.experiment(
      name='toy', steps=steps, num_classes=3, ema_decay=0.9,
      model={'name': 'small_conv', 'widths': [4]},
      data=dict(positives=toy.fake(classes=(0, 1, 2)), batch_size=8,
                negatives={'three': {'source': toy.fake(classes=(3,))}},
                negatives_per_batch=(2, 8)),
      evals={'test': {'source': toy.fake(1, classes=(0, 1, 2)), 'positive': True},
             'three': {'source': toy.fake(1, classes=(3,))}},
      run=dict(log_every=2, checkpoint_every=2, keep=1) | run)


@pytest.mark.slow
def test_run_in_a_bucket_is_that_of_a_local_folder(bucket, tmp_path, monkeypatch):
  """Stopped, resumed, evaluated and reported: equal files, and old steps deleted."""
  local = tmp_path / 'local'
  train.train(make_config(), str(local))

  def stop(config, ends, adapt):
    def call_length(step):
      if step == 2 and not list((bucket / 'runs/toy/checkpoints').glob('4')):
        os.kill(os.getpid(), signal.SIGTERM)
      return 2
    return call_length

  monkeypatch.setattr(feed, 'make_call_length', stop)
  with workdirs.hold(URL):
    with pytest.raises(train.Preempted, match=f'step 4 of 6 in {URL}'):
      train.train(make_config(), URL)
    assert checkpoint.list_steps(URL) == [4]
    train.train(make_config(), URL)
  assert checkpoint.list_steps(URL) == [6]
  jax.tree.map(np.testing.assert_array_equal, toy.final_state(local),
               toy.final_state(URL))
  remote = bucket / 'runs' / 'toy'
  for name in ('config.json', 'eval.json'):
    assert (remote / name).read_bytes() == (local / name).read_bytes()
  assert [r['step'] for r in toy.records(remote)] == [2, 4, 6]
  for one, other in zip(toy.records(local), toy.records(remote), strict=True):
    assert one['loss'] == pytest.approx(other['loss'], rel=1e-6)
  events = sorted((remote / 'tensorboard').iterdir())
  steps = {event.step for path in events
           for event in event_file_loader.EventFileLoader(str(path)).Load()}
  assert {2, 4, 6} <= steps and len(events) == 2
  assert evaluate_run(URL) == json.loads((local / 'eval.json').read_text())
  assert 'AUROC' in report.tables([URL])
  assert report.write([URL]) == f'{URL}/report.html'
  assert '<img' in (remote / 'report.html').read_text()
  assert sorted(p.name for p in (remote / 'figures').iterdir()) == sorted(
      p.name for p in pathlib.Path(report.write([str(local)])).parent.glob('figures/*'))


def test_checkpoint_that_is_not_complete_does_not_count(bucket):
  """Objects are not renamed when a checkpoint is complete: orbax marks it instead."""
  train.train(make_config(keep=2), URL)
  folder = bucket / 'runs' / 'toy' / 'checkpoints'
  (folder / '6' / 'commit_success.txt').unlink()
  (bucket / 'runs' / 'toy' / 'eval.json').unlink()
  assert checkpoint.list_steps(URL) == [4]
  train.train(make_config(keep=2), URL)
  assert checkpoint.list_steps(URL) == [4, 6]


def test_damaged_checkpoint_is_not_moved(bucket):
  train.train(make_config(keep=2), URL)
  [data] = (bucket / 'runs/toy/checkpoints/6/checksum').glob('metadata')
  data.write_text('{}')
  with pytest.raises(checkpoint.Damaged, match=(
      f'gcloud storage mv {URL}/checkpoints/6 {URL}/damaged_checkpoints/6')):
    train.train(make_config(keep=2), URL)
  assert data.exists()


def test_other_run_is_refused_and_not_moved(bucket):
  train.train(make_config(), URL)
  before, other = sorted(bucket.rglob('*')), make_config()
  other.seed = 5
  for overwrite, message in ((False, 'seed'), (True, f'gcloud storage mv {URL}')):
    with pytest.raises(ValueError, match=message):
      train.train(other, URL, overwrite)
  assert sorted(bucket.rglob('*')) == before


def test_evaluation_that_is_interrupted(bucket, monkeypatch):
  """eval.json goes first and comes last, so that no two evaluations are mixed."""
  config = {'name': 'toy', 'variant': 'nat', 'seed': 0}
  results.write_evaluation(
      URL, config, 1, {'evals': {}}, {'a/b': {'x': np.ones(2)}})
  folder = bucket / 'runs' / 'toy'
  assert results.read_arrays(URL, 'a/b', step=1)['x'].tolist() == [1, 1]
  upload, names = files._upload, []

  def full(path, data):
    names.append(str(path))
    if len(names) == 2:
      raise OSError('no network')
    upload(path, data)

  monkeypatch.setattr(files, '_upload', full)
  with pytest.raises(OSError, match='no network'):
    results.write_evaluation(
        URL, config, 2, {'evals': {}}, {'a/b': {'x': np.ones(2)}, 'c': {}})
  assert names == [f'{URL}/a/b.npz', f'{URL}/c.npz']
  assert results.read_evaluation(URL) is None and not (folder / 'c.npz').exists()


def test_file_that_is_not_finished_leaves_the_old_one(bucket):
  path = f'{URL}/config.json'
  files.write_json(path, {'a': 1})
  with pytest.raises(RuntimeError), files.replacing(path) as file:
    file.write('{"a": 2')
    raise RuntimeError
  assert files.read_json(path, 'mend it') == {'a': 1}
  files.append(path, b'more')
  files.append(f'{URL}/new', b'one')
  assert (bucket / 'runs/toy/new').read_bytes() == b'one'
  with pytest.raises(files.Unreadable, match=f'{path}.*mend it'):
    files.read_json(path, 'mend it')


def test_bucket_that_cannot_be_reached(bucket, monkeypatch):
  def deny(self):
    raise RuntimeError('401: no credentials\nand so on')

  monkeypatch.setattr(type(epath.Path(URL)), 'exists', deny)
  with pytest.raises(ValueError, match=f'cannot reach.*{URL}: 401: no credentials;'):
    workdirs.check(URL, runs.resolve(make_config()))


@pytest.mark.parametrize('args, message', [
    (['--mode=predict', '--images=.', f'--workdir={URL}'], 'predict needs a local'),
    (['--mode=posthoc', f'--workdir={URL}'], 'gcloud storage cp -r gs://bucket'),
    (['--mode=generate', f'--workdir={URL}'], 'generate needs a local'),
    (['--mode=train', f'--workdir={URL}', '--profile=5'], 'profile needs a local')])
def test_what_needs_a_local_folder(args, message, bucket, monkeypatch):
  with pytest.raises(SystemExit, match=f'^error: .*{message}'):
    toy.run_main(monkeypatch, *args)


@pytest.mark.parametrize('workdir, message', [
    (URL, r"gcsfs.*pip install -e '\.\[gcs\]'"), ('s3://bucket/x', 'gs://')])
def test_stores_that_cannot_be_used(workdir, message, monkeypatch):
  monkeypatch.setattr(files.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(SystemExit, match=f'^error: .*{message}'):
    toy.run_main(monkeypatch, '--mode=evaluate', '--workdir', workdir)
