"""Metrics from pairwise distances: KID, precision and recall, diversity, neighbours.

    mean, std = kid(features, real_features)
    prdc(features, real_features)['coverage']
    distance, index = nearest_neighbours(features, train_features)  # memorisation

Distances are computed in blocks, so that 10,000 x 10,000 of them need little memory.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from nat_jax.metrics import arrays

BLOCK_MIB = 64
ROUNDING = 1e-12  # error of a squared distance, as a share of the largest |x|^2


def kid(
    features: ArrayLike,
    reference: ArrayLike,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
  """KID: the unbiased MMD^2 with kernel k(x, y) = (x.y / d + 1)^3, over random subsets.

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j)

  Unlike that of FID its expectation does not depend on the number of samples. It is 0
  for equal distributions, so that single values may be negative.

  Args:
    features: [n, d] of generated images.
    reference: [m, d] of real images, by the same network.
    subsets: number of pairs of subsets, each drawn without replacement.
    subset_size: samples per subset, at most those of the smaller set. If that is all
      samples of both sets, there is only one pair and the deviation is 0.
    seed: of the subsets.

  Returns:
    (mean, standard deviation) over the subsets. Subsets share samples, so the deviation
    is not the standard error of the mean.

  Raises:
    ValueError: fewer than two samples in a set, subsets < 1, another rank, NaN or
      infinity.

  Reference: Binkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", ICLR 2018.
  """
  x, y = arrays.pair(features, reference)
  size = min(subset_size, len(x), len(y))
  if size < 2 or subsets < 1:
    raise ValueError(
        'expected at least one subset of at least two samples, got '
        f'{subsets} subsets of {size} (from {len(x)} samples and {len(y)} of the '
        'reference)'
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
  """Precision, recall, density and coverage by k nearest neighbours.

  With r_i the distance of the real sample y_i to its k-th nearest other real sample,
  and s_j that of the generated sample x_j to its k-th nearest other generated sample:
    precision = share of generated samples within r_i of some y_i
    recall    = share of real samples within s_j of some x_j
    density   = 1 / (k n) sum_j #{i: |x_j - y_i| < r_i}; may be above 1
    coverage  = share of real samples y_i with a generated sample within r_i
  All depend on the numbers of samples: compare only values with equal numbers.

  Args:
    features: [n, d] of generated images.
    reference: [m, d] of real images, by the same network.
    k: number of neighbours, the sample itself not counted.
    max_samples: the most generated, and the most real, samples that are used, drawn at
      random; None: all.
    seed: of that draw.

  Returns:
    'precision', 'recall', 'density', 'coverage', and the numbers of samples that were
    used, 'num_samples' and 'num_reference'.

  Raises:
    ValueError: at most k generated or real samples, another rank, NaN or infinity.

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
        f'expected k >= 1 and more than k = {k} samples on each side, got {len(x)} '
        f'generated ones and {len(y)} of the reference; lower k, or take more samples'
    )
  # Centred, |x|^2 + |y|^2 - 2 x.y loses fewer digits of |x - y|^2.
  centre = y.mean(axis=0)
  x, y = x - centre, y - centre
  # The margin keeps equal distances, unequal by rounding, from counting as "within".
  x_margin, y_margin = (ROUNDING * np.square(z).sum(1) for z in (x, y))
  x_radius, y_radius = _square_radius(x, k), _square_radius(y, k)
  hits, start = 0, 0
  precise = 0
  recalled, covered = np.zeros(len(y), bool), np.zeros(len(y), bool)
  for squares in _square_distances(x, y):
    rows = slice(start, start + len(squares))
    start += len(squares)
    squares += x_margin[rows, None] + y_margin
    within = squares < y_radius
    hits += int(within.sum())
    precise += int(within.any(axis=1).sum())
    covered |= within.any(axis=0)
    recalled |= (squares < x_radius[rows, None]).any(axis=0)
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
  """The nearest reference images of each sample, to find copies of training images.

  Args:
    features: [n, d] of generated images.
    reference: [m, d], usually of the training images.
    num: number of neighbours per sample.

  Returns:
    (Euclidean distances, indices into the reference), [n, num] each, nearest first.

  Raises:
    ValueError: num outside 1..m, another rank, NaN or infinity.
  """
  from sklearn import neighbors

  x, y = arrays.pair(features, reference)
  if not 1 <= num <= len(y):
    raise ValueError(
        f'num must be 1..{len(y)} (the number of reference images), got {num}')
  search = neighbors.NearestNeighbors(n_neighbors=num, algorithm='brute').fit(y)
  index = search.kneighbors(x, return_distance=False)
  # Recomputed from differences: exactly 0 for a copy, unlike the search's distances.
  distance = np.stack([np.linalg.norm(x - y[i], axis=1) for i in index.T], axis=1)
  order = np.argsort(distance, axis=1, kind='stable')
  return np.take_along_axis(distance, order, 1), np.take_along_axis(index, order, 1)


