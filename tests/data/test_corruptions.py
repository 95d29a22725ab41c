"""Common corruptions: definitions, determinism, lazy reading, errors."""

import io

import numpy as np
import pytest
from PIL import Image

from nat_jax import data


def pictures(side, channels=3, num=6):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (num, side, side, channels)).astype(np.uint8)
  return data.Arrays(image, np.arange(num, dtype=np.int32) % 2)


def corrupted(arrays, name, strength, **spec):
  return data.corrupt(arrays, {'name': name, 'strength': strength, **spec})


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('name', list(data.CORRUPTIONS))
def test_a_stronger_corruption_changes_more(name, channels):
  arrays = pictures(12, channels)
  distances = []
  for strength in data.STRENGTHS:
    found = corrupted(arrays, name, strength)
    assert found.image.shape == arrays.image.shape and found.image.dtype == np.uint8
    np.testing.assert_array_equal(found.label, arrays.label)
    distances.append(np.abs(found.image[:] - arrays.image.astype(float)).mean())
  assert distances[0] > 0 and np.all(np.diff(distances) > 0)


@pytest.mark.parametrize('name', list(data.CORRUPTIONS))
def test_an_image_does_not_depend_on_what_is_read_with_it(name):
  found = corrupted(pictures(9), name, 3).image
  np.testing.assert_array_equal(found[np.array([4, 1])], found[:][[4, 1]])
  np.testing.assert_array_equal(found[:], corrupted(pictures(9), name, 3).image[:])


def test_constants_of_small_and_large_pictures():
  """Standard deviation of the noise, factor of the contrast, quality of JPEG."""
  grey = data.Arrays(np.full((2, 80, 80, 3), 128, np.uint8), np.zeros(2, np.int32))
  small = grey._replace(image=grey.image[:, :60, :60])
  for arrays, scale in ((small, 0.10), (grey, 0.38)):
    noise = corrupted(arrays, 'noise', 5).image[:] / 255 - 128 / 255
    drawn = scale * np.random.default_rng(1).standard_normal(100_000)
    clipped = np.clip(drawn, -128 / 255, 127 / 255)
    assert noise.std() == pytest.approx(clipped.std(), rel=0.02)
  noisy = corrupted(grey, 'noise', 1).image[:]
  assert (noisy[0] != noisy[1]).any()  # each image has noise of its own
  assert (corrupted(grey, 'noise', 1, seed=1).image[:] != noisy).any()
  for side, factor, quality in ((63, 0.15, 40), (64, 0.05, 7)):
    arrays = pictures(side, num=2)
    contrast = corrupted(arrays, 'contrast', 5).image[:].astype(float)
    assert contrast.std((1, 2)) == pytest.approx(
        factor * arrays.image.std((1, 2)), rel=0.05)
    assert contrast.mean((1, 2)) == pytest.approx(
        arrays.image.mean((1, 2)), abs=0.6)  # rounded down
    file = io.BytesIO()
    Image.fromarray(arrays.image[0]).save(file, format='jpeg', quality=quality)
    np.testing.assert_array_equal(
        corrupted(arrays, 'jpeg', 5).image[:1][0], np.asarray(Image.open(file)))


def test_blur_of_a_point_is_a_gaussian():
  image = np.zeros((1, 31, 31, 1), np.uint8)
  image[0, 15, 15] = 255
  found = corrupted(data.Arrays(image, np.zeros(1, np.int32)), 'blur', 5).image[:]
  x = np.arange(-15, 16)
  kernel = np.exp(-x ** 2 / 2) / np.exp(-x ** 2 / 2).sum()  # sigma 1
  np.testing.assert_allclose(
      found[0, :, :, 0], 255 * np.outer(kernel, kernel), atol=1)


def test_a_sample_is_the_same_for_all_corruptions_and_is_read_on_access():
  arrays, read = pictures(8, num=20), []

  def rows(chosen):
    read.extend(chosen.tolist())
    return arrays.image[chosen]

  lazy = arrays._replace(
      image=data.Rows(rows, 20, (8, 8, 3)), label=np.arange(20, dtype=np.int32))
  one, other = (corrupted(lazy, 'contrast', s, num=5) for s in (1, 5))
  np.testing.assert_array_equal(one.label, other.label)
  assert len(one.label) == len(one.image) == 5 and len(set(read)) == 1
  one.image[:]
  assert sorted(set(read)) == sorted(one.label.tolist())
  assert len(corrupted(lazy, 'contrast', 1, num=50).label) == 20


@pytest.mark.parametrize('spec, error, message', [
    ({'name': 'nois', 'strength': 1}, ValueError, "corruption 'nois'.*'noise'"),
    ({'name': 'noise'}, ValueError, 'strength.*None'),
    ({'name': 'noise', 'strength': 6}, ValueError, 'strength.*6'),
    ({'name': 'blur', 'strength': 1, 'sigma': 2}, TypeError, "blur.*sigma"),
])
def test_errors(spec, error, message):
  with pytest.raises(error, match=message):
    data.corrupt(pictures(8), spec)


def test_only_pictures_can_be_corrupted():
  arrays = pictures(8)
  with pytest.raises(ValueError, match='float32'):
    corrupted(arrays._replace(image=arrays.image.astype(np.float32)), 'noise', 1)
