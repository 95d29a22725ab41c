"""Layers of the GANs: norms of weights, batch statistics, noise, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nat_jax.models import gan_layers, gan_noise

MASK = np.array([1, 0, 1, 1, 0, 1], np.float32)
FILLED = MASK > 0


@pytest.mark.parametrize('layer,shape,gain', [
    (gan_layers.Dense(4), (5,), 1),
    (gan_layers.Conv(4, stride=2), (6, 6, 3), 1),
    (gan_layers.Conv(4, stride=2, transpose=True), (6, 6, 3), 2),
])
def test_weight_norm(layer, shape, gain):
  """Starts as the paper's code; only v's direction counts, and g is the norm."""
  x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
  params = jax.tree.map(np.asarray, jax.jit(layer.init)(jax.random.key(1), x)['params'])
  np.testing.assert_array_equal(params['g'], gain)
  np.testing.assert_array_equal(params['bias'], 0)
  assert 0.014 < np.abs(params['v']).max() <= 0.01 * 3 ** 0.5
  np.testing.assert_allclose(params['v'].std(), 0.01, rtol=0.25)
  compiled = jax.jit(lambda params: layer.apply({'params': params}, x))

  def apply(params):
    return np.asarray(compiled(params))

  y = apply(params)
  factors = np.array([0.1, 1, 7, 300], np.float32)
  rescaled = apply({**params, 'v': params['v'] * factors})
  np.testing.assert_allclose(rescaled, y, atol=1e-5)
  np.testing.assert_allclose(apply({**params, 'g': 3 * params['g']}), 3 * y, atol=1e-5)
  shifted = apply({**params, 'bias': params['bias'] + 2})
  np.testing.assert_allclose(shifted, y + 2, atol=1e-5)
  if isinstance(layer, gan_layers.Dense):
    unit = params['v'] / np.linalg.norm(params['v'], axis=0)
    np.testing.assert_allclose(y, x @ unit, atol=1e-5)


def test_subpixel_form_is_the_transposed_convolution():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 3, 4, 3)).astype(np.float32)
  weight = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)
  y, expected = jax.jit(lambda x, weight: [
      gan_layers.subpixel_conv_transpose(x, weight),
      lax.conv_transpose(
          x, weight, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))])(
              x, weight)
  assert y.shape == (2, 6, 8, 4)
  np.testing.assert_allclose(y, expected, atol=1e-5)


def test_batch_statistics():
  x = np.random.default_rng(0).normal(50, 3, (6, 4, 4, 5)).astype(np.float32)
  scale, bias = np.full(5, 2, np.float32), np.arange(5, dtype=np.float32)
  variables = {'params': {'scale': scale, 'bias': bias}}
  compiled = jax.jit(
      lambda x, mask: gan_layers.BatchStatsNorm().apply(variables, x, mask))

  def apply(x, mask):
    return np.asarray(compiled(x, mask))

  def expected(x):
    spread = np.sqrt(x.var((0, 1, 2)) + 1e-3)
    return (x - x.mean((0, 1, 2))) / spread * scale + bias

  np.testing.assert_allclose(apply(x, None), expected(x), atol=1e-4)
  y = apply(np.where(FILLED[:, None, None, None], x, np.float32(1e6)), MASK)
  np.testing.assert_allclose(y[FILLED], expected(x[FILLED]), atol=1e-4)
  assert np.isfinite(apply(x, 0 * MASK)).all()


def test_batch_statistics_over_devices():
  """pmap over 8 devices with unequal masks equals one device, gradients too."""
  rng = np.random.default_rng(0)
  x, w = rng.normal(size=(2, 16, 3, 4)).astype(np.float32)
  mask = np.array([1, 1, 0, 1, 0, 0, 1, 1, 1, 1, 1, 0, 1, 1, 0, 1], np.float32)
  variables = {'params': {'scale': np.full(4, 2.0), 'bias': np.arange(4.0)}}

  def loss(x, w, mask, axis_name=None):
    y = gan_layers.BatchStatsNorm(axis_name=axis_name).apply(variables, x, mask)
    return (w * y * mask[:, None, None]).sum()

  split = [a.reshape(8, 2, *a.shape[1:]) for a in (x, w, mask)]
  many = jax.pmap(jax.value_and_grad(lambda *a: loss(*a, 'data')), 'data')
  value, grad = many(*split)
  one, expected = jax.jit(jax.value_and_grad(loss))(x, w, mask)
  np.testing.assert_allclose(np.asarray(value).sum(), one, rtol=1e-4)
  np.testing.assert_allclose(np.reshape(grad, x.shape), expected, atol=1e-5)


def test_input_noise_statistics():
  x = np.zeros((8, 100, 100), np.float32)

  @jax.jit
  def noisy(x):
    keys = jax.random.split(jax.random.key(3), 8)
    words, *_ = gan_noise.draw(keys, 10_000, [])
    return gan_noise.input_noise(x, words, 0.1)

  added = np.asarray(noisy(x))  # a m
  times = np.asarray(noisy(x + 1e4)) / 1e4  # m, and a ten-thousandth of a
  assert np.abs(added).max() <= 0.2 * 1.2
  assert 0.799 < times.min() < 0.81 and 1.19 < times.max() < 1.201
  # A normal cut at 2 sigma has the variance .7737 sigma^2.
  np.testing.assert_allclose(times.var(), 0.007737, rtol=0.02)
  np.testing.assert_allclose(added.var(), 0.007737 * (1 + 0.007737), rtol=0.02)
  np.testing.assert_allclose([times.mean(), added.mean()], [1, 0], atol=1e-3)
  # The two halves of a word are independent.
  assert abs(np.corrcoef(added.ravel(), times.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize('rate', [0.3, 0.5])
def test_dropout(rate):
  keys = jax.random.split(jax.random.key(3), 4)
  x = np.ones((4, 101, 99), np.float32)  # 9999 bytes do not fill their last word.
  y, other = np.asarray(jax.jit(lambda x: [
      gan_noise.dropout(x, words, rate)
      for words in gan_noise.draw(keys, 7, [9999, 9999])[1:]])(x))
  keep = round(256 * (1 - rate)) / 256
  np.testing.assert_allclose((y > 0).mean(), keep, atol=0.01)
  np.testing.assert_allclose(y[y > 0], np.sqrt(1 / keep), rtol=1e-6)
  np.testing.assert_allclose(np.square(y).mean(), 1, rtol=0.02)
  # Sites, examples, neighbours and the four bytes of a word are independent.
  for a, b in [(y, other), (y[0], y[1])] + [
      (y[..., i:], y[..., :-i]) for i in (1, 2, 3, 4)]:
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.03


def test_spectral_norm():
  layer, x = gan_layers.Dense(6, norm='spectral'), np.eye(9, dtype=np.float32)
  variables = jax.jit(layer.init)(jax.random.key(1), x)
  params, start = variables['params'], variables['batch_stats']
  matrix = np.asarray(params['kernel'])
  assert matrix.shape == (9, 6) and start['u'].shape == (6,)

  @jax.jit
  def run(start):
    def update(stats, train=True):
      y, updates = layer.apply(
          {'params': params, 'batch_stats': stats}, x, train, mutable=['batch_stats'])
      return y, updates['batch_stats']

    def frozen(kernel):  # Of use as it is, and for its gradient.
      return layer.apply(
          {'params': {**params, 'kernel': kernel}, 'batch_stats': end}, x, True)

    first = update(start)
    end = lax.fori_loop(0, 100, lambda _, stats: update(stats)[1], start)
    grad = jax.grad(lambda kernel: jnp.sin(frozen(kernel)).sum())(params['kernel'])
    return first, end, update(end, train=False), frozen(params['kernel']), grad

  start = jax.device_get(start)
  (y, once), end, (after, kept), frozen, grad = jax.device_get(run(start))
  # One iteration from u, written out.
  v = matrix @ start['u']
  v /= np.linalg.norm(v)
  u = v @ matrix / np.linalg.norm(v @ matrix)
  np.testing.assert_allclose(once['u'], u, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(y, matrix / (v @ matrix @ u), rtol=1e-4)
  # In the end sigma is the largest singular value. In evaluation u stays.
  sigma = np.linalg.svd(matrix, compute_uv=False)[0]
  np.testing.assert_allclose(after, matrix / sigma, rtol=1e-3)
  np.testing.assert_allclose(frozen, after, rtol=1e-5)
  np.testing.assert_array_equal(kept['u'], end['u'])
  assert np.abs(once['u'] - start['u']).max() > 0.1
  # sigma has a gradient, u and v none: d sigma / dW = v u^T.
  left, _, right = np.linalg.svd(matrix)
  through = np.cos(matrix / sigma)
  expected = through / sigma - (
      (through * matrix).sum() / sigma ** 2 * np.outer(left[:, 0], right[0]))
  np.testing.assert_allclose(grad, expected, rtol=1e-2, atol=1e-3)


def test_spectral_gain_is_the_largest_singular_value():
  layer = gan_layers.Dense(4, norm='spectral', spectral_gain=1.7)
  matrix = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
  variables = {'params': {'kernel': matrix, 'bias': np.zeros(4, np.float32)},
               'batch_stats': {'u': np.linalg.svd(matrix)[2][0]}}
  used = jax.jit(lambda x: layer.apply(variables, x))(np.eye(7, dtype=np.float32))
  sigma = np.linalg.svd(matrix, compute_uv=False)
  np.testing.assert_allclose(
      np.linalg.svd(used, compute_uv=False), 1.7 * sigma / sigma[0], rtol=1e-4)


def test_spectral_norm_of_convolutions():
  """The kernel [3, 3, c, outputs] counts as the matrix [9 c, outputs]."""
  x = np.random.default_rng(0).normal(size=(2, 5, 5, 2)).astype(np.float32)
  layer, plain = (gan_layers.Conv(4, norm=norm) for norm in ('spectral', 'none'))
  variables = jax.jit(layer.init)(jax.random.key(1), x)
  params = variables['params']
  matrix = np.asarray(params['kernel']).reshape(18, 4)
  left, values, right = np.linalg.svd(matrix)
  y, expected = jax.device_get(jax.jit(lambda u: [
      layer.apply({'params': params, 'batch_stats': {'u': u}}, x),
      plain.apply({'params': params}, x)])(right[0]))
  np.testing.assert_allclose(y, expected / values[0], rtol=1e-3, atol=1e-5)


def test_minibatch_discrimination_against_loops():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(6, 3)).astype(np.float32)
  layer = gan_layers.MinibatchDiscrimination(kernels=2, size=4)

  @jax.jit
  def run(key):
    variables = layer.init(key, x)
    return (variables['params']['kernel'], layer.apply(variables, x, MASK),
            layer.apply(variables, np.ones((6, 3), np.float32)),
            layer.apply(variables, x, train=False), layer.apply(variables, x[:1]))

  kernel, found, alike, evaluated, alone = jax.device_get(run(jax.random.key(0)))
  m = (x @ kernel).reshape(6, 2, 4)
  np.testing.assert_allclose(found[:, :3], x, rtol=1e-6)
  for i in range(6):
    expected = sum(np.exp(-np.abs(m[i] - m[j]).sum(-1))
                   for j in np.flatnonzero(FILLED) if j != i)
    np.testing.assert_allclose(found[i, 3:], expected, rtol=1e-5)
  np.testing.assert_allclose(alike[:, 3:], 5, rtol=1e-6)  # a collapsed batch
  # In evaluation each is alone, as a batch of one is in training.
  np.testing.assert_array_equal(evaluated[:, 3:], 0)
  np.testing.assert_array_equal(alone[:, 3:], 0)


def test_virtual_batch_norm_is_by_the_reference_batch_and_the_example():
  rng = np.random.default_rng(0)
  x = rng.normal(5, 2, size=(7, 3, 2)).astype(np.float32)
  layer = gan_layers.VirtualBatchNorm(num=4)
  variables = {'params': {'scale': np.array([2.0, 3]), 'bias': np.array([1.0, -1])}}
  found, fewer = jax.device_get(jax.jit(lambda x: [
      layer.apply(variables, x), layer.apply(variables, x[np.r_[:4, 6]])])(x))

  def normalised(values, mean, var):
    return (values - mean) / np.sqrt(var + 1e-3) * [2, 3] + [1, -1]

  first = x[:4].reshape(-1, 2)
  np.testing.assert_allclose(
      found[:4], normalised(x[:4], first.mean(0), first.var(0)), rtol=1e-4, atol=1e-4)
  for i in (4, 5, 6):  # the five examples weigh alike
    five = np.concatenate([x[:4], x[i:i + 1]]).reshape(-1, 2)
    np.testing.assert_allclose(
        found[i], normalised(x[i], five.mean(0), five.var(0)), rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(fewer[4], found[6])


def test_class_batch_norm_is_batch_norm_with_parameters_of_the_class():
  x = np.random.default_rng(0).normal(size=(6, 4, 5)).astype(np.float32)
  labels = np.array([0, 1, 1, 0, 2, 2])
  scale, bias = np.random.default_rng(1).normal(size=(2, 3, 5)).astype(np.float32)
  found, plain = jax.device_get(jax.jit(lambda x: (
      gan_layers.ClassBatchNorm(num_classes=3).apply(
          {'params': {'scale': scale, 'bias': bias}}, x, labels, MASK),
      [gan_layers.BatchStatsNorm().apply(
          {'params': {'scale': scale[k], 'bias': bias[k]}}, x, MASK)
       for k in range(3)]))(x))
  for k in range(3):
    np.testing.assert_allclose(found[labels == k], plain[k][labels == k], atol=1e-5)


def test_projection_is_the_inner_product_with_the_vector_of_the_class():
  f = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
  v = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
  found = np.asarray(jax.jit(gan_layers.Projection(2).apply)(
      {'params': {'kernel': v}}, f, np.array([0, 1, 1, -1])))
  np.testing.assert_allclose(
      found[:, 0], [f[0] @ v[0], f[1] @ v[1], f[2] @ v[1], 0], rtol=1e-5)
