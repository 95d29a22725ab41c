"""BatchNorm against flax's, with masks, over eight devices, and with empty batches."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nat_jax.models.layers import BatchNorm, conv

MASK = np.array([1, 0, 1, 1, 0, 1], np.float32)


def variables_of(c, key):
  """Parameters and running statistics that are not their initial values."""
  a, b, m, v = (
      jax.random.uniform(k, (c,), minval=0.5, maxval=2.0)
      for k in jax.random.split(key, 4))
  return {'params': {'scale': a, 'bias': b}, 'batch_stats': {'mean': m, 'var': v}}


def train(module, variables, x, mask=None, w=None):
  """Output, updated statistics and gradients (parameters, x) of sum(w * y)."""
  def loss(params, x):
    kwargs = {} if mask is None else {'mask': mask}
    y, updates = module.apply(
        {**variables, 'params': params}, x, use_running_average=False,
        mutable=['batch_stats'], **kwargs)
    return (y if w is None else w * y).sum(), (y, updates['batch_stats'])

  grads, (y, stats) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(
      variables['params'], x)
  return y, stats, grads


@pytest.mark.parametrize('shape', [(6, 5), (6, 4, 3, 5)])
def test_equals_flax(shape):
  keys = jax.random.split(jax.random.key(0), 3)
  x = 2 + 3 * jax.random.normal(keys[0], shape)
  w = jax.random.normal(keys[1], shape)
  variables = variables_of(5, keys[2])
  ours, theirs = BatchNorm(), nn.BatchNorm(momentum=0.9, epsilon=1e-5)
  chex.assert_trees_all_close(
      train(ours, variables, x, w=w), train(theirs, variables, x, w=w),
      rtol=1e-4, atol=1e-5)
  chex.assert_trees_all_close(
      ours.apply(variables, x, use_running_average=True),
      theirs.apply(variables, x, use_running_average=True), rtol=1e-6)
  init = ours.init(jax.random.key(1), x, use_running_average=False)
  chex.assert_trees_all_equal(
      init, theirs.init(jax.random.key(1), x, use_running_average=False))


def test_literal_values():
  x = jnp.array([[1.0], [3.0], [100.0]])
  module = BatchNorm(momentum=0.5, epsilon=0.0)
  variables = module.init(jax.random.key(0), x, use_running_average=False)
  y, stats, _ = train(module, variables, x, mask=jnp.array([True, True, False]))
  np.testing.assert_allclose(y[:2, 0], [-1, 1], rtol=1e-6)
  np.testing.assert_allclose(stats['mean'], [1.0])  # 0.5 * 0 + 0.5 * 2
  np.testing.assert_allclose(stats['var'], [1.0])   # 0.5 * 1 + 0.5 * 1


@pytest.mark.parametrize('filler', [0.0, 1e6, np.nan])
def test_mask_is_subsetting(filler):
  keys = jax.random.split(jax.random.key(1), 3)
  filled = MASK > 0
  x = jax.random.normal(keys[0], (6, 4, 4, 3))
  w = jax.random.normal(keys[1], x.shape)
  variables = variables_of(3, keys[2])
  y, stats, _ = train(
      BatchNorm(), variables, jnp.where(filled[:, None, None, None], x, filler),
      mask=jnp.asarray(MASK))
  expected_y, expected_stats, expected_grads = train(
      BatchNorm(), variables, x[filled], w=w[filled])
  np.testing.assert_allclose(y[filled], expected_y, rtol=1e-4, atol=1e-5)
  chex.assert_trees_all_close(stats, expected_stats, rtol=1e-5)
  _, _, (params, dx) = train(
      BatchNorm(), variables, x, mask=jnp.asarray(MASK),
      w=w * MASK[:, None, None, None])
  chex.assert_trees_all_close(
      (params, dx[filled]), expected_grads, rtol=1e-4, atol=1e-5)
  assert np.all(dx[~filled] == 0)


def test_unequal_masks_over_eight_devices():
  """pmap over 8 devices equals one device with the whole batch."""
  keys = jax.random.split(jax.random.key(2), 3)
  x = 5 + jax.random.normal(keys[0], (16, 3, 3, 4))
  w = jax.random.normal(keys[1], x.shape)
  mask = jnp.array([1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0], jnp.float32)
  w = w * mask[:, None, None, None]
  variables = variables_of(4, keys[2])
  y, stats, (params, dx) = train(BatchNorm(), variables, x, mask=mask, w=w)

  def shard(a):
    return a.reshape(8, 2, *a.shape[1:])

  def one_device(x, mask, w):
    y, stats, (params, dx) = train(
        BatchNorm(axis_name='data'), variables, x, mask=mask, w=w)
    return y, stats, (jax.lax.psum(params, 'data'), dx)

  y8, stats8, (params8, dx8) = jax.pmap(one_device, axis_name='data')(
      shard(x), shard(mask), shard(w))
  for device in range(8):
    chex.assert_trees_all_close(
        jax.tree.map(lambda a, i=device: a[i], stats8), stats, rtol=1e-5)
    chex.assert_trees_all_close(
        jax.tree.map(lambda a, i=device: a[i], params8), params, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(y8.reshape(y.shape), y, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(dx8.reshape(dx.shape), dx, rtol=1e-3, atol=1e-5)


def test_all_empty_batch():
  x = jax.random.normal(jax.random.key(3), (4, 2, 2, 3))
  variables = variables_of(3, jax.random.key(4))
  y, stats, grads = train(BatchNorm(), variables, x, mask=jnp.zeros(4))
  chex.assert_trees_all_equal(stats, variables['batch_stats'])
  chex.assert_tree_all_finite((y, grads))
  # atol: two terms of order 1 cancel in some elements, in which only rounding is left.
  np.testing.assert_allclose(
      y, BatchNorm().apply(variables, x, use_running_average=True), rtol=1e-5,
      atol=1e-6)


def test_variance_survives_a_large_mean():
  """E[x^2] - E[x]^2 in float32 would give 0 or 16 here."""
  x = 1e4 + jax.random.normal(jax.random.key(5), (256, 2))
  variables = variables_of(2, jax.random.key(6))
  variables['batch_stats']['mean'] = jnp.full(2, 1e4 + 0.5)
  y, _, _ = train(BatchNorm(), variables, x)
  np.testing.assert_allclose(y.std(0), variables['params']['scale'], rtol=1e-3)


def test_bfloat16_output_and_float32_statistics():
  x = jax.random.normal(jax.random.key(7), (64, 3)).astype(jnp.bfloat16)
  variables = variables_of(3, jax.random.key(8))
  module = BatchNorm(dtype=jnp.bfloat16)
  y, updates = module.apply(
      variables, x, use_running_average=False, mutable=['batch_stats'])
  _, expected, _ = train(BatchNorm(), variables, x.astype(jnp.float32))
  assert y.dtype == jnp.bfloat16
  chex.assert_trees_all_equal(updates['batch_stats'], expected)


def test_conv_pads_all_sides_alike():
  """A strided convolution of an even-sized image is centred at its first pixel."""
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)
  centre = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
  y = conv(1, stride=2).apply({'params': {'kernel': centre}}, x)
  np.testing.assert_array_equal(y[0, :, :, 0], x[0, ::2, ::2, 0])
