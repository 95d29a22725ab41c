"""Losses per example: literal values, exact zeros, gradients, extremes, jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nat_jax import losses

# p = (1/10, 2/10, 3/10, 4/10); all figures below worked out by hand from it.
LOGITS = np.log(np.float32([[1, 2, 3, 4]]))
KL_FIRST = np.log(10 / 4) - np.log(24) / 4
KL_SECOND = np.log(4) + (
    0.1 * np.log(0.1) + 0.2 * np.log(0.2) + 0.3 * np.log(0.3) + 0.4 * np.log(0.4)
)
LABELS = np.array([0, -1, 4, -1, 2, 1])

# Compiled as a whole: faster than op by op.
cross_entropy = jax.jit(losses.cross_entropy)
uniform_kl = jax.jit(losses.uniform_kl, static_argnums=1)
nat_loss = jax.jit(losses.nat_loss, static_argnums=2)
max_probability = jax.jit(losses.max_probability, static_argnums=1)


def _random_logits(k=5, b=6, scale=3.0):
  return np.random.default_rng(0).normal(scale=scale, size=(b, k)).astype(np.float32)


def _value_and_grad(fn, *logits):
  """For each of the logits the loss of each row, and in that row its gradient."""
  def run(x):
    value, pull = jax.vjp(fn, x)
    return value, *pull(jnp.ones_like(value))

  return [jax.device_get(x) for x in map(jax.jit(run), logits)]


def _grad(fn, logits):
  (_, grad), = _value_and_grad(fn, logits)
  return grad


def test_literal_values():
  np.testing.assert_allclose([KL_FIRST, KL_SECOND], [0.121777, 0.106440], atol=1e-6)
  ce = cross_entropy(np.tile(LOGITS, (3, 1)), np.array([0, 3, -1]))
  np.testing.assert_allclose(ce, [np.log(10), np.log(2.5), 0.0], rtol=1e-6)
  np.testing.assert_allclose(uniform_kl(LOGITS), [KL_FIRST], rtol=1e-5)
  np.testing.assert_allclose(
      uniform_kl(LOGITS, 'uniform_second'), [KL_SECOND], rtol=1e-5)
  nat = nat_loss(np.tile(LOGITS, (2, 1)), np.array([3, -1]))
  np.testing.assert_allclose(nat, [np.log(2.5), KL_FIRST], rtol=1e-5)


@pytest.mark.parametrize(
    'top, first, second', [(0.9, 1.76, 1.76), (0.99, 3.82, 2.22), (0.999, 5.89, 2.29)]
)
def test_directions_part_at_confident_negatives(top, first, second):
  p = np.full((1, 10), (1 - top) / 9)
  p[0, 4] = top
  logits = np.log(np.float32(p))
  np.testing.assert_allclose(uniform_kl(logits), [first], atol=0.006)
  np.testing.assert_allclose(
      uniform_kl(logits, 'uniform_second'), [second], atol=0.006)


@pytest.mark.parametrize('direction', losses.DIRECTIONS)
@pytest.mark.parametrize('k', [2, 10, 1000])
def test_kl_and_gradient_are_exactly_zero_at_uniform(direction, k):
  logits = jax.device_put(np.outer(np.float32([0, 1.1, -37.3, 1e4]), np.ones(k)))
  fn = lambda x: losses.uniform_kl(x, direction)  # noqa: E731
  assert not np.asarray(fn(logits)).any()
  assert not np.asarray(jax.jit(fn)(logits)).any()
  assert not _grad(fn, logits).any()


@pytest.mark.parametrize('direction', losses.DIRECTIONS)
@pytest.mark.parametrize('k, scale', [(2, 1.0), (10, 1e-2), (10, 30.0), (5000, 10.0)])
def test_kl_against_float64(direction, k, scale):
  logits = _random_logits(k, scale=scale)
  o = np.asarray(logits, np.float64)
  e = np.exp(o - o.max(1, keepdims=True))
  p = e / e.sum(1, keepdims=True)
  with np.errstate(divide='ignore'):
    log_p = o - o.max(1, keepdims=True) - np.log(e.sum(1, keepdims=True))
  if direction == 'uniform_first':
    value, grad = -log_p.mean(1) - np.log(k), p - 1 / k
  else:
    value = np.log(k) + (p * log_p).sum(1)
    grad = p * (log_p + np.log(k) - value[:, None])
  (found, found_grad), = _value_and_grad(
      lambda x: losses.uniform_kl(x, direction), logits)
  np.testing.assert_allclose(found, value, rtol=2e-5)
  np.testing.assert_allclose(found_grad, grad, atol=3e-6)


def test_gradient_of_a_batch_is_p_minus_target_over_n():
  logits = _random_logits()
  n, k = logits.shape
  grad = _grad(lambda x: losses.nat_loss(x, LABELS) / n, logits)
  target = np.where(LABELS[:, None] >= 0, np.eye(k)[LABELS], 1 / k)
  p = np.exp(logits.astype(np.float64))
  p /= p.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(grad, (p - target) / n, atol=1e-7)


def test_gradient_of_uniform_second_vanishes_at_a_confident_negative():
  logits = np.float32([[40, 0, 0]])
  second = _grad(lambda x: losses.uniform_kl(x, 'uniform_second'), logits)
  np.testing.assert_allclose(second, 0.0, atol=1e-6)
  first = _grad(losses.uniform_kl, logits)
  np.testing.assert_allclose(first, [[2 / 3, -1 / 3, -1 / 3]], atol=1e-6)


def test_cross_entropy_gives_negatives_no_gradient():
  labels = np.array([0, -1, -1, 3, -1, 1])
  grad = _grad(lambda x: losses.cross_entropy(x, labels), _random_logits())
  assert not grad[labels < 0].any()
  assert np.abs(grad[labels >= 0]).max(axis=1).min() > 1e-3


@pytest.mark.parametrize('direction', losses.DIRECTIONS)
def test_adding_a_constant_to_the_logits_changes_nothing(direction):
  # Multiples of 1/64, so that adding 1024 does not round.
  logits = np.round(_random_logits() * 64) / 64
  above, below, plain = _value_and_grad(
      lambda x: losses.nat_loss(x, LABELS, direction),
      logits + 1024, logits - 1024, logits)
  np.testing.assert_array_equal(above[0], plain[0])
  np.testing.assert_array_equal(below[1], plain[1])


@pytest.mark.parametrize('direction', losses.DIRECTIONS)
def test_finite_and_right_at_huge_logits(direction):
  logits = np.float32([[1e4, -1e4, 0], [1e4, -1e4, 0], [-1e4, 1e4, 1e4]])
  labels = np.array([0, 1, -1])
  kl = {
      'uniform_first': 2e4 / 3 + np.log(2) - np.log(3),
      'uniform_second': np.log(3) - np.log(2),
  }[direction]
  (value, grad), = _value_and_grad(
      lambda x: losses.nat_loss(x, labels, direction), logits)
  np.testing.assert_allclose(value, [0.0, 2e4, kl], rtol=1e-6, atol=1e-6)
  assert np.isfinite(grad).all()


def test_bfloat16_logits_are_computed_in_float32():
  logits = _random_logits().astype(jnp.bfloat16)
  for direction in losses.DIRECTIONS:
    low = nat_loss(logits, LABELS, direction)
    assert low.dtype == jnp.float32
    full = nat_loss(logits.astype(np.float32), LABELS, direction)
    np.testing.assert_array_equal(low, full)
  assert _grad(lambda x: losses.nat_loss(x, LABELS), logits).dtype == jnp.bfloat16
  assert max_probability(logits, 5).dtype == jnp.float32


def test_one_sided_batches_are_plain_means():
  logits = _random_logits()
  labels = np.array([0, 1, 4, 3, 2, 1])
  np.testing.assert_array_equal(
      nat_loss(logits, labels), cross_entropy(logits, labels))
  np.testing.assert_array_equal(
      nat_loss(logits, -np.ones(6, int)), uniform_kl(logits))


@pytest.mark.parametrize('direction', losses.DIRECTIONS)
def test_jit_equals_eager(direction):
  logits, labels = jax.device_put((_random_logits(), LABELS))
  np.testing.assert_allclose(
      nat_loss(logits, labels, direction), losses.nat_loss(logits, labels, direction),
      rtol=1e-6, atol=1e-7)


def test_max_probability_leaves_background_its_share():
  logits = np.tile(LOGITS, (2, 1))
  np.testing.assert_allclose(max_probability(logits, 4), [0.4, 0.4], rtol=1e-6)
  np.testing.assert_allclose(max_probability(logits, 3), [0.3, 0.3], rtol=1e-6)


def test_bad_arguments_say_what_is_wrong():
  with pytest.raises(ValueError, match="'forward'.*uniform_first, uniform_second"):
    losses.uniform_kl(LOGITS, 'forward')
  with pytest.raises(AssertionError):
    losses.nat_loss(LOGITS, np.array([0, 1]))
  with pytest.raises(AssertionError):
    losses.nat_loss(LOGITS, np.array([0.0]))
  # Under jit nothing can raise, so a label beyond the classes must not pass silently.
  assert np.isnan(cross_entropy(LOGITS, np.array([4]))).all()
