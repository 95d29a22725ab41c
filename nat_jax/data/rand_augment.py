"""RandAugment on the device: random operations on an image, all of one strength.

    augment = make_augment([{'name': 'rand_augment', 'layers': 2, 'magnitude': 9}])

Under vmap all operations are computed and one is kept, which costs time: without it in
`data.augment` none of this runs.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import ndimage

HIGHEST = 30  # magnitude
GREY = 128  # where an image is moved out of the frame
# Largest shear, turn in degrees, and shift as a share of the side.
_SHEAR, _TURN, _SHIFT = 0.3, 30.0, 0.45


def rand_augment(
    layers: int = 2, magnitude: float = 9.0
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Applies random operations, one after the other, each uniform among 14.

  They are identity, shear along both axes, shift along both axes, rotation, brightness,
  colour, contrast, sharpness, posterise, solarise, autocontrast and equalise. The first
  ten but identity have a random sign. At magnitude 30 the shear is 0.3, the shift 45 %
  of the side, the rotation 30 degrees, the factors of brightness, colour, contrast and
  sharpness are 1 ± 0.9, posterise keeps 4 bits and solarise inverts all; the strengths
  are proportional to the magnitude.

  Args:
    layers: number of operations, 1 or more.
    magnitude: in 0..30.

  Returns:
    Function of one uint8 image [h, w, c] of 1 or 3 channels and its key.

  Raises:
    ValueError: arguments out of range; or, when it is applied, an image of another
      dtype.

  Reference: Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a
  Reduced Search Space", NeurIPS 2020; magnitudes of torchvision.
  """
  if layers < 1 or not 0 <= magnitude <= HIGHEST:
    raise ValueError(
        f'rand_augment takes layers of 1 or more and magnitude in 0..{HIGHEST}, got '
        f'layers {layers} and magnitude {magnitude}')
  share = magnitude / HIGHEST

  def apply(image, key):
    check_uint8('rand_augment', image)
    x = image.astype(jnp.float32)
    for layer in jax.random.split(key, layers):
      which, sign = jax.random.split(layer)
      chosen = jax.random.randint(which, (), 0, 1 + len(MOVES) + len(COLOURS))
      strength = jnp.where(jax.random.bernoulli(sign), share, -share)
      x = move(x, chosen - 1, strength)
      moved = chosen < 1 + len(MOVES)
      colours = [lambda x, s: x, *COLOURS.values()]
      x = jax.lax.switch(
          jnp.where(moved, 0, chosen - len(MOVES)), colours, x, strength)
      x = jnp.clip(jnp.round(x), 0, 255)
    return x.astype(jnp.uint8)

  return apply


MOVES = 'shear_x', 'shear_y', 'shift_x', 'shift_y', 'rotate'


def move(
    x: jax.Array, which: jax.Array | int, strength: jax.Array | float
) -> jax.Array:
  """Moves an image by one of MOVES, interpolated linearly; what comes in is grey.

  Args:
    x: float32 [h, w, c].
    which: index in MOVES; another one: the image is not moved.
    strength: in -1..1. A shear moves rows or columns away from the middle, a shift
      moves the image to the right or down, a rotation turns it clockwise.
  """
  amounts = jnp.where(jnp.arange(len(MOVES)) == which, strength, 0.0)
  shear_x, shear_y = amounts[0] * _SHEAR, amounts[1] * _SHEAR
  shift_x, shift_y = amounts[2] * _SHIFT, amounts[3] * _SHIFT
  turn = jnp.deg2rad(amounts[4] * _TURN)
  height, width, channels = x.shape
  middle = np.array([height - 1, width - 1]) / 2
  row, column = jnp.meshgrid(
      jnp.arange(height) - middle[0] - shift_y * height,
      jnp.arange(width) - middle[1] - shift_x * width, indexing='ij')
  # The place in the image that each pixel comes from.
  cosine, sine = jnp.cos(turn), jnp.sin(turn)
  from_row = cosine * row - (sine + shear_y) * column + middle[0]
  from_column = cosine * column + (sine - shear_x) * row + middle[1]
  moved = jnp.stack([
      ndimage.map_coordinates(x[..., c], [from_row, from_column], 1, 'constant', GREY)
      for c in range(channels)], axis=-1)
  return jnp.where(jnp.any(amounts != 0), moved, x)


