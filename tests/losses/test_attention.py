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


def test_literal_map():
  np.testing.assert_allclose(attention_map(FEATURES), [[0.6, 0.8]], rtol=1e-6)


def test_map_has_length_one_and_the_order_of_positions():
  features = random_features(3, 4, 5, 6)
  maps = attention_map(features)
  assert maps.shape == (3, 20) and maps.dtype == jnp.float32
  np.testing.assert_allclose(np.linalg.norm(maps, axis=-1), np.ones(3), rtol=1e-6)
  strength = np.square(features).mean(-1)  # [3, 4, 5]
  ratio = strength[1, 2, 3] / strength[1, 0, 1]
  np.testing.assert_allclose(maps[1, 2 * 5 + 3] / maps[1, 1], ratio, rtol=1e-5)


@pytest.mark.parametrize('scale', [1e-4, 0.1, 7.0, 1e4])
def test_scaling_of_features_changes_nothing(scale):
  features = random_features(2, 3, 3, 4)
  np.testing.assert_allclose(
      attention_map(features), attention_map(scale * features), rtol=1e-5)


def test_literal_loss():
  """(0.6 - 0)^2 and (0.8 - 1)^2 over 2 positions, plus 1 over 1 position."""
  student = [jnp.array([[0.6, 0.8]] * 2), jnp.array([[1.0], [0.5]])]
  teacher = [jnp.array([[0.0, 1.0], [0.6, 0.8]]), jnp.array([[0.0], [0.5]])]
  loss = attention_loss(student, teacher)
  np.testing.assert_allclose(loss, [0.2 + 1.0, 0.0], rtol=1e-6)


def test_equal_features_give_zero_and_others_do_not():
  maps = [attention_map(random_features(3, s, s, 4)) for s in (4, 2)]
  np.testing.assert_array_equal(attention_loss(maps, maps), np.zeros(3))
  assert (attention_loss(maps, [m[::-1] for m in maps])[:1] > 1e-3).all()


def test_gradient_is_finite_at_zero_features():
  target = [attention_map(random_features(2, 2, 2, 3)[::-1])]
  features = random_features(2, 2, 2, 3)
  features[0] = 0

  def loss(features):
    return attention_loss([attention_map(features)], target).sum()

  np.testing.assert_array_equal(attention_map(features)[0], np.zeros(4))
  gradient = jax.jit(jax.grad(loss))(features)
  np.testing.assert_array_equal(gradient[0], np.zeros((2, 2, 3)))
  assert np.isfinite(gradient).all() and np.abs(gradient[1]).max() > 0.01


def test_jit_is_eager():
  def loss(student, teacher):
    return attention_loss(
        [attention_map(x) for x in student], [attention_map(x) for x in teacher])

  student = [random_features(2, 4, 4, 3), random_features(2, 2, 2, 5)]
  teacher = [x[::-1] for x in student]
  np.testing.assert_allclose(
      jax.jit(loss)(student, teacher), loss(student, teacher), rtol=1e-5)


def test_bfloat16_features_are_compared_in_float32():
  narrow = random_features(2, 4, 4, 8).astype(jnp.bfloat16)
  maps = attention_map(narrow)
  np.testing.assert_allclose(maps, attention_map(narrow.astype(jnp.float32)))
  assert attention_loss([maps], [maps]).dtype == jnp.float32


def test_unequal_groups_are_refused():
  maps = [jnp.ones((2, 4))]
  with pytest.raises(ValueError, match=r'\b1\b.*\b2\b'):
    attention_loss(maps, maps * 2)
  with pytest.raises(ValueError, match=r'\b0\b.*\b0\b'):
    attention_loss([], [])
  with pytest.raises(AssertionError, match='shape'):
    attention_loss(maps, [jnp.ones((2, 9))])
