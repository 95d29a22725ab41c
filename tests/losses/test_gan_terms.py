"""The terms that GAN objectives share: entropies and the probability of being real."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nat_jax.losses import gan_terms

LOGITS = np.random.default_rng(5).normal(scale=2, size=(5, 4)).astype(np.float32)


@pytest.mark.parametrize('hold', [True, False])
def test_marginal_entropy_has_value_and_gradient_of_the_entropy_of_the_mean(hold):
  weight = np.float32([1, 1, 0, 1, 1]) / 4  # an empty slot

  def marginal(o):
    return jnp.sum(weight[:, None] * jax.nn.softmax(o), axis=0)

  def per_example(o):
    m = jax.lax.stop_gradient(marginal(o)) if hold else marginal(o)
    return jnp.sum(weight * gan_terms.marginal_entropy(o, m))

  def whole(o):
    return -jnp.sum(marginal(o) * jnp.log(marginal(o)))

  (value, found), (entropy, expected) = jax.device_get(jax.jit(lambda o: [
      jax.value_and_grad(fn)(o) for fn in (per_example, whole)])(LOGITS))
  np.testing.assert_allclose(value, entropy, rtol=1e-5)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert np.abs(expected).max() > 0.01 and not found[2].any()


def test_entropy_from_none_to_log_k():
  o = np.float32([[0, 0, 0], [1e4, 0, 0], [1e4, 1e4, 0]])
  found = jax.jit(gan_terms.entropy)(o)
  np.testing.assert_allclose(found, np.log([3, 1, 2]), rtol=1e-6)


def test_not_last_keeps_its_digits_where_the_fake_is_taken_for_real():
  o = np.float32([[0, 0, -30], [1000, 1000, 970]])
  expected = np.log1p(np.exp(-30) / 2)
  np.testing.assert_allclose(jax.jit(gan_terms.not_last)(o), expected, rtol=1e-5)
