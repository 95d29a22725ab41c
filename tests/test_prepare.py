"""The data sets that configs need: which are missing, --mode=prepare, sets left out."""

import importlib.util

import numpy as np
import pytest
import toy

from nat_jax import data, schema
from nat_jax.commands import plan, prepare
from nat_jax.data import cache, tfds_source
from nat_jax.schema import presets


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
  """Neither an array cache nor prepared data sets."""
  monkeypatch.setenv('NAT_JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(tfds_source, 'prepared_root', lambda: str(tmp_path / 'tfds'))
  builder = tfds_source._builder
  monkeypatch.setattr(
      tfds_source, '_builder', lambda dataset, data_dir, **kwargs: builder(
          dataset, data_dir or str(tmp_path / 'tfds'), **kwargs))


def write(dataset, *splits, size=32):
  image = np.zeros((20, size, size, 3), np.uint8)
  for split in splits:
    cache.write_cache(dataset, split, image, np.arange(20) % 10)


def config_of(variant='nat_small'):
  return schema.plain(toy.config_file('nat/cifar10.py')(variant))


def test_sources_of_a_config():
  found = {one.place: one for one in prepare.sources(config_of())}
  assert found['data.positives'].spec['dataset'] == 'cifar10'
  assert found['data.negatives.cifar100'].spec['split'] == 'train[:90%]'
  assert {'evals.test', 'evals.svhn', 'evals.validation_cifar100'} < set(found)
  assert {name for name, one in found.items() if one.optional} == {
      'evals.tiny_imagenet', 'evals.ilsvrc'}
  assert 'evals.noise' not in found
  baseline = [one.place for one in prepare.sources(config_of('baseline_small'))]
  assert set(found) - set(baseline) == {'data.negatives.cifar100'}  # none per batch
  gan = schema.plain(toy.config_file('gan/cifar10.py')('nat3'))
  assert 'data.negatives.cifar100' in [one.place for one in prepare.sources(gan)]


def test_runs_that_are_trained_before_are_counted(monkeypatch):
  config = schema.plain(toy.config_file('gan/cifar10.py')('nat3'))
  places = [one.place for one in prepare.sources(config)]
  assert 'measures.features: data.positives' in places
  assert 'measures.independent: evals.test' in places
  monkeypatch.setattr(plan, 'is_done', lambda *args: True)
  assert not any(':' in one.place for one in prepare.sources(config))


def test_all_that_is_missing_is_told_at_once(tmp_path):
  write('cifar10', 'train', 'test')
  with pytest.raises(data.NotPrepared) as told:
    prepare.check([('nat/cifar10:nat', config_of()), ('other', config_of())])
  text = str(told.value)
  assert [line.split()[0] for line in text.splitlines() if line.startswith('  ')] == [
      'cifar100', 'mnist', 'svhn_cropped', 'pip', 'python', 'python']
  assert str(tmp_path / 'cache') in text and str(tmp_path / 'tfds') in text
  assert '--mode=prepare --config nat/cifar10:nat\n' in text
  for name in ('cifar100', 'svhn_cropped'):
    write(name, 'train', 'test')
  write('mnist@32x32RGB', 'test')
  prepare.check([('nat/cifar10:nat', config_of())])


def test_an_empty_entry_leaves_a_set_out():
  config = toy.config_file('nat/cifar10.py')('nat_small')
  config.evals.svhn = {}
  assert 'svhn' not in schema.plain(config)['evals']


@pytest.mark.parametrize('args', [
    ['--config', 'nat/cifar10:nat_small'],
    ['--mode=sweep', 'nat/cifar10:baseline_small', 'nat/cifar10:nat_small']])
def test_nothing_starts_without_data(args, tmp_path, monkeypatch):
  out = tmp_path / 'runs'
  with pytest.raises(SystemExit, match=r'neither in the array cache(.|\n)*=prepare'):
    toy.run_main(monkeypatch, *args, '--workdir', str(out))
  assert not out.exists()


def test_prepare(monkeypatch, capsys):
  """What is missing is prepared once; the rest is read into the cache, and counted."""
  asked = []

  def download(dataset, data_dir):
    asked.append((dataset, data_dir))
    if dataset == 'tiny_imagenet_val32':
      raise data.NotPrepared('unknown')
    write(dataset, 'train', 'test')

  monkeypatch.setattr(tfds_source, 'prepare', download)
  write('cifar10', 'train', 'test')
  write('ilsvrc_samples32', 'test')
  toy.run_main(monkeypatch, '--mode=prepare', '--config', 'nat/cifar10:nat_small')
  assert sorted(asked) == [(name, None) for name in (
      'cifar100', 'mnist', 'svhn_cropped', 'tiny_imagenet_val32')]
  shown = capsys.readouterr().out
  assert 'data.positives: 18 images of cifar10 train[:90%]' in shown
  assert "evals.tiny_imagenet: left out, 'tiny_imagenet_val32' is not in" in shown
  assert cache.cache_folder('mnist@32x32RGB').exists()

  toy.run_main(monkeypatch, '--mode=prepare', '--config', 'digits')
  assert 'no data set of tfds' in capsys.readouterr().out


def test_prepare_without_tensorflow(monkeypatch, capsys):
  """It is asked for only if a data set of the catalogue is missing."""
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match="'cifar10.*needs TensorFlow: pip install"):
    prepare.prepare(config_of())
  for name in ('cifar10', 'cifar100', 'svhn_cropped', 'mnist'):
    write(name, 'train', 'test')
  prepare.prepare(config_of())
  assert 'evals.ilsvrc: left out' in capsys.readouterr().out
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: True)
  config = toy.config_file('digits.py')('nat')
  config.data.positives = presets.tfds('no_such_set', 'train')
  with pytest.raises(data.NotPrepared, match='no_such_set'):
    prepare.prepare(config)
