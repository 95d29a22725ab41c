"""What 3x3 convolutions cost on a CPU: GFLOP/s of each pass, per second of CPU time.

    taskset -c 0 python tests/bench/layers.py        # one core

For each layer the forward pass, the gradient of its input and that of its weights; for
comparison a product of square matrices. The best of `--repeats` measurements.
"""

import argparse
import time

import jax
import jax.numpy as jnp

LAYERS = (  # side of the image, channels in, channels out
    (16, 64, 64), (16, 64, 128), (8, 128, 128), (8, 128, 256), (4, 256, 256),
    (4, 256, 512))


def conv(x, w):
  return jax.lax.conv_general_dilated(
      x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


PASSES = {
    'forward': lambda x, w, g: conv(x, w),
    'input gradient': lambda x, w, g: jax.vjp(lambda x: conv(x, w), x)[1](g),
    'weight gradient': lambda x, w, g: jax.vjp(lambda w: conv(x, w), w)[1](g),
}


def speed(fn, flops, repeats, *args):
  """GFLOP/s of a function, by the CPU time of this process."""
  fn = jax.jit(fn)
  jax.block_until_ready(fn(*args))
  best = float('inf')
  for _ in range(repeats):
    start = time.process_time()
    jax.block_until_ready(fn(*args))
    best = min(best, time.process_time() - start)
  return flops / best / 1e9


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--batch_size', type=int, default=128)
  parser.add_argument('--repeats', type=int, default=7)
  args = parser.parse_args()
  key = jax.random.key(0)
  print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}, batch '
        f'{args.batch_size}, float32; GFLOP/s')
  print(f'| layer | {" | ".join(PASSES)} |\n|---|{"--:|" * len(PASSES)}')
  for side, inputs, outputs in LAYERS:
    x = jax.random.normal(key, (args.batch_size, side, side, inputs))
    w = jax.random.normal(key, (3, 3, inputs, outputs))
    g = jnp.ones((args.batch_size, side, side, outputs))
    flops = 2 * 9 * inputs * outputs * side * side * args.batch_size
    found = [speed(fn, flops, args.repeats, x, w, g) for fn in PASSES.values()]
    print(f'| {side}x{side}, {inputs} to {outputs} | '
          + ' | '.join(f'{value:.0f}' for value in found) + ' |', flush=True)
  a = jax.random.normal(key, (2048, 2048))
  print(f'matrix product of 2048x2048: {speed(jnp.dot, 2 * 2048**3, 5, a, a):.0f}')


if __name__ == '__main__':
  main()
