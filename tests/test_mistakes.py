"""What bad input gets: one clear error before training, and nothing written."""

import os
import pathlib
import shutil
import types

import flax
import numpy as np
import pytest
from PIL import Image

from nat_jax import data, train
from nat_jax.commands import predict, report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.data import cache
from nat_jax.runtime import results
from nat_jax.runtime import workdir as workdirs
from nat_jax.schema import presets

FAKE = {'name': 'fake', 'num': 16, 'shape': (4, 4, 1)}
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
  for key, value in changes.items():
    *path, last = key.split('__')
    place = config
    for part in path:
      place = place[part]
    place[last] = value
  return presets.experiment(**config)


def folder(path, *sizes, broken=False):
  """Pictures of these sizes, and what the source 'folder' needs to read them."""
  path.mkdir(parents=True)
  for k, size in enumerate(sizes):
    Image.new('L', size).save(path / f'{k}.png')
  if broken:
    (path / 'broken.png').write_bytes(b'not a picture')
  return {'name': 'folder', 'path': str(path), 'mode': 'L'}


MISTAKES = {
    'key': ({'foo': 1}, r"unknown config key 'foo'; valid keys: best, .*steps"),
    'nested key': ({'run__foo': 1}, r"run.'foo'; valid keys: .*run.log_every"),
    'model': ({'model': {'name': 'vgg'}}, "unknown model 'vgg'; valid names: .*mlp"),
    'model argument': ({'model__depht': 3}, "model 'mlp'.*depht.*it takes.*depth"),
    'no name': ({'model': {'width': 3}}, "model must be {'name'"),
    'no spec': ({'loss': 'nat'}, "loss must be {'name'.*got 'nat'"),
    'loss': ({'loss': {'name': 'x'}}, "unknown loss 'x'; valid names: .*nat"),
    'loss argument': ({'loss': {'name': 'nat', 'x': 1}}, "loss 'nat'.*'x'"),
    'optimizer': ({'optimizer': {'name': 'x'}}, "unknown optimizer 'x'; .*adamw, sgd"),
    'optimizer argument': ({'optimizer': {'name': 'sgd', 'x': 1}}, "'sgd'.*'x'"),
    'schedule': ({'schedule': {'name': 'x'}}, "unknown schedule 'x'; .*cosine"),
    'schedule argument': ({'schedule': {'name': 'cosine'}}, "'cosine'.*learning_rate"),
    'trainer': ({'trainer': {'name': 'x'}}, "unknown trainer 'x'; .*supervised"),
    'source': ({'data__positives': {'name': 'x'}}, "unknown data source 'x'; .*tfds"),
    'source argument': ({'data__positives__x': 1}, "data source 'fake'.*'x'"),
    'no source': ({'evals__n': {}}, r'evals.n.source must be'),
    'source key': ({'data__negatives__n__wieght': 2}, "'wieght'; .*weight"),
    'augmentation': ({'data__augment': [{'name': 'x'}]}, "augmentation 'x'; .*crop"),
    'treatment': ({'data__treatment': {'name': 'x'}}, "unknown treatment 'x'"),
    'mode': ({'run__mode': 'x'}, "unknown mode 'x'; valid modes: jit, pmap"),
    'placement': ({'run__placement': 'x'}, "placement 'x'; valid: resident, streamed"),
    'best': ({'best': 'validation/acc', 'evals__validation': VALIDATION},
             "best='validation/acc' must be .*There will be: .*validation/accuracy"),
    'best of the test': (
        {'best': 'test/accuracy', 'evals__validation': VALIDATION},
        "best='test/accuracy' must be .*of part 'validation'.*validation/accuracy"),
    'best without validation': (
        {'best': 'test/accuracy'}, "no such set: add one to evals, or leave best=''"),
    'part': ({'evals__test__part': 'train'},
             "evals.test.part must be one of 'test', 'validation', 'calibr.* 'train'"),
    'reference of a part': (
        {'evals__test__part': 'calibration'},
        r"positive set named 'test' .* of part 'test', .* it holds: \[\]"),
    'part without positives': (
        {'evals__n': {'source': FAKE, 'part': 'calibration'}},
        r"one positive set of part 'calibration'.*got 0: \[\]; add one"),
    'part with two': (
        {'evals__validation': VALIDATION, 'evals__more': VALIDATION,
         'evals__n': {'source': FAKE, 'part': 'validation'}},
        r"set of part 'validation'.*got 2: \['more', 'validation'\]"),
    'labels of validation': (
        {'evals__validation': VALIDATION | {'source': dict(FAKE, num_classes=5)}},
        "labels of the positive evaluation set 'validation' must be 0..3"),
    'size of validation': (
        {'evals__validation': VALIDATION | {'source': dict(FAKE, shape=(8, 8, 1))}},
        r"set 'validation' has images of shape \(8, 8, 1\), the positives \(4, 4"),
    'steps': ({'steps': 0}, r'steps must be a whole number in \[1, 1e9\], got 0'),
    'whole steps': ({'steps': 1.5}, 'steps must be a whole number'),
    'log_every': ({'run__log_every': 0}, r'run.log_every must be .* in \[1, 1e9\]'),
    'clip': ({'grad_clip': NAN}, r'grad_clip must be .* in \[0, 1e9\], got nan'),
    'keep': ({'run__keep': 0}, 'run.keep must be'),
    'eval batch': ({'eval_batch_size': 0}, 'eval_batch_size must be'),
    'set name': ({'evals__a/b': {'source': FAKE}}, "evals: 'a/b' must be of letters"),
    'reference': ({'reference': 'x'}, r"positive set named 'x'.*holds: \['test'\]"),
    'not positive': ({'evals__test': {'source': FAKE}}, "a positive set named 'test'"),
    'batch': ({'data__batch_size': 12}, '12 does not divide over 8 devices'),
    'negatives': ({'data__negatives': {}}, "'nat' learns from negatives.*none"),
    'number': ({'data__negatives_per_batch': 0}, "'nat' learns from negatives"),
    'pair': ({'data__negatives_per_batch': (1, 2, 3)}, 'a pair'),
    'falling pair': ({'data__negatives_per_batch': (5, 2)}, r'\(5, 2\)'),
    'inside': ({'data__inside': True}, 'must hold a positive'),
    'weight': ({'data__negatives__n__weight': 0},
               r'data.negatives.n.weight must be .* in \(0, 1e6\]'),
    'labels': ({'num_classes': 3}, r'labels of the positives must be 0..2, got 0..3'),
    'test labels': (
        {'evals__more': {'source': dict(FAKE, num_classes=5), 'positive': True}},
        "labels of the positive evaluation set 'more' must be 0..3"),
    'size': ({'data__negatives__n__source': dict(FAKE, shape=(5, 4, 1))},
             r"negatives 'n' are \[5, 4, 1\] .*positives \[4, 4, 1\]"),
    'channels': ({'data__negatives__n__source': dict(FAKE, shape=(4, 4, 3))},
                 r'\[4, 4, 3\]'),
    'eval size': ({'evals__n': {'source': dict(FAKE, shape=(8, 8, 1))}},
                  r"evaluation set 'n' has images of shape \(8, 8, 1\)"),
    'test size': ({'evals__test__source': dict(FAKE, shape=(8, 8, 1))},
                  r"set 'test' has images of shape \(8, 8, 1\), the training"),
    'mean': ({'data__mean': (0.5, 0.5, 0.5)}, 'data.mean must hold one number'),
    'std': ({'data__std': (0.0,)}, r'data.std must be .* in \[1e-6, 1e3\], got'),
    'classes': ({'data__positives__classes': (0, 9)}, r'classes must be .*\[0, 9\]'),
    'fraction of a class': ({'data__positives__classes': (0.5,)},
                            r'classes must be .*whole number.* got \[0.5\]'),
    'NaN mean': ({'data__mean': (NAN,)}, r'data.mean must be .* got \[nan\]'),
    'long name': ({'evals__' + 'a' * 300: {'source': FAKE}}, 'at most 100 bytes'),
    'long variant': ({'variant': 'a' * 300}, 'variant must be .* at most 100 bytes'),
    'no rate': ({'schedule': {'name': 'cosine', 'learning_rate': 0.0}},
                r'schedule.learning_rate must be .* in \[1e-30, 1e38\], got'),
    'drops': ({'steps': 10, 'schedule': {'name': 'step', 'learning_rate': 0.1,
                                         'at': (0.5, 0.51)}},
              r'in rising order.*got \[0.5, 0.51\], the updates \[5, 5\] of 10'),
    'drop in the warm-up': (
        {'steps': 9, 'schedule': {'name': 'step', 'learning_rate': 0.1, 'at': (0.5,),
                                  'warmup': 4}}, 'after the warm-up of 4'),
    'seed': ({'seed': 2**64}, r'seed must be .* in \[0, 4294967295\]'),
    'width': ({'model__width': 0}, r'model.width must be .* in \[1, 65536\]'),
    'no classes': ({'num_classes': 0}, r'num_classes must be .* in \[2, 1e5\]'),
    'positive': ({'evals__test__positive': 'no'}, "positive must be True or.* 'no'"),
    'updates per call': ({'run__updates_per_call': 10**12}, r'in \[1, 1e5\]'),
    'augmentation of nothing': ({'data__augment': None}, 'augment must be a list of'),
    'sets': ({'evals': []}, 'evals must be a dict, name -> '),
    'tfds name': ({'data__positives': {'name': 'tfds', 'dataset': 'cifar11'}},
                  "got 'cifar11'"),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes_in_a_config(mistake, tmp_path):
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
  with pytest.raises(ValueError, match=r'(?s)not prepared .*download_and_prepare\(\)'):
    train.train(make_config(data__positives=source), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_damaged_cache_is_named(tmp_path):
  image, label = np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, int)
  written = cache.write_cache('mnist', 'train', image, label, (), str(tmp_path))
  (written / 'image.npy').write_bytes((written / 'image.npy').read_bytes()[:140])
  source = {'name': 'tfds', 'dataset': 'mnist', 'cache_dir': str(tmp_path)}
  with pytest.raises(ValueError, match='mnist/train is not a whole split'):
    train.train(make_config(data__positives=source), str(tmp_path / 'run'))


@pytest.mark.parametrize('sizes, broken, message', [
    ((), False, 'holds no picture'),
    (((4, 4),), True, r'broken.png cannot be read as a picture.*skip_unreadable'),
    (((4, 4), (4, 5)), False, r'expected pictures of one size.*set size='),
    (((6, 6),), False, r'negatives .n. are \[6, 6, 1\]'),
])
def test_folders_of_pictures(sizes, broken, message, tmp_path):
  source = folder(tmp_path / 'pictures', *sizes, broken=broken)
  with pytest.raises(ValueError, match=f'(?s){message}'):
    train.train(make_config(data__negatives__n__source=source), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_missing_folder(tmp_path):
  source = {'name': 'folder', 'path': str(tmp_path / 'nowhere')}
  with pytest.raises(ValueError, match='nowhere is not a folder'):
    train.train(make_config(data__positives=source), str(tmp_path / 'run'))


def test_full_disk(tmp_path, monkeypatch):
  monkeypatch.setattr(
      shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=100))
  with pytest.raises(ValueError, match='MB are free; free some space'):
    train.train(make_config(), str(tmp_path / 'deep' / 'run'))
  assert list(tmp_path.iterdir()) == []


def test_workdir_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('mine')
  for workdir in (tmp_path / 'file', tmp_path / 'file' / 'run'):
    with pytest.raises(ValueError, match='cannot write to --workdir'):
      train.train(make_config(), str(workdir))
  assert (tmp_path / 'file').read_text() == 'mine'


def test_workdir_of_another_config(tmp_path):
  config = make_config().to_dict()
  workdirs.prepare(str(tmp_path / 'run'), config)
  before = (tmp_path / 'run' / 'config.json').read_bytes()
  other = make_config(seed=1, model__width=5)
  with pytest.raises(ValueError, match='model.width: 4 -> 5; seed: 0 -> 1.*overwrite'):
    train.train(other, str(tmp_path / 'run'))
  assert (tmp_path / 'run' / 'config.json').read_bytes() == before
  assert [path.name for path in tmp_path.iterdir()] == ['run']
  # How a run is run may change.
  train.check(make_config(run__log_every=7), str(tmp_path / 'run'))


def test_workdir_with_a_broken_config(tmp_path):
  (tmp_path / 'config.json').write_text('{"steps": ')
  with pytest.raises(ValueError, match='config.json cannot be read.*repair or remove'):
    train.train(make_config(), str(tmp_path))
  assert (tmp_path / 'config.json').read_text() == '{"steps": '


def test_evaluating_what_is_not_there(tmp_path):
  for workdir in (tmp_path, tmp_path / 'nowhere'):
    with pytest.raises(ValueError, match='no checkpoints in .*train first'):
      evaluate_run(str(workdir))
    with pytest.raises(ValueError, match='no checkpoints in .*train first'):
      predict.predict_folder(str(workdir), str(tmp_path))
  assert list(pathlib.Path(tmp_path).iterdir()) == []
