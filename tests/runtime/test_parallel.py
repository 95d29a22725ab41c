"""The bits of the state that a run begins with, its copies, and what is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clu import metrics as clu_metrics

from nat_jax.runtime import parallel

Nothing = clu_metrics.Collection.create()


def draws(key):
  """The ways in which networks and their optimisers are initialised."""
  init = jax.nn.initializers
  kinds = {
      'lecun': init.lecun_normal(), 'uniform': init.uniform(),
      'normal': init.normal(0.02), 'orthogonal': init.orthogonal()}
  return {name: draw(jax.random.fold_in(key, i), (3, 3, 16, 32))
          for i, (name, draw) in enumerate(kinds.items())}


@pytest.mark.slow
@pytest.mark.usefixtures('as_users_compile')
def test_state_has_the_bits_of_full_optimisation():
  """Level 1 of LLVM, at which the program that runs once is compiled, changes none."""
  mesh = parallel.make_mesh(jax.devices()[:1])
  key = jax.random.key(3)
  jax.tree.map(np.testing.assert_array_equal,
               parallel.init_state(draws, key, mesh), jax.jit(draws)(key))


@pytest.mark.parametrize('mode', parallel.MODES)
def test_a_copy_outlives_the_state_it_was_made_of(mode):
  """The state is donated to the next update: a view of it would change."""
  mesh = parallel.make_mesh(jax.devices()[:2])
  step = parallel.wrap_step(
      lambda state, frozen, batch, axis=None: (
          {**state, 'x': state['x'] + 1}, Nothing.empty()), mesh, mode=mode)
  state = parallel.replicate(
      {'x': np.ones(1000, np.float32), 'key': jax.random.key(0)}, mesh)
  items = np.ones((1, 2), np.float32)
  state, _ = step(state, {}, (), items)
  before = np.array(state['x'])
  copy = parallel.copy(state)
  state, _ = step(state, {}, (), items)
  np.testing.assert_array_equal(copy['x'], before)
  assert copy['key'] == jax.random.key(0)
  assert (np.asarray(state['x']) != before).all()


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found(value):
  tree = {'a': np.zeros((3, 4), np.float32), 'b': np.zeros(5, jnp.bfloat16),
          'c': np.arange(3), 'key': jax.random.key(0)}
  assert parallel.all_finite(tree)
  for name, place in (('a', (2, 1)), ('b', 4)):
    changed = tree[name].copy()
    changed[place] = value
    assert not parallel.all_finite({**tree, name: changed})


@pytest.mark.parametrize('devices', [1, 8])
def test_simulated_devices_have_one_program_under_way(devices, monkeypatch):
  """Several could wait for each other's threads, and XLA would abort the process."""
  mesh, waited = parallel.make_mesh(jax.devices()[:devices]), []
  ready = jax.block_until_ready
  monkeypatch.setattr(
      parallel.jax, 'block_until_ready', lambda x: waited.append(1) or ready(x))

  def step(state, frozen, batch, axis=None):
    return state + batch.sum(), Nothing.empty()

  run = parallel.wrap_step(step, mesh, mode='jit')
  state, _ = run(parallel.replicate(jnp.float32(0), mesh), (), (),
                 np.ones((3, 8), np.float32))
  assert float(state) == 24 and len(waited) == (3 if devices > 1 else 0)
  head = parallel.wrap_head(lambda state, x: x + state, mesh)
  np.testing.assert_array_equal(head(jnp.float32(1), np.ones(8, np.float32)), 2)
  assert len(waited) == (4 if devices > 1 else 0)
