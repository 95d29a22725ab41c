"""The sizes of the GAN networks, as the table in docs/gan_objectives.md.

    python tests/bench/gan_sizes.py        # prints the table; nothing is computed
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from nat_jax import registry
from nat_jax.models import DISCRIMINATORS, GENERATORS


def dcgan(width: int, disc_width: int) -> tuple[dict[str, Any], dict[str, Any]]:
  """AM-GAN's DCGAN pair: the specs of the generator and the discriminator."""
  return ({'name': 'dcgan_generator', 'latent': 100, 'width': width},
          {'name': 'dcgan_discriminator', 'width': disc_width})


def sngan(width: int) -> tuple[dict[str, Any], dict[str, Any]]:
  """SN-GAN's pair."""
  return ({'name': 'resnet_generator', 'latent': 128, 'width': width},
          {'name': 'resnet_discriminator', 'width': width})


def sagan(width: int, attention: int) -> tuple[dict[str, Any], dict[str, Any]]:
  """SAGAN's pair."""
  gen, disc = sngan(width)
  return ({**gen, 'norm': 'spectral', 'batch_norm': 'class', 'attention': attention},
          {**disc, 'wide': True, 'attention': attention})


def biggan(
    width: int, attention: int, latent: int
) -> tuple[dict[str, Any], dict[str, Any]]:
  """BigGAN's pair."""
  return ({'name': 'biggan_generator', 'latent': latent, 'width': width,
           'attention': attention},
          {'name': 'resnet_discriminator', 'width': width, 'wide': True,
           'attention': attention, 'initializer': 'orthogonal'})


ROWS = [  # (networks, side of the images, classes, specs)
    ('DCGAN of AM-GAN', 32, 0, dcgan(96, 64)),
    ('DCGAN of AM-GAN, `_small`', 32, 0, dcgan(24, 16)),
    ('SN-GAN', 32, 0, sngan(64)),
    ('SN-GAN, `_small`', 32, 0, sngan(8)),
    ('SAGAN', 32, 10, sagan(64, 16)),
    ('SAGAN, `_small`', 32, 10, sagan(8, 16)),
    ('BigGAN', 32, 10, biggan(96, 16, 80)),
    ('BigGAN, `_small`', 32, 10, biggan(8, 16, 80)),
    ('SN-GAN', 128, 0, sngan(64)),
    ('SAGAN', 128, 1000, sagan(64, 32)),
    ('BigGAN', 128, 1000, biggan(96, 64, 120)),
]
HEAD = 'networks', 'image', 'classes', 'widths', 'generator', 'discriminator'


def num_parameters(
    table: Mapping[str, Any], spec: Mapping[str, Any], side: int, classes: int
) -> int:
  """The number of parameters of a GAN network, by the shapes of its initialisation.

  Args:
    table: GENERATORS or DISCRIMINATORS.
    spec: of the network.
    side: of the images, which have three channels.
    classes: 0: the network is not conditional.
  """
  shape = side, side, 3
  if table is GENERATORS:
    settings = {'num_classes': classes}
    inputs = jnp.zeros((2, spec['latent'])), jnp.zeros(2, jnp.int32)
  else:
    settings = {'num_outputs': 1, **({'projection': classes} if classes else {})}
    inputs = (jnp.zeros((2, *shape)),)
  model = registry.build(table, {**spec, **settings}, what='network', image_shape=shape)
  variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
  return sum(leaf.size for leaf in jax.tree.leaves(variables['params']))


def markdown() -> str:
  """Returns the table; discriminators have one output."""
  lines = [HEAD, ('---', *['--:'] * (len(HEAD) - 1))]
  for row, side, classes, specs in ROWS:
    sizes = [num_parameters(table, spec, side, classes) for table, spec in zip(
        (GENERATORS, DISCRIMINATORS), specs, strict=True)]
    widths = ', '.join(str(spec['width']) for spec in specs)
    lines.append((row, side, classes or '', widths, *(f'{n:,}' for n in sizes)))
  return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


if __name__ == '__main__':
  print(markdown())
