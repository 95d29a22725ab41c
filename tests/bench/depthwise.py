"""Depthwise convolutions on a CPU: XLA's, and sums of shifted images, of EfficientNet.

    python tests/bench/depthwise.py

For the layers of EfficientNet-Lite0, eight images: ms of CPU time of the forward pass
and of the gradients of input and kernel, and the ratio. The best of `--repeats`.
"""

import argparse

import jax
import jax.numpy as jnp
from layers import speed

from nat_jax.models.efficientnet_lite import Depthwise

# Side of the image, channels, side of the kernel, stride.
LAYERS = ((112, 32, 3, 1), (112, 96, 3, 2), (56, 144, 3, 1), (56, 144, 5, 2),
          (28, 240, 5, 1), (14, 480, 3, 1), (14, 672, 5, 1), (7, 1152, 5, 1))
IMAGES = 8


def both(side, stride):
  """{name: (images, kernel) -> images} of both ways."""
  shifted = Depthwise(side, stride, jnp.float32)
  return {
      'XLA': lambda x, kernel: jax.lax.conv_general_dilated(
          x, kernel, (stride, stride), 'SAME', feature_group_count=x.shape[-1],
          dimension_numbers=('NHWC', 'HWIO', 'NHWC')),
      'shifted': lambda x, kernel: shifted.apply({'params': {'kernel': kernel}}, x)}


def gradients(fn):
  """(images, kernel) -> the gradients of a sum of squares."""
  return jax.grad(lambda x, kernel: jnp.square(fn(x, kernel)).sum(), (0, 1))


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--repeats', type=int, default=3)
  repeats = parser.parse_args().repeats
  print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}, {IMAGES} images, '
        'float32; ms of CPU time: XLA, shifted, ratio')
  print('| layer | forward | gradients |\n|---|--:|--:|')
  for size, channels, side, stride in LAYERS:
    x = jax.random.normal(jax.random.key(0), (IMAGES, size, size, channels))
    kernel = jax.random.normal(jax.random.key(1), (side, side, 1, channels))
    cells, fns = [], both(side, stride).values()
    for each in (fns, map(gradients, fns)):
      # `speed` gives 1e-9 / s for one operation.
      ms = [1e-6 / speed(fn, 1, repeats, x, kernel) for fn in each]
      cells.append(f'{ms[0]:.1f}, {ms[1]:.1f}, {ms[0] / ms[1]:.1f}')
    print(f'| {size}x{size}, {channels}, {side}x{side} / {stride} | '
          + ' | '.join(cells) + ' |', flush=True)


if __name__ == '__main__':
  main()
