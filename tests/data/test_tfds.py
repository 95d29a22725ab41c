"""The tfds source on a tiny ArrayRecord set, without TensorFlow, and its cache."""

import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
import time
from concurrent import futures

import numpy as np
import pytest
from PIL import Image

from nat_jax.data import (
    Rows,
    cache,
    cache_folder,
    decode,
    load,
    read_cache,
    tfds_source,
    write_cache,
)

NAMES = ('ant', 'bee', 'cat')


def pixels(num):
  return np.random.default_rng(num).integers(0, 256, (num, 5, 4, 3), np.uint8)


def png(image):
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'PNG')
  file.seek(0)
  return file


def prepare(data_dir, label='label', shape=(5, 4, 3)):
  """Prepares the set; encoded by Pillow, since tfds would need TensorFlow."""
  import tensorflow_datasets as tfds

  class TinyPets(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.0.0')
    pkg_dir_path = pathlib.Path(__file__).parent  # holds no README of it

    def _info(self):
      features = {
          'image': tfds.features.Image(shape=shape),
          label: tfds.features.ClassLabel(names=NAMES),
          'id': tfds.features.Text(),
      }
      return self.dataset_info_from_configs(
          features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples(20), 'test': self._generate_examples(7)}

    def _generate_examples(self, num):
      for i, image in enumerate(pixels(num)):
        yield i, {'image': png(image), label: i % 3, 'id': str(i)}

  builder = TinyPets(data_dir=data_dir, file_format='array_record')
  builder.download_and_prepare()
  return pathlib.Path(builder.data_path)


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  root = tmp_path_factory.mktemp('tfds')
  prepare(root)
  return str(root)


def by_pixels(arrays):
  return sorted(zip(map(bytes, arrays.image), arrays.label.tolist(), strict=True))


def read(data_dir, cache_dir, dataset='tiny_pets', **kwargs):
  return load({
      'name': 'tfds', 'dataset': dataset, 'data_dir': data_dir,
      'cache_dir': str(cache_dir), **kwargs,
  })


def test_reads_what_was_prepared(data_dir, tmp_path):
  out = read(data_dir, tmp_path)
  assert out.image.dtype == np.uint8 and out.label.dtype == np.int32
  assert out.names == NAMES
  # tfds shuffles; pixels and labels must still belong together.
  want = sorted(zip(map(bytes, pixels(20)), [i % 3 for i in range(20)], strict=True))
  assert by_pixels(out) == want
  [folder] = tmp_path.glob('tiny_pets@*')
  assert [p.name for p in folder.iterdir()] == ['train']
  test = read(data_dir, tmp_path, split='test')
  both = read(data_dir, tmp_path, split='train[:50%]+test[2:]')
  np.testing.assert_array_equal(
      both.image, np.concatenate([out.image[:10], test.image[2:]])
  )
  some = read(data_dir, tmp_path, classes=(2, 0))
  assert some.names == ('cat', 'ant')
  np.testing.assert_array_equal(some.image, out.image[out.label != 1])
  np.testing.assert_array_equal(some.label, out.label[out.label != 1] == 0)


def test_cache_is_used_without_the_prepared_data(data_dir, tmp_path, monkeypatch):
  there = shutil.copytree(data_dir, tmp_path / 'data')
  first = read(str(there), tmp_path)
  shutil.rmtree(there)
  monkeypatch.chdir(tmp_path)
  again = read('data/', tmp_path)  # the same folder
  np.testing.assert_array_equal(first.image, again.image)
  np.testing.assert_array_equal(first.label, again.label)


@pytest.mark.parametrize('lazy', [False, True])
def test_a_data_dir_has_a_cache_of_its_own(lazy, data_dir, tmp_path, caplog):
  """What is cached for another one, or under the bare name, is not taken for it."""
  other = np.zeros((20, 5, 4, 3), np.uint8)
  write_cache('tiny_pets', 'train', other, [0] * 20, NAMES, str(tmp_path))
  np.save(tmp_path / 'tiny_pets' / 'train-labels-1.0.0.npy', np.zeros(20, np.int32))
  out = read(data_dir, tmp_path, lazy=lazy)
  want = sorted(zip(map(bytes, pixels(20)), [i % 3 for i in range(20)], strict=True))
  assert by_pixels(out._replace(image=np.asarray(out.image))) == want
  assert not read(None, tmp_path).image.any()
  assert 'bare name' not in caplog.text
  gone = str(tmp_path / 'gone')
  assert tfds_source.is_ready({
      'name': 'tfds', 'dataset': 'tiny_pets', 'data_dir': gone, 'lazy': lazy,
      'cache_dir': str(tmp_path)}) != lazy
  if not lazy:  # written by hand for a machine where nothing is prepared
    assert not read(gone, tmp_path).image.any()
    assert f'not prepared in data_dir={gone}; the split' in caplog.text


def test_labels_that_cannot_be_kept_are_read_again(
    data_dir, tmp_path, monkeypatch, caplog):
  def full(path, array):
    pathlib.Path(path).touch()
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(np, 'save', full)
  assert len(read(data_dir, tmp_path, lazy=True).label) == 20
  assert 'Labels cannot be kept' in caplog.text and 'No space' in caplog.text
  assert not [path for path in tmp_path.rglob('*') if path.is_file()]


@pytest.mark.parametrize('spec, message', [
    ({}, "'dataset'.*it takes: dataset"),
    ({'datset': 'cifar10'}, r"did you mean 'dataset'\?")])
def test_a_source_without_a_data_set_is_a_mistake(spec, message):
  for look in (tfds_source.is_ready, load):
    with pytest.raises(TypeError, match=f"data source 'tfds': .*{message}"):
      look({'name': 'tfds', **spec})


def test_lazy_images_are_decoded_when_they_are_read(data_dir, tmp_path):
  """Nothing but the labels is kept on disk, and these are read from there again."""
  once = read(data_dir, tmp_path / 'once', split='train[5:]', classes=(2, 0))
  lazy = read(data_dir, tmp_path / 'lazy', split='train[5:]', classes=(2, 0), lazy=True)
  np.testing.assert_array_equal(np.asarray(lazy.image), once.image)
  np.testing.assert_array_equal(lazy.label, once.label)
  [kept] = [p for p in (tmp_path / 'lazy').rglob('*') if p.is_file()]
  assert kept.name == 'train-labels-1.0.0.npy'
  assert kept.parent.name.startswith('tiny_pets@')
  np.save(kept, 2 - np.load(kept))
  again = read(data_dir, tmp_path / 'lazy', lazy=True)
  assert again.label.tolist() == (2 - read(data_dir, tmp_path / 'once').label).tolist()
  kept.write_bytes(b'damaged')
  np.testing.assert_array_equal(
      read(data_dir, tmp_path / 'lazy', lazy=True).label,
      read(data_dir, tmp_path / 'once').label)


def test_pictures_of_any_size_are_resized(tmp_path):
  """Decoded or lazy, in a cache folder of that size."""
  prepare(tmp_path / 'data', shape=(None, None, 3))
  with pytest.raises(ValueError, match='size'):
    read(str(tmp_path / 'data'), tmp_path)
  both = [read(str(tmp_path / 'data'), tmp_path, size=(4, 2), mode='L', lazy=lazy)
          for lazy in (False, True)]
  assert both[0].image.shape == both[1].image.shape == (20, 4, 2, 1)
  np.testing.assert_array_equal(np.asarray(both[1].image), both[0].image)
  whole = read(str(tmp_path / 'data'), tmp_path, size=(5, 4))
  want = sorted(map(bytes, pixels(20)))
  assert sorted(map(bytes, whole.image)) == want
  kept = tfds_source._kept_as('tiny_pets', str(tmp_path / 'data'))
  assert {p.name for p in tmp_path.iterdir()} == {
      'data', kept, f'{kept}@4x2L', f'{kept}@5x4RGB'}


def test_cached_images_are_resized_where_nothing_is_prepared(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (700, 4, 4, 1), np.uint8)
  write_cache('some', 'test', image, np.arange(700) % 3, cache_dir=str(tmp_path))
  found = load({'name': 'tfds', 'dataset': 'some', 'split': 'test[10:]', 'size': 8,
                'cache_dir': str(tmp_path), 'data_dir': str(tmp_path / 'none')})
  want = np.stack([decode.fit(Image.fromarray(one[..., 0]), (8, 8), 'RGB')
                   for one in image[10:]])
  np.testing.assert_array_equal(found.image, want)
  np.testing.assert_array_equal(found.label, np.arange(10, 700) % 3)
  assert (tmp_path / 'some@8x8RGB' / 'test').exists()


@pytest.mark.process
def test_works_where_tensorflow_is_not_installed(data_dir, tmp_path):
  code = textwrap.dedent("""
      import sys

      class Hide:  # a finder that does not find TensorFlow, as on a bare machine
        def __init__(self, finder):
          self.finder = finder
        def find_spec(self, name, path=None, target=None):
          if name.split('.')[0] == 'tensorflow':
            return None
          return self.finder.find_spec(name, path, target)

      sys.meta_path[:] = [Hide(finder) for finder in sys.meta_path]
      from nat_jax import data
      out = data.from_tfds('tiny_pets', 'test', None, *sys.argv[1:])
      assert 'tensorflow' not in sys.modules
      print(out.image.shape, out.label.sum())
  """)
  done = subprocess.run(
      [sys.executable, '-c', code, data_dir, str(tmp_path)],
      capture_output=True, text=True, check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.split('\n')[-2] == '(7, 5, 4, 3) 6'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'dataset': 'cifar1'}, "'cifar1'.*cifar10"),
        ({'dataset': 'emnist/lettres'}, "'emnist/lettres'"),
        ({'dataset': 'cifar10:9.9.9'}, '9.9.9'),
        ({'split': 'valid'}, "'valid'.*(test, train|train, test)"),
        ({'split': 'train[:21]'}, r'train.:21.*train \(20\)'),
        ({'split': 'all'}, r"'train\+test'"),
        ({'classes': (0, 3)}, r'classes.*\[0, 3\].*\[0, 1, 2\]'),
    ],
)
def test_bad_requests(data_dir, tmp_path, change, message):
  with pytest.raises(ValueError, match=message):
    read(data_dir, tmp_path, **change)


