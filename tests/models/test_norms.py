"""The norms of weights and of batches, against those of flax and against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nat_jax.models import gan_layers, layers

SHAPES = {'dense': (9, 6), 'conv': (3, 3, 4, 5)}


def spectral(kind, num_steps=1):
  """(our layer, flax's norm around the plain layer, input) of the same kernel."""
  shape = SHAPES[kind]
  make = {'dense': gan_layers.Dense, 'conv': gan_layers.Conv}[kind]
  size = (7, shape[0]) if kind == 'dense' else (2, 6, 6, shape[2])
  x = np.random.default_rng(1).normal(size=size).astype(np.float32)
  theirs = nn.SpectralNorm(make(shape[-1], norm='none'), n_steps=num_steps)
  return make(shape[-1], norm='spectral'), theirs, x


@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e3])
@pytest.mark.parametrize('kind', SHAPES)
def test_spectral_norm_equals_flax(kind, scale):
  """Output, next u and gradient, over several updates from one kernel and one u."""
  ours, theirs, x = spectral(kind)
  rng = np.random.default_rng(0)
  kernel = (scale * rng.normal(size=SHAPES[kind])).astype(np.float32)
  bias = rng.normal(size=SHAPES[kind][-1]).astype(np.float32)
  u = rng.normal(size=SHAPES[kind][-1]).astype(np.float32)
  w = rng.normal(size=x.shape[:-1] + u.shape).astype(np.float32)
  params = {'kernel': kernel, 'bias': bias}

  def loss_ours(params, u):
    y, updates = ours.apply(
        {'params': params, 'batch_stats': {'u': u}}, x, True, mutable=['batch_stats'])
    return (w * jnp.sin(y)).sum(), (y, updates['batch_stats']['u'])

  def loss_theirs(params, u):
    stats = {'layer_instance/kernel/u': u[None],
             'layer_instance/kernel/sigma': jnp.ones(())}
    y, updates = theirs.apply(
        {'params': {'layer_instance': params}, 'batch_stats': stats}, x,
        update_stats=True, mutable=['batch_stats'])
    return (w * jnp.sin(y)).sum(), (
        y, updates['batch_stats']['layer_instance/kernel/u'][0])

  both = jax.jit(lambda params, one, other: [
      jax.grad(loss, has_aux=True)(params, u)
      for loss, u in ((loss_ours, one), (loss_theirs, other))])
  one, other = u, u
  for _ in range(4):
    (grad, (y, one)), (expected_grad, (expected, other)) = jax.device_get(
        both(params, one, other))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    for key in grad:
      np.testing.assert_allclose(
          scale * grad[key], scale * expected_grad[key], rtol=1e-5, atol=1e-5)


def test_spectral_norm_of_flax_has_the_precision_of_the_layer():
  """Why ours is kept: its products are float32 where those of the layer need not be.

  XLA multiplies float32 matrices in bfloat16 on TPUs and in TF32 on GPUs unless it is
  told otherwise. A context that tells it around flax's norm tells the layer within too.
  """
  ours, theirs, x = spectral('dense')
  found = {}
  for name, layer, kwargs in (('ours', ours, {'train': True}),
                              ('theirs', theirs, {'update_stats': True})):
    variables = jax.eval_shape(
        lambda key, layer=layer, kwargs=kwargs: layer.init(key, x, **kwargs),
        jax.random.key(0))
    traced = jax.make_jaxpr(lambda v, layer=layer, kwargs=kwargs: layer.apply(
        v, x, mutable=['batch_stats'], **kwargs))(variables)
    found[name] = [
        (eqn.outvars[0].aval.shape == (7, 6), eqn.params['precision'])
        for eqn in traced.jaxpr.eqns if eqn.primitive.name == 'dot_general']
  highest = (jax.lax.Precision.HIGHEST,) * 2
  # v, u, two products for sigma; and the layer's own.
  assert found['ours'] == 4 * [(False, highest)] + [(True, None)]
  assert found['theirs'] == 4 * [(False, None)] + [(True, None)]