def brightness(x: jax.Array, strength: jax.Array | float) -> jax.Array:
  """Interpolates away from, or to, black. `x`: float32 [h, w, c], strength in -1..1."""
  return (1 + 0.9 * strength) * x


def colour(x: jax.Array, strength: jax.Array | float) -> jax.Array:
  """Interpolates away from, or to, the grey values."""
  return _blend(grey(x), x, strength)


def contrast(x: jax.Array, strength: jax.Array | float) -> jax.Array:
  """Interpolates away from, or to, the mean grey value."""
  return _blend(grey(x).mean(), x, strength)


def sharpness(x: jax.Array, strength: jax.Array | float) -> jax.Array:
  """Interpolates away from, or to, the mean of 3x3 pixels, with the middle five times.

  Pixels at the edge stay as they are.
  """
  height, width, _ = x.shape
  around = sum(x[i:height - 2 + i, j:width - 2 + j] for i in range(3) for j in range(3))
  smooth = x.at[1:-1, 1:-1].set((around + 4 * x[1:-1, 1:-1]) / 13)
  return _blend(smooth, x, strength)


def posterise(x: jax.Array, strength: jax.Array | float) -> jax.Array:
  """Keeps the 8 - 4 |strength| highest bits."""
  step = 2.0 ** jnp.round(4 * jnp.abs(strength))
  return jnp.floor(x / step) * step


def solarise(x: jax.Array, strength: jax.Array | float) -> jax.Array:
  """Inverts values of 256 (1 - |strength|) and more."""
  return jnp.where(x < 256 * (1 - jnp.abs(strength)), x, 255 - x)


def autocontrast(x: jax.Array, strength: jax.Array | float) -> jax.Array:
  """Stretches the values of each channel to 0..255; `strength` is not used."""
  del strength
  low, high = x.min((0, 1), keepdims=True), x.max((0, 1), keepdims=True)
  return jnp.where(high > low, (x - low) * (255 / jnp.maximum(high - low, 1)), x)


def equalise(x: jax.Array, strength: jax.Array | float) -> jax.Array:
  """Makes the values of each channel equally frequent; `strength` is not used."""
  del strength

  def one(channel):
    values = jnp.clip(jnp.round(channel), 0, 255).astype(jnp.int32)
    counts = jnp.zeros(256, jnp.int32).at[values].add(1)
    step = (counts.sum() - counts[values.max()]) // 255
    table = (step // 2 + jnp.cumsum(counts) - counts) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.minimum(table, 255)[values], values)

  return jax.vmap(one, 2, 2)(x).astype(jnp.float32)


COLOURS = {
    'brightness': brightness, 'colour': colour, 'contrast': contrast,
    'sharpness': sharpness, 'posterise': posterise, 'solarise': solarise,
    'autocontrast': autocontrast, 'equalise': equalise,
}


def _blend(plain, x, strength):
  return jnp.clip(plain + (1 + 0.9 * strength) * (x - plain), 0, 255)


def grey(x: jax.Array) -> jax.Array:
  """The grey values [h, w, 1] of an image of 1 or 3 channels, by ITU-R 601-2."""
  if x.shape[-1] == 1:
    return x
  return x @ np.array([[0.299], [0.587], [0.114]], np.float32)


def check_uint8(name: str, image: jax.Array) -> None:
  """Raises ValueError unless the image that an augmentation changes is uint8."""
  if image.dtype != jnp.uint8:
    raise ValueError(
        f'the augmentation {name!r} takes images in uint8, got {image.dtype}; remove '
        'it from data.augment')
