"""Eight CPU devices, strict ranks, the checker for reused keys, quick compilation."""

import jax

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)
# Most of a test's time is compilation of programs that run for milliseconds.
jax.config.update('jax_disable_most_optimizations', True)
