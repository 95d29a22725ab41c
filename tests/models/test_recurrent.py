"""The LSTM on windows, against its formulas in NumPy."""

import jax
import numpy as np
import pytest

from nat_jax import models


@pytest.mark.parametrize('bounded', [False, True])
def test_against_the_formulas(bounded):
  net = models.LSTM(width=3, num_outputs=2, bounded=bounded)
  x = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)

  @jax.jit
  def run(key):
    variables = net.init(key, x)
    return net.apply(variables, x), variables['params']

  found, params = jax.device_get(run(jax.random.key(0)))
  assert sum(p.size for p in jax.tree.leaves(params)) == 4 * 3 * (6 + 3 + 1) + 2 * 4
  cell = params['OptimizedLSTMCell_0']
  sigmoid = {name: lambda a: 1 / (1 + np.exp(-a)) for name in 'ifo'}
  h, c, expected = np.zeros((4, 3)), np.zeros((4, 3)), []
  for t in range(5):
    i, f, g, o = ((sigmoid | {'g': np.tanh})[name](
        x[:, t] @ cell[f'i{name}']['kernel'] + h @ cell[f'h{name}']['kernel']
        + cell[f'h{name}']['bias']) for name in 'ifgo')
    c = f * c + i * g
    h = o * np.tanh(c)
    out = h @ params['Dense_0']['kernel'] + params['Dense_0']['bias']
    expected.append(np.tanh(out) if bounded else out)
  np.testing.assert_allclose(found, np.stack(expected, 1), atol=1e-5)
