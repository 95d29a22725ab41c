"""Input noise and dropout of GANs' discriminators, with one key per example.

    words = draw(keys, x[0].size, units=[1024, 256])
    x = input_noise(x, words[0], 0.1)
    x = dropout(layer(x), words[1], 0.3)

With one key per example the results do not depend on how the batch is split over
devices. On CPUs random bits are expensive to compute and to compile: they are drawn
once per pass, 16 bits per normal number and 8 bits per dropout decision.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax


def draw(
    keys: jax.Array | None, inputs: int, units: Sequence[int],
) -> list[jax.Array | None]:
  """Draws all random words that the noise and the dropouts of one pass need.

  Args:
    keys: [n], one per example; None: no randomness.
    inputs: number of elements per example at `input_noise`.
    units: number of elements per example at each `dropout`.

  Returns:
    A list of uint32 arrays [n, words], for `input_noise` and then for each dropout;
    each is None if keys is None.
  """
  # jax.random.bits draws 32 bits even for a uint8; here four bytes share one word.
  sizes = [inputs, *(-(-size // 4) for size in units)]
  if keys is None:
    return [None] * len(sizes)
  ends = list(itertools.accumulate(sizes))
  words = jax.vmap(lambda key: jax.random.bits(key, (ends[-1],)))(keys)
  return jnp.split(words, ends[:-1], 1)


def input_noise(x: jax.Array, words: jax.Array | None, stddev: float) -> jax.Array:
  """Additive and multiplicative noise: (x + a) m, a ~ N(0, stddev), m ~ N(1, stddev).

  Both normal distributions are truncated at 2 stddev.

  Args:
    x: [n, ...].
    words: from `draw`, [n, elements per example]; None: no noise.
    stddev: of both normal distributions before truncation; 0: no noise.

  Returns:
    float32, of x's shape.
  """
  x = x.astype(jnp.float32)
  if words is None or not stddev:
    return x
  halves = lax.bitcast_convert_type(words, jnp.uint16).astype(jnp.float32)
  within = math.erf(2 ** 0.5)  # probability of a normal number within 2 stddev
  normal = 2 ** 0.5 * lax.erf_inv(within * ((2 * halves + 1) / 65536 - 1))
  plus, times = (normal[..., i].reshape(x.shape) for i in (0, 1))
  return (x + stddev * plus) * (1 + stddev * times)


def dropout(x: jax.Array, words: jax.Array | None, rate: float) -> jax.Array:
  """Dropout that preserves the second moment: kept elements are scaled by keep^-1/2.

  Args:
    x: [n, ...].
    words: from `draw`, [n, a quarter of the elements per example]; None: no dropout.
    rate: share of the elements set to 0, rounded to a multiple of 1/256.

  Returns:
    An array of x's shape and dtype.
  """
  if words is None or not rate:
    return x
  draws = lax.bitcast_convert_type(words, jnp.uint8).reshape(len(x), -1)
  draws = draws[:, :math.prod(x.shape[1:])].reshape(x.shape)
  keep = round(256 * (1 - rate))
  return jnp.where(draws < keep, x * jnp.asarray((256 / keep) ** 0.5, x.dtype), 0)
