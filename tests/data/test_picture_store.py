"""Pictures are decoded once, and read from the disk; changes and damage are seen."""

import os
import types

import numpy as np
import pytest
from PIL import Image

from nat_jax.data import cache, folder, folder_source, perceptual_hashes, picture_store
from nat_jax.data.rows import Rows


@pytest.fixture
def root(tmp_path, monkeypatch):
  """Two class folders, in a cache of their own."""
  monkeypatch.setenv('NAT_JAX_CACHE', str(tmp_path / 'cache'))
  rng = np.random.default_rng(0)
  for name in ('cat', 'dog'):
    (tmp_path / 'pets' / name).mkdir(parents=True)
    for k in range(4):
      image = Image.fromarray(rng.integers(0, 256, (9 + k, 8, 3), np.uint8))
      image.save(tmp_path / 'pets' / name / f'{k}.png')
  return tmp_path / 'pets'


@pytest.fixture
def decoded(monkeypatch):
  """The names of the files that have been decoded."""
  names, read = [], folder_source.decode
  def note(file, *args):
    names.append(os.path.basename(os.path.dirname(file)) + os.path.basename(file))
    return read(file, *args)
  monkeypatch.setattr(folder_source, 'decode', note)
  return names


def kept(name):
  return sorted((cache.cache_root() / 'pictures').rglob(name))


def read(root, split='all[:75%]', **kwargs):
  return folder(str(root), size=(6, 5), split=split, lazy='auto', **kwargs)


def test_files_that_are_left_out_are_told_when_pictures_are_decoded(root, caplog):
  for name in ('a.HEIC', 'b.heic', 'notes', '.hidden.heic'):
    (root / 'cat' / name).touch()
  read(root)
  assert caplog.text.count('left out') == 1
  assert f'{root}: left out' in caplog.text
  assert 'read: 1 without extension, 2 .heic\n' in caplog.text
  caplog.clear()
  read(root, 'all[75%:]')
  assert not caplog.text


def test_pictures_are_those_that_are_read_at_once(root, decoded, monkeypatch):
  monkeypatch.setattr(picture_store, '_CHUNK', 3)
  once = folder(str(root), size=(6, 5), split='all[:75%]')
  del decoded[:]
  stored = read(root)
  assert len(decoded) == 8 and isinstance(stored.image, Rows)
  rest = read(root, 'all[75%:]')  # not one of them is decoded again
  again = read(root, classes=(1,))
  np.testing.assert_array_equal(np.asarray(stored.image), once.image)
  np.testing.assert_array_equal(stored.image[np.array([[3, 0]])], once.image[[[3, 0]]])
  np.testing.assert_array_equal(stored.label, once.label)
  np.testing.assert_array_equal(
      np.asarray(again.image), np.asarray(stored.image)[once.label == 1])
  assert stored.names == once.names and list(stored.files) == list(once.files)
  assert len(rest.label) == 2 and not set(rest.files) & set(stored.files)
  np.testing.assert_array_equal(stored.hashes, perceptual_hashes(once.image))
  assert len(decoded) == 8


def test_a_changed_file_is_decoded_again_and_unused_pixels_go(root, decoded):
  under_way = read(root)
  [before] = kept('image.npy')
  os.utime(before.parent, (1, 1))
  again = read(root)  # is a use
  Image.new('RGB', (6, 5), 'blue').save(root / 'cat' / '0.png')
  read(root)
  assert len(kept('image.npy')) == 2
  np.testing.assert_array_equal(under_way.image[:], again.image[:])
  del decoded[:]
  for one in kept('image.npy'):
    os.utime(one.parent, (1, 1))
  Image.new('RGB', (6, 5), 'red').save(root / 'cat' / '0.png')
  os.utime(root / 'cat' / '0.png', ns=(1, 1))
  found = read(root, 'all')
  assert len(decoded) == 8 and kept('image.npy') != [before]
  assert len(kept('image.npy')) == 1
  at = list(found.files).index(root / 'cat' / '0.png')
  assert (found.image[at] == (255, 0, 0)).all()


