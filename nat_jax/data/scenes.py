"""Generated scenes of four classes, of which one is rare and told by its texture only.

    pairs = scenes(num=60, num_rare=3, kinds=('blank', 'noise'), seed=0)
    pairs.image.shape, pairs.mask.shape              # (60, 16, 16, 3), (60, 16, 16)

'ground' with 'water' and 'leaf' on it. In a few scenes there is a patch of 'gravel':
stones of random brightness with the mean colour of 'leaf'. In half of the scenes a
rectangle shows something that is of no class: the void.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nat_jax import names as names_lib
from nat_jax.data.masks import VOID, Pairs
from nat_jax.data.memory import check_memory

SIDE = 16
NAMES = ('ground', 'water', 'leaf', 'gravel')
GROUND, WATER, LEAF, GRAVEL = range(len(NAMES))
COLOURS = np.array([(130, 100, 70), (50, 100, 190), (80, 150, 60), (80, 150, 60)])
CONTRAST = 65  # standard deviation of the brightness of the stones of 'gravel'
SPREAD, NOISE = 28, 28  # standard deviations: of an object's colour, of a pixel's


def blank(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
  """Black or white, as of a part of a sensor that fails."""
  return np.full((h, w, 3), 255.0 * rng.integers(2))


def noise(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
  """Uniform noise in every pixel."""
  return rng.uniform(0, 255, (h, w, 3))


def stripes(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
  """Horizontal or vertical stripes of two random colours, two pixels wide each."""
  rows, columns = np.indices((h, w))
  which = (rows if rng.random() < 0.5 else columns) // 2 % 2
  return rng.uniform(0, 255, (2, 3))[which]


def plain(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
  """One random colour with the noise that all classes have."""
  return rng.uniform(0, 255, 3) + rng.normal(0, NOISE, (h, w, 3))


# What the void may show: name -> (rng, height, width) -> [h, w, 3], 0 to 255.
KINDS: dict[str, Callable[..., np.ndarray]] = {
    'blank': blank, 'noise': noise, 'plain': plain, 'stripes': stripes}


def scenes(
    num: int = 60, num_rare: int = 3, kinds: Sequence[str] = ('blank', 'noise'),
    seed: int = 0, *, num_classes: int = len(NAMES), void: int = VOID,
) -> Pairs:
  """Generates scenes and their masks.

  Args:
    num: number of scenes.
    num_rare: number of them that show 'gravel'.
    kinds: what the void shows, names in `KINDS`, each equally often.
    seed: of all random numbers.
    num_classes: must be 4.
    void: not used; see `masks.Pairs.mask`.

  Raises:
    ValueError: numbers that do not fit each other, or an unknown kind.
  """
  del void
  if num_classes != len(NAMES):
    raise ValueError(
        f'scenes have {len(NAMES)} classes, got num_classes={num_classes}; set '
        f'num_classes={len(NAMES)}')
  if num_rare > num:
    raise ValueError(f'num_rare must be at most num={num}, got {num_rare}')
  for kind in kinds:
    if kind not in KINDS:
      raise ValueError(names_lib.unknown('kind of void', kind, KINDS))
  check_memory(num * SIDE * SIDE * 4, f'num={num} scenes', 'lower num')
  rng = np.random.default_rng(seed)
  rare = np.zeros(num, bool)
  rare[rng.permutation(num)[:num_rare]] = True
  made = [_scene(np.random.default_rng((seed, k)), rare[k], kinds) for k in range(num)]
  image, mask = (np.stack(part) for part in zip(*made, strict=True))
  return Pairs(image, mask, NAMES)


def _scene(rng: np.random.Generator, rare: bool, kinds: Sequence[str]) -> Any:
  """(uint8 [16, 16, 3], uint8 [16, 16]) of a scene."""
  mask = np.full((SIDE, SIDE), GROUND, np.uint8)
  rows, columns = np.indices(mask.shape)
  image = np.zeros((SIDE, SIDE, 3))
  image += COLOURS[GROUND] + rng.normal(0, SPREAD, 3)
  for label in rng.permutation([WATER, LEAF, LEAF]):
    middle, radius = rng.uniform(2, SIDE - 2, 2), rng.uniform(2, 4.5, 2)
    inside = np.hypot((rows - middle[0]) / radius[0],
                      (columns - middle[1]) / radius[1]) < 1
    mask[inside] = label
    image[inside] = COLOURS[label] + rng.normal(0, SPREAD, 3)
  if rare:
    place = _rectangle(rng, 5, 8)
    mask[place] = GRAVEL
    stones = rng.normal(0, CONTRAST, (*mask[place].shape, 1))
    image[place] = COLOURS[GRAVEL] + rng.normal(0, SPREAD, 3) + stones
  image += rng.normal(0, NOISE, image.shape)
  if kinds and rng.random() < 0.5:
    place = _rectangle(rng, 4, 7)
    mask[place] = VOID
    image[place] = KINDS[kinds[rng.integers(len(kinds))]](rng, *mask[place].shape)
  return np.clip(np.round(image), 0, 255).astype(np.uint8), mask


def _rectangle(rng, least, most):
  """A random rectangle in a scene, with sides of `least` to `most` pixels."""
  sides = rng.integers(least, most + 1, 2)
  corner = rng.integers(0, SIDE - sides + 1)
  return tuple(slice(a, a + s) for a, s in zip(corner, sides, strict=True))
