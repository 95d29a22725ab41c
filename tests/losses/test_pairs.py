"""Losses of pairs: literal values, and what they are 0 for."""

import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import losses


def test_the_discriminator_of_pairs():
  scores = {'real': jnp.array([1.0, 0.5]), 'made': jnp.array([0.0, 2.0]),
            'regressed': jnp.array([0.0, 3.0]), 'mismatched': jnp.array([0.0, 0.5])}
  np.testing.assert_allclose(
      losses.pair_discriminator_loss(scores, 0.1, 2.0),
      [0, 0.25 + 4 + 0.1 * 9 + 2 * 0.25], rtol=1e-6)
  slope = jax.grad(lambda t: losses.pair_discriminator_loss(
      scores | {'mismatched': t}, 0.1, 0.0).sum())(scores['mismatched'])
  np.testing.assert_array_equal(slope, 0)


def test_the_loss_of_the_variational_autoencoder():
  x, made = jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 4.0]])
  mean, log_variance = jnp.array([[1.0, 0.0, 2.0]]), jnp.log(jnp.array([[1.0, 2, 4]]))
  kl = 0.5 * (1 + 0 + (2 - 1 - np.log(2)) + (4 + 4 - 1 - np.log(4)))
  np.testing.assert_allclose(
      losses.vae_loss(x, made, mean, log_variance, 0.5), [2.5 + 0.5 * kl], rtol=1e-6)
  zero = jnp.zeros((1, 3))
  np.testing.assert_array_equal(losses.vae_loss(x, x, zero, zero, 1.0), 0)


def test_the_divergence_is_that_of_samples():
  """KL(N(m, v) || N(0, 1)) = E[log q(z) - log p(z)], z ~ q."""
  m, v = 0.7, 0.3
  z = m + v ** 0.5 * np.random.default_rng(0).normal(size=400_000)
  expected = np.mean(-0.5 * np.log(v) - (z - m) ** 2 / (2 * v) + z ** 2 / 2)
  x = jnp.zeros((1, 1))
  found = losses.vae_loss(x, x, jnp.array([[m]]), jnp.log(jnp.array([[v]])), 1.0)
  np.testing.assert_allclose(found, expected, atol=5e-3)


def test_mean_squares():
  np.testing.assert_allclose(
      losses.mean_square(jnp.array([[1.0, 3.0], [0, 0]]), jnp.zeros((2, 2))), [5, 0])
