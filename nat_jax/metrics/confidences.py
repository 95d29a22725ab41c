"""Post-hoc confidence scores of a trained classifier: energy, KNN, ViM and others.

    energy(logits)                          # [n], larger = more like a positive
    knn(features, train_features, k=50)
    vim(features, logits, train_features, train_logits, kernel, bias)
    mahalanobis(features, train_features, train_labels, relative=True)

Nothing is trained. With logits o = features @ kernel + bias, every score is a function
of features, logits and the output layer, `kernel` [d, c] and `bias` [c]. All functions
take arrays and return numpy float64 [n].
"""

import chex
import numpy as np
from numpy.typing import ArrayLike
from scipy import special


def max_softmax(logits: ArrayLike, temperature: float = 1.0) -> np.ndarray:
  """Maximum softmax probability as log-odds: log(p_j / (1 - p_j)), p = softmax(o / T).

  j is the likeliest class. The order of images is that of max p, without ties near 1.

  Args:
    logits: [n, c].
    temperature: T.

  Reference: Hendrycks, Gimpel, "A Baseline for Detecting Misclassified and
  Out-of-Distribution Examples in Neural Networks", ICLR 2017. With T = 1000 on the
  logits of images moved by `detectors.odin_head`: Liang, Li, Srikant, "Enhancing The
  Reliability of Out-of-distribution Image Detection in Neural Networks", ICLR 2018.
  """
  o = _matrix(logits) / temperature
  rows, top = np.arange(len(o)), o.argmax(axis=1)
  against = o - o[rows, top][:, None]
  against[rows, top] = -np.inf
  return -special.logsumexp(against, axis=1)


def max_logit(logits: ArrayLike) -> np.ndarray:
  """The maximum logit, max_j o_j, of logits [n, c].

  Reference: Hendrycks et al., "Scaling Out-of-Distribution Detection for Real-World
  Settings", ICML 2022.
  """
  return _matrix(logits).max(axis=1)


def energy(logits: ArrayLike, temperature: float = 1.0) -> np.ndarray:
  """The negative energy, T logsumexp(o / T), of logits [n, c]; temperature is T.

  Reference: Liu, Wang, Owens, Li, "Energy-based Out-of-distribution Detection",
  NeurIPS 2020.
  """
  return temperature * special.logsumexp(_matrix(logits) / temperature, axis=1)


def gen(logits: ArrayLike, gamma: float = 0.1, top: int = 100) -> np.ndarray:
  """GEN: minus the generalised entropy of the largest probabilities.

  -sum_{j <= top} p_(j)^gamma (1 - p_(j))^gamma,   p = softmax(o), p_(1) >= p_(2) >= ...
  1 - p is computed from the logits, so that images with p = 1 - 1e-20 have no ties.

  Args:
    logits: [n, c].
    gamma: exponent, in (0, 1); 0.1 in the reference.
    top: number of probabilities that count, at most all c; 100 in the reference, for
      ImageNet.

  Raises:
    ValueError: gamma outside (0, 1), or top below 1.

  Reference: Liu, Lochman, Zach, "GEN: Pushing the Limits of Softmax-Based
  Out-of-Distribution Detection", CVPR 2023.
  """
  if not 0 < gamma < 1 or top < 1:
    raise ValueError(
        f'gamma must be in (0, 1) and top 1 or more; got {gamma} and {top}')
  o = -np.sort(-_matrix(logits), axis=1)
  log_p = special.log_softmax(o, axis=1)
  with np.errstate(divide='ignore'):  # log 0, of a single class
    log_rest = np.log1p(-np.exp(log_p))
  # Only the largest p can be near 1, where 1 - p loses its digits.
  log_rest[:, 0] = (special.logsumexp(log_p[:, 1:], axis=1) if o.shape[1] > 1
                    else -np.inf)
  return -np.exp(gamma * (log_p + log_rest))[:, :top].sum(axis=1)


def knn(features: ArrayLike, train_features: ArrayLike, k: int = 50) -> np.ndarray:
  """KNN: minus the distance to the k-th nearest training feature.

  All features are scaled to length 1 before distances are taken.

  Args:
    features: [n, d].
    train_features: [m, d] of training positives.
    k: 50, as for CIFAR-10 in the reference, where m is 50,000. It must be well below
      the number of examples per class, or the neighbours are of other classes.

  Raises:
    ValueError: fewer than k training features.

  Reference: Sun, Ming, Zhu, Li, "Out-of-distribution Detection with Deep Nearest
  Neighbors", ICML 2022.
  """
  from sklearn import neighbors

  train = _unit(_matrix(train_features))
  if not 1 <= k <= len(train):
    raise ValueError(
        f'k must be 1..{len(train)} (the number of training features), got {k}')
  search = neighbors.NearestNeighbors(n_neighbors=k, algorithm='brute').fit(train)
  distance, _ = search.kneighbors(_unit(_matrix(features)))
  return -distance[:, -1]


