"""Synthetic points on a line or in a plane: data and external negatives.

    >>> points = rings2d(num=1000)
    >>> points.positive.shape, points.negative.shape         # float32
    ((1000, 2), (2000, 2))
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nat_jax.data.memory import check_memory


class Modes(NamedTuple):
  """Where the data are, for counting the modes that generated points cover.

  Attributes:
    centres: [m, d], points in the middle of the data.
    mode: int [m], the mode of each centre, 0 to the number of modes - 1.
    radius: a generated point is good if its nearest centre is within this distance.
  """

  centres: np.ndarray
  mode: np.ndarray
  radius: float

  @property
  def num(self) -> int:
    """Number of modes."""
    return int(self.mode.max()) + 1


class Points(NamedTuple):
  """Points to be learned, and external negatives.

  Attributes:
    positive: the data, float32 [n, d].
    negative: external negatives, float32 [m, d].
    window: (low, high) of each axis, for figures and for the grid on which D is
      evaluated.
    label: int32 [n], the classes of the data; None: one class.
    modes: None: they are not counted.
  """

  positive: np.ndarray
  negative: np.ndarray
  window: tuple[float, float]
  label: np.ndarray | None = None
  modes: Modes | None = None


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


def gaussians8(
    num: int = 20_000, radius: float = 2.0, std: float = 0.02, seed: int = 0
) -> Points:
  """Eight normal distributions on a circle; their numbers are the classes.

  A generated point is good within 4 `std` of a centre. The negatives are uniform over
  the window, except within 10 `std` of a centre.

  Args:
    num: number of points of the data, and of negatives.
    radius: of the circle.
    std: of each distribution, on each axis.
    seed: of the sample.

  Raises:
    ValueError: num below 1, a radius or std that is not positive, or more points than
      fit in memory.

  Reference: Metz et al., "Unrolled Generative Adversarial Networks", ICLR 2017.
  """
  _check(num, radius, std)
  angles = np.arange(8) * np.pi / 4
  centres = radius * np.stack([np.cos(angles), np.sin(angles)], -1)
  return _mixture(num, centres, std, 1.5 * radius, seed)


def gaussians25(
    num: int = 20_000, std: float = 0.05, seed: int = 0, spacing: float = 2.0
) -> Points:
  """25 normal distributions on a square grid -4, -2, ..., 4, whose numbers are classes.

  A generated point is good within 4 `std` of a centre. The negatives are uniform over
  the window, except within 10 `std` of a centre.

  Args:
    num: number of points of the data, and of negatives.
    std: of each distribution, on each axis.
    seed: of the sample.
    spacing: distance between neighbouring centres.

  Raises:
    ValueError: num below 1, a spacing or std that is not positive, a std that leaves no
      room for negatives, or more points than fit in memory.

  Reference: Srivastava et al., "VEEGAN: Reducing Mode Collapse in GANs using Implicit
  Variational Learning", NeurIPS 2017.
  """
  _check(num, std, spacing)
  axis = spacing * np.arange(-2.0, 3.0)
  centres = np.stack([x.ravel() for x in np.meshgrid(axis, axis)], -1)
  return _mixture(num, centres, std, 2.75 * spacing, seed)


def swiss_roll(num: int = 20_000, noise: float = 0.02, seed: int = 0) -> Points:
  """A spiral in a plane: scikit-learn's Swiss roll without its height, divided by 7.5.

  The curve is t (cos t, sin t) / 7.5 with t uniform in [1.5 pi, 4.5 pi]. Its modes are
  20 pieces that hold equal shares of the data; a generated point is good within 4
  `noise` of the curve. The negatives are uniform over the window, except within 10
  `noise` of the curve.

  Args:
    num: number of points of the data, and of negatives.
    noise: standard deviation on each axis.
    seed: of the sample.

  Raises:
    ValueError: num below 1, a noise that is not positive or leaves no room for
      negatives, or more points than fit in memory.

  Reference: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017.
  """
  _check(num, noise)
  check_memory(100 * num, f'{num} points per set', 'lower num')
  rng = np.random.default_rng(seed)

  def curve(share):
    t = np.pi * (1.5 + 3 * share)
    return (t * np.stack([np.cos(t), np.sin(t)]) / 7.5).T

  share = (np.arange(2000) + 0.5) / 2000
  modes = Modes(curve(share), (20 * share).astype(int), 4 * noise)
  positive = curve(rng.uniform(size=num)) + noise * rng.normal(size=(num, 2))
  return _with_background(positive, None, modes, 10 * noise, 2.5, rng)


def _mixture(num, centres, std, reach, seed):
  """Points of equally probable normal distributions around centres [k, 2]."""
  check_memory(100 * num, f'{num} points per set', 'lower num')
  rng = np.random.default_rng(seed)
  label = rng.integers(len(centres), size=num)
  positive = centres[label] + std * rng.normal(size=(num, 2))
  modes = Modes(centres, np.arange(len(centres)), 4 * std)
  return _with_background(positive, label, modes, 10 * std, reach, rng)


def _with_background(positive, label, modes, margin, reach, rng):
  """Adds negatives in [-reach, reach]^2, farther than `margin` from all centres.

  Raises:
    ValueError: there is hardly any room for them.
  """
  from scipy import spatial

  tree, found = spatial.cKDTree(modes.centres), np.zeros((0, 2))
  spread = np.random.default_rng(0).uniform(-reach, reach, (1000, 2))
  if (tree.query(spread)[0] > margin).sum() < 10:
    raise ValueError(
        f'the data leave no room for negatives: less than 1 % of [-{reach:g}, '
        f'{reach:g}]^2 is farther than {margin:g} from all modes; lower std or noise, '
        'or raise radius')
  while len(found) < len(positive):
    drawn = rng.uniform(-reach, reach, (len(positive), 2))
    found = np.concatenate([found, drawn[tree.query(drawn)[0] > margin]])
  return _points([positive], [found[:len(positive)]], (-reach, reach))._replace(
      label=None if label is None else label.astype(np.int32), modes=modes)


def _points(positive, negatives, window):
  return Points(*(np.concatenate(sets).astype(np.float32)
                  for sets in (positive, negatives)), window)


def _check(num, *positive):
  if num < 1 or min(positive) <= 0:
    raise ValueError(
        'points need num of 1 or more and std or radius above 0, got '
        f'num={num} and {positive}')


POINTS = {
    'gaussian1d': gaussian1d, 'rings2d': rings2d, 'gaussians8': gaussians8,
    'gaussians25': gaussians25, 'swiss_roll': swiss_roll}