def test_not_prepared_says_the_command(data_dir, tmp_path):
  with pytest.raises(ValueError) as error:
    read(data_dir, tmp_path, dataset='cifar100')
  assert (
      "\n  pip install 'nat_jax[prepare]'\n"
      '  python -c "import tensorflow_datasets as tfds; '
      f"tfds.builder('cifar100', data_dir='{data_dir}', file_format='array_record')"
      '.download_and_prepare()"'
  ) in str(error.value)
  assert not list(tmp_path.iterdir())


def test_prepared_as_tfrecord_says_so(tmp_path):
  folder = prepare(tmp_path / 'tfds')
  info = folder / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  for file in folder.glob('*array_record*'):
    file.rename(folder / file.name.replace('array_record', 'tfrecord'))
  with pytest.raises(ValueError, match='as tfrecord.*ArrayRecord') as error:
    read(str(tmp_path / 'tfds'), tmp_path / 'cache')
  assert f"data_dir='{tmp_path / 'tfds'}-array_record'" in str(error.value)


def test_sets_of_other_kinds_are_refused(tmp_path):
  prepare(tmp_path / 'a', label='species')
  with pytest.raises(ValueError, match="'label'.*species"):
    read(str(tmp_path / 'a'), tmp_path / 'cache')
  prepare(tmp_path / 'b', shape=(None, None, 3))
  with pytest.raises(ValueError, match=r'uint8.*\[h, w, c\].*\(None, None, 3\)'):
    read(str(tmp_path / 'b'), tmp_path / 'cache')
  assert not (tmp_path / 'cache').exists()


