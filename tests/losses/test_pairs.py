"""Losses of pairs: literal values, and what they are 0 for."""

import jax
import numpy as np

from nat_jax import losses

vae_loss = jax.jit(losses.vae_loss)


def test_the_discriminator_of_pairs():
  scores = {'real': np.float32([1, 0.5]), 'made': np.float32([0, 2]),
            'regressed': np.float32([0, 3]), 'mismatched': np.float32([0, 0.5])}

  @jax.jit
  def run(scores):
    slope = jax.grad(lambda t: losses.pair_discriminator_loss(
        scores | {'mismatched': t}, 0.1, 0.0).sum())(scores['mismatched'])
    return losses.pair_discriminator_loss(scores, 0.1, 2.0), slope

  found, slope = run(scores)
  np.testing.assert_allclose(
      found, [0, 0.25 + 4 + 0.1 * 9 + 2 * 0.25], rtol=1e-6)
  np.testing.assert_array_equal(slope, 0)


def test_the_loss_of_the_variational_autoencoder():
  x, made = np.float32([[1, 2]]), np.float32([[0, 4]])
  mean, log_variance = np.float32([[1, 0, 2]]), np.log(np.float32([[1, 2, 4]]))
  kl = 0.5 * (1 + 0 + (2 - 1 - np.log(2)) + (4 + 4 - 1 - np.log(4)))
  np.testing.assert_allclose(
      vae_loss(x, made, mean, log_variance, 0.5), [2.5 + 0.5 * kl], rtol=1e-6)
  zero = np.zeros((1, 3), np.float32)
  np.testing.assert_array_equal(vae_loss(x, x, zero, zero, 1.0), 0)


def test_the_divergence_is_that_of_samples():
  """KL(N(m, v) || N(0, 1)) = E[log q(z) - log p(z)], z ~ q."""
  m, v = 0.7, 0.3
  z = m + v ** 0.5 * np.random.default_rng(0).normal(size=400_000)
  expected = np.mean(-0.5 * np.log(v) - (z - m) ** 2 / (2 * v) + z ** 2 / 2)
  x = np.zeros((1, 1), np.float32)
  found = vae_loss(x, x, np.float32([[m]]), np.log(np.float32([[v]])), 1.0)
  np.testing.assert_allclose(found, expected, atol=5e-3)


def test_mean_squares():
  np.testing.assert_allclose(
      jax.jit(losses.mean_square)(
          np.float32([[1, 3], [0, 0]]), np.zeros((2, 2), np.float32)), [5, 0])
