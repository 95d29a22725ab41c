"""The pool's order and checks; gather is the same in numpy and jax; overlap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nat_jax.data import (
    Arrays,
    count_overlaps,
    fake,
    gather,
    make_pool,
    normal_noise,
    quantise,
)
from nat_jax.data.rows import Rows

MEAN, STD = (0.5,), (0.25,)


def test_pool_puts_positives_first_and_marks_negatives():
  positives, first, second = fake(num=8), fake(num=4, seed=1), fake(num=2, seed=2)
  pool = make_pool(positives, {'one': first, 'two': second}, 4, MEAN, STD)
  np.testing.assert_array_equal(
      pool.image, np.concatenate([positives.image, first.image, second.image])
  )
  np.testing.assert_array_equal(pool.label, [*positives.label, *[-1] * 6])
  assert pool.image.dtype == np.uint8 and pool.label.dtype == np.int32


def test_pool_quantises_normalised_negatives():
  positives = fake(num=8)
  noise = normal_noise(positives, num=3)
  pool = make_pool(positives, {'noise': noise}, 4, MEAN, STD)
  np.testing.assert_array_equal(pool.image[8:], quantise(noise.image, MEAN, STD))


def test_quantise_literals():
  image = np.array([0, 1, -1, 9, -9, 0.01], np.float32).reshape(1, 1, 6, 1)
  expected = [128, 191, 64, 255, 0, 128]  # 127.5, 191.25, 63.75, ..., 128.1375
  np.testing.assert_array_equal(quantise(image, MEAN, STD).ravel(), expected)


@pytest.mark.parametrize(
    ('num_classes', 'negatives', 'message'),
    [
        (3, {}, r'positives.*0\.\.2\b.*0\.\.3\b.*num_classes'),
        (4, {'big': fake(num=4, shape=(9, 8, 1))}, r"'big'.*\[9, 8, 1\].*\[8, "),
        (4, {'rgb': fake(num=4, shape=(8, 8, 3))}, r"size=\(8, 8\), mode='L'"),
        (4, {'none': fake(num=0)}, "'none'"),
    ],
)
def test_pool_refuses(num_classes, negatives, message):
  with pytest.raises(ValueError, match=message):
    make_pool(fake(num=8), negatives, num_classes, MEAN, STD)


def test_pool_refuses_negative_labels_and_no_positives():
  positives = fake(num=8)
  with pytest.raises(ValueError, match=r'positives.*0\.\.8\b.*-1\.\.2\b'):
    make_pool(positives._replace(label=positives.label - 1), {}, 9, MEAN, STD)
  with pytest.raises(ValueError, match='positives'):
    make_pool(fake(num=0), {}, 4, MEAN, STD)


def test_gather_is_the_same_in_numpy_and_under_jit():
  pool = make_pool(fake(num=8), {'a': fake(num=4, seed=1)}, 4, MEAN, STD)
  index = np.array([3, -1, 11, 0, -1], np.int32)
  batch = gather(pool, index)
  np.testing.assert_array_equal(batch['image'][[0, 2, 3]], pool.image[[3, 11, 0]])
  np.testing.assert_array_equal(
      batch['label'], [pool.label[3], -1, -1, pool.label[0], -1]
  )
  np.testing.assert_array_equal(batch['weight'], [1, 0, 1, 1, 0])
  device = jax.jit(gather)(jax.tree.map(jnp.asarray, pool), jnp.asarray(index))
  for key, value in batch.items():
    assert device[key].dtype == value.dtype
    np.testing.assert_array_equal(device[key], value)
  assert batch['label'].dtype == np.int32 and batch['weight'].dtype == np.float32


def test_overlap_counts_equal_images():
  a, b = fake(num=20), fake(num=30, seed=1)
  mixed = Arrays(
      np.concatenate([b.image, a.image[[3, 5]]]), np.zeros(32, np.int32))
  one_off = a._replace(image=a.image.copy())
  one_off.image[4, 7, 7, 0] ^= 1
  as_float = a._replace(image=a.image.astype(np.float32))
  assert count_overlaps({'a': a, 'b': b}, [b]) == {'a': 0, 'b': 30}
  assert count_overlaps({'a': a, 'b': b}, [mixed, mixed]) == {'a': 2, 'b': 30}
  assert count_overlaps({'a': a}, [one_off]) == {'a': 19}
  assert count_overlaps({'a': as_float}, [a]) == {'a': 0}
  assert count_overlaps({'a': a}, [fake(num=20, shape=(4, 16, 1))]) == {'a': 0}
  assert count_overlaps({'a': a}, []) == {'a': 0} and not count_overlaps({}, [a])


def test_every_image_is_read_once_to_count_overlaps():
  a, asked = fake(num=20), []

  def read(rows):
    asked.extend(rows)
    return a.image[rows]

  lazy = a._replace(image=Rows(read, 20, a.image.shape[1:]))
  assert count_overlaps({'a': a, 'b': a, 'c': fake(seed=1)}, [lazy]) == {
      'a': 20, 'b': 20, 'c': 0}
  assert sorted(asked) == list(range(20))


def test_a_pool_copies_no_image():
  positives, negatives = fake(num=8), fake(num=4, seed=1)
  pool = make_pool(positives, {'more': negatives}, 4, MEAN, STD)
  expected = negatives.image[1].copy()
  negatives.image[1] += 1
  np.testing.assert_array_equal(pool.image[9], expected + 1)
