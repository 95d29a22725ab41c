"""Metrics of GANs of points: distance to the data, fluctuation of the boundary.

    held_out = hold_out({'name': 'rings2d'}, num_samples=2000)
    figures = measure(steps, distances, boundaries, samples, held_out, threshold)
    paired_test(figures['spread'], others['spread'])
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from nat_jax import data, registry

DIRECTIONS = 64  # projections of the sliced distance
PAIRS = 10  # pairs of samples of the data, over which the floor is averaged
MERIT = ('distance_end', 'distance_late', 'fluctuation', 'spread', 'converged',
         'within_5', 'within_2', 'steps_converged')
COVERAGE = ('modes', 'modes_found', 'good')  # figures of data with modes


def wasserstein(samples: np.ndarray, others: np.ndarray) -> np.ndarray:
  """The 1-Wasserstein distance between point sets of equal size; in a plane, sliced.

  On a line it is mean_i |a_(i) - b_(i)| over the sorted points; in a plane the mean of
  that over projections on 64 fixed directions, evenly spaced over half a turn.

  Args:
    samples: [..., n, d], d = 1 or 2.
    others: [n, d].

  Returns:
    [...] in float64.

  Raises:
    ValueError: points of another dimension, or sets of different sizes.

  Reference: Bonneel et al., "Sliced and Radon Wasserstein Barycenters", 2015.
  """
  if samples.shape[-2:] != others.shape or others.shape[-1] not in (1, 2):
    raise ValueError(
        'expected two sets with as many points each, on a line or in a plane, got '
        f'shapes {samples.shape} and {others.shape}')
  if others.shape[-1] == 1:
    directions = np.ones((1, 1))
  else:
    angles = np.arange(DIRECTIONS) * np.pi / DIRECTIONS
    directions = np.stack([np.cos(angles), np.sin(angles)], -1)
  one, other = (np.sort(directions @ np.asarray(x, np.float64).swapaxes(-1, -2))
                for x in (samples, others))
  return np.abs(one - other).mean((-2, -1))


class HeldOut(NamedTuple):
  """Held-out points, which generated points are compared with.

  Attributes:
    points: [n, d] of the data, not used in training.
    floor: mean distance between two such samples of n points.
  """

  points: np.ndarray
  floor: float


def hold_out(spec: Mapping[str, Any], num_samples: int) -> HeldOut:
  """Draws held-out points from the data, with another seed than the training points.

  Args:
    spec: of the data, in `data.POINTS`.
    num_samples: number of points, that of generated samples.
  """
  spec = {**spec, 'num': 2 * PAIRS * num_samples, 'seed': spec.get('seed', 0) + 1}
  points = registry.build(data.POINTS, spec, what='set of points').positive
  order = np.random.default_rng(0).permutation(len(points))
  sets = points[order].reshape(2 * PAIRS, num_samples, -1)
  floors = [wasserstein(a, b) for a, b in zip(sets[::2], sets[1::2], strict=True)]
  return HeldOut(sets[0], float(np.mean(floors)))


def measure(
    steps: np.ndarray, distances: np.ndarray, boundaries: np.ndarray,
    samples: np.ndarray, held_out: HeldOut, threshold: float,
) -> dict[str, np.ndarray]:
  """The figures of merit of each seed.

  A seed has converged if its last distance is below `threshold`; steps_converged is the
  step of the first snapshot from which on the distance stays below (NaN if the seed has
  not converged). The fluctuation is the mean change |D(x) - D'(x)| between successive
  snapshots in the second half of training, D in [0, 1], over the points x of the grid.
  The spread is the root mean square distance of samples from their mean, divided by
  that of the data: near 0 all samples are alike.

  Args:
    steps: [t], of the snapshots.
    distances: [t, seeds], from the held-out points.
    boundaries: [t, seeds, grid points], D.
    samples: [seeds, n, d], of the last snapshot.
    held_out: from `hold_out`.
    threshold: distance below which a seed has converged.

  Returns:
    {name in `MERIT`: [seeds]}.
  """
  half = len(steps) // 2
  below = distances < threshold
  stays = np.flip(np.logical_and.accumulate(np.flip(below, 0)), 0)
  first = np.asarray(steps, np.float64)[stays.argmax(0)]
  changes = np.abs(np.diff(np.asarray(boundaries[half:], np.float64), axis=0))
  return {
      'distance_end': distances[-1],
      'distance_late': distances[half:].mean(0),
      # One snapshot alone has no change.
      'fluctuation': changes.mean((0, 2)) if len(changes) else np.full(
          distances.shape[1], np.nan),
      'spread': spread(samples) / spread(held_out.points),
      'converged': below[-1].astype(np.float64),
      **{f'within_{n}': (distances[-1] < n * held_out.floor).astype(np.float64)
         for n in (5, 2)},
      'steps_converged': np.where(below[-1], first, np.nan),
  }


def spread(points: np.ndarray) -> np.ndarray:
  """The root mean square distance of points from their mean, [..., n, d] -> [...]."""
  return np.sqrt(np.asarray(points, np.float64).var(-2).sum(-1))


SHARE = 0.01  # of the samples that must be good and near a mode that is covered


def coverage(samples: np.ndarray, modes: data.Modes | None) -> dict[str, np.ndarray]:
  """How many modes the samples cover, and which share of the samples is good.

  A sample is good if its nearest centre is within `modes.radius`; it counts for the
  mode of that centre. A mode is covered by 1 % of all samples, and found by one. A
  sample that is not finite is not good.

  Args:
    samples: [seeds, n, d].
    modes: of the data; None: they are not counted.

  Returns:
    {name in `COVERAGE`: [seeds]}: the numbers of modes that are covered and found, and
    the share of good samples; {} without modes.
  """
  from scipy import spatial

  if modes is None:
    return {}
  finite = np.isfinite(samples).all(-1)
  distance, nearest = spatial.cKDTree(modes.centres).query(
      np.where(finite[..., None], samples, 0))
  good = finite & (distance <= modes.radius)
  counts = np.array([np.bincount(modes.mode[at[near]], minlength=modes.num)
                     for at, near in zip(nearest, good, strict=True)])
  return {'modes': (counts >= SHARE * samples.shape[1]).sum(1).astype(np.float64),
          'modes_found': (counts > 0).sum(1).astype(np.float64), 'good': good.mean(1)}


def paired_test(one: np.ndarray, other: np.ndarray) -> float:
  """The two-sided p-value of the sign-flip permutation test over pairs of seeds.

  It is exact for up to 13 pairs and sampled for more, 1 if all pairs are equal, and NaN
  with fewer than two pairs. Pairs with a value that is not finite are ignored.

  Args:
    one: [n], values of one run by seed.
    other: [n], values of another run, for the same seeds.
  """
  from scipy import stats

  one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
  both = np.isfinite(one) & np.isfinite(other)
  if both.sum() < 2:
    return float('nan')
  if np.array_equal(one[both], other[both]):
    return 1.0
  found = stats.permutation_test(
      (one[both], other[both]), lambda a, b, axis: np.mean(a - b, axis=axis),
      permutation_type='samples', vectorized=True, rng=np.random.default_rng(0))
  return float(found.pvalue)
