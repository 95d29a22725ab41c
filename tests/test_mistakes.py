"""What bad input gets: one clear error before training, and nothing written."""

import os
import pathlib
import shutil
import types

import flax
import numpy as np
import pytest
import toy
from PIL import Image

from nat_jax import data, train
from nat_jax.commands import predict, report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.data import cache
from nat_jax.runtime import results
from nat_jax.runtime import workdir as workdirs
from nat_jax.schema import presets

FAKE = toy.fake(num=16, shape=(4, 4, 1))
NAN = float('nan')
VALIDATION = {'source': dict(FAKE), 'positive': True, 'part': 'validation'}


def make_config(**changes):
  """A good config of four classes; keys 'a__b' change what is nested."""
  config = dict(
      steps=1, num_classes=4, model={'name': 'mlp', 'width': 4, 'depth': 1},
      data=dict(positives=dict(FAKE), negatives={'n': {'source': dict(FAKE)}},
                batch_size=8, negatives_per_batch=8),
      evals={'test': {'source': dict(FAKE), 'positive': True}},
      run=dict(tensorboard=False))
  return presets.experiment(**toy.change(config, **changes))


def folder(path, *sizes, broken=False):
  """Pictures of these sizes, and what the source 'folder' needs to read them."""
  path.mkdir(parents=True)
  for k, size in enumerate(sizes):
    Image.new('L', size).save(path / f'{k}.png')
  if broken:
    (path / 'broken.png').write_bytes(b'not a picture')
  return {'name': 'folder', 'path': str(path), 'mode': 'L'}


