"""Synthetic points on a line or in a plane: data and external negatives.

    >>> points = rings2d(num=1000)
    >>> points.positive.shape, points.negative.shape         # float32
    ((1000, 2), (2000, 2))
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nat_jax.data.memory import check_memory


class Points(NamedTuple):
  """Points to be learned, and external negatives.

  Attributes:
    positive: the data, float32 [n, d].
    negative: external negatives, float32 [m, d].
    window: (low, high) of each axis, for figures and for the grid on which D is
      evaluated.
  """

  positive: np.ndarray
  negative: np.ndarray
  window: tuple[float, float]


def gaussian1d(
    num: int = 100_000,
    mean: float = 4.0,
    std: float = 0.5,
    negatives: Sequence[Sequence[float]] = ((13.0, 1.0), (-6.0, 2.0)),
    seed: int = 0,
) -> Points:
  """A normal distribution on a line, with negatives on both sides of it.

  Args:
    num: number of points of the data, and of each negative set.
    mean, std: of the data.
    negatives: (mean, std) of each negative set.
    seed: of the sample.

  Raises:
    ValueError: num below 1, a std that is not positive, or more points than fit in
      memory.

  Reference: natpaper.github.io, the demonstration in one dimension.
  """
  _check(num, std, *(std for _, std in negatives))
  check_memory(8 * num * (1 + len(negatives)), f'{num} points per set', 'lower num')
  rng = np.random.default_rng(seed)
  positive = rng.normal(mean, std, (num, 1))  # first, so that negatives do not matter
  others = [rng.normal(*one, (num, 1)) for one in negatives]
  return _points([positive], others, (-12.0, 18.0))


def rings2d(
    num: int = 1000,
    radius: float = 4.0,
    noise: float = 0.08,
    negatives: Sequence[Sequence[float]] = ((8.0, 0.08), (0.7, 0.5)),
    seed: int = 0,
) -> Points:
  """A ring in a plane, with a wider ring and a blob inside as negatives.

  All are scaled outer rings of scikit-learn's make_circles; noise is added to the
  circle of radius 1, before scaling.

  Args:
    num: number of points of the data, and of each negative set.
    radius, noise: of the data.
    negatives: (radius, noise) of each negative set.
    seed: of the sample.

  Raises:
    ValueError: num below 1, a radius that is not positive, or more points than fit in
      memory.

  Reference: natpaper.github.io, the demonstration in two dimensions.
  """
  from sklearn import datasets

  _check(num, radius, *(radius for radius, _ in negatives))
  check_memory(32 * num * (1 + len(negatives)), f'{num} points per set', 'lower num')

  def ring(radius, noise, seed):
    xy, label = datasets.make_circles(2 * num, noise=noise, random_state=seed)
    return radius * xy[label == 0]

  seeds = np.random.default_rng(seed).integers(2**31, size=1 + len(negatives))
  rings = [ring(*one, int(s)) for one, s in zip(
      [(radius, noise), *negatives], seeds, strict=True)]
  return _points(rings[:1], rings[1:], (-11.0, 11.0))


def _points(positive, negatives, window):
  return Points(*(np.concatenate(sets).astype(np.float32)
                  for sets in (positive, negatives)), window)


def _check(num, *positive):
  if num < 1 or min(positive) <= 0:
    raise ValueError(
        'points need num of 1 or more and std or radius above 0, got '
        f'num={num} and {positive}')


POINTS = {'gaussian1d': gaussian1d, 'rings2d': rings2d}
