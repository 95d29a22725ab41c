"""Distances between single features: KID, precision and recall, diversity, neighbours.

    mean, std = kid(features, real_features)
    prdc(features, real_features)['coverage']
    distance, index = nearest_neighbours(features, train_features)  # memorised?

Distances are computed block by block, so that 10,000 x 10,000 need little memory.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from nat_jax.metrics import arrays

BLOCK_MIB = 64
ROUNDING = 1e-12  # of a square of distances, as a share of the largest |x|^2


def kid(
    features: ArrayLike,
    reference: ArrayLike,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
  """Unbiased MMD^2 under the kernel k(x, y) = (x.y / d + 1)^3, over random subsets.

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j)

  Unlike FID its expectation does not depend on the number of samples; it is 0 for equal
  distributions, so that single values may be negative.

  Args:
    features: [n, d] of generated images.
    reference: [m, d] of real images, same network.
    subsets: how many pairs of subsets, each drawn without replacement.
    subset_size: of each; cut to the smaller set where that has fewer. Where it then is
      all of both sets there is only one pair, and the deviation is 0.
    seed: of the draws.

  Returns:
    (mean, standard deviation) over the subsets. They share samples, so the deviation is
    not that of the mean.

  Raises:
    ValueError: fewer than two samples in a set, subsets < 1, or what is no features.

  Reference: Binkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", ICLR 2018.
  """
  x, y = arrays.pair(features, reference)
  size = min(subset_size, len(x), len(y))
  if size < 2 or subsets < 1:
    raise ValueError(
        f'expected subsets of two samples or more, got {subsets} of {size} (from '
        f'{len(x)} samples and {len(y)} of the reference)'
    )
  if size == len(x) == len(y):
    subsets = 1
  rng = np.random.default_rng(seed)
  values = []
  for _ in range(subsets):
    a = x[rng.choice(len(x), size, replace=False)]
    b = y[rng.choice(len(y), size, replace=False)]
    values.append(_within(a) + _within(b) - 2 * _kernel(a, b).mean())
  return float(np.mean(values)), float(np.std(values))


def prdc(
    features: ArrayLike,
    reference: ArrayLike,
    k: int = 5,
    *,
    max_samples: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
  """Precision, recall, density and coverage by the k nearest neighbours.

  With r_i the distance of real sample i to its k-th nearest other real one, and s_j
  likewise among the generated:
    precision = share of generated within r_i of some real i
    recall    = share of real within s_j of some generated j
    density   = 1 / (k n) sum_j #{i: |x_j - y_i| < r_i}; may be above 1
    coverage  = share of real i with a generated one within r_i
  All fall or rise with the number of samples: compare equal numbers.

  Args:
    features: [n, d] of generated images.
    reference: [m, d] of real images, same network.
    k: neighbours, the sample itself not counted.
    max_samples: the most examples of each side, drawn at random; None: all.
    seed: of that draw.

  Returns:
    The four, and num_samples and num_reference, how many were used.

  Raises:
    ValueError: no more than k samples on a side, or what is no features.

  Reference: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative
  Models", ICML 2020; precision and recall: Kynkaanniemi et al., NeurIPS 2019.
  """
  x, y = arrays.pair(features, reference)
  if max_samples is not None:
    rng = np.random.default_rng(seed)
    x, y = (
        z[rng.choice(len(z), max_samples, replace=False)] if len(z) > max_samples else z
        for z in (x, y)
    )
  if not 1 <= k < min(len(x), len(y)):
    raise ValueError(
        f'expected more than k = {k} samples on each side and k >= 1, got {len(x)} '
        f'and {len(y)} of the reference'
    )
  # Around 0, less is lost where |x - y|^2 is taken as |x|^2 + |y|^2 - 2 x.y.
  centre = y.mean(axis=0)
  x, y = x - centre, y - centre
  # Equal distances that rounding made unequal must not decide who is within a ball.
  margin = ROUNDING * max(np.square(x).sum(1).max(), np.square(y).sum(1).max())
  x_radius, y_radius = (_square_radius(z, k) - margin for z in (x, y))
  hits, start = 0, 0
  precise = 0
  recalled, covered = np.zeros(len(y), bool), np.zeros(len(y), bool)
  for squares in _square_distances(x, y):
    radius = x_radius[start : start + len(squares), None]
    start += len(squares)
    within = squares < y_radius
    hits += int(within.sum())
    precise += int(within.any(axis=1).sum())
    covered |= within.any(axis=0)
    recalled |= (squares < radius).any(axis=0)
  return {
      'precision': precise / len(x),
      'recall': float(recalled.mean()),
      'density': hits / (k * len(x)),
      'coverage': float(covered.mean()),
      'num_samples': len(x),
      'num_reference': len(y),
  }


def nearest_neighbours(
    features: ArrayLike, reference: ArrayLike, num: int = 3
) -> tuple[np.ndarray, np.ndarray]:
  """The nearest of the reference to each sample: is it a copy of a training image?

  Args:
    features: [n, d] of generated images.
    reference: [m, d], usually of the training images.
    num: neighbours of each.

  Returns:
    (Euclidean distance, index into the reference), [n, num] each, nearest first.

  Raises:
    ValueError: num outside 1..m, or what is no features.
  """
  from sklearn import neighbors

  x, y = arrays.pair(features, reference)
  if not 1 <= num <= len(y):
    raise ValueError(f'num must be 1..{len(y)} (the reference), got {num}')
  search = neighbors.NearestNeighbors(n_neighbors=num, algorithm='brute').fit(y)
  index = search.kneighbors(x, return_distance=False)
  # Again, from the differences: exactly 0 for a copy, as the search's are not.
  distance = np.stack([np.linalg.norm(x - y[i], axis=1) for i in index.T], axis=1)
  order = np.argsort(distance, axis=1, kind='stable')
  return np.take_along_axis(distance, order, 1), np.take_along_axis(index, order, 1)


def intra_class_diversity(
    features: ArrayLike, labels: ArrayLike, num_classes: int
) -> np.ndarray:
  """Mean Euclidean distance of two different samples of a class, for each class.

  To be set beside that of real images, see `diversity_ratio`.

  Args:
    features: [n, d].
    labels: [n] in 0..k-1.
    num_classes: k.

  Returns:
    [k]; NaN for a class with fewer than two samples.

  Raises:
    ValueError: shapes that do not fit, labels outside the classes, NaN or infinity.
  """
  from sklearn import metrics as sk

  x = arrays.features(features)
  labels = arrays.labels(labels, len(x), num_classes)
  diversity = np.full(num_classes, np.nan)
  for c in range(num_classes):
    of_class = x[labels == c]
    n = len(of_class)
    if n >= 2:
      of_class = of_class - of_class.mean(axis=0)
      blocks = sk.pairwise_distances_chunked(of_class, working_memory=BLOCK_MIB)
      diversity[c] = sum(block.sum() for block in blocks) / (n * (n - 1))
  return diversity


def diversity_ratio(
    features: ArrayLike,
    labels: ArrayLike,
    reference_features: ArrayLike,
    reference_labels: ArrayLike,
    num_classes: int,
) -> tuple[float, np.ndarray]:
  """`intra_class_diversity` of generated over that of real images.

  1: as varied as real images within a class; near 0: each class is one picture.

  Returns:
    (mean over the classes that have one, ratios [k]); NaN for a class with fewer than
    two samples on either side or without any spread in the reference, and for the mean
    where all are NaN.

  Raises:
    ValueError: as `intra_class_diversity`.
  """
  x, y = arrays.pair(features, reference_features)
  ours = intra_class_diversity(x, labels, num_classes)
  real = intra_class_diversity(y, reference_labels, num_classes)
  ratio = ours / np.where(real > 0, real, np.nan)
  known = ratio[~np.isnan(ratio)]
  return float(known.mean()) if known.size else float('nan'), ratio


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return (x @ y.T / x.shape[1] + 1) ** 3


def _within(x: np.ndarray) -> float:
  gram = _kernel(x, x)
  return (gram.sum() - np.trace(gram)) / (len(x) * (len(x) - 1))


def _square_distances(x: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
  """Yields |x_i - y_j|^2 in blocks of rows i, all j, to about `ROUNDING` |x|^2."""
  from sklearn import metrics as sk

  return sk.pairwise_distances_chunked(
      x, y, metric='euclidean', working_memory=BLOCK_MIB, squared=True)


def _square_radius(x: np.ndarray, k: int) -> np.ndarray:
  """The square of the distance to the k-th nearest other sample, [n]."""
  # Itself is at 0, which no other can be below.
  nearest = [np.partition(rows, k, axis=1)[:, k] for rows in _square_distances(x, x)]
  return np.concatenate(nearest)
