"""Eight CPU devices, strict ranks, and the checker for reused keys."""

import jax
import pytest

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)


@pytest.fixture(scope='module')
def quick_compilation():
  """For tests whose time is the compilation of programs that run for milliseconds."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)
