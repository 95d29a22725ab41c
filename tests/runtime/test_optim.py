"""Schedules and optimisers: values, masks, clipping, and the errors of a wrong name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nat_jax.runtime import optim

PARAMS = {'kernel': np.ones((2, 3), np.float32), 'bias': np.ones(3, np.float32)}
ZEROS = jax.tree.map(np.zeros_like, PARAMS)


def update(spec, grads, learning_rate=0.5, params=None, steps=1, **kwargs):
  """The parameters after so many updates, all of them one program."""
  tx = optim.make_optimizer(spec, lambda step: learning_rate, **kwargs)

  @jax.jit
  def run(params, grads):
    state = tx.init(params)
    for _ in range(steps):
      updates, state = tx.update(grads, state, params)
      params = jax.tree.map(jnp.add, params, updates)
    return params

  return jax.device_get(run(PARAMS if params is None else params, grads))


@pytest.mark.parametrize('spec, expected', [
    ({'name': 'constant', 'learning_rate': 0.2}, {0: 0.2, 99: 0.2}),
    ({'name': 'cosine', 'learning_rate': 0.2}, {0: 0.2, 50: 0.1, 100: 0.0}),
    ({'name': 'cosine', 'learning_rate': 0.2, 'end': 0.02}, {0: 0.2, 100: 0.02}),
    ({'name': 'cosine', 'learning_rate': 0.2, 'warmup': 20},
     {0: 0.01, 9: 0.1, 19: 0.2, 20: 0.2, 60: 0.1, 100: 0.0}),
    ({'name': 'constant', 'learning_rate': 0.2, 'warmup': 1}, {0: 0.2, 1: 0.2}),
    ({'name': 'linear', 'learning_rate': 0.2, 'warmup': 20},
     {0: 0.01, 19: 0.2, 20: 0.2, 60: 0.1, 100: 0.0}),
    ({'name': 'step', 'learning_rate': 1.0, 'factor': 0.2, 'at': [0.3, 0.6]},
     {0: 1.0, 29: 1.0, 31: 0.2, 59: 0.2, 61: 0.04, 100: 0.04}),
    ({'name': 'step', 'learning_rate': 1.0, 'at': [0.5], 'warmup': 10},
     {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 49: 1.0, 51: 0.1}),
])
def test_schedules(spec, expected):
  schedule = optim.make_schedule(spec, 100)
  for step, value in expected.items():
    np.testing.assert_allclose(schedule(step), value, atol=1e-6, err_msg=str(step))


def test_the_first_update_of_a_warm_up_moves_the_parameters():
  schedule = optim.make_schedule(
      {'name': 'constant', 'learning_rate': 1.0, 'warmup': 4}, 100)
  tx = optim.make_optimizer(
      {'name': 'sgd', 'momentum': 0.0, 'nesterov': False}, schedule)
  grads, state = jax.tree.map(np.ones_like, PARAMS), jax.jit(tx.init)(PARAMS)
  step = jax.jit(tx.update)
  for rate in (0.25, 0.5, 0.75, 1.0, 1.0):
    updates, state = step(grads, state, PARAMS)
    np.testing.assert_allclose(updates['bias'], -rate, rtol=1e-6)


def test_large_whole_numbers_are_numbers():
  for name in optim.SCHEDULES:
    schedule = optim.make_schedule({'name': name, 'learning_rate': 10**30}, 10)
    np.testing.assert_allclose(schedule(0), 1e30, rtol=1e-6)
  schedule = optim.make_schedule(
      {'name': 'step', 'learning_rate': 1, 'factor': 10**30}, 10)
  np.testing.assert_allclose(schedule(5), 1e30, rtol=1e-6)


@pytest.mark.parametrize('at, warmup', [
    ((0.5, 0.5), 0), ((0.6, 0.5), 0), ((0.5, 0.51), 0), ((0.01,), 0), ((0.5,), 5)])
def test_drops_are_apart_and_after_the_warmup(at, warmup):
  """Two at one update would be one, and one within the warm-up no drop."""
  with pytest.raises(ValueError, match=r'schedule.at.*\b10\b'):
    optim.make_schedule({'name': 'step', 'learning_rate': 1.0, 'at': at,
                         'warmup': warmup}, 10)


def test_weight_decay_is_of_kernels_unless_asked():
  after = update({'name': 'sgd', 'weight_decay': 0.1, 'nesterov': False}, ZEROS)
  np.testing.assert_allclose(after['kernel'], 1 - 0.5 * 0.1)
  np.testing.assert_allclose(after['bias'], 1)
  after = update({'name': 'sgd', 'weight_decay': 0.1, 'nesterov': False,
                  'decay': 'all'}, ZEROS)
  np.testing.assert_allclose(after['bias'], 1 - 0.5 * 0.1)
  after = update({'name': 'adamw', 'weight_decay': 0.1}, ZEROS)
  np.testing.assert_allclose(after['kernel'], 1 - 0.5 * 0.1)
  np.testing.assert_allclose(after['bias'], 1)


def test_nesterov_and_plain_momentum_by_hand():
  grads = jax.tree.map(np.ones_like, PARAMS)
  plain = update({'name': 'sgd', 'nesterov': False}, grads, steps=2)
  np.testing.assert_allclose(plain['bias'], 1 - 0.5 * (1 + 1.9), rtol=1e-6)
  nesterov = update({'name': 'sgd'}, grads, steps=2)
  np.testing.assert_allclose(nesterov['bias'], 1 - 0.5 * (1.9 + 2.71), rtol=1e-6)


def test_muon_learns_all_directions_of_a_kernel_at_one_rate():
  rng = np.random.default_rng(0)
  grads = rng.normal(size=(2, 4, 5, 8)) * np.geomspace(0.1, 1, 8)
  params = {'kernel': np.zeros(grads.shape, np.float32),
            'bias': np.zeros(8, np.float32)}
  spec = {'name': 'muon', 'ns_steps': 8}
  after = [
      update(spec, {'kernel': np.float32(scale * grads),
                    'bias': np.full(8, scale, np.float32)}, params=params)
      for scale in (1.0, 100.0)]
  # Neither the size of a gradient counts nor its spread over directions.
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3), *after)
  lengths = np.linalg.svd(np.reshape(after[0]['kernel'], (40, 8)), compute_uv=False)
  assert 0.5 * 0.6 < lengths.min() <= lengths.max() < 0.5 * 1.3
  # Biases are Adam's, whose first step has the length of its rate (1.47 by Nesterov).
  np.testing.assert_allclose(after[0]['bias'], -0.1 * 0.5 * (1 + 0.9 / 1.9), rtol=1e-4)


def test_muon_decays_kernels():
  after = update({'name': 'muon', 'weight_decay': 0.1}, ZEROS)
  np.testing.assert_allclose(after['kernel'], 1 - 0.5 * 0.1, rtol=1e-6)
  np.testing.assert_allclose(after['bias'], 1)


def test_the_gradient_is_clipped_by_its_global_norm():
  grads = jax.tree.map(lambda p: 10 * p, PARAMS)  # norm 30
  after = update({'name': 'sgd', 'momentum': 0.0, 'nesterov': False}, grads,
                 learning_rate=1.0, grad_clip=3.0)
  np.testing.assert_allclose(after['bias'], 1 - 1.0, atol=1e-6)


def test_historical_averaging_adds_the_gradient_of_the_distance_from_the_mean():
  """Against the definition, differentiated by JAX, in plain gradient descent."""
  spec = {'name': 'sgd', 'momentum': 0.0, 'nesterov': False}
  tx = optim.make_optimizer({**spec, 'historical': 0.3}, lambda step: 0.1)
  target = np.float32([1, -2])

  def plain_loss(p):
    return jnp.square(p - target).sum()

  def loss(p, mean):
    return plain_loss(p) + 0.3 * jnp.square(p - mean).sum()

  @jax.jit
  def step(params, state, mean):
    updates, state = tx.update(jax.grad(plain_loss)(params), state, params)
    return params + updates, state, params - 0.1 * jax.grad(loss)(params, mean)

  params, past = np.zeros(2, np.float32), []
  state = jax.jit(tx.init)(params)
  for _ in range(4):
    past.append(params)
    params, state, expected = step(params, state, np.mean(past, 0, dtype=np.float32))
    np.testing.assert_allclose(params, expected, rtol=1e-5)
  plain = optim.make_optimizer(spec, lambda step: 0.1)  # without it, nothing is kept
  assert len(jax.tree.leaves(jax.eval_shape(plain.init, params))) < len(
      jax.tree.leaves(state))


def test_orthogonal_regularisation_adds_the_gradient_of_its_definition():
  """For each kernel as [inputs, outputs], and for nothing else."""
  rng = np.random.default_rng(0)
  params = {
      'conv': {'kernel': rng.normal(size=(3, 3, 2, 4)), 'bias': rng.normal(size=4)},
      'dense': {'kernel': rng.normal(size=(5, 3))},
      'embedding': rng.normal(size=(4, 3)),
      'orthogonal': {'kernel': 3 * np.eye(4, 2)}}
  params = jax.tree.map(np.float32, params)
  tx = optim.make_optimizer(
      {'name': 'sgd', 'momentum': 0.0, 'nesterov': False, 'orthogonal': 0.3},
      lambda step: 1.0)

  def term(kernel):
    matrix = kernel.reshape(-1, kernel.shape[-1])
    off = (matrix.T @ matrix) * (1 - jnp.eye(matrix.shape[1]))
    return 0.3 * jnp.square(off).sum()

  @jax.jit
  def run(params):
    updates, _ = tx.update(
        jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    return updates, {name: -1 - jax.grad(term)(params[name]['kernel'])
                     for name in ('conv', 'dense', 'orthogonal')}

  updates, expected = run(params)
  for name in expected:
    np.testing.assert_allclose(
        updates[name]['kernel'], expected[name], rtol=1e-4)
  np.testing.assert_array_equal(updates['orthogonal']['kernel'], -1)
  np.testing.assert_array_equal(updates['conv']['bias'], -1)
  np.testing.assert_array_equal(updates['embedding'], -1)


def test_orthogonal_regularisation_needs_a_kernel():
  tx = optim.make_optimizer(
      {'name': 'sgd', 'momentum': 0.0, 'nesterov': False, 'orthogonal': 0.3},
      lambda step: 1.0)
  with pytest.raises(ValueError, match="weight norm.*norm='spectral'.*orthogonal=0"):
    tx.init({'dense': {'v': np.ones((5, 3)), 'g': np.ones(3), 'kernel': np.ones(3)}})


def test_unknown_names_list_the_valid_ones():
  with pytest.raises(ValueError, match='adam, adamw, muon, sgd'):
    optim.make_optimizer({'name': 'lion'}, lambda step: 1.0)
  with pytest.raises(ValueError, match='constant, cosine, linear, step'):
    optim.make_schedule({'name': 'triangle', 'learning_rate': 1.0}, 10)
  with pytest.raises(ValueError, match='kernels'):
    optim.make_optimizer({'name': 'sgd', 'decay': 'some'}, lambda step: 1.0)
  with pytest.raises(TypeError, match='momentum'):
    optim.make_optimizer({'name': 'sgd', 'momentun': 0.9}, lambda step: 1.0)