def test_pictures_that_are_read_are_not_removed(root, monkeypatch):
  """A process that reads them says so now and then: they are not unused."""
  under_way = read(root)
  [before] = kept('image.npy')
  os.utime(before.parent, (1, 1))
  under_way.image[:]
  assert before.parent.stat().st_mtime == 1  # not at each read
  monkeypatch.setattr(picture_store, 'TOUCH', 0)
  want = under_way.image[:]
  Image.new('RGB', (6, 5), 'blue').save(root / 'cat' / '0.png')
  read(root)
  assert len(kept('image.npy')) == 2
  np.testing.assert_array_equal(under_way.image[:], want)


def test_a_relative_path_is_the_same_folder(root, decoded, monkeypatch):
  read(root)
  del decoded[:]
  monkeypatch.chdir(root.parent)
  read('pets')
  assert decoded == [] and len(kept('image.npy')) == 1


def test_without_room_pictures_are_decoded_when_they_are_read(
    root, decoded, monkeypatch):
  once = folder(str(root), size=(6, 5), split='all[:75%]')
  del decoded[:]
  needed = 8 * 6 * 5 * 3
  usage = types.SimpleNamespace()
  monkeypatch.setattr(picture_store.shutil, 'disk_usage', lambda path: usage)
  for free, count in ((2 * needed - 1, 0), (2 * needed, 1)):
    monkeypatch.setenv('NAT_JAX_CACHE', str(root.parent / f'cache{free}'))
    usage.free = free
    stored = read(root)
    assert len(kept('image.npy')) == count and len(kept('hashes.npy')) == 1
    np.testing.assert_array_equal(np.asarray(stored.image), once.image)
    np.testing.assert_array_equal(stored.hashes, perceptual_hashes(once.image))
  # Once for the hashes; and six pictures again, but for those that were kept.
  assert len(decoded) == 8 + 6 + 8


@pytest.mark.parametrize('keeps', [True, False])
def test_unreadable_pictures_are_known_before_they_are_read(
    keeps, root, decoded, monkeypatch):
  if not keeps:
    usage = types.SimpleNamespace(free=0)
    monkeypatch.setattr(picture_store.shutil, 'disk_usage', lambda path: usage)
  (root / 'cat' / '2.png').write_bytes(b'no picture')
  with pytest.raises(ValueError, match='cat/2.png cannot be read.*skip_unreadable'):
    read(root, 'all')
  del decoded[:]
  refused = []
  for split in ('all[:75%]', 'all[75%:]'):  # only where it is
    try:
      read(root, split)
    except ValueError:
      refused.append(split)
  assert len(refused) == 1
  found = read(root, 'all', skip_unreadable=True)
  assert len(found.label) == len(found.hashes) == len(found.image) == 7
  assert decoded == [] and root / 'cat' / '2.png' not in found.files
  eager = folder(str(root), size=(6, 5), skip_unreadable=True)
  np.testing.assert_array_equal(np.asarray(found.image), eager.image)
  np.testing.assert_array_equal(found.label, eager.label)
  for k in range(4):
    (root / 'cat' / f'{k}.png').write_bytes(b'no picture')
  with pytest.raises(ValueError, match="not one of the 4 .*'cat' in the split 'all'"):
    read(root, 'all', skip_unreadable=True)


def test_what_is_kept_is_whole_or_an_error(root):
  read(root)
  [path] = kept('image.npy')
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match='is damaged.*delete that folder'):
    read(root)


def test_an_interrupted_start_leaves_nothing(root, monkeypatch):
  def stop(*args):
    raise KeyboardInterrupt
  with monkeypatch.context() as patch:
    patch.setattr(picture_store.near_duplicates, 'perceptual_hashes', stop)
    with pytest.raises(KeyboardInterrupt):
      read(root)
  assert kept('*.npy') == []
  assert len(read(root).label) == 6


def test_a_cache_that_cannot_be_written_is_an_error(root, monkeypatch, tmp_path):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('NAT_JAX_CACHE', str(tmp_path / 'file'))
  with pytest.raises(OSError, match=r'cannot be kept in.*\$NAT_JAX_CACHE.*lazy=True'):
    read(root)


def test_without_a_size_pictures_are_in_memory(root):
  for name in ('cat', 'dog'):
    for k in range(4):
      Image.new('RGB', (4, 3), (k, 0, 0)).save(root / name / f'{k}.png')
  found = folder(str(root), lazy='auto')
  assert isinstance(found.image, np.ndarray) and found.hashes is None
