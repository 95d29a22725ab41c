"""Networks from pictures to maps: their sizes, and what a generator needs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nat_jax import models


@pytest.mark.parametrize('shape, widths', [
    ((8, 8), (3,)), ((7, 10), (3, 4)), ((5, 9), (2, 3, 4)), ((1, 1), (2, 3))])
def test_a_u_net_has_an_output_for_each_pixel(shape, widths):
  net = models.UNet(5, widths)
  found, _ = jax.eval_shape(
      lambda key: net.init_with_output(key, np.zeros((2, *shape, 3), np.float32)),
      jax.random.key(0))
  assert found.shape == (2, *shape, 5) and found.dtype == jnp.float32


def test_a_u_net_sees_each_picture_alone_and_can_make_a_texture():
  """The output of a constant picture is not constant far from the borders."""
  net = models.UNet(1, (8, 8))
  images = np.stack([np.ones((32, 32, 2)), np.zeros((32, 32, 2))]).astype(np.float32)

  @jax.jit
  def run(key):
    found, variables = net.init_with_output(key, images)
    return found, net.apply(variables, images[:1])

  found, alone = jax.device_get(run(jax.random.key(0)))
  np.testing.assert_allclose(found[:1], alone, rtol=1e-5, atol=1e-6)
  middle = found[0, 14:18, 14:18, 0]
  assert middle.std() > 1e-2
  # With the period of the transposed convolution.
  np.testing.assert_allclose(middle[:2, :2], middle[2:, 2:], rtol=1e-4, atol=1e-5)


def test_a_discriminator_of_patches_sees_no_far_pixel():
  net = models.PatchDiscriminator(widths=(3, 4))
  images = np.random.default_rng(0).normal(size=(1, 16, 16, 2)).astype(np.float32)
  changed = images.copy()
  changed[0, 0, 0] += 9

  @jax.jit
  def run(key):
    found, variables = net.init_with_output(key, images)
    return found, net.apply(variables, changed)

  found, other = jax.device_get(run(jax.random.key(1)))
  assert found.shape == (1, 8, 8, 1)
  moved = np.abs(found - other)[0, ..., 0] > 1e-6
  assert moved[0, 0] and not moved[4:].any() and not moved[:, 4:].any()