def test_cache_round_trip(tmp_path, monkeypatch):
  label = np.arange(9) % 3  # int64, as prepare scripts have it
  folder = write_cache('my/set', 'test', pixels(9), label, NAMES, str(tmp_path))
  assert folder == tmp_path / 'my-set' / 'test'
  assert sorted(p.name for p in folder.iterdir()) == [
      'image.npy', 'label.npy', 'names.json'
  ]
  assert [p.name for p in folder.parent.iterdir()] == ['test']
  out = read(None, tmp_path, dataset='my/set', split='test[3:]')
  np.testing.assert_array_equal(out.image, pixels(9)[3:])
  np.testing.assert_array_equal(out.label, label[3:])
  assert out.label.dtype == np.int32 and out.names == NAMES
  with pytest.raises(ValueError, match=f'{tmp_path}'):
    write_cache('my/set', 'test', pixels(9), label, NAMES, str(tmp_path))
  monkeypatch.setenv('NAT_JAX_CACHE', str(tmp_path))
  assert cache_folder('my/set') == tmp_path / 'my-set'
  assert len(load({'name': 'tfds', 'dataset': 'my/set', 'split': 'test'}).label) == 9


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'image': pixels(9).astype(np.float32)}, 'uint8.*float32'),
        ({'image': pixels(9)[..., 0]}, r'\[n, h, w, c\]'),
        ({'image': pixels(9)[:0], 'label': []}, r'images.*\[0, '),
        ({'label': np.zeros(8, int)}, r'labels.*int32 \[9\].*int32 \[8\]'),
        ({'label': np.zeros(9)}, 'labels.*int32.*float64'),
        ({'label': np.full(9, 3)}, 'label 3'),
        ({'names': 'ant'}, "names.*'ant'"),
        ({'split': 'test[:5]'}, r"split.*'train'.*'test\[:5\]'"),
    ],
)
def test_cache_refuses_what_it_could_not_read(tmp_path, change, message):
  good = {'split': 'test', 'image': pixels(9), 'label': [0] * 9, 'names': NAMES}
  with pytest.raises(ValueError, match=message):
    write_cache('x', **{**good, **change}, cache_dir=str(tmp_path))
  assert not list(tmp_path.iterdir())


