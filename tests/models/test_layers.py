"""BatchNorm against flax's, with masks, over eight devices, and with empty batches."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nat_jax.models.layers import BatchNorm, conv

MASK = np.array([1, 0, 1, 1, 0, 1], np.float32)


def variables_of(c, rng):
  """Parameters and running statistics that are not their initial values."""
  a, b, m, v = rng.uniform(0.5, 2.0, (4, c)).astype(np.float32)
  return {'params': {'scale': a, 'bias': b}, 'batch_stats': {'mean': m, 'var': v}}


def normal(rng, shape):
  return rng.normal(size=shape).astype(np.float32)


def train(module, variables, x, mask=None, w=None):
  """Output, updated statistics and gradients (parameters, x) of sum(w * y)."""
  return jax.device_get(_train(module, variables, x, mask, w))


@functools.partial(jax.jit, static_argnums=0)
def _train(module, variables, x, mask, w):
  def loss(params, x):
    kwargs = {} if mask is None else {'mask': mask}
    y, updates = module.apply(
        {**variables, 'params': params}, x, use_running_average=False,
        mutable=['batch_stats'], **kwargs)
    return (y if w is None else w * y).sum(), (y, updates['batch_stats'])

  grads, (y, stats) = jax.grad(loss, argnums=(0, 1), has_aux=True)(
      variables['params'], x)
  return y, stats, grads


@pytest.mark.parametrize('shape', [(6, 5), (6, 4, 3, 5)])
def test_equals_flax(shape):
  rng = np.random.default_rng(0)
  x, w = 2 + 3 * normal(rng, shape), normal(rng, shape)
  variables = variables_of(5, rng)
  ours, theirs = BatchNorm(), nn.BatchNorm(momentum=0.9, epsilon=1e-5)
  chex.assert_trees_all_close(
      train(ours, variables, x, w=w), train(theirs, variables, x, w=w),
      rtol=1e-4, atol=1e-5)
  one, other = jax.jit(lambda variables, key: [
      (module.apply(variables, x, use_running_average=True),
       module.init(key, x, use_running_average=False)) for module in (ours, theirs)])(
           variables, jax.random.key(1))
  chex.assert_trees_all_close(one[0], other[0], rtol=1e-6)
  chex.assert_trees_all_equal(one[1], other[1])


def test_literal_values():
  x = np.float32([[1], [3], [100]])
  module = BatchNorm(momentum=0.5, epsilon=0.0)
  variables = jax.jit(functools.partial(module.init, use_running_average=False))(
      jax.random.key(0), x)
  y, stats, _ = train(module, variables, x, mask=np.array([True, True, False]))
  np.testing.assert_allclose(y[:2, 0], [-1, 1], rtol=1e-6)
  np.testing.assert_allclose(stats['mean'], [1.0])  # 0.5 * 0 + 0.5 * 2
  np.testing.assert_allclose(stats['var'], [1.0])   # 0.5 * 1 + 0.5 * 1


@pytest.mark.parametrize('filler', [0.0, 1e6, np.nan])
def test_mask_is_subsetting(filler):
  rng, filled = np.random.default_rng(1), MASK > 0
  x, w = normal(rng, (6, 4, 4, 3)), normal(rng, (6, 4, 4, 3))
  variables = variables_of(3, rng)
  y, stats, _ = train(
      BatchNorm(), variables,
      np.where(filled[:, None, None, None], x, np.float32(filler)), mask=MASK)
  expected_y, expected_stats, expected_grads = train(
      BatchNorm(), variables, x[filled], w=w[filled])
  np.testing.assert_allclose(y[filled], expected_y, rtol=1e-4, atol=1e-5)
  chex.assert_trees_all_close(stats, expected_stats, rtol=1e-5)
  _, _, (params, dx) = train(
      BatchNorm(), variables, x, mask=MASK,
      w=w * MASK[:, None, None, None])
  chex.assert_trees_all_close(
      (params, dx[filled]), expected_grads, rtol=1e-4, atol=1e-5)
  assert np.all(dx[~filled] == 0)


def test_unequal_masks_over_eight_devices():
  """pmap over 8 devices equals one device with the whole batch."""
  rng = np.random.default_rng(2)
  x = 5 + normal(rng, (16, 3, 3, 4))
  mask = np.array([1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0], np.float32)
  w = normal(rng, x.shape) * mask[:, None, None, None]
  variables = variables_of(4, rng)
  y, stats, (params, dx) = train(BatchNorm(), variables, x, mask=mask, w=w)

  def shard(a):
    return a.reshape(8, 2, *a.shape[1:])

  def one_device(x, mask, w):
    y, stats, (params, dx) = _train(
        BatchNorm(axis_name='data'), variables, x, mask, w)
    return y, stats, (jax.lax.psum(params, 'data'), dx)

  y8, stats8, (params8, dx8) = jax.device_get(jax.pmap(one_device, axis_name='data')(
      shard(x), shard(mask), shard(w)))
  for device in range(8):
    chex.assert_trees_all_close(
        jax.tree.map(lambda a, i=device: a[i], stats8), stats, rtol=1e-5)
    chex.assert_trees_all_close(
        jax.tree.map(lambda a, i=device: a[i], params8), params, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(y8.reshape(y.shape), y, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(dx8.reshape(dx.shape), dx, rtol=1e-3, atol=1e-5)


def test_all_empty_batch():
  rng = np.random.default_rng(3)
  x, variables = normal(rng, (4, 2, 2, 3)), variables_of(3, rng)
  y, stats, grads = train(BatchNorm(), variables, x, mask=np.zeros(4, np.float32))
  chex.assert_trees_all_equal(stats, variables['batch_stats'])
  chex.assert_tree_all_finite((y, grads))
  # atol: two terms of order 1 cancel in some elements, in which only rounding is left.
  expected = jax.jit(functools.partial(BatchNorm().apply, use_running_average=True))(
      variables, x)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_variance_survives_a_large_mean():
  """E[x^2] - E[x]^2 in float32 would give 0 or 16 here."""
  rng = np.random.default_rng(5)
  x = np.float32(1e4) + normal(rng, (256, 2))
  variables = variables_of(2, rng)
  variables['batch_stats']['mean'] = np.full(2, 1e4 + 0.5, np.float32)
  y, _, _ = train(BatchNorm(), variables, x)
  np.testing.assert_allclose(y.std(0), variables['params']['scale'], rtol=1e-3)


def test_bfloat16_output_and_float32_statistics():
  rng = np.random.default_rng(7)
  x, variables = normal(rng, (64, 3)).astype(jnp.bfloat16), variables_of(3, rng)
  y, stats, _ = train(BatchNorm(dtype=jnp.bfloat16), variables, x)
  _, expected, _ = train(BatchNorm(), variables, x.astype(np.float32))
  assert y.dtype == jnp.bfloat16
  chex.assert_trees_all_equal(stats, expected)


def test_conv_pads_all_sides_alike():
  """A strided convolution of an even-sized image is centred at its first pixel."""
  x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
  centre = np.zeros((3, 3, 1, 1), np.float32)
  centre[1, 1] = 1
  y = np.asarray(jax.jit(conv(1, stride=2).apply)({'params': {'kernel': centre}}, x))
  np.testing.assert_array_equal(y[0, :, :, 0], x[0, ::2, ::2, 0])
