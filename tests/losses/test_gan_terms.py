"""The terms that GAN objectives share: entropies and the probability of being real."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nat_jax.losses import gan_terms

LOGITS = 2 * jax.random.normal(jax.random.key(5), (5, 4))


@pytest.mark.parametrize('hold', [True, False])
def test_marginal_entropy_has_value_and_gradient_of_the_entropy_of_the_mean(hold):
  weight = jnp.array([1.0, 1.0, 0.0, 1.0, 1.0]) / 4  # an empty slot

  def marginal(o):
    return jnp.sum(weight[:, None] * jax.nn.softmax(o), axis=0)

  def per_example(o):
    m = jax.lax.stop_gradient(marginal(o)) if hold else marginal(o)
    return jnp.sum(weight * gan_terms.marginal_entropy(o, m))

  def whole(o):
    return -jnp.sum(marginal(o) * jnp.log(marginal(o)))

  value, found = jax.jit(jax.value_and_grad(per_example))(LOGITS)
  entropy, expected = jax.jit(jax.value_and_grad(whole))(LOGITS)
  np.testing.assert_allclose(value, entropy, rtol=1e-5)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert np.abs(expected).max() > 0.01 and not found[2].any()


def test_entropy_from_none_to_log_k():
  o = jnp.array([[0.0, 0, 0], [1e4, 0, 0], [1e4, 1e4, 0]])
  found = gan_terms.entropy(o)
  np.testing.assert_allclose(found, np.log([3, 1, 2]), rtol=1e-6)


def test_not_last_keeps_its_digits_where_the_fake_is_taken_for_real():
  o = jnp.array([[0.0, 0, -30], [1000, 1000, 970]])
  expected = np.log1p(np.exp(-30) / 2)
  np.testing.assert_allclose(gan_terms.not_last(o), expected, rtol=1e-5)
