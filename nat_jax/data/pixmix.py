"""Mixes images with generated fractals, on the device.

    pictures = fractals(num=256, height=32, width=32, seed=0)    # [256, 32, 32] uint8
    mix = pixmix()
    image = mix(image, key)                                      # [h, w, c] uint8

Reference: Hendrycks, Zou, Mazeika, Tang, Li, Song, Steinhardt, "PixMix: Dreamlike
Pictures Comprehensively Improve Safety Measures", CVPR 2022.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

_SIDE = 64  # pixels of the longest side of stored fractals, a constant of the program
_POINTS, _UNUSED, _USED = 1000, 10, 20  # points of a fractal, moves of each


def pixmix(
    num: int = 256, rounds: int = 4, beta: float = 3.0, seed: int = 0
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Mixes an image with one of `num` fractals in 0 to `rounds` rounds.

  A round is, with equal probability, of pixels x, y in [0, 1] of image and fractal,
    a (2x - 1) + b (2y - 1) = 2x' - 1    or    (2x)^a (2y)^b = 2x',
  clipped to [0, 1]. Again with equal probability, either a ~ Beta(beta, 1) and
  b ~ Beta(1, beta), or a ~ 1 + Beta(1, beta) and b ~ -Beta(1, beta). The number of
  rounds is uniform. A fractal gets two random colours per use, of its points and of
  what is around them.

  Unlike the reference, whose pictures are collected ones, the fractals are generated
  (see `fractals`), and rounds never mix an image with a changed copy of itself.

  Args:
    num: number of fractals.
    rounds: the largest number of rounds; 4 in the reference.
    beta: smaller values mix more; 3 in the reference.
    seed: of the fractals.

  Returns:
    Function of one uint8 image [h, w, c] and its key.

  Raises:
    ValueError: num or rounds below 1, or beta not above 0; or, when it is applied,
      an image of another dtype.
  """
  if num < 1 or rounds < 1 or not beta > 0:
    raise ValueError(
        'pixmix takes num and rounds of 1 or more and beta above 0, got '
        f'num {num}, rounds {rounds} and beta {beta}')

  def apply(image, key):
    if image.dtype != jnp.uint8:
      raise ValueError(f'pixmix takes images in uint8, got {image.dtype}')
    keys = jax.random.split(key, 3 + rounds)
    height, width, channels = image.shape
    scale = min(1, _SIDE / max(height, width))
    pictures = fractals(num, *(max(1, round(scale * x)) for x in (height, width)), seed)
    picture = jnp.asarray(pictures)[jax.random.randint(keys[0], (), 0, num)] / 255
    picture = jax.image.resize(picture, (height, width), 'linear')[..., None]
    colours = jax.random.uniform(keys[1], (2, 1, 1, channels))
    picture = colours[0] + picture * (colours[1] - colours[0])
    mixed = image / 255
    last = jax.random.randint(keys[2], (), 0, rounds + 1)
    for k in range(rounds):
      mixed = jnp.where(k < last, mix(mixed, picture, beta, keys[3 + k]), mixed)
    return jnp.round(255 * mixed).astype(image.dtype)

  return apply


def mix(
    image: jax.Array, picture: jax.Array, beta: float, key: jax.Array
) -> jax.Array:
  """One round of `pixmix` on pixels in [0, 1].

  Args:
    image: [h, w, c].
    picture: [h, w, c].
    beta: of the Beta distributions.
    key: of this round.
  """
  choice_key, share_key = jax.random.split(key)
  near, adds = jax.random.bernoulli(choice_key, shape=(2,))
  # Of Beta(1, beta); 1 - share is of Beta(beta, 1).
  shares = 1 - jax.random.uniform(share_key, (2,)) ** (1 / beta)
  a = jnp.where(near, 1 - shares[0], 1 + shares[0])
  b = jnp.where(near, shares[1], -shares[1])
  return jnp.where(adds, add(image, picture, a, b), multiply(image, picture, a, b))


def add(
    image: jax.Array, picture: jax.Array, a: jax.Array | float, b: jax.Array | float
) -> jax.Array:
  """x' = (a (2x - 1) + b (2y - 1) + 1) / 2, clipped to [0, 1]."""
  return jnp.clip((a * (2 * image - 1) + b * (2 * picture - 1) + 1) / 2, 0, 1)


def multiply(
    image: jax.Array, picture: jax.Array, a: jax.Array | float, b: jax.Array | float
) -> jax.Array:
  """x' = (2x)^a (2y)^b / 2, clipped to [0, 1]; y is at least 1e-30, as b may be < 0."""
  return jnp.clip((2 * image) ** a * (2 * jnp.maximum(picture, 1e-30)) ** b / 2, 0, 1)


@functools.cache
def fractals(num: int, height: int, width: int, seed: int) -> np.ndarray:
  """Draws attractors of random iterated function systems.

  A system has four maps x -> A x + b of the plane. A has singular values in [.3, .8],
  so that all points converge to the attractor, and b is in [-1, 1]^2. Points are moved
  by one of the maps at random, in proportion to |det A|. A pixel is log(1 + count of
  points), divided by the largest one of the picture.

  Args:
    num: number of pictures.
    height, width: of a picture, in pixels.
    seed: of all that is random.

  Returns:
    [num, height, width] uint8, which is kept in memory and must not be changed.
  """
  rng = np.random.default_rng(seed)
  first, last = (_turns(rng.uniform(0, 2 * np.pi, (num, 4))) for _ in range(2))
  sizes = rng.uniform(0.3, 0.8, (num, 4, 2)) * rng.choice([-1, 1], (num, 4, 2))
  matrices = first * sizes[:, :, None] @ last
  offsets = rng.uniform(-1, 1, (num, 4, 2))
  bounds = np.cumsum(np.abs(sizes.prod(-1)), 1)
  bounds /= bounds[:, -1:]
  which = np.arange(num)[:, None]
  counts = np.zeros(num * height * width)
  points, low, high = np.zeros((num, _POINTS, 2)), None, None
  for k in range(_UNUSED + _USED):
    draw = rng.uniform(size=(num, _POINTS))
    chosen = (draw[..., None] > bounds[:, None, :3]).sum(-1)
    points = (
        matrices[which, chosen] @ points[..., None])[..., 0] + offsets[which, chosen]
    if k == _UNUSED:
      low, high = points.min(1, keepdims=True), points.max(1, keepdims=True)
    if k >= _UNUSED:
      place = (points - low) / (high - low) * [height, width]
      y, x = np.moveaxis(place.astype(int), -1, 0)
      inside = (place >= 0).all(-1) & (y < height) & (x < width)
      index = (which * height + y) * width + x
      counts += np.bincount(index[inside], minlength=len(counts))
  counts = np.log1p(counts.reshape(num, height, width))
  return np.round(255 * counts / counts.max((1, 2), keepdims=True)).astype(np.uint8)


def _turns(angles):
  """Rotations of the plane by angles [...] in radians, [..., 2, 2]."""
  cos, sin = np.cos(angles), np.sin(angles)
  return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