MISTAKES = {
    'key': ({'foo': 1}, r"'foo'.*\bbest, .*steps"),
    'similar key': ({'stepz': 1}, "did you mean 'steps'"),
    'nested key': ({'run__foo': 1}, r"run.'foo'.*run.log_every"),
    'model': ({'model': {'name': 'vgg'}}, "model 'vgg'.*mlp"),
    'similar model': (
        {'model': {'name': 'Small_Conv'}}, "model 'Small_C.*did you mean 'small_conv'"),
    'similar argument': ({'model__depht': 3}, "'depht'.*did you mean 'depth'"),
    'model argument': ({'model__depht': 3}, r"model 'mlp'.*'depht'.*\bdepth"),
    'more classes': ({'num_classes': 5}, 'is 5, and data.positives has 4 classes'),
    'no name': ({'model': {'width': 3}}, "model.*{'name'.*'width': 3"),
    'no spec': ({'loss': 'nat'}, "loss.*{'name'.*'nat'"),
    'loss': ({'loss': {'name': 'x'}}, "loss 'x'.*nat"),
    'loss argument': ({'loss': {'name': 'nat', 'x': 1}}, "loss 'nat'.*'x'"),
    'optimizer': ({'optimizer': {'name': 'x'}}, "optimizer 'x'.*adamw, muon, sgd"),
    'optimizer argument': ({'optimizer': {'name': 'sgd', 'x': 1}}, "'sgd'.*'x'"),
    'schedule': ({'schedule': {'name': 'x'}}, "schedule 'x'.*cosine"),
    'schedule argument': ({'schedule': {'name': 'cosine'}}, "'cosine'.*learning_rate"),
    'trainer': ({'trainer': {'name': 'x'}}, "trainer 'x'.*supervised"),
    'source': ({'data__positives': {'name': 'x'}}, "'x'.*tfds"),
    'source argument': ({'data__positives__x': 1}, "'fake'.*'x'.*num"),
    'no source': ({'evals__n': {'positive': True}}, "evals.n.source.*{'name'.*None"),
    'source key': ({'data__negatives__n__wieght': 2},
                   r"data.negatives.n.'wieght'.*\bdata.negatives.n.weight"),
    'augmentation': ({'data__augment': [{'name': 'x'}]}, "augmentation 'x'.*crop"),
    'treatment': ({'data__treatment': {'name': 'x'}}, "treatment 'x'.*mine, mix"),
    'mode': ({'run__mode': 'x'}, "mode.*'x'.*jit, pmap"),
    'placement': ({'run__placement': 'x'}, "run.placement.*'x'.*resident, streamed"),
    'best': ({'best': 'validation/acc', 'evals__validation': VALIDATION},
             "best.*'validation/acc'.*validation/accuracy"),
    'best of the test': (
        {'best': 'test/accuracy', 'evals__validation': VALIDATION},
        "best.*'test/accuracy'.*'validation'.*validation/accuracy"),
    'best without validation': (
        {'best': 'test/accuracy'},
        "best.*'test/accuracy'.*'validation'.*evals.*best=''"),
    'best that is always 1': (
        {'num_classes': 2, 'best': 'strangers/ncr/0.4'},
        r"best='strangers/ncr/0.4'.* 1/2\b.*above 0.5\b.*'strangers/auroc'"),
    'best at 1/K': (
        {'num_classes': 2, 'best': 'validation/par/0.5'}, r"best=.*above 0.5\b"),
    'part': ({'evals__test__part': 'train'},
             "evals.test.part.*'test', 'validation', 'calibr.*'train'"),
    'reference of a part': (
        {'evals__test__part': 'calibration'},
        r"evals.*'test'.*part 'test'.*\[\]"),
    'part without positives': (
        {'evals__n': {'source': FAKE, 'part': 'calibration'}},
        r"evals.*'calibration'.*\[\]"),
    'part with two': (
        {'evals__validation': VALIDATION, 'evals__more': VALIDATION,
         'evals__n': {'source': FAKE, 'part': 'validation'}},
        r"evals.*'validation'.*\['more', 'validation'\]"),
    'labels of validation': (
        {'evals__validation': VALIDATION | {'source': dict(FAKE, num_classes=5)}},
        r"'validation'.*not trained on, pattern 4; its own"),
    'size of validation': (
        {'evals__validation': VALIDATION | {'source': dict(FAKE, shape=(8, 8, 1))}},
        r"'validation'.*\(8, 8, 1\).*\(4, 4, 1\)"),
    'steps': ({'steps': 0}, r'steps.*\[1, 1e9\].*\b0$'),
    'whole steps': ({'steps': 1.5}, r'steps.*whole.*\[1, 1e9\].*1\.5'),
    'log_every': ({'run__log_every': 0}, r'run.log_every.*\[1, 1e9\].*\b0$'),
    'clip': ({'grad_clip': NAN}, r'grad_clip.*\[0, 1e9\].*nan'),
    'keep': ({'run__keep': 0}, r'run.keep.*\[1, .*\b0$'),
    'eval batch': ({'eval_batch_size': 0}, r'eval_batch_size.*\[1, .*\b0$'),
    'set name': ({'evals__a/b': {'source': FAKE}}, "evals.*'a/b'"),
    'reference': ({'reference': 'x'}, r"evals.*'x'.*reference.*\['test'\]"),
    'not positive': ({'evals__test': {'source': FAKE}},
                     r"evals.*positive.*'test'.*\['test'\]"),
    'batch': ({'data__batch_size': 12}, r'data.batch_size.*\b12\b.*\b8\b'),
    'negatives': ({'data__negatives': {}},
                  r"'nat'.*data.negatives\b.*\[\].*'cross_entropy'"),
    'number': ({'data__negatives_per_batch': 0},
               r"'nat'.*data.negatives_per_batch.*\b0\b.*'cross_entropy'"),
    'pair': ({'data__negatives_per_batch': (1, 2, 3)},
             r'data.negatives_per_batch.*[\[(]1, 2, 3[\])]'),
    'falling pair': ({'data__negatives_per_batch': (5, 2)},
                     r'negatives_per_batch.*\(5, 2\)'),
    'inside': ({'data__inside': True}, r'inside=True.*negatives_per_batch.*\b8$'),
    'weight': ({'data__negatives__n__weight': 0},
               r'data.negatives.n.weight.*\(0, 1e6\].*\b0$'),
    'labels': ({'num_classes': 3}, 'num_classes is 3, and data.positives has 4 class'),
    'test labels': (
        {'evals__more': {'source': dict(FAKE, num_classes=5), 'positive': True}},
        r"'more'.*not trained on, pattern 4; its own"),
    'size': ({'data__negatives__n__source': dict(FAKE, shape=(5, 4, 1))},
             r"'n'.*\[5, 4, 1\].*\[4, 4, 1\]"),
    'channels': ({'data__negatives__n__source': dict(FAKE, shape=(4, 4, 3))},
                 r"'n'.*\[4, 4, 3\].*\[4, 4, 1\]"),
    'eval size': ({'evals__n': {'source': dict(FAKE, shape=(8, 8, 1))}},
                  r"'n'.*\(8, 8, 1\).*\(4, 4, 1\)"),
    'test size': ({'evals__test__source': dict(FAKE, shape=(8, 8, 1))},
                  r"'test'.*\(8, 8, 1\).*\(4, 4, 1\)"),
    'mean': ({'data__mean': (0.5, 0.5, 0.5)}, r'data.mean.*\b1\b.*0.5, 0.5, 0.5'),
    'std': ({'data__std': (0.0,)}, r'data.std.*\[1e-30, 1e30\].*0\.0'),
    'classes': ({'data__positives__classes': (0, 9)},
                r'classes.*\[0, 9\].*\[0, 1, 2, 3\]'),
    'fraction of a class': ({'data__positives__classes': (0.5,)},
                            r'data.positives.classes.*whole.*\[0.5\]'),
    'NaN mean': ({'data__mean': (NAN,)}, r'data.mean.*\[nan\]'),
    'long name': ({'evals__' + 'a' * 300: {'source': FAKE}}, 'evals.*aaa.*100'),
    'long variant': ({'variant': 'a' * 300}, 'variant.*100.*aaa'),
    'no rate': ({'schedule': {'name': 'cosine', 'learning_rate': 0.0}},
                r'schedule.learning_rate.*\[1e-30, 1e38\].*0\.0'),
    'drops': ({'steps': 10, 'schedule': {'name': 'step', 'learning_rate': 0.1,
                                         'at': (0.5, 0.51)}},
              r'schedule.at.*\[0.5, 0.51\].*\[5, 5\].*\b10\b'),
    'drop in the warm-up': (
        {'steps': 9, 'schedule': {'name': 'step', 'learning_rate': 0.1, 'at': (0.5,),
                                  'warmup': 4}},
        r'schedule.at.*0\.5.*\[4\].*\b9\b'),
    'seed': ({'seed': 2**64}, rf'seed.*\[0, 4294967295\].*{2**64}'),
    'width': ({'model__width': 0}, r'model.width.*\[1, 65536\].*\b0$'),
    'no classes': ({'num_classes': 0}, r'num_classes.*\[2, 1e5\].*\b0$'),
    'positive': ({'evals__test__positive': 'no'},
                 "evals.test.positive.*True.*False.*'no'"),
    'updates per call': ({'run__updates_per_call': 10**12},
                         rf'run.updates_per_call.*\[1, 1e5\].*{10**12}'),
    'augmentation of nothing': ({'data__augment': None}, 'data.augment.*None'),
    'sets': ({'evals': []}, r'evals.*source.*\[\]'),
    'tfds name': ({'data__positives': {'name': 'tfds', 'dataset': 'cifar11'}},
                  "data_dir.*'cifar11'"),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes_in_a_config(mistake, tmp_path, eight_devices):
  changes, message = MISTAKES[mistake]
  with pytest.raises((ValueError, TypeError), match=f'(?s){message}'):
    train.train(make_config(**changes), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_an_update_is_traced_before_anything_is_written(tmp_path, monkeypatch):
  """A part that a user has added and that fails in the step alone."""
  monkeypatch.setitem(data.AUGMENTS, 'halve', lambda: lambda image, key: image[:2])
  with pytest.raises(flax.errors.ScopeParamShapeError):
    train.train(make_config(data__augment=[{'name': 'halve'}]), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_a_set_may_be_called_as_the_mistakes_of_another(tmp_path):
  train.train(
      make_config(evals__x={'source': FAKE}, evals__x_mistakes={'source': FAKE}),
      str(tmp_path))
  for name in ('x', 'x_mistakes'):
    assert results.read_arrays(tmp_path, f'{results.SCORES}/{name}', 1, ['max_prob'])
    assert results.read_arrays(tmp_path, f'{results.MISTAKES}/{name}', 1, ['image'])
  assert os.path.isfile(report.write([str(tmp_path)]))


def test_data_that_is_not_prepared(tmp_path):
  source = {'name': 'tfds', 'dataset': 'mnist', 'data_dir': str(tmp_path / 'data'),
            'cache_dir': str(tmp_path / 'cache')}
  with pytest.raises(ValueError, match=r"(?s)'mnist'.*download_and_prepare\(\)"):
    train.train(make_config(data__positives=source), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_damaged_cache_is_named(tmp_path):
  image, label = np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, int)
  written = cache.write_cache('mnist', 'train', image, label, (), str(tmp_path))
  (written / 'image.npy').write_bytes((written / 'image.npy').read_bytes()[:140])
  source = {'name': 'tfds', 'dataset': 'mnist', 'cache_dir': str(tmp_path)}
  with pytest.raises(ValueError, match=f'{written}.*delete'):
    train.train(make_config(data__positives=source), str(tmp_path / 'run'))


@pytest.mark.parametrize('sizes, broken, message', [
    ((), False, 'pictures.*.png'),
    (((4, 4),), True, r'broken.png.*skip_unreadable'),
    (((4, 4), (4, 5)), False, r'0.png.*\(4, 4\).*1.png.*\(5, 4\).*size='),
    (((6, 6),), False, r"'n'.*\[6, 6, 1\].*\[4, 4, 1\]"),
])
def test_folders_of_pictures(sizes, broken, message, tmp_path):
  source = folder(tmp_path / 'pictures', *sizes, broken=broken)
  with pytest.raises(ValueError, match=f'(?s){message}'):
    train.train(make_config(data__negatives__n__source=source), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_missing_folder(tmp_path):
  source = {'name': 'folder', 'path': str(tmp_path / 'nowhere')}
  with pytest.raises(ValueError, match=f'{tmp_path}/nowhere'):
    train.train(make_config(data__positives=source), str(tmp_path / 'run'))


def test_full_disk(tmp_path, monkeypatch):
  monkeypatch.setattr(
      shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=100))
  with pytest.raises(
      ValueError, match=f'{tmp_path}/deep/run.*--workdir.*--config.run.keep=1'):
    train.train(make_config(), str(tmp_path / 'deep' / 'run'))
  assert list(tmp_path.iterdir()) == []
  config = make_config().to_dict()
  monkeypatch.undo()
  workdirs.prepare(str(tmp_path / 'run'), config)
  monkeypatch.setattr(
      shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=100))
  with pytest.raises(ValueError, match='free some space'):
    train.train(make_config(seed=1), str(tmp_path / 'run'), overwrite=True)
  assert [path.name for path in tmp_path.iterdir()] == ['run']  # not moved aside


def test_workdir_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('mine')
  for workdir in (tmp_path / 'file', tmp_path / 'file' / 'run'):
    with pytest.raises(ValueError, match=f'--workdir.*{workdir}'):
      train.train(make_config(), str(workdir))
  assert (tmp_path / 'file').read_text() == 'mine'


def test_workdir_of_another_config(tmp_path):
  config = make_config().to_dict()
  workdirs.prepare(str(tmp_path / 'run'), config)
  before = (tmp_path / 'run' / 'config.json').read_bytes()
  other = make_config(seed=1, model__width=5)
  with pytest.raises(ValueError, match='model.width: 4 -> 5.*seed: 0 -> 1.*overwrite'):
    train.train(other, str(tmp_path / 'run'))
  assert (tmp_path / 'run' / 'config.json').read_bytes() == before
  assert [path.name for path in tmp_path.iterdir()] == ['run']
  # How a run is run may change.
  train.check(make_config(run__log_every=7), str(tmp_path / 'run'))


def test_workdir_with_a_broken_config(tmp_path):
  (tmp_path / 'config.json').write_text('{"steps": ')
  with pytest.raises(ValueError, match=f'{tmp_path}/config.json.*--workdir'):
    train.train(make_config(), str(tmp_path))
  assert (tmp_path / 'config.json').read_text() == '{"steps": '


def test_evaluating_what_is_not_there(tmp_path):
  for workdir in (tmp_path, tmp_path / 'nowhere'):
    with pytest.raises(ValueError, match=f'--workdir {workdir}$'):
      evaluate_run(str(workdir))
    with pytest.raises(ValueError, match=f'--workdir {workdir}$'):
      predict.predict(str(workdir), [__file__])
  assert list(pathlib.Path(tmp_path).iterdir()) == []
