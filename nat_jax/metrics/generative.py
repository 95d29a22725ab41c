"""Metrics of generated images, each with a sentence on how it was computed.

    sample = {'features': features, 'probs': probs, 'labels': labels}
    figures, conventions = generative_summary(sample, reference, num_classes=10)
    figures['fid'], conventions['fid']

Features and probabilities are those of an evaluation classifier. Published scores use
one Inception network: scores by another one rank generators among themselves and are
not comparable with published ones.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from nat_jax.metrics import arrays, frechet, manifold


def inception_score(probs: ArrayLike, splits: int = 1) -> tuple[float, float]:
  """The Inception Score: exp mean_i KL(p_i || p), p = mean_i p_i.

  IS = exp(H(p) - mean_i H(p_i)) runs from 1 (all predictions equal) to k (all certain,
  classes equally frequent). With more splits it is lower, since each has fewer samples.
  It does not detect mode collapse within a class, nor overly sharp samples.

  Args:
    probs: [n, k] predictions for generated images, in random order: splits are
      consecutive rows, and sorted by class each split would hold few classes.
    splits: number of splits; 10 in many papers.

  Returns:
    (mean, standard deviation) over the splits.

  Raises:
    ValueError: rows that are no probabilities, or splits outside 1..n.

  Reference: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016.
  """
  p = arrays.probs(probs)
  if not 1 <= splits <= len(p):
    raise ValueError(
        f'splits must be 1..{len(p)} (the number of samples), got {splits}')
  scores = [
      np.exp(special.rel_entr(part, part.mean(axis=0)).sum(axis=1).mean())
      for part in np.array_split(p, splits)
  ]
  return float(np.mean(scores)), float(np.std(scores))


def am_score(probs: ArrayLike, reference_probs: ArrayLike) -> float:
  """The AM score: KL(mean q || mean p) + mean_i H(p_i), in nats; lower is better.

  It is 0 where all predictions are certain and the classes are as frequent as in the
  reference.

  Args:
    probs: [n, k] predictions p for generated images.
    reference_probs: [m, k] predictions q for training images by the same classifier.

  Returns:
    The score; infinite where a class of the reference has probability 0 in all samples.

  Raises:
    ValueError: rows that are no probabilities, or different numbers of classes.

  Reference: Zhou et al., "Activation Maximization Generative Adversarial Nets",
  ICLR 2018.
  """
  unsure = special.entr(arrays.probs(probs)).sum(axis=1).mean()
  return class_kl(probs, reference_probs) + float(unsure)


def class_kl(probs: ArrayLike, reference_probs: ArrayLike) -> float:
  """KL(mean q || mean p) of class predictions, in nats; lower is better.

  It is 0 where the classes are as frequent as in the reference, and grows where the
  samples lack a class, which CAFD leaves out of its mean.

  Args:
    probs: [n, k] predictions p for generated images.
    reference_probs: [m, k] predictions q for real images by the same classifier.

  Returns:
    The divergence, 0 or more; infinite where a class of the reference has probability 0
    in all samples.

  Raises:
    ValueError: rows that are no probabilities, or different numbers of classes.

  Reference: Liu, Wei, Lu, Zhou, "An Improved Evaluation Framework for Generative
  Adversarial Networks", arXiv:1803.07474.
  """
  p = arrays.probs(probs)
  q = arrays.probs(reference_probs, 'reference probs')
  if p.shape[1] != q.shape[1]:
    raise ValueError(
        f'probs: expected the {q.shape[1]} classes of the reference, got {p.shape[1]}; '
        'compute both with the same classifier'
    )
  return float(special.rel_entr(q.mean(axis=0), p.mean(axis=0)).sum())


def class_histogram(labels: ArrayLike, num_classes: int) -> np.ndarray:
  """The share of samples in each class, [num_classes].

  Args:
    labels: [n] integers in 0..num_classes-1.
    num_classes: number of classes.

  Raises:
    ValueError: no samples, no integers, or a label outside the classes.
  """
  labels = arrays.labels(labels, np.size(labels), num_classes)
  if not labels.size:
    raise ValueError('labels: expected at least one sample, got none')
  return np.bincount(labels, minlength=num_classes) / labels.size


def generative_summary(
    sample: Mapping[str, ArrayLike | None],
    reference: Mapping[str, ArrayLike | None],
    num_classes: int,
    *,
    splits: int = 1,
    k: int = 5,
    kid_subsets: int = 100,
    kid_subset_size: int = 1000,
    max_samples: int = 10_000,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, str]]:
  """All metrics that the given arrays allow, and how each was computed.

  Args:
    sample: arrays of the generated images: 'features' [n, d] and, optionally, 'probs'
      [n, c] and 'labels' [n] (given to the generator, or predicted by a classifier).
    reference: arrays of real images: 'features' [m, d] and, optionally, 'probs' [m, c]
      and 'labels' [m].
    num_classes: labels are in 0..num_classes-1; probs may have other classes.
    splits: number of splits of the Inception Score.
    k: number of neighbours for precision, recall, density and coverage.
    kid_subsets: number of subsets of `manifold.kid`.
    kid_subset_size: size of the subsets of `manifold.kid`.
    max_samples: the most generated, and the most real, images that precision, recall,
      density and coverage use.
    seed: of all random choices.

  Returns:
    (figures, conventions). Figures: num_samples, num_reference, fid, kid, kid_std,
    precision, recall, density, coverage; with probs of the samples inception_score and
    inception_score_std; with both probs reference_inception_score, am_score and
    class_kl; with labels of the samples class_shares (a list); with both labels cafd,
    cafd_left_out, diversity (a ratio to the reference) and diversity_left_out. All are
    floats, ints or a list; cafd and diversity are NaN where no class has two generated
    and two real samples. Conventions: metric -> a sentence; that of a metric holds for
    its *_std and *_left_out too.

  Raises:
    ValueError: features that are missing, not finite or too few for k, or shapes that
      do not match.
  """
  if sample.get('features') is None or reference.get('features') is None:
    raise ValueError(
        "expected features in both sample and reference, got none in "
        f'{"sample" if sample.get("features") is None else "reference"}')
  x, y = arrays.pair(sample['features'], reference['features'])
  (n, dim), m = x.shape, len(y)
  num = f'{n} samples'
  versus = f'{num} against {m} of the reference, {dim} feature dimensions'

  mmd, mmd_std = manifold.kid(
      x, y, subsets=kid_subsets, subset_size=kid_subset_size, seed=seed
  )
  near = manifold.prdc(x, y, k, max_samples=max_samples, seed=seed)
  figures = {
      'num_samples': n,
      'num_reference': m,
      'fid': frechet.fid(x, frechet.gaussian_stats(y)),
      'kid': mmd,
      'kid_std': mmd_std,
      **{name: near[name] for name in ('precision', 'recall', 'density', 'coverage')},
  }
  size = min(kid_subset_size, n, m)
  subsets = 'all samples' if size == n == m else f'{kid_subsets} subsets of {size}'
  neighbours = (f'k = {k}, {near["num_samples"]} samples against '
                f'{near["num_reference"]} of the reference.')
  conventions = {
      'fid': ' '.join([f'{versus}.', frechet.rank_note(min(n, m), dim)]).rstrip(),
      'kid': f'Unbiased MMD^2, kernel (x.y/d + 1)^3, {subsets}; {versus}.',
      **dict.fromkeys(('precision', 'recall', 'density', 'coverage'), neighbours),
  }
  for part in (
      _of_probs(sample.get('probs'), reference.get('probs'), n, m, splits),
      _of_labels(x, sample.get('labels'), y, reference.get('labels'), num_classes),
  ):
    figures |= part[0]
    conventions |= part[1]
  return figures, conventions


def _of_probs(p, q, n: int, m: int, splits: int) -> tuple[dict, dict]:
  if p is None:
    return {}, {}
  _expect_rows('probs', p, n)
  mean, std = inception_score(p, splits)
  parts = 'no splits' if splits == 1 else f'mean over {splits} splits'
  outputs = f'classifier of {np.shape(p)[1]} classes'
  figures = {'inception_score': mean, 'inception_score_std': std}
  conventions = {'inception_score': f'{n} samples, {parts}, {outputs}.'}
  if q is not None:
    _expect_rows('reference probs', q, m)
    figures['reference_inception_score'] = inception_score(q, min(splits, m))[0]
    figures |= {'am_score': am_score(p, q), 'class_kl': class_kl(p, q)}
    conventions['reference_inception_score'] = (
        f'Of {m} real images themselves, {parts}, {outputs}.'
    )
    conventions |= dict.fromkeys(
        ('am_score', 'class_kl'),
        f'{n} samples against the mean prediction of {m} of the reference, {outputs}.')
  return figures, conventions


def _of_labels(x, x_labels, y, y_labels, num_classes: int) -> tuple[dict, dict]:
  if x_labels is None:
    return {}, {}
  arrays.labels(x_labels, len(x), num_classes)
  shares = class_histogram(x_labels, num_classes)
  figures = {'class_shares': shares.tolist()}
  conventions = {'class_shares': f'{len(x)} samples, {num_classes} classes.'}
  if y_labels is None:
    return figures, conventions
  cafd = frechet.class_aware_fid(x, x_labels, y, y_labels, num_classes)
  ratio, ratios = manifold.diversity_ratio(x, x_labels, y, y_labels, num_classes)
  unvaried = int(np.isnan(ratios).sum())
  figures |= {
      'cafd': cafd.distance,
      'cafd_left_out': cafd.num_left_out,
      'diversity': ratio,
      'diversity_left_out': unvaried,
  }
  conventions['cafd'] = ' '.join([
      f'Mean over {num_classes - cafd.num_left_out} of {num_classes} classes of two '
      f'samples or more on either side; the smallest has {cafd.fewest}.',
      frechet.rank_note(cafd.fewest, x.shape[1]),
  ]).rstrip()
  conventions['diversity'] = (
      'Mean pairwise distance within a class over that of the reference, mean over '
      f'{num_classes - unvaried} of {num_classes} classes.'
  )
  return figures, conventions


def _expect_rows(name: str, values: ArrayLike, num: int) -> None:
  if np.shape(values)[:1] != (num,):
    raise ValueError(
        f'{name}: expected one row for each of {num} samples, got shape '
        f'{np.shape(values)}'
    )