def vim(
    features: ArrayLike,
    logits: ArrayLike,
    train_features: ArrayLike,
    train_logits: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike,
    dim: int | None = None,
) -> np.ndarray:
  """ViM, virtual-logit matching: the negative energy minus a virtual logit.

  With x0 = -pinv(kernel^T) bias, and R the projection onto the complement of the first
  `dim` principal directions of the training features:
    conf = logsumexp(logits) - alpha |R (x - x0)|,
    alpha = sum_train max logit / sum_train |R (x - x0)|.

  Args:
    features: [n, d].
    logits: [n, c].
    train_features: [m, d] of training positives.
    train_logits: [m, c].
    kernel: [d, c] of the output layer.
    bias: [c] of the output layer.
    dim: number of principal directions; None: half of d, at most 512 (the reference,
      where d is 768 or more, uses 512 and 1000).

  Raises:
    ValueError: dim outside 1..d-1.

  Reference: Wang, Li, Feng, Zhang, "ViM: Out-Of-Distribution with Virtual-logit
  Matching", CVPR 2022.
  """
  kernel, bias = _matrix(kernel), np.asarray(bias, np.float64)
  width = len(kernel)
  dim = min(width // 2, 512) if dim is None else dim
  if not 0 < dim < width:
    raise ValueError(
        f'dim must be 1..{width - 1} (less than the feature dimension), got {dim}')
  origin = -np.linalg.pinv(kernel.T) @ bias
  train = _matrix(train_features) - origin
  _, directions = np.linalg.eigh(train.T @ train)  # in order of rising eigenvalues
  rest = directions[:, : width - dim]

  def residual(x):
    return np.linalg.norm(x @ rest, axis=1)

  scale = residual(train).sum()
  # Where all training features lie in the subspace (to rounding) alpha is 0.
  tiny = 1e-9 * np.linalg.norm(train, axis=1).sum()
  alpha = max_logit(train_logits).sum() / scale if scale > tiny else 0.0
  return energy(logits) - alpha * residual(_matrix(features) - origin)


def react(
    features: ArrayLike, train_features: ArrayLike, kernel: ArrayLike, bias: ArrayLike,
    percentile: float = 90.0,
) -> np.ndarray:
  """ReAct: the negative energy with all features clipped from above.

  logsumexp(min(x, limit) @ kernel + bias),  limit = a percentile of all the features of
  all training positives together.

  Args:
    features: [n, d].
    train_features: [m, d] of training positives.
    kernel: [d, c] of the output layer.
    bias: [c] of the output layer.
    percentile: of the limit; 90 in the reference.

  Raises:
    ValueError: percentile outside [0, 100].

  Reference: Sun, Guo, Li, "ReAct: Out-of-distribution Detection With Rectified
  Activations", NeurIPS 2021.
  """
  if not 0 <= percentile <= 100:
    raise ValueError(f'percentile must be 0 to 100; got {percentile}')
  limit = np.percentile(_matrix(train_features), percentile)
  clipped = np.minimum(_matrix(features), limit)
  return energy(clipped @ _matrix(kernel) + np.asarray(bias, np.float64))


def she(
    features: ArrayLike, logits: ArrayLike, train_features: ArrayLike,
    train_logits: ArrayLike, train_labels: ArrayLike,
) -> np.ndarray:
  """SHE, simplified Hopfield energy: x . s_k for the predicted class k.

  The stored pattern s_k is the mean feature of the training positives of class k that
  are predicted correctly, or of all of class k if none is. A class without training
  positives has the pattern 0.

  Args:
    features: [n, d].
    logits: [n, c].
    train_features: [m, d] of training positives.
    train_logits: [m, c].
    train_labels: [m] integers in 0..c-1.

  Reference: Zhang et al., "Out-of-Distribution Detection based on In-Distribution Data
  Patterns Memorization with Modern Hopfield Energy", ICLR 2023.
  """
  train, logits = _matrix(train_features), _matrix(logits)
  labels = _labels(train_labels, len(train))
  correct = _matrix(train_logits).argmax(axis=1) == labels
  patterns = np.zeros((logits.shape[1], train.shape[1]))
  for k in np.unique(labels):
    of_class = labels == k
    known = of_class & correct
    patterns[k] = train[known if known.any() else of_class].mean(axis=0)
  return (_matrix(features) * patterns[logits.argmax(axis=1)]).sum(axis=1)


def mahalanobis(
    features: ArrayLike, train_features: ArrayLike, train_labels: ArrayLike,
    relative: bool = False,
) -> np.ndarray:
  """Minus the squared Mahalanobis distance to the nearest class mean.

  max_k -d(x, mu_k, Sigma),  d(x, mu, Sigma) = (x - mu)^T Sigma^-1 (x - mu)
  with the means mu_k of the classes, and one covariance Sigma of the differences
  between training features and the means of their classes. The relative distance adds
  d(x, mu_0, Sigma_0), with mean and covariance of all training features together:
  Sigma_0 = Sigma + sum_k m_k / m (mu_k - mu_0) (mu_k - mu_0)^T.

  With at least 10 training features per dimension the covariance is the empirical one
  (1 / m). With fewer its small eigenvalues are far too small, and with fewer than one
  it is singular: then it is shrunk towards a multiple of the identity (Ledoit, Wolf).
  With each feature scaled to variance 1, directions with less than 1e-12 of the largest
  variance are left out (pseudo-inverse); so are features that are always 0.

  Args:
    features: [n, d].
    train_features: [m, d] of training positives.
    train_labels: [m] integers; classes without training features are left out.
    relative: whether to compute the relative distance.

  Reference: Lee, Lee, Lee, Shin, "A Simple Unified Framework for Detecting
  Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018. Relative: Ren et
  al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection", 2021.
  Shrinkage: Ledoit, Wolf, "A well-conditioned estimator for large-dimensional
  covariance matrices", Journal of Multivariate Analysis 88, 2004.
  """
  from scipy.spatial import distance

  train, x = _matrix(train_features), _matrix(features)
  centre = train.mean(axis=0)
  train, x = train - centre, x - centre  # against rounding, and mu_0 becomes 0
  classes, of_class = np.unique(
      _labels(train_labels, len(train)), return_inverse=True)
  means = np.stack([train[of_class == k].mean(axis=0) for k in range(len(classes))])
  within = _covariance(train - means[of_class])
  white = _whitening(within)
  score = -distance.cdist(x @ white, means @ white, 'sqeuclidean').min(axis=1)
  if relative:
    # Of the empirical covariances it is an identity. Shrunk separately, Sigma_0 could
    # be the smaller one in directions in which the classes are alike.
    between = means.T @ (means * np.bincount(of_class)[:, None]) / len(train)
    score += np.square(x @ _whitening(within + between)).sum(axis=1)
  return score


def _covariance(centred: np.ndarray) -> np.ndarray:
  """The covariance [d, d] of samples [m, d] with mean 0; see `mahalanobis`."""
  from sklearn import covariance

  m, d = centred.shape
  estimator = covariance.EmpiricalCovariance if m >= 10 * d else covariance.LedoitWolf
  return estimator(store_precision=False, assume_centered=True).fit(centred).covariance_


def _whitening(covariance: np.ndarray) -> np.ndarray:
  """W [d, r] with W W^T = the (pseudo-)inverse of a covariance [d, d]."""
  scale = np.sqrt(np.diag(covariance))[:, None]
  scale[scale == 0] = 1
  variances, directions = np.linalg.eigh(covariance / scale / scale.T)
  kept = variances > 1e-12 * variances[-1]
  return directions[:, kept] / np.sqrt(variances[kept]) / scale


def ash(
    features: ArrayLike, kernel: ArrayLike, bias: ArrayLike, percentile: float = 65.0
) -> np.ndarray:
  """ASH-B: the negative energy with the largest features made equal, the others 0.

  Of d features the round(d (1 - percentile / 100)) largest are kept, at least one, and
  each is set to (the sum of all features) / (the number kept). Features that tie with
  the smallest kept one are kept too, and a feature of 0 never is, so that the result
  does not depend on the order of the features.

  Args:
    features: [n, d], not negative (after ReLU).
    kernel: [d, c] of the output layer.
    bias: [c] of the output layer.
    percentile: the percentage of features that are set to 0.

  Raises:
    ValueError: percentile outside [0, 100).

  Reference: Djurisic, Bozanic, Ashok, Liu, "Extremely Simple Activation Shaping for
  Out-of-Distribution Detection", ICLR 2023.
  """
  if not 0 <= percentile < 100:
    raise ValueError(f'percentile must be 0 or more, below 100; got {percentile}')
  x = _matrix(features)
  num = max(round(x.shape[1] * (1 - percentile / 100)), 1)
  least = np.partition(x, -num, axis=1)[:, -num, None]
  kept = (x >= least) & (x > 0)
  level = x.sum(axis=1, keepdims=True) / np.maximum(kept.sum(axis=1, keepdims=True), 1)
  return energy(level * kept @ _matrix(kernel) + np.asarray(bias, np.float64))


def _matrix(x: ArrayLike) -> np.ndarray:
  x = np.asarray(x, np.float64)
  chex.assert_rank(x, 2)
  return x


def _unit(x: np.ndarray) -> np.ndarray:
  length = np.linalg.norm(x, axis=1, keepdims=True)
  return x / np.maximum(length, 1e-10)


def _labels(values: ArrayLike, num: int) -> np.ndarray:
  values = np.asarray(values)
  chex.assert_shape(values, (num,))
  return values
