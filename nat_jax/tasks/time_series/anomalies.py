"""Windows that are made anomalous, as external negatives of the discriminator.

    negatives = corrupt(('stuck', 'swapped'), keys, windows)         # [n, l, c]

Functions are pure in the key of an example and its window [l, c].
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

WARP = (1.5, 3.0)  # smallest and largest exponent of `warped`, or 1 / exponent


def stuck(key: jax.Array, window: jax.Array) -> jax.Array:
  """One sensor keeps its value from a time step in the first half on."""
  when, which = jax.random.split(key)
  first = jax.random.randint(when, (), 0, len(window) // 2 + 1)
  sensor = jax.random.randint(which, (), 0, window.shape[1])
  values = window[:, sensor]
  held = jnp.where(jnp.arange(len(window)) < first, values, values[first])
  return window.at[:, sensor].set(held)


def swapped(key: jax.Array, window: jax.Array) -> jax.Array:
  """Two sensors are exchanged."""
  first, further = jax.random.split(key)
  num = window.shape[1]
  one = jax.random.randint(first, (), 0, num)
  other = (one + jax.random.randint(further, (), 1, num)) % num
  pair = jnp.stack([one, other])
  return window.at[:, pair].set(window[:, pair[::-1]])


def warped(key: jax.Array, window: jax.Array) -> jax.Array:
  """All sensors at the times (l - 1) (t / (l - 1))^a, a in [1.5, 3] or the inverse."""
  how, which = jax.random.split(key)
  exponent = jax.random.uniform(how, (), minval=WARP[0], maxval=WARP[1])
  exponent = jnp.where(jax.random.bernoulli(which), exponent, 1 / exponent)
  share = jnp.linspace(0.0, 1.0, len(window))
  return jax.vmap(
      lambda values: jnp.interp(share ** exponent, share, values), 1, 1)(window)


# Name in `data.negative_kinds` -> function (key, window [l, c]) -> window.
ANOMALIES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    'stuck': stuck, 'swapped': swapped, 'warped': warped}


def corrupt(kinds: Sequence[str], keys: jax.Array, windows: jax.Array) -> jax.Array:
  """Makes every window anomalous, each in a way that its key chooses.

  Args:
    kinds: names in `ANOMALIES`.
    keys: typed keys [n], by the position of an example in the global batch.
    windows: [n, l, c].
  """
  makers = [ANOMALIES[kind] for kind in kinds]

  def one(key, window):
    choice, *each = jax.random.split(key, 1 + len(makers))
    made = [make(k, window) for make, k in zip(makers, each, strict=True)]
    return jnp.stack(made)[jax.random.randint(choice, (), 0, len(makers))]

  return jax.vmap(one)(keys, windows)
