"""Pictures that come, go or change their class after a run has been trained on them."""

import json
import os
import shutil

import numpy as np
import pytest
import toy
from PIL import Image

from nat_jax import data, runs, task, train
from nat_jax.commands import calibrate, config_file, posthoc
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.data import folder_source, sources
from nat_jax.tasks import subsets, unchanged


def picture(path, seed):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
  Image.fromarray(pixels).save(path)


def make_config(root, **changes):
  config = config_file.load('pictures', f'{root}/pets,{root}/others')
  config.update_from_flattened_dict({
      'steps': 4, 'patience': 0, 'best': '', 'data.image_size': 8, 'run.log_every': 2,
      'run.eval_every': 4, 'run.checkpoint_every': 2, 'run.updates_per_call': 2,
      'run.tensorboard': False, 'data.batch_size': 16, 'compare_with': '', **changes})
  config.model = {'name': 'mlp', 'width': 4, 'depth': 1}
  return config


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Folders and a run on shares of them."""
  root = tmp_path_factory.mktemp('whole')
  for k, name in enumerate(('pets/cat', 'pets/dog', 'others')):
    for i in range(300 if name != 'others' else 20):
      picture(root / name / f'{i:03d}.png', 1000 * k + i)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('NAT_JAX_CACHE', str(root / 'cache'))
    train.train(make_config(root), str(root / 'run'))
  return root


@pytest.fixture
def root(whole, tmp_path, monkeypatch):
  """A copy at the place of the original."""
  shutil.copytree(whole, tmp_path / 'kept')
  monkeypatch.setenv('NAT_JAX_CACHE', str(whole / 'cache'))
  yield whole
  shutil.rmtree(whole)
  shutil.copytree(tmp_path / 'kept', whole)


USES = {
    'calibrate': lambda run: calibrate.calibrate(run, accept=0.9),
    'evaluate': evaluate_run,
    'posthoc': lambda run: posthoc.posthoc(run, scores=['msp'])}


@pytest.mark.parametrize('use', USES)
def test_shares_of_a_folder_that_has_changed_are_refused(use, root):
  run, added = str(root / 'run'), root / 'pets' / 'cat' / 'a.png'
  assert set(json.loads((root / 'run' / 'data.json').read_text())) == {
      'positives', 'others'}
  USES[use](run)
  picture(added, 1)
  with pytest.raises(ValueError, match=(
      "'positives', of .*pets, has changed: it has 361 examples, and 360 when .*The "
      f'sets .*{"test" if use != "calibrate" else "calibration"}')):
    USES[use](run)
  added.unlink()
  (root / 'pets' / 'cat').rename(root / 'pets' / 'zebra')
  with pytest.raises(ValueError, match='360 examples as before, but not the same ones'):
    USES[use](run)
  (root / 'pets' / 'zebra').rename(root / 'pets' / 'cat')
  USES[use](run)


def test_a_training_does_not_go_on_with_other_pictures(root, monkeypatch):
  workdir = str(root / 'stopped')
  toy.before_update(monkeypatch, 2, lambda: os.kill(os.getpid(), 15))
  with pytest.raises(train.Preempted):
    train.train(make_config(root, seed=1), workdir)
  monkeypatch.undo()
  monkeypatch.setenv('NAT_JAX_CACHE', str(root / 'cache'))
  before = {path: path.read_bytes() for path in (root / 'stopped').rglob('*')
            if path.is_file()}
  extra = root / 'others' / 'a.png'
  picture(extra, 1)
  with pytest.raises(ValueError, match="'others'.* has 13 examples, and 12 when"):
    train.train(make_config(root, seed=1), workdir)
  assert before == {path: path.read_bytes() for path in (root / 'stopped').rglob('*')
                    if path.is_file()}
  extra.unlink()
  assert train.train(make_config(root, seed=1), workdir)['step'] == 4


def test_parts_of_their_own_may_grow(root, tmp_path):
  for k, part in enumerate(('train', 'calibration', 'test')):
    for name in ('cat', 'dog'):
      for i in range(40):
        picture(tmp_path / 'pets' / part / name / f'{i:03d}.png', 100 * k + i)
  shutil.copytree(root / 'others', tmp_path / 'others')
  run = str(tmp_path / 'run')
  train.train(make_config(tmp_path), run)
  for part in ('calibration', 'test'):
    picture(tmp_path / 'pets' / part / 'cat' / 'new.png', 1)
  assert USES['calibrate'](run)['n'] == 81
  assert evaluate_run(run)['evals']['test']['n'] == 81
  picture(tmp_path / 'pets' / 'train' / 'cat' / 'new.png', 1)
  USES['calibrate'](run)  # no share of what was trained on
  with pytest.raises(ValueError, match='The sets validation are shares'):
    evaluate_run(run)


def test_pictures_are_not_decoded_to_be_listed(whole, tmp_path, monkeypatch):
  config = runs.resolve(make_config(whole))
  for source in (config['data']['positives'], config['evals']['test']['source']):
    source['lazy'] = False
  positives = data.load(config['data']['positives'])
  inputs = task.Inputs(None, None, (8, 8, 3), (), {}, positives)
  unchanged.write(str(tmp_path), unchanged.record(
      str(tmp_path), config, inputs, False, runs.OTHERS))
  monkeypatch.setattr(folder_source, 'decode', lambda *args: pytest.fail('decoded'))
  unchanged.check(str(tmp_path), config, {'test': config['evals']['test']})
  monkeypatch.setattr(unchanged, 'fingerprint', lambda arrays: {'n': 1, 'crc32': 0})
  with pytest.raises(ValueError, match='has changed'):
    unchanged.check(str(tmp_path), config, {'test': config['evals']['test']})


def test_vectors_are_told_apart_by_their_content(tmp_path):
  arrays = data.Arrays(np.eye(3, dtype=np.float32), np.array([0, 1, 2], np.int32))
  found = unchanged.fingerprint(arrays)
  assert found['n'] == 3 and found == unchanged.fingerprint(
      arrays._replace(image=arrays.image.copy()))
  for other in (arrays._replace(image=2 * arrays.image),
                arrays._replace(label=arrays.label[::-1])):
    assert unchanged.fingerprint(other) != found


def test_a_run_of_an_older_version_is_not_checked(root):
  (root / 'run' / 'data.json').unlink()
  picture(root / 'pets' / 'cat' / 'a.png', 1)
  evaluate_run(str(root / 'run'))


def test_all_that_is_known_of_kept_rows_is_kept(root, tmp_path):
  config = runs.resolve(make_config(root))
  arrays = data.load(config['data']['positives'])
  path = tmp_path / 'keep.json'
  path.write_text(json.dumps({'positives': {'size': 360, 'rows': [5, 7]}}))
  settings = config['data'] | {'keep': str(path), 'drop': ''}
  found = subsets.apply(settings, {'positives': arrays})['positives']
  assert found.files.tolist() == arrays.files[[5, 7]].tolist()
  np.testing.assert_array_equal(found.hashes, arrays.hashes[[5, 7]])
  np.testing.assert_array_equal(found.image[:], arrays.image[np.array([5, 7])])
  assert sources.take_rows(found, np.array([1])).row is None


def test_the_classifier_that_measures_a_gan_stays_the_same(tmp_path):
  config = {'data': {}, 'measures': {
      'features': {'name': 'checkpoint', 'workdir': 'runs/cl'},
      'independent': {'name': 'inception', 'path': 'x.npz'}}}
  inputs = task.Inputs(None, None, (4, 4, 1), ())

  def others(crc32):
    return task.Others(lambda *args: {'step': 9, 'crc32': crc32}, None, None)

  def record(crc32, going_on=True):
    return unchanged.record(str(tmp_path), config, inputs, going_on, others(crc32))

  assert record(1) == {'measures.features': {'step': 9, 'crc32': 1}}
  unchanged.write(str(tmp_path), record(1))
  assert record(1) == record(1, False)
  with pytest.raises(ValueError, match='classifier of measures.features is another'):
    record(2)
  unchanged.check_classifiers(str(tmp_path), config, others(1))
  with pytest.raises(ValueError, match='another one.*--out'):
    unchanged.check_classifiers(str(tmp_path), config, others(2))
  assert record(2, False)['measures.features']['crc32'] == 2


def test_masks_and_series_and_vectors_that_have_changed_are_refused(tmp_path):
  rng = np.random.default_rng(0)

  def write(kind, num, extra=0.0):
    if kind != 'segment':
      rows = rng.normal(size=(num, 2)) + extra
      lines = [','.join(map(str, (k, *row))) for k, row in enumerate(rows)]
      (tmp_path / f'{kind}.csv').write_text('\n'.join(['time,a,b', *lines]))
      return
    for k in range(num):
      mask = rng.integers(0, 4, (8, 8), np.uint8)
      for name in ('images', 'masks'):
        (tmp_path / kind / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(tmp_path / kind / name / f'{k}.png')

  pairs = {'name': 'masks', 'path': str(tmp_path / 'segment')}
  evals = {'test': {'source': pairs | {'split': 'all[80%:]'}}}
  variants = {
      'segment': 'real', 'time_series': f'nat:{tmp_path}/time_series.csv',
      'outliers': f'mo:{tmp_path}/outliers.csv'}
  for kind, variant in variants.items():
    write(kind, 50)
    config = toy.config_file(f'{kind}.py')(variant).to_dict()
    if kind == 'segment':
      config['data']['pairs'], config['evals'] = pairs | {'split': 'all[:80%]'}, evals
      config['reference'] = 'test'
    if kind == 'time_series':
      config['data']['window'] = 8
    config, workdir = runs.resolve(config), str(tmp_path / f'run-{kind}')

    def record(going_on, config=config, workdir=workdir, kind=kind):
      inputs = runs.TASKS[kind].load(config, 1, runs.OTHERS)
      return unchanged.record(workdir, config, inputs, going_on, runs.OTHERS)

    os.makedirs(workdir)
    first = record(True)
    assert [one['n'] for one in first.values()] == [
        {'segment': 40, 'time_series': 38, 'outliers': 50}[kind]]
    unchanged.write(workdir, first)
    assert record(True) == first
    unchanged.check(workdir, config, config.get('evals', {}), runs.OTHERS)
    write(kind, 50, 0.01)
    assert record(False) != first
    with pytest.raises(ValueError, match=(
        f'of .*{kind}.*, has changed: .* examples as before, but not the same')):
      record(True)
    if kind == 'segment':
      with pytest.raises(ValueError, match='The sets test are shares of it'):
        unchanged.check(workdir, config, evals, runs.OTHERS)
