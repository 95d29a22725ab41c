"""Attention maps and their loss: literal values, invariance, gradients at zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nat_jax.losses import attention_loss, attention_map

# Two positions of two channels: mean squares (9 + 0) / 2, (0 + 12) / 2 -> 4.5, 6.
FEATURES = np.array([[[[3.0, 0.0], [0.0, 12**0.5]]]], np.float32)


def random_features(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def maps_of(*features):
  """The map of each array of features, all by one program."""
  return jax.device_get(jax.jit(lambda xs: [attention_map(x) for x in xs])(features))


def loss_of(student, teacher):
  return np.asarray(jax.jit(attention_loss)(student, teacher))


def test_literal_map():
  np.testing.assert_allclose(maps_of(FEATURES)[0], [[0.6, 0.8]], rtol=1e-6)


def test_map_has_length_one_and_the_order_of_positions():
  features = random_features(3, 4, 5, 6)
  maps, = maps_of(features)
  assert maps.shape == (3, 20) and maps.dtype == jnp.float32
  np.testing.assert_allclose(np.linalg.norm(maps, axis=-1), np.ones(3), rtol=1e-6)
  strength = np.square(features).mean(-1)  # [3, 4, 5]
  ratio = strength[1, 2, 3] / strength[1, 0, 1]
  np.testing.assert_allclose(maps[1, 2 * 5 + 3] / maps[1, 1], ratio, rtol=1e-5)


def test_scaling_of_features_changes_nothing():
  features = random_features(2, 3, 3, 4)
  scales = 1e-4, 0.1, 7.0, 1e4
  maps, *scaled = maps_of(features, *(scale * features for scale in scales))
  for scale, found in zip(scales, scaled, strict=True):
    np.testing.assert_allclose(maps, found, rtol=1e-5, err_msg=str(scale))


def test_literal_loss():
  """(0.6 - 0)^2 and (0.8 - 1)^2 over 2 positions, plus 1 over 1 position."""
  student = [np.float32([[0.6, 0.8]] * 2), np.float32([[1], [0.5]])]
  teacher = [np.float32([[0, 1], [0.6, 0.8]]), np.float32([[0], [0.5]])]
  np.testing.assert_allclose(
      loss_of(student, teacher), [0.2 + 1.0, 0.0], rtol=1e-6)


def test_equal_features_give_zero_and_others_do_not():
  maps = maps_of(*(random_features(3, s, s, 4) for s in (4, 2)))
  np.testing.assert_array_equal(loss_of(maps, maps), np.zeros(3))
  assert (loss_of(maps, [m[::-1] for m in maps])[:1] > 1e-3).all()


def test_gradient_is_finite_at_zero_features():
  other = random_features(2, 2, 2, 3)[::-1]
  features = random_features(2, 2, 2, 3)
  features[0] = 0

  def loss(features):
    maps = attention_map(features)
    return attention_loss([maps], [attention_map(other)]).sum(), maps

  gradient, maps = jax.device_get(jax.jit(jax.grad(loss, has_aux=True))(features))
  np.testing.assert_array_equal(maps[0], np.zeros(4))
  np.testing.assert_array_equal(gradient[0], np.zeros((2, 2, 3)))
  assert np.isfinite(gradient).all() and np.abs(gradient[1]).max() > 0.01


def test_jit_is_eager():
  def loss(student, teacher):
    return attention_loss(
        [attention_map(x) for x in student], [attention_map(x) for x in teacher])

  student = [random_features(2, 4, 4, 3), random_features(2, 2, 2, 5)]
  student, teacher = jax.device_put((student, [x[::-1] for x in student]))
  np.testing.assert_allclose(
      jax.jit(loss)(student, teacher), loss(student, teacher), rtol=1e-5)


def test_bfloat16_features_are_compared_in_float32():
  narrow = random_features(2, 4, 4, 8).astype(jnp.bfloat16)
  maps, expected = maps_of(narrow, narrow.astype(np.float32))
  np.testing.assert_allclose(maps, expected)
  assert jax.eval_shape(attention_loss, [maps], [maps]).dtype == jnp.float32


def test_unequal_groups_are_refused():
  maps = [np.ones((2, 4), np.float32)]
  with pytest.raises(ValueError, match=r'\b1\b.*\b2\b'):
    attention_loss(maps, maps * 2)
  with pytest.raises(ValueError, match=r'\b0\b.*\b0\b'):
    attention_loss([], [])
  with pytest.raises(AssertionError, match='shape'):
    attention_loss(maps, [np.ones((2, 9), np.float32)])