def cut(path):
  path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ('file', 'damage'),
    [
        ('image.npy', cut),
        ('label.npy', cut),
        ('image.npy', lambda p: p.write_bytes(b'')),
        ('label.npy', pathlib.Path.unlink),
        ('names.json', pathlib.Path.unlink),
        ('names.json', cut),
        ('names.json', lambda p: p.write_text(json.dumps({'a': 1}))),
        ('label.npy', lambda p: np.save(p, np.zeros(8, np.int32))),
        ('label.npy', lambda p: np.save(p, np.zeros(9, np.int64))),
        ('image.npy', lambda p: np.save(p, np.zeros((9, 5, 4, 3)))),
    ],
)
def test_damaged_cache_is_named(tmp_path, file, damage):
  label = np.zeros(9, np.int32)
  folder = write_cache('x', 'test', pixels(9), label, NAMES, str(tmp_path))
  damage(folder / file)
  with pytest.raises(ValueError, match=f'{folder}.*delete'):
    read(None, tmp_path, dataset='x', split='test')
  with pytest.raises(ValueError):
    read_cache(folder)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
  def full(path, array):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(np, 'save', full)
  with pytest.raises(OSError, match='No space'):
    write_cache('x', 'test', pixels(3), np.zeros(3, int), (), str(tmp_path))
  assert not list((tmp_path / 'x').iterdir())


def test_one_process_writes_a_split_and_the_others_wait(tmp_path):
  asked = []

  def look(chosen):
    asked.extend(chosen.tolist())
    time.sleep(0.2)
    return pixels(9)[chosen]

  def write(k):
    return write_cache(
        'x', 'test', Rows(look, 9, (5, 4, 3)), np.zeros(9, int), (), str(tmp_path))

  with futures.ThreadPoolExecutor(3) as threads:
    found = [threads.submit(write, k) for k in range(3)]
  errors = [one.exception() for one in found if one.exception()]
  assert len(errors) == 2 and all('there already' in str(one) for one in errors)
  assert asked == list(range(9))
  assert [path.name for path in (tmp_path / 'x').iterdir()] == ['test']


def test_leftovers_of_processes_that_were_killed_are_removed(tmp_path):
  """Not the incomplete folder of a host that does not see the lock."""
  for split, age in (('test', 2 * cache.QUIET), ('test', 0), ('test-2', 10**5)):
    path = tmp_path / 'x' / f'.{split}-{age:032x}'
    path.mkdir(parents=True)
    (path / 'image.npy').touch()
    for each in (path / 'image.npy', path):
      os.utime(each, (time.time() - age,) * 2)
  write_cache('x', 'test', pixels(9), np.zeros(9, int), (), str(tmp_path))
  assert {path.name for path in (tmp_path / 'x').iterdir()} == {
      'test', f'.test-{0:032x}', f'.test-2-{10**5:032x}'}


@pytest.mark.parametrize('error', [OSError(38, 'no locks'), NotImplementedError()])
def test_a_disk_without_locks_can_be_written(error, tmp_path, monkeypatch):
  def fail(*args, **kwargs):
    raise error

  monkeypatch.setattr(cache.filelock.FileLock, 'acquire', fail)
  write_cache('x', 'test', pixels(9), np.zeros(9, int), (), str(tmp_path))
  assert [path.name for path in (tmp_path / 'x').iterdir()] == ['test']
