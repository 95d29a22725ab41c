"""Augmentations: their values, and an image's fate hangs on its own key only."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nat_jax.data import make_augment, normalise

SPECS = [{'name': 'crop', 'pad': 2}, {'name': 'flip'}, {'name': 'cutout', 'size': 3}]


def images(num=6, shape=(8, 10, 3)):
  values = np.random.default_rng(0).integers(1, 256, (num, *shape), np.uint8)
  return jnp.asarray(values)


@functools.partial(jax.jit, static_argnums=0)
def keys(num=6):
  return jax.vmap(jax.random.key)(jnp.arange(num))


def jitted(*specs):
  return jax.jit(make_augment(specs))


def test_independent_of_the_batch_around():
  augment = jitted(*SPECS)
  whole = augment(images(), keys())
  assert whole.shape == images().shape and whole.dtype == jnp.uint8
  part = augment(images()[jnp.array([4, 1])], keys()[jnp.array([4, 1])])
  np.testing.assert_array_equal(part, whole[jnp.array([4, 1])])
  np.testing.assert_array_equal(make_augment(SPECS)(images(), keys()), whole)
  # Other keys, another outcome; equal keys, equal outcome.
  same = augment(images()[:1].repeat(2, 0), keys()[jnp.array([0, 0])])
  np.testing.assert_array_equal(same[0], same[1])
  spread = augment(images()[:1].repeat(6, 0), keys())
  assert len({np.asarray(image).tobytes() for image in spread}) > 3


def test_no_augmentation_is_the_identity():
  np.testing.assert_array_equal(make_augment([])(images(), keys()), images())


def test_an_augmentation_repeated_has_a_key_of_its_own():
  # Were the keys equal, two flips would always cancel.
  twice = jitted({'name': 'flip'}, {'name': 'flip'})
  out = twice(images(1).repeat(64, 0), keys(64))
  changed = np.asarray((out != images(1)).any((1, 2, 3))).mean()
  assert 0.25 < changed < 0.75


def test_flip_mirrors_about_half():
  image = images(1)
  out = np.asarray(jitted({'name': 'flip'})(image.repeat(200, 0), keys(200)))
  plain = (out == image).all((1, 2, 3))
  mirrored = (out == image[:, :, ::-1]).all((1, 2, 3))
  assert (plain ^ mirrored).all()
  assert 70 < plain.sum() < 130


@pytest.mark.parametrize('mode', ['constant', 'reflect'])
@pytest.mark.parametrize('dtype', [jnp.uint8, jnp.float32])
def test_crop_takes_every_window_of_the_padded_image(mode, dtype):
  image = images(1, (4, 5, 2)).astype(dtype)
  crop = jitted({'name': 'crop', 'pad': 1, 'mode': mode})
  out = crop(image.repeat(200, 0), keys(200))
  assert out.dtype == dtype
  padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)), mode)
  windows = {
      padded[y:y + 4, x:x + 5].tobytes() for y in range(3) for x in range(3)
  }
  assert {np.asarray(o).tobytes() for o in out} == windows


def test_cutout_blackens_one_square():
  image = images(1, (8, 8, 1))
  out = jitted({'name': 'cutout', 'size': 3})(image.repeat(300, 0), keys(300))
  black = np.asarray(out == 0)[..., 0]
  kept = np.where(black, 0, np.asarray(image)[..., 0])
  np.testing.assert_array_equal(out[..., 0], kept)
  sides = set()
  for mask in black:
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    assert mask.sum() == len(rows) * len(columns)
    assert np.ptp(rows) < len(rows) and np.ptp(columns) < len(columns)
    sides.add((len(rows), len(columns)))
  assert sides == {(2, 2), (2, 3), (3, 2), (3, 3)}


def test_normalise_literals():
  out = normalise(
      jnp.asarray([0, 51, 255], jnp.uint8).reshape(1, 1, 1, 3),
      (0.5, 0.2, 0.0), (0.25, 0.5, 2.0),
  )
  assert out.dtype == jnp.float32
  np.testing.assert_allclose(out.ravel(), [-2, 0, 0.5], atol=1e-7)
  grey = normalise(jnp.full((2, 4, 4, 1), 255, jnp.uint8), (0.5,), (0.25,))
  np.testing.assert_allclose(grey, np.full((2, 4, 4, 1), 2.0))
  done = jnp.asarray([[[[7.0]]]])
  assert normalise(done, (0.5,), (0.25,)) is done
  with pytest.raises(ValueError, match='uint8.*float32.*int32'):
    normalise(jnp.zeros((1, 2, 2, 1), jnp.int32), (0.5,), (0.25,))


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ({'name': 'rotate'}, "'rotate'.*crop, cutout, flip"),
        ({'name': 'crop', 'mode': 'wrap'}, "crop.*mode.*'constant'.*'reflect'.*'wrap'"),
        ({'name': 'crop', 'pad': -1}, 'crop.*pad.*-1'),
        ({'name': 'cutout', 'size': 0}, 'cutout.*size.*0'),
    ],
)
def test_bad_specs(spec, message):
  with pytest.raises(ValueError, match=message):
    make_augment([spec])
