"""Generated fractals, and the two ways in which they are mixed with images."""

import jax
import numpy as np
import pytest

from nat_jax.data import make_augment, pixmix


def keys(num):
  """jax.random.key(i) of i = 0 to num - 1."""
  data = np.stack([np.zeros(num), np.arange(num)], 1)
  return jax.random.wrap_key_data(data.astype(np.uint32))


def images(num, shape=(8, 8, 1)):
  return np.random.default_rng(0).integers(0, 256, (num, *shape), np.uint8)


def test_fractals_are_pictures_of_their_own():
  pictures = pixmix.fractals(16, 12, 20, 0)
  assert pictures.shape == (16, 12, 20) and pictures.dtype == np.uint8
  assert (pictures.max((1, 2)) == 255).all()
  covered = (pictures > 0).mean((1, 2))
  assert covered.min() > 0.1 and 0.3 < covered.mean() < 0.95
  assert len({one.tobytes() for one in pictures}) == 16
  again = pixmix.fractals.__wrapped__(16, 12, 20, 0)
  np.testing.assert_array_equal(pictures, again)
  assert (pictures != pixmix.fractals(16, 12, 20, 1)).any((1, 2)).all()


def test_fractals_fill_the_plane_in_the_same_places_at_any_size():
  """A picture of half the size has the blocks of the larger one."""
  large, small = (pixmix.fractals(8, size, size, 0) for size in (16, 8))
  blocks = (large > 0).reshape(8, 8, 2, 8, 2).any((2, 4))
  np.testing.assert_array_equal(blocks, small > 0)


def test_mixtures_literal():
  x = np.float32([0, 0.25, 0.5, 1])
  y = np.float32([1, 0.5, 0.25, 0])
  add, multiply = jax.jit(pixmix.add), jax.jit(pixmix.multiply)
  np.testing.assert_allclose(  # (a (2x - 1) + b (2y - 1) + 1) / 2
      add(x, y, 0.8, 0.4), [0.3, 0.3, 0.4, 0.7], atol=1e-6)
  np.testing.assert_allclose(
      add(x, y, 1.5, -0.5), [0.0, 0.125, 0.625, 1.0], atol=1e-6)
  np.testing.assert_allclose(  # (2x)^a (2y)^b / 2
      multiply(x, y, 2.0, 1.0), [0.0, 0.125, 0.25, 0.0], atol=1e-6)
  np.testing.assert_allclose(  # the last is divided by 0: white
      multiply(x, y, 1.0, -1.0), [0.0, 0.25, 1.0, 1.0], atol=1e-6)


def test_a_round_draws_the_operation_and_its_strengths():
  """Of x = 3/4 and grey, an addition is a/4 + 1/2 and a product (3/2)^a / 2."""
  image, grey = np.full((2, 1, 1, 1), [[[[0.75]]], [[[0.5]]]], np.float32)
  beta = 3.0
  mix = jax.jit(lambda other, keys: jax.vmap(
      lambda k: pixmix.mix(image, other, beta, k))(keys))
  mixed = np.ravel(mix(grey, keys(2000)))
  # Grey adds 0 and multiplies by 1: what is left is a alone, below or above 1.
  far = mixed > 0.75
  assert 0.45 < far.mean() < 0.55
  # 1/2 + a/4 or 1.5^a / 2, with a of Beta(3, 1): from 1/2 to 3/4 both.
  grid = (np.arange(10_000) + 0.5) / 10_000
  near, beyond = grid ** (1 / beta), 2 - grid ** (1 / beta)
  for part, a in ((mixed[~far], near), (mixed[far], beyond)):
    expected = (0.5 + a / 4 + np.minimum(1.5**a / 2, 1)).mean() / 2
    np.testing.assert_allclose(part.mean(), expected, atol=0.01)
  # Black adds -b and multiplies by 0^b: it darkens where b > 0, brightens where b < 0.
  black = np.ravel(mix(0 * grey, keys(2000)))
  np.testing.assert_array_equal(black > 0.75, far)
  assert (black == 1)[far].mean() > 0.4 and (black < 1e-3)[~far].mean() > 0.3


def test_rounds_are_none_to_all():
  once, often = (jax.jit(make_augment([{'name': 'pixmix', 'num': 8, 'rounds': r}]))
                 for r in (1, 4))
  plain = images(300)
  for augment, least, most in ((once, 0.4, 0.6), (often, 0.12, 0.3)):
    out = np.asarray(augment(plain, keys(300)))
    assert out.dtype == np.uint8
    unchanged = (out == plain).all((1, 2, 3)).mean()
    assert least < unchanged < most


@pytest.mark.parametrize('shape', [(8, 10, 3), (66, 130, 1)])
def test_pictures_of_any_shape(shape):
  """Larger ones get resized fractals; colours differ between the channels."""
  augment = jax.jit(make_augment([{'name': 'pixmix', 'num': 4}]))
  grey = np.full((6, *shape), 99, np.uint8)
  out = np.asarray(augment(grey, keys(6)))
  assert out.shape == grey.shape and (out != 99).any()
  if shape[-1] == 3:
    assert (np.ptp(out, axis=-1) > 0).any()


def test_what_is_refused():
  for wrong in ({'num': 0}, {'rounds': 0}, {'beta': 0.0}):
    with pytest.raises(ValueError, match='num and rounds of 1 or more and beta above'):
      make_augment([{'name': 'pixmix', **wrong}])
  with pytest.raises(ValueError, match='uint8, got float32'):
    pixmix.pixmix()(np.zeros((8, 8, 1), np.float32), jax.random.key(0))
