"""What self-attention adds to convolutions: two distant blobs of equal sign or not.

    python tests/bench/attention.py

A 28x28 image has a bright or dark blob near its left edge and one in the same row near
its right edge, and noise; the class is whether their signs are equal. A position of the
features sees 9x9 pixels, so that none sees both blobs, and the sum over positions is
read by a linear layer, which cannot compute a product of signs. The script prints the
accuracy on new images after training, with the `SelfAttention` of GANs and without it.
"""

import argparse

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from steps import machine

from nat_jax.models import gan_resnet

SIDE, COLUMNS, BATCH = 28, (3, 24), 64


class Net(nn.Module):
  """Convolutions with a receptive field of 9x9 pixels, a sum and a linear layer."""

  attention: bool

  @nn.compact
  def __call__(self, x):
    for stride in (1, 2, 1):
      x = nn.relu(nn.Conv(16, (3, 3), strides=stride)(x))
    if self.attention:
      x = nn.relu(gan_resnet.SelfAttention('none', jnp.float32)(x, True))
    return nn.Dense(1)(x.sum((1, 2)) / 10)[:, 0]


def draw(key):
  """Images [BATCH, SIDE, SIDE, 1] and whether their blobs have equal signs."""
  row_key, sign_key, noise_key = jax.random.split(key, 3)
  rows = jax.random.randint(row_key, (BATCH, 1, 1), 2, SIDE - 2)
  signs = jax.random.rademacher(sign_key, (2, BATCH, 1, 1), jnp.float32)
  y, x = jnp.mgrid[:SIDE, :SIDE]
  images = 0.1 * jax.random.normal(noise_key, (BATCH, SIDE, SIDE))
  for column, sign in zip(COLUMNS, signs, strict=True):
    images += sign * ((abs(y - rows) <= 1) & (abs(x - column) <= 1))
  return images[..., None], (signs[0] == signs[1])[:, 0, 0]


def accuracy(attention, seed, steps):
  """The accuracy on 32 new batches after `steps` updates by Adam."""
  net, tx = Net(attention), optax.adam(1e-3)
  init_key, train_key, test_key = jax.random.split(jax.random.key(seed), 3)
  params = net.init(init_key, draw(init_key)[0])
  state = params, tx.init(params)

  @jax.jit
  def update(state, key):
    params, opt_state = state
    images, same = draw(key)
    slopes = jax.grad(lambda params: optax.sigmoid_binary_cross_entropy(
        net.apply(params, images), same.astype(jnp.float32)).mean())(params)
    updates, opt_state = tx.update(slopes, opt_state)
    return optax.apply_updates(params, updates), opt_state

  @jax.jit
  def right(params, key):
    images, same = draw(key)
    return ((net.apply(params, images) > 0) == same).mean()

  for key in jax.random.split(train_key, steps):
    state = update(state, key)
  return jnp.mean(jnp.stack([right(state[0], key)
                             for key in jax.random.split(test_key, 32)]))


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--steps', type=int, default=800)
  parser.add_argument('--seeds', type=int, default=3)
  args = parser.parse_args()
  print(f'{args.steps} updates; {machine()}')
  print(f'| network | {" | ".join(f"seed {i}" for i in range(args.seeds))} |')
  print('|---' * (1 + args.seeds) + '|')
  for attention in (False, True):
    found = [accuracy(attention, seed, args.steps) for seed in range(args.seeds)]
    print(f'| {"with" if attention else "without"} self-attention | '
          f'{" | ".join(f"{one:.2f}" for one in found)} |', flush=True)


if __name__ == '__main__':
  main()
