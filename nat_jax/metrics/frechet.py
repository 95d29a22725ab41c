"""Distances of Gaussians fitted to features: FID, and CAFD class by class.

    reference = gaussian_stats(real_features)         # once, and kept
    fid(features, reference)
    class_aware_fid(features, labels, real_features, real_labels, 10).distance

What they are worth depends on the network that the features are from, and they fall as
samples are added: compare numbers from equally many samples and one network only.
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
  """`distance` is the mean of the `per_class` [k] that are not NaN (left out).

  `fewest` is the number of samples on the smaller side of the smallest class that
  counts, 0 where none does: for `rank_note`.
  """

  distance: float
  per_class: np.ndarray
  num_left_out: int
  fewest: int


def gaussian_stats(features: ArrayLike) -> GaussianStats:
  """Mean and covariance (divided by n - 1) of features.

  Args:
    features: [n, d], n >= 2.

  Raises:
    ValueError: fewer than two samples, another shape, NaN or infinity.
  """
  x = arrays.features(features)
  if len(x) < 2:
    raise ValueError('features: expected two samples or more for a covariance, got 1')
  mean = x.mean(axis=0)
  centred = x - mean
  return GaussianStats(mean, centred.T @ centred / (len(x) - 1), len(x))


def frechet_distance(a: GaussianStats, b: GaussianStats) -> float:
  """|m_a - m_b|^2 + Tr(S_a + S_b - 2 (S_a S_b)^1/2), squared 2-Wasserstein.

  The trace of the root is the sum of the singular values of S_a^1/2 S_b^1/2: the roots
  of the eigenvalues of the PSD matrix S_a^1/2 S_b S_a^1/2, without the rounding that
  squaring brings to those near 0. So singular covariances are fine, and no result is
  complex or NaN as with the root of the product itself (scipy's sqrtm).

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
  """Frechet distance of the Gaussian fitted to `features` from that of the reference.

  Args:
    features: [n, d] of generated images. See `rank_note` where n is not above d.
    reference: `gaussian_stats` of real images, same network.

  Returns:
    The distance; biased upwards, the more the fewer the samples on either side.

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
  """CAFD: the mean over classes of the Frechet distance within a class.

  Sees what one Gaussian over all cannot, such as classes that change places. A class
  with fewer than two samples on either side has no covariance: it is left out of the
  mean and counted, since a generator that drops its worst class gains by it. Classes
  weigh alike, and each is a hard label; the paper weighs samples by p(class | x).

  Args:
    features: [n, d] of generated images.
    labels: [n] the class fed to the generator, or a classifier's.
    reference_features: [m, d] of real images, same network.
    reference_labels: [m].
    num_classes: k; labels are in 0..k-1.

  Returns:
    ClassAwareDistance; its distance is NaN where every class is left out.

  Raises:
    ValueError: shapes that do not fit, labels outside the classes, NaN or infinity.

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
  """`frechet_distance` of the Gaussians of x [n, d] and y [m, d].

  With fewer samples than dimensions the centred samples themselves are the factors of
  the covariances, and no matrix [d, d] is needed (2048 dimensions: 10 s a pair).
  """
  if max(len(x), len(y)) >= x.shape[1]:
    return frechet_distance(gaussian_stats(x), gaussian_stats(y))
  a, b = ((z - z.mean(axis=0)).T / (len(z) - 1) ** 0.5 for z in (x, y))
  traces = np.square(a).sum(), np.square(b).sum()
  return _distance(x.mean(axis=0) - y.mean(axis=0), a, b, *traces)


def _distance(shift, factor, other_factor, trace, other_trace):
  """|shift|^2 + the traces - 2 Tr of the root, of covariances F F^T."""
  root = np.linalg.svd(factor.T @ other_factor, compute_uv=False).sum()
  return max(float(np.square(shift).sum() + trace + other_trace - 2 * root), 0.0)


def rank_note(num: int, dim: int) -> str:
  """A sentence where `num` samples cannot fill `dim` dimensions, else ''.

  The covariance of n samples has a rank of n - 1 at most.
  """
  if num > dim:
    return ''
  return (
      f'{num} samples do not fill {dim} feature dimensions: the covariance is not of '
      'full rank, and the distance is biased far upwards.'
  )


def _factor(cov: np.ndarray) -> np.ndarray:
  """F with F F^T = cov; rounding below 0 is cut off."""
  values, vectors = np.linalg.eigh(cov)
  return vectors * np.sqrt(np.maximum(values, 0))
