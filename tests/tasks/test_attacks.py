"""Attacks on classifiers: against exact solutions, and within their limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from nat_jax import data
from nat_jax.tasks import attacks

MEAN, STD = (0.3, 0.5), (0.2, 0.4)
NORMALISE = functools.partial(data.normalise, mean=MEAN, std=STD)
SHAPE, BUDGET = (3, 4, 2), 0.1


@pytest.fixture(scope='module')
def given():
  """(limits, uint8 pictures with black and white pixels, these normalised)."""
  rng = np.random.default_rng(0)
  pictures = rng.integers(0, 256, (5, *SHAPE), np.uint8)
  pictures[0, 0], pictures[1, 0] = 0, 255
  limits = attacks.make_limits(BUDGET, NORMALISE, SHAPE)
  return limits, pictures, NORMALISE(pictures)


def keys():
  return jax.random.split(jax.random.key(0), 5)


def pixels(x):
  """Normalised pictures as pixels in [0, 1]."""
  return np.asarray(x) * np.array(STD) + np.array(MEAN)


def test_limits_are_the_budget_in_normalised_units(given):
  limits, *_ = given
  np.testing.assert_allclose(limits.radius.ravel(), BUDGET / np.array(STD), rtol=1e-6)
  np.testing.assert_allclose(pixels(limits.low), 0, atol=1e-6)
  np.testing.assert_allclose(pixels(limits.high), 1, rtol=1e-6)


@pytest.mark.parametrize('budget, shape, message', [
    (0, SHAPE, 'at least 1/255.*got 0;'), (1.5, SHAPE, 'at most 1, got 1.5'),
    (0.003, SHAPE, 'grey level.*0.003'), (float('nan'), SHAPE, 'got nan'),
    (0.1, (5,), r'vectors.*\(5,\)')])
def test_budgets_that_make_no_sense(budget, shape, message):
  with pytest.raises(ValueError, match=f'trainer.budget.*{message}'):
    attacks.make_limits(budget, NORMALISE, shape)


def test_a_linear_loss_is_raised_to_the_corner_of_the_limits(given):
  """Where the largest value is known: x + r sign(w), clipped to black and white."""
  limits, _, x = given
  w = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)

  def loss(images):
    return (images * w).sum((1, 2, 3))

  corner = np.clip(pixels(x) + BUDGET * np.sign(w), 0, 1)
  reached = jax.jit(lambda x: attacks.fgsm(limits, loss, x))(x)
  np.testing.assert_allclose(pixels(reached), corner, atol=1e-5)
  reached = jax.jit(lambda x: attacks.pgd(limits, loss, x, keys(), steps=5))(x)
  np.testing.assert_allclose(pixels(reached), corner, atol=1e-5)


def test_pgd_climbs_a_curved_loss_higher_than_fgsm(given):
  """-|x' - x - r/2|^2 has its maximum inside, which one step of size r misses."""
  limits, _, x = given
  low, high, radius = (
      np.asarray(one) for one in (limits.low, limits.high, limits.radius))
  inside = np.clip(x, low + radius, high - radius)
  goal = inside + radius / 2

  @jax.jit
  def loss(images):
    return -jnp.square((images - goal) / radius).mean((1, 2, 3))

  few, many = (jax.jit(lambda x, steps=steps: attacks.pgd(
      limits, loss, x, keys(), steps))(inside) for steps in (1, 40))
  assert loss(many).min() > -0.01
  at_once = jax.jit(lambda x: attacks.fgsm(limits, loss, x))(inside)
  assert loss(at_once).max() == pytest.approx(-0.25, abs=.01)
  assert (loss(few) < loss(many)).all()


def test_noise_uses_all_of_the_budget_in_both_directions(given):
  limits, _, x = given
  grey = np.zeros(x.shape, np.float32)  # neither black nor white is near
  changed = pixels(attacks.sign_noise(limits, grey, keys())) - pixels(grey)
  np.testing.assert_allclose(np.abs(changed), BUDGET, rtol=1e-5)
  assert 0.3 < (changed > 0).mean() < 0.7
  assert len({one.tobytes() for one in changed}) == 5


def test_pictures_of_8_bits_stay_within_the_budget(given):
  """Rounding up would exceed it: .1 is 25.5 grey levels."""
  limits, pictures, x = given
  changed = attacks.as_pictures(
      limits, pictures, np.asarray(attacks.sign_noise(limits, x, keys())))
  moved = changed.astype(int) - pictures
  assert changed.dtype == np.uint8 and np.abs(moved).max() == 25
  assert (np.abs(moved) == 25).mean() > 0.7  # others are black or white
  np.testing.assert_array_equal(
      attacks.as_pictures(limits, pictures, np.asarray(x)), pictures)


def test_margin_and_confidence_in_a_wrong_class():
  """Two classes and a background output, which is neither right nor a wrong class."""
  logits = np.array([[2, 1, 0], [1, 2, 0], [0, 1, 5]], np.float32)
  labels = np.zeros(3, np.int32)
  margin, confidence = (jax.jit(fn, static_argnums=2) for fn in (
      attacks.margin, attacks.wrong_confidence))
  np.testing.assert_allclose(margin(logits, labels, 2), [1.0, -1.0, 4.0])
  np.testing.assert_allclose(
      confidence(logits, labels, 2), special.log_softmax(logits, axis=1)[:, 1],
      rtol=1e-6)
  np.testing.assert_allclose(
      margin(logits, labels, 3), [1.0, -1.0, -5.0])  # all are classes
