"""The bits of the state that a run begins with."""

import jax
import numpy as np
import pytest

from nat_jax.runtime import parallel


def draws(key):
  """The ways in which networks and their optimisers are initialised."""
  init = jax.nn.initializers
  kinds = {
      'lecun': init.lecun_normal(), 'uniform': init.uniform(),
      'normal': init.normal(0.02), 'orthogonal': init.orthogonal()}
  return {name: draw(jax.random.fold_in(key, i), (3, 3, 16, 32))
          for i, (name, draw) in enumerate(kinds.items())}


@pytest.mark.usefixtures('as_users_compile')
def test_state_has_the_bits_of_full_optimisation():
  """Level 1 of LLVM, at which the program that runs once is compiled, changes none."""
  mesh = parallel.make_mesh(jax.devices()[:1])
  key = jax.random.key(3)
  jax.tree.map(np.testing.assert_array_equal,
               parallel.init_state(draws, key, mesh), jax.jit(draws)(key))
