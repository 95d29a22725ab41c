"""Images that are read when they are asked for: what is read, and when."""

import numpy as np
import pytest
from PIL import Image

from nat_jax.data import Arrays, Rows, folder, make_pool, take_classes, take_split
from nat_jax.data.cache import read_cache, write_cache
from nat_jax.data.rows import join, select

SHAPE = (3, 2, 1)


@pytest.fixture
def asked():
  """The numbers that were read, in the order in which they were."""
  return []


@pytest.fixture
def whole():
  return np.random.default_rng(0).integers(0, 255, (12, *SHAPE), np.uint8)


@pytest.fixture
def rows(whole, asked):
  def read(numbers):
    asked.extend(numbers.tolist())
    return whole[numbers]

  return Rows(read, 12, SHAPE)


def test_rows_are_those_of_the_array(rows, whole, asked):
  rng = np.random.default_rng(1)
  assert len(rows) == 12 and rows.shape == whole.shape and rows.dtype == np.uint8
  for index in (rng.permutation(12), rng.integers(0, 12, (2, 5, 3)), np.array(4), [],
                7):
    asked.clear()
    np.testing.assert_array_equal(rows[index], whole[np.asarray(index, int)])
    assert asked == np.ravel(index).tolist()
  np.testing.assert_array_equal(rows[3:6], whole[3:6])
  np.testing.assert_array_equal(rows[-2:], whole[-2:])
  np.testing.assert_array_equal(np.asarray(rows), whole)
  for index in (12, [0, -1]):
    with pytest.raises(IndexError, match='0..11'):
      rows[index]


def test_selections_and_joins_read_nothing(rows, whole, asked):
  some, part = np.array([7, 0, 7, 11]), slice(2, 10, 3)
  chosen = select(select(rows, some), np.array([3, 1]))
  joined = join([whole[:2], select(rows, part), chosen])
  assert asked == [] and joined.shape == (7, *SHAPE)
  expected = np.concatenate([whole[:2], whole[part], whole[some][[3, 1]]])
  np.testing.assert_array_equal(joined[np.array([6, 0, 3, 3])], expected[[6, 0, 3, 3]])
  assert sorted(asked) == [0, 5, 5]
  np.testing.assert_array_equal(np.asarray(joined), expected)
  assert join([rows]) is rows


def test_arrays_on_disk_are_read_row_by_row(whole, tmp_path):
  """Splits and classes of a cached set are neither read nor copied."""
  label = (np.arange(12) % 3).astype(np.int32)
  arrays = read_cache(write_cache('toy', 'train', whole, label, ('a', 'b', 'c'),
                                  str(tmp_path)))
  assert isinstance(arrays.image, np.memmap)
  part = take_classes(take_split({'train': arrays}, 'train[2:]'), (2, 0))
  assert isinstance(part.image, Rows)
  keep = [i for i in range(2, 12) if label[i] != 1]
  np.testing.assert_array_equal(np.asarray(part.image), whole[keep])
  assert part.label.tolist() == [0 if label[i] == 2 else 1 for i in keep]
  in_memory = Arrays(whole, label, ('a', 'b', 'c'))
  assert isinstance(take_classes(in_memory, (0,)).image, np.ndarray)


def test_a_cache_is_written_from_rows_some_at_a_time(rows, whole, asked, tmp_path,
                                                     monkeypatch):
  monkeypatch.setattr('nat_jax.data.rows.CHUNK', 5)
  written = []
  at = write_cache('toy', 'train', rows, np.zeros(12, int), (), str(tmp_path),
                   written.append)
  assert written == [5, 5, 2] and asked == list(range(12))
  np.testing.assert_array_equal(read_cache(at).image, whole)


def test_lazy_pictures_are_those_that_are_read_at_once(tmp_path):
  rng = np.random.default_rng(0)
  for name in ('cat', 'dog'):
    (tmp_path / name).mkdir()
    for i in range(4):
      Image.fromarray(rng.integers(0, 255, (9 + i, 8, 3), np.uint8)).save(
          tmp_path / name / f'{i}.png')
  once, lazy = (folder(str(tmp_path), size=6, split='all[:75%]', lazy=lazy)
                for lazy in (False, True))
  assert isinstance(lazy.image, Rows) and lazy.names == once.names
  np.testing.assert_array_equal(lazy.label, once.label)
  np.testing.assert_array_equal(np.asarray(lazy.image), once.image)
  pool = make_pool(lazy, {'same': once}, 2, (0.5,), (0.5,))
  np.testing.assert_array_equal(pool.image[[7, 1]], once.image[[1, 1]])
  for wrong in (dict(), dict(size=6, skip_unreadable=True)):
    with pytest.raises(ValueError, match='lazy=True.*size.*skip_unreadable'):
      folder(str(tmp_path), lazy=True, **wrong)
  damaged = tmp_path / 'cat' / '2.png'
  damaged.write_bytes(damaged.read_bytes()[:60])
  lazy = folder(str(tmp_path), size=6, lazy=True)
  with pytest.raises(ValueError, match='cat/2.png cannot be read'):
    np.asarray(lazy.image)