def test_spectral_norm_keeps_u_only_where_it_may():
  """The generator's update looks through D in training and must not change it."""
  ours, theirs, x = spectral('dense')

  @jax.jit
  def run(key):
    variables = ours.init(key, x)
    return (variables, ours.apply(variables, x, True),
            ours.apply(variables, x, True, mutable=['batch_stats']))

  variables, frozen, (trained, updates) = jax.device_get(run(jax.random.key(0)))
  np.testing.assert_array_equal(frozen, trained)
  assert np.abs(updates['batch_stats']['u'] - variables['batch_stats']['u']).max() > 0
  variables = jax.eval_shape(
      lambda key: theirs.init(key, x, update_stats=False), jax.random.key(0))
  with pytest.raises(Exception, match='immutable'):
    jax.eval_shape(lambda v: theirs.apply(v, x, update_stats=True), variables)


def batch_norm(module, x, mask, axis_name=None):
  """Output and gradient by x of a norm with set parameters; momentum as it is."""
  c = x.shape[-1]
  ones, count = np.ones(c, np.float32), np.arange(c, dtype=np.float32)
  variables = {'params': {'scale': count + 1, 'bias': count - 1},
               'batch_stats': {'mean': 2 * ones, 'var': ones}}
  module = module.clone(axis_name=axis_name)
  given = {} if module.momentum is None else {'use_running_average': False}

  def loss(x):
    y, _ = module.apply(variables, x, mask, mutable=['batch_stats'], **given)
    shown = jnp.ones(len(x)) if mask is None else mask
    return (jnp.sin(y) * shown.reshape(-1, 1, 1)).sum(), y

  grad, y = jax.device_get(jax.jit(jax.grad(loss, has_aux=True))(x))
  return y, grad


@pytest.mark.parametrize('masked', [False, True])
def test_batch_norms_with_and_without_running_averages_agree(masked):
  """In one pass or in two: in training the batch's statistics are the same."""
  rng = np.random.default_rng(0)
  x = rng.normal(2, 3, (8, 5, 4)).astype(np.float32)
  mask = np.array([1, 0, 1, 1, 0, 1, 1, 1], np.float32) if masked else None
  one = batch_norm(layers.BatchNorm(momentum=0.9, epsilon=1e-3), x, mask)
  other = batch_norm(layers.BatchNorm(momentum=None, epsilon=1e-3), x, mask)
  filled = slice(None) if mask is None else mask > 0
  np.testing.assert_allclose(one[0][filled], other[0][filled], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(one[1], other[1], rtol=1e-3, atol=1e-5)


def test_momentum_tells_whether_there_are_running_averages():
  x = np.ones((4, 3), np.float32)
  averages, none = layers.BatchNorm(), layers.BatchNorm(momentum=None)

  def init(module, **kwargs):
    return jax.eval_shape(lambda key: module.init(key, x, **kwargs), jax.random.key(0))

  assert 'batch_stats' not in init(none)
  assert set(init(averages, use_running_average=False)['batch_stats']) == {
      'mean', 'var'}
  with pytest.raises(ValueError, match='use_running_average.*True.*False.*None'):
    init(averages)
  for use in (False, True):
    with pytest.raises(ValueError, match=f'use_running_average.*{use}.*momentum.*None'):
      init(none, use_running_average=use)


def test_batch_norm_of_gans_is_the_one_batch_norm():
  """Its name stands in parameters and checkpoints; the rest is BatchNorm's."""
  class Net(nn.Module):

    @nn.compact
    def __call__(self, x):
      return gan_layers.BatchStatsNorm()(gan_layers.BatchStatsNorm()(x))

  x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
  net, plain = Net(), layers.BatchNorm(momentum=None, epsilon=1e-3)
  variables = jax.eval_shape(net.init, jax.random.key(0), x)
  assert set(variables) == {'params'}
  assert set(variables['params']) == {'BatchStatsNorm_0', 'BatchStatsNorm_1'}
  params = {'params': {'scale': np.ones(3), 'bias': np.zeros(3)}}
  found, expected = jax.jit(lambda key: [
      net.apply(net.init(key, x), x), plain.apply(params, plain.apply(params, x))])(
          jax.random.key(0))
  np.testing.assert_array_equal(found, expected)
