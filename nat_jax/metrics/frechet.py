"""Frechet distances between Gaussians fitted to features: FID and class-aware FID.

    reference = gaussian_stats(real_features)         # computed once for many `fid`
    fid(features, reference)
    class_aware_fid(features, labels, real_features, real_labels, 10).distance

Both depend on the network that computes the features, and decrease with the number of
samples: only values with equal numbers of samples and the same network compare.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nat_jax.metrics import arrays


class GaussianStats(NamedTuple):
  """The Gaussian fitted to `num` features: mean [d], covariance [d, d], float64."""

  mean: np.ndarray
  cov: np.ndarray
  num: int


class ClassAwareDistance(NamedTuple):
  """The result of `class_aware_fid`.

  Attributes:
    distance: the mean over the classes that are not left out.
    per_class: [k] distances; NaN for a class that is left out.
    num_left_out: number of classes that are left out.
    fewest: the least number of samples, generated or real, of a class that is not left
      out; 0 where all are. For `rank_note`.
  """

  distance: float
  per_class: np.ndarray
  num_left_out: int
  fewest: int


def gaussian_stats(features: ArrayLike) -> GaussianStats:
  """The mean and the covariance (divided by n - 1) of features.

  Args:
    features: [n, d], n >= 2.

  Raises:
    ValueError: fewer than two samples, another rank, NaN or infinity.
  """
  x = arrays.features(features)
  if len(x) < 2:
    raise ValueError('features: a covariance needs two samples or more, got 1')
  mean = x.mean(axis=0)
  centred = x - mean
  return GaussianStats(mean, centred.T @ centred / (len(x) - 1), len(x))


def frechet_distance(a: GaussianStats, b: GaussianStats) -> float:
  """The Frechet distance |m_a - m_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^1/2).

  It is the squared 2-Wasserstein distance of the two Gaussians. The trace of the square
  root is computed as the sum of the singular values of S_a^1/2 S_b^1/2, which are the
  square roots of the eigenvalues of S_a^1/2 S_b S_a^1/2. Covariances may be singular,
  and the result is never complex or NaN, as it can be with scipy's sqrtm of S_a S_b.

  Args:
    a, b: from `gaussian_stats`.

  Returns:
    The distance, 0 or more.

  Raises:
    ValueError: Gaussians of different dimensions.

  Reference: Dowson, Landau, "The Frechet Distance between Multivariate Normal
  Distributions", 1982.
  """
  arrays.same_width(len(a.mean), len(b.mean))
  traces = np.trace(a.cov), np.trace(b.cov)
  return _distance(a.mean - b.mean, _factor(a.cov), _factor(b.cov), *traces)


def fid(features: ArrayLike, reference: GaussianStats) -> float:
  """FID: the Frechet distance between Gaussians fitted to generated and real features.

  Args:
    features: [n, d] of generated images; for n <= d see `rank_note`.
    reference: `gaussian_stats` of real images' features by the same network.

  Returns:
    The distance. It is biased upwards, the more so the fewer samples there are.

  Raises:
    ValueError: fewer than two samples, NaN or infinity, or another dimension.

  Reference: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a
  Local Nash Equilibrium", NeurIPS 2017.
  """
  return frechet_distance(gaussian_stats(features), reference)


def class_aware_fid(
    features: ArrayLike,
    labels: ArrayLike,
    reference_features: ArrayLike,
    reference_labels: ArrayLike,
    num_classes: int,
) -> ClassAwareDistance:
  """CAFD, class-aware FID: the mean over classes of the Frechet distance of a class.

  Unlike FID it changes when two classes are swapped. A class with fewer than two
  generated or two real samples has no covariance: it is left out of the mean and
  counted, since a generator that drops its worst class improves its CAFD. All classes
  have equal weight and labels are hard; the paper weights samples by p(class | x).

  Args:
    features: [n, d] of generated images.
    labels: [n] the classes given to the generator, or predicted by a classifier.
    reference_features: [m, d] of real images, by the same network.
    reference_labels: [m].
    num_classes: k; labels are in 0..k-1.

  Returns:
    A `ClassAwareDistance`, whose distance is NaN where every class is left out.

  Raises:
    ValueError: shapes that do not match, labels outside the classes, NaN or infinity.

  Reference: Liu, Wei, Lu, Zhou, "An Improved Evaluation Framework for Generative
  Adversarial Networks", arXiv:1803.07474.
  """
  x, y = arrays.pair(features, reference_features)
  x_labels = arrays.labels(labels, len(x), num_classes)
  y_labels = arrays.labels(reference_labels, len(y), num_classes, 'reference labels')
  per_class = np.full(num_classes, np.nan)
  counts = []
  for c in range(num_classes):
    of_x, of_y = x[x_labels == c], y[y_labels == c]
    if min(len(of_x), len(of_y)) >= 2:
      counts.append(min(len(of_x), len(of_y)))
      per_class[c] = _distance_of_samples(of_x, of_y)
  distance = float(np.nanmean(per_class)) if counts else float('nan')
  return ClassAwareDistance(
      distance, per_class, num_classes - len(counts), min(counts, default=0)
  )


def _distance_of_samples(x, y):
  """The Frechet distance between Gaussians fitted to x [n, d] and y [m, d].

  With fewer samples than dimensions the centred samples are themselves factors of the
  covariances, and no matrix [d, d] is factorised (which takes 10 s at d = 2048).
  """
  if max(len(x), len(y)) >= x.shape[1]:
    return frechet_distance(gaussian_stats(x), gaussian_stats(y))
  a, b = ((z - z.mean(axis=0)).T / (len(z) - 1) ** 0.5 for z in (x, y))
  traces = np.square(a).sum(), np.square(b).sum()
  return _distance(x.mean(axis=0) - y.mean(axis=0), a, b, *traces)


def _distance(shift, factor, other_factor, trace, other_trace):
  """The Frechet distance of covariances F F^T, from their factors F and traces."""
  root = np.linalg.svd(factor.T @ other_factor, compute_uv=False).sum()
  return max(float(np.square(shift).sum() + trace + other_trace - 2 * root), 0.0)


def rank_note(num: int, dim: int) -> str:
  """A warning where `num` samples have no covariance of full rank `dim`, else ''.

  The covariance of n samples has rank n - 1 at most.
  """
  if num > dim:
    return ''
  return (
      f'{num} samples do not fill {dim} feature dimensions: the covariance is not of '
      'full rank, and the distance is biased far upwards.'
  )


def _factor(cov: np.ndarray) -> np.ndarray:
  """F with F F^T = cov; eigenvalues that rounding made negative count as 0."""
  values, vectors = np.linalg.eigh(cov)
  return vectors * np.sqrt(np.maximum(values, 0))