def memorisation(
    features: ArrayLike, train: ArrayLike, held_out: ArrayLike, *,
    share: float = 0.01, max_samples: int = 10_000, seed: int = 0,
) -> dict[str, float]:
  """Whether samples repeat training images, beside images that were held out.

  With d(x, A) the distance of x to the nearest image of A:
    repeats         = share of samples x with d(x, train) <= q, where q is such that
                      this holds for the share `share` of the held-out images
    nearer_training = share of samples with d(x, train') < d(x, held_out'), ties half;
                      train' and held_out' are equally many images, drawn at random

  A generator that has learned the distribution, and no single image, has `repeats` near
  `share` and `nearer_training` near 1/2. `repeats` is also above `share` where samples
  are more typical than real images; `nearer_training` is not.

  Args:
    features: [n, d] of generated images.
    train: [m, d] of the images that the generator was trained on.
    held_out: [h, d] of other images of the same distribution.
    share: of the held-out images that count as repeats themselves.
    max_samples: the most generated, and the most held-out, images that are used, drawn
      at random.
    seed: of the random choices.

  Returns:
    'repeats' and 'nearer_training'.

  Raises:
    ValueError: no images, another rank, NaN or infinity.

  Reference: Meehan et al., "A Non-Parametric Test to Detect Data-Copying in Generative
  Models", AISTATS 2020, compare distances to training images of samples and of held-out
  images.
  """
  rng = np.random.default_rng(seed)

  def drawn(array, most):
    array = np.asarray(array)
    rows = rng.permutation(len(array))[:most] if len(array) > most else slice(None)
    return array[rows]

  def distance(some, others):
    return nearest_neighbours(some, others, 1)[0][:, 0]

  x, held_out = drawn(features, max_samples), drawn(held_out, max_samples)
  own = distance(x, train)
  limit = np.quantile(distance(held_out, train), share)
  fewer = min(len(train), len(held_out))
  one, other = (distance(x, drawn(some, fewer)) for some in (train, held_out))
  return {'repeats': float((own <= limit).mean()),
          'nearer_training': float(((one < other) + (one == other) / 2).mean())}


def intra_class_diversity(
    features: ArrayLike, labels: ArrayLike, num_classes: int
) -> np.ndarray:
  """The mean Euclidean distance between two different samples of a class, per class.

  `diversity_ratio` compares it with that of real images.

  Args:
    features: [n, d].
    labels: [n] in 0..k-1.
    num_classes: k.

  Returns:
    [k]; NaN for a class with fewer than two samples.

  Raises:
    ValueError: shapes that do not match, labels outside the classes, NaN or infinity.
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
  """The ratio of `intra_class_diversity` of generated to that of real images.

  It is 1 where samples of a class vary as much as real images, and near 0 where all
  samples of a class are alike.

  Args:
    features: [n, d] of generated images.
    labels: [n] in 0..k-1.
    reference_features: [m, d] of real images, by the same network.
    reference_labels: [m] in 0..k-1.
    num_classes: k.

  Returns:
    (mean of the ratios that are not NaN, ratios [k]). The ratio is NaN for a class with
    fewer than two generated or two real samples, or whose real samples are all equal;
    the mean is NaN where all ratios are.

  Raises:
    ValueError: shapes that do not match, labels outside the classes, NaN or infinity.
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
  """mean_{i != j} k(x_i, x_j)."""
  gram = _kernel(x, x)
  return (gram.sum() - np.trace(gram)) / (len(x) * (len(x) - 1))


def _square_distances(x: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
  """Yields |x_i - y_j|^2 in blocks of rows i, all j, to about `ROUNDING` |x|^2."""
  from sklearn import metrics as sk

  return sk.pairwise_distances_chunked(
      x, y, metric='euclidean', working_memory=BLOCK_MIB, squared=True)


def _square_radius(x: np.ndarray, k: int) -> np.ndarray:
  """The squared distance of each sample to its k-th nearest other sample, [n]."""
  # The sample itself, at distance 0, takes place 0 of the partition.
  nearest = [np.partition(rows, k, axis=1)[:, k] for rows in _square_distances(x, x)]
  return np.concatenate(nearest)
