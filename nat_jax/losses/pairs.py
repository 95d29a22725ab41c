"""Losses of pairs of a feature vector and a class embedding: GDAN, conditional VAE.

    terms = pair_discriminator_loss(scores, dual_weight=0.1, mismatch_weight=1.0)  # [n]
    terms = vae_loss(x, made, mean, log_variance, kl_weight=1.0)                   # [n]

Reference: Huang, Wang, Yu, Wang, "Generative Dual Adversarial Network for Generalized
Zero-Shot Learning", CVPR 2019.
"""

from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp


def pair_discriminator_loss(
    scores: Mapping[str, jax.Array], dual_weight: float, mismatch_weight: float
) -> jax.Array:
  """(D(x, s) - 1)^2 + D(x', s)^2 + a D(x, s')^2 + b D(x, t)^2 of each example, [n].

  Pairs with the embedding t of another seen class are the negatives.

  Args:
    scores: D of 'real' pairs (x, s), of 'made' features (x', s), of 'regressed'
      embeddings (x, s') and of 'mismatched' pairs (x, t), [n] each.
    dual_weight: a.
    mismatch_weight: b; 0: no mismatched negatives.
  """
  chex.assert_equal_shape([*scores.values()])
  return (jnp.square(scores['real'] - 1) + jnp.square(scores['made'])
          + dual_weight * jnp.square(scores['regressed'])
          + mismatch_weight * jnp.square(scores['mismatched']))


def vae_loss(
    x: jax.Array, made: jax.Array, mean: jax.Array, log_variance: jax.Array,
    kl_weight: float,
) -> jax.Array:
  """1/2 |x - x'|^2 + kl_weight KL(N(m, v) || N(0, 1)) of each example, [n].

  KL = 1/2 sum_j (v_j + m_j^2 - 1 - log v_j).

  Args:
    x, made: features and their reconstructions, [n, d].
    mean, log_variance: of the code, m and log v, [n, latent].
    kl_weight: factor of KL.
  """
  chex.assert_equal_shape([x, made])
  chex.assert_equal_shape([mean, log_variance])
  kl = jnp.exp(log_variance) + jnp.square(mean) - 1 - log_variance
  return 0.5 * jnp.square(x - made).sum(1) + 0.5 * kl_weight * kl.sum(1)


def mean_square(one: jax.Array, other: jax.Array) -> jax.Array:
  """The mean square of the differences of each example, [n, d] -> [n]."""
  chex.assert_equal_shape([one, other])
  return jnp.square(one - other).mean(1)
