"""k copies of a generator, each with its own parameters, as one generator.

    spec = {'name': 'stacked', 'num': 4, 'latent': 32,
            'generator': {'name': 'mlp_generator'}}
    generator = registry.build(
        GENERATORS, spec, what='generator', image_shape=(8, 8, 1))
    images = generator.apply({'params': params}, z)    # [n, ...], n a multiple of 4
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import linen as nn

from nat_jax import registry


class Stacked(nn.Module):
  """A generator of k copies: copy i % num generates example i.

  BatchNorm of each copy uses the statistics of that copy's examples.

  Attributes:
    make: builds one generator from the keyword argument axis_name.
    num: number of copies.
    latent: size of z.
    image_shape: shape of an image.
    axis_name: pmap axis that shares BatchNorm statistics, given to the copies.
  """

  make: Callable[..., nn.Module]
  num: int
  latent: int
  image_shape: Sequence[int]
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, z: jax.Array, labels: jax.Array | None = None,
      mask: jax.Array | None = None,
  ) -> jax.Array:
    """z [n, latent] (and labels int32 [n]) to images [n, ...].

    Raises:
      ValueError: n is not a multiple of `num` (on each device).
    """
    if len(z) % self.num:
      raise ValueError(
          f'{self.num} stacked generators need a batch per device that is a multiple '
          f'of {self.num}, got {len(z)}; change data.batch_size or generator.num')

    def parts(x):  # interleaved, so that an example's copy does not depend on devices
      return None if x is None else x.reshape(-1, self.num, *x.shape[1:]).swapaxes(0, 1)

    run = nn.vmap(
        lambda copy, *args: copy(*args), variable_axes={'params': 0, 'batch_stats': 0},
        split_rngs={'params': True})
    images = run(
        self.make(axis_name=self.axis_name), parts(z), parts(labels), parts(mask))
    return images.swapaxes(0, 1).reshape(len(z), *images.shape[2:])


def stacked(
    table: Mapping[str, Any], generator: Mapping[str, Any], num: int, latent: int,
    image_shape: Sequence[int], num_classes: int = 0, axis_name: str | None = None,
) -> Stacked:
  """Builds `num` copies of a generator of `table`.

  Args:
    table: name -> generator.
    generator: spec of the generator that is copied, without its latent.
    num: number of copies.
    latent: size of z.
    image_shape: shape of an image.
    num_classes: above 0 the generator is conditional.
    axis_name: pmap axis that shares BatchNorm statistics.

  Raises:
    ValueError: num below 1, or an unknown generator.
  """
  if num < 1:
    raise ValueError(f'num, of stacked generators, must be 1 or more, got {num}')
  make = functools.partial(
      registry.build, table, {**generator, 'latent': latent}, what='generator',
      image_shape=image_shape, num_classes=num_classes)
  make(axis_name=None)  # so that errors of the spec are raised now
  return Stacked(make, num, latent, tuple(image_shape), axis_name)
