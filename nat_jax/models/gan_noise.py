"""Noise and dropout of the GANs' discriminators, an example's by its own key.

    words = draw(keys, x[0].size, units=[1024, 256])
    x = input_noise(x, words[0], 0.1)
    x = dropout(layer(x), words[1], 0.3)

So results do not depend on how the batch is split over devices. Random bits are the
costly part on a CPU, to compute and to compile: they are drawn once a pass and spent
sparingly, 16 to a normal number and 8 to a choice of dropout.
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
  """The random words of a pass.

  Args:
    keys: [n], one an example; None: no randomness.
    inputs: elements of an example that input_noise is to change.
    units: elements of an example at each dropout.

  Returns:
    uint32 [n, words] for input_noise and then for each dropout; None without keys.
  """
  # jax.random.bits would spend a word on a byte, too: four of them share one here.
  sizes = [inputs, *(-(-size // 4) for size in units)]
  if keys is None:
    return [None] * len(sizes)
  ends = list(itertools.accumulate(sizes))
  words = jax.vmap(lambda key: jax.random.bits(key, (ends[-1],)))(keys)
  return jnp.split(words, ends[:-1], 1)


def input_noise(x: jax.Array, words: jax.Array | None, stddev: float) -> jax.Array:
  """(x + a) m with a ~ N(0, stddev) and m ~ N(1, stddev), truncated at 2 stddev.

  Args:
    x: [n, ...].
    words: of draw, [n, elements of an example]; None: no noise.
    stddev: of both normals before they are truncated; 0: no noise.

  Returns:
    An array like x, float32.
  """
  x = x.astype(jnp.float32)
  if words is None or not stddev:
    return x
  halves = lax.bitcast_convert_type(words, jnp.uint16).astype(jnp.float32)
  within = math.erf(2 ** 0.5)  # Share of a normal within 2 stddev.
  normal = 2 ** 0.5 * lax.erf_inv(within * ((2 * halves + 1) / 65536 - 1))
  plus, times = (normal[..., i].reshape(x.shape) for i in (0, 1))
  return (x + stddev * plus) * (1 + stddev * times)


def dropout(x: jax.Array, words: jax.Array | None, rate: float) -> jax.Array:
  """Dropout that keeps the second moment: what is kept is times sqrt(1 / keep).

  Args:
    x: [n, ...].
    words: of draw, [n, a quarter of the elements of an example]; None: no dropout.
    rate: share of the elements set to 0, to the nearest 256th.

  Returns:
    An array like x.
  """
  if words is None or not rate:
    return x
  draws = lax.bitcast_convert_type(words, jnp.uint8).reshape(len(x), -1)
  draws = draws[:, :math.prod(x.shape[1:])].reshape(x.shape)
  keep = round(256 * (1 - rate))
  return jnp.where(draws < keep, x * jnp.asarray((256 / keep) ** 0.5, x.dtype), 0)
