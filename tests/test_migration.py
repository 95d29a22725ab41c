"""Runs of version 0.1 (tests/v01, made by that version) under the code of this one."""

import copy
import json
import logging
import pathlib
import re
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import toy

from nat_jax import runs, schema, train
from nat_jax.commands import evaluate
from nat_jax.reports import report
from nat_jax.runtime import checkpoint, files, results, workdir

OLD = pathlib.Path(__file__).parent / 'v01'
# (run, step) -> the checksum of all arrays, computed by version 0.1.
CRC32 = {('classifier', 2): 530160677, ('classifier', 4): 1982533671,
         ('gan', 2): 93223881}
NETS = {'classifier': {'model': 'net'}, 'gan': {'gen': 'gen', 'disc': 'disc'}}


@pytest.fixture
def old(tmp_path):
  """Copies of the two workdirs of version 0.1."""
  shutil.copytree(OLD, tmp_path / 'old')
  return tmp_path / 'old'


def read(path):
  return json.loads(path.read_text())


def by_path(tree):
  """Path, in plain words -> array, without what has no array."""
  return {'/'.join(str(getattr(k, 'key', getattr(k, 'name', getattr(k, 'idx', k))))
                   for k in path): np.asarray(x)
          for path, x in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize('name, step', CRC32)
def test_restored_state_is_that_of_the_file(name, step, old, caplog):
  with caplog.at_level(logging.WARNING):
    run = runs.restore(str(old / name), step)
  assert re.search(rf'Checkpoint {step}\b.*0\.1\b', caplog.text)
  assert 'unverified' in caplog.text
  assert (run.step, run.config['task']) == (
      step, {'classifier': 'classify', 'gan': 'gan'}[name])
  assert runs.about(str(old / name), step)['crc32'] == CRC32[name, step]

  # Read without a target: the arrays of the file, as nested dicts.
  with ocp.StandardCheckpointer() as reader:
    stored = reader.restore(old / name / 'checkpoints' / str(step) / 'state')
  for net, before in NETS[name].items():
    found, expected = by_path(run.state.nets[net]), by_path(stored[before])
    assert set(found) == set(expected)
    assert any(path.startswith('opt_state') for path in found)
    for path in found:
      np.testing.assert_array_equal(found[path], expected[path], err_msg=path)
  (averaged, ema), = run.state.ema.items()
  assert averaged == next(iter(NETS[name]))
  found, expected = by_path(ema), by_path(stored['ema'])
  assert set(found) == set(expected) and found
  for path in found:
    np.testing.assert_array_equal(found[path], expected[path], err_msg=path)
  assert int(run.state.step) == int(stored['step']) == step
  np.testing.assert_array_equal(
      jax.random.key_data(run.state.key), np.asarray(stored['key']))


def test_names_of_normalisation_are_kept(old):
  model = runs.restore(str(old / 'classifier')).state.nets['model']
  assert set(model.batch_stats['BatchNorm_0']) == {'mean', 'var'}
  assert set(model.params['BatchNorm_0']) == {'scale', 'bias'}
  nets = runs.restore(str(old / 'gan')).state.nets
  assert set(nets['gen'].params['BatchStatsNorm_0']) == {'scale', 'bias'}
  assert not nets['gen'].batch_stats
  assert set(nets['disc'].batch_stats) == {'Dense_0'}  # u of the spectral norm


def assert_figures(found, expected):
  """All figures of `expected` but the intervals, whose method changed."""
  for key, value in expected.items():
    if not key.endswith('_interval'):
      assert found[key] == pytest.approx(value, rel=1e-5, abs=1e-6), key


def test_evaluation_agrees(old):
  before = read(old / 'classifier' / 'eval.json')
  after = evaluate.evaluate_run(str(old / 'classifier'))
  assert after == read(old / 'classifier' / 'eval.json')
  assert 'format' not in before and after['format'] == schema.FORMAT
  for name in ('test', 'held_out'):
    assert_figures(after['evals'][name], before['evals'][name])
    scores = results.read_arrays(str(old / 'classifier'), f'scores/{name}', 4)
    with np.load(OLD / 'classifier' / 'scores' / f'{name}.npz') as file:
      np.testing.assert_allclose(scores['logits'], file['logits'], atol=1e-5)


def test_scores_of_version_0_1_must_be_made_again(old):
  with pytest.raises(files.Unreadable, match='test.npz.*step.*--mode=evaluate'):
    results.read_arrays(str(old / 'classifier'), 'scores/test', 4)


def test_finished_run_is_left_as_it_is(old):
  config = schema.upgrade(read(old / 'classifier' / 'config.json'))
  before = read(old / 'classifier' / 'eval.json')
  assert train.train(config, str(old / 'classifier')) == before


def test_resumed_classifier_ends_where_version_0_1_did(old):
  """From its checkpoint of step 2 to the parameters of its checkpoint of step 4.

  With a fixed number of negatives per batch: where a range is given, the stream of this
  version draws other ones.
  """
  workdir_ = old / 'classifier'
  expected = runs.restore(str(workdir_)).state
  before = read(workdir_ / 'eval.json')
  shutil.rmtree(workdir_ / 'checkpoints' / '4')
  after = train.train(
      schema.upgrade(read(workdir_ / 'config.json')), str(workdir_))
  assert checkpoint.list_steps(str(workdir_)) == [2, 4]
  assert runs.about(str(workdir_))['format'] == schema.FORMAT
  found = runs.restore(str(workdir_)).state
  for part in ('nets', 'ema'):
    one, other = by_path(getattr(found, part)), by_path(getattr(expected, part))
    for path in other:
      np.testing.assert_allclose(one[path], other[path], atol=1e-5, err_msg=path)
  assert_figures(after['evals']['test'], before['evals']['test'])
  assert read(workdir_ / 'config.json')['format'] == schema.FORMAT
  assert [record['step'] for record in files.read_records(
      workdir_ / 'metrics.jsonl') if record['kind'] == 'train'][-1] == 4


@pytest.mark.slow
def test_resumed_gan_ends_where_version_0_1_did(old):
  """From its checkpoint of step 2 to the figures in its eval.json of step 4."""
  before = read(old / 'gan' / 'eval.json')
  (old / 'gan' / 'eval.json').unlink()
  after = train.train(schema.upgrade(read(old / 'gan' / 'config.json')),
                      str(old / 'gan'))
  for key in ('fid', 'kid', 'precision', 'recall', 'spread'):
    assert after['evals']['samples'][key] == pytest.approx(
        before['evals']['samples'][key], rel=1e-3), key
  assert checkpoint.list_steps(str(old / 'gan')) == [2, 4]


def test_report_reads_old_and_new(old):
  for name, task in (('classifier', 'classify'), ('gan', 'gan')):
    run = report.load_run(str(old / name))
    assert (run['task'], run['label']) == (
        task, 'old:nat seed 1' if task == 'classify' else 'old:nat2 seed 1')
    assert [step for step, _ in run['history']['train']] == [2, 4]
    assert set(run['evals']) == (
        {'test', 'held_out'} if task == 'classify' else {'samples'})
    assert 'format' not in run['config']


def test_damage_is_found_out(old):
  folder = old / 'classifier' / 'checkpoints' / '4'
  data = max((folder / 'state' / 'd').iterdir(), key=lambda path: path.stat().st_size)
  whole = data.read_bytes()
  data.write_bytes(whole[:len(whole) // 2])
  with pytest.raises(checkpoint.Damaged, match='checkpoint 4'):
    runs.restore(str(old / 'classifier'), 4)
  assert runs.restore(str(old / 'classifier')).step == 2
  data.write_bytes(whole)
  sums = folder / 'checksum' / 'metadata'
  sums.write_text(json.dumps({'crc32': CRC32['classifier', 4] ^ 1}))
  with pytest.raises(checkpoint.Damaged, match='checkpoint 4.*checksum'):
    runs.restore(str(old / 'classifier'), 4)
  sums.write_text(json.dumps({'crc32': CRC32['classifier', 4]}))
  about = folder / 'about' / 'metadata'
  config = read(about)
  about.write_text(json.dumps({**config, 'image_shape': None}))
  with pytest.raises(checkpoint.Damaged, match='checkpoint 4.*image_shape'):
    runs.restore(str(old / 'classifier'), 4)
  # A checkpoint of this version that lost its checksum is none of version 0.1.
  about.write_text(json.dumps({**config, 'format': 2}))
  with pytest.raises(checkpoint.Damaged, match='checkpoint 4.*checksum'):
    runs.restore(str(old / 'classifier'), 4)


def test_another_config_is_still_refused(old):
  config = schema.upgrade(read(old / 'classifier' / 'config.json'))
  with pytest.raises(ValueError, match=r'classifier.*seed: 1 -> 7'):
    workdir.check(str(old / 'classifier'), {**config, 'seed': 7})
  assert not workdir.check(str(old / 'classifier'), config)


def test_saved_gaan_goes_on_although_its_trainer_has_new_keys(tmp_path):
  config = schema.plain(toy.config_file('gan/gaan.py')())
  old = copy.deepcopy(config)
  for key in ('negative_weight', 'form', 'fade', 'prior'):
    del old['trainer'][key]
  workdir.write_config(str(tmp_path), old)
  assert not workdir.check(str(tmp_path), config)
  own = {**config, 'trainer': {'name': 'gaan', 'recon_weight': 0.1}}
  workdir.write_config(str(tmp_path), own)
  assert not workdir.check(str(tmp_path), own)
  with pytest.raises(ValueError, match='recon_weight: 0.1 -> 0.05'):
    workdir.check(str(tmp_path), config)


def test_upgraded_configs():
  """What version 0.1 wrote otherwise; all of it passes the checks of this one."""
  for name in ('classifier', 'gan'):
    config = schema.upgrade(read(OLD / name / 'config.json'))
    assert schema.plain(config) == config
  trainer = {'name': 'gan', 'n_critic': 2}
  assert schema.upgrade({'trainer': trainer})['trainer'] == trainer
  assert schema.upgrade({'trainer': {**trainer, 'negative_weight': 0.0}})[
      'trainer']['negative_weight'] is None
  assert schema.upgrade({'trainer': {**trainer, 'negative_weight': 0.5}})[
      'trainer']['negative_weight'] == 0.5
  points = schema.upgrade({
      'trainer': {'name': 'points'}, 'steps': 100, 'snapshots': 20,
      'negative_weight': 0.0})
  assert points['task'] == 'points' and points['negative_weight'] is None
  assert points['run']['eval_every'] == 5
  schema.check_config(points)


def test_upgraded_choice_of_the_best_checkpoint():
  source = {'name': 'fake'}
  config = {'best': 'val/accuracy', 'evals': {
      'test': {'source': source, 'positive': True},
      'val': {'source': source, 'positive': True}, 'noise': {'source': source}}}
  upgraded = schema.upgrade(config)
  assert upgraded['best'] == 'val/accuracy'
  assert [one.get('part') for one in upgraded['evals'].values()] == [
      None, 'validation', None]
  for best in ('test/accuracy', 'noise/auroc', 'none/accuracy'):
    upgraded = schema.upgrade({**config, 'best': best})
    assert upgraded['best'] == ''
    assert not any('part' in one for one in upgraded['evals'].values())
  assert schema.upgrade({**config, 'task': 'classify'})['evals'] == config['evals']


def test_a_later_format_is_refused(old):
  place = old / 'classifier'
  config = schema.upgrade(read(place / 'config.json'))
  for name in ('config.json', 'eval.json'):
    (place / name).write_text(json.dumps({**read(place / name), 'format': 3}))
  with pytest.raises(schema.Newer, match=r'config.json.*\b3\b.*\b2\b'):
    workdir.check(str(place), config)
  assert workdir.check(str(place), config, overwrite=True)
  with pytest.raises(schema.Newer, match=r'eval.json.*\b3\b.*\b2\b'):
    report.load_run(str(place))
  with pytest.raises(schema.Newer, match=r'config.*\b3\b.*\b2\b'):
    train.train(read(place / 'config.json'), str(old / 'new'))
  assert not (old / 'new').exists()
  # What config.json of this version holds is a config.
  assert schema.plain({**config, 'format': 2}) == config


def test_a_checkpoint_of_a_later_format_is_refused(old, monkeypatch):
  place = str(old / 'classifier')
  run = runs.restore(place)
  shutil.rmtree(old / 'classifier' / 'checkpoints')
  (old / 'classifier' / 'config.json').unlink()
  manager = checkpoint.open_manager(place)
  with monkeypatch.context() as patch:
    patch.setattr(schema, 'FORMAT', 3)
    checkpoint.save(manager, run.state, 4, {
        'config': run.config, 'image_shape': list(run.shape), 'class_names': []})
    checkpoint.close(manager)
  for look in (lambda: runs.restore(place), lambda: runs.about(place),
               lambda: workdir.check(place, run.config)):
    with pytest.raises(schema.Newer, match=r'checkpoint 4\b.*\b3\b.*\b2\b'):
      look()
  assert workdir.check(place, run.config, overwrite=True)
