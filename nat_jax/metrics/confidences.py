"""Post-hoc confidence scores of a trained classifier: energy, KNN, ViM and others.

    energy(logits)                          # [n], larger = more like a positive
    knn(features, train_features, k=50)
    vim(features, logits, train_features, train_logits, kernel, bias)

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
  logits of images moved by `posthoc.odin_head`: Liang, Li, Srikant, "Enhancing The
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
