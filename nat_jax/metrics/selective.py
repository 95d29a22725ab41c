"""Selective prediction: a threshold below which a classifier answers "none of these".

    threshold = tolerance_threshold(scores, accept=0.95)    # of held-out positives
    coverage, risk = risk_coverage(scores, correct)
    area = risk.mean()                                      # AURC

    >>> smallest_sample(accept=0.95, confidence=0.95)
    59
    >>> tolerance_rank(1000, accept=0.95), conformal_rank(1000, accept=0.95)
    (39, 50)

An image is accepted if its score is at least the threshold. A higher score means "more
like a positive".
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import numpy as np
from numpy.typing import ArrayLike

from nat_jax.metrics import checks, confidences
from nat_jax.metrics import scores as scores_lib

CONFIDENCE = 0.95
MAX_PROBABILITY = 'max_probability'

# Name -> function of (logits [n, k], number of classes, temperature) -> [n]. The
# temperature is that of the probabilities. A background output, after the classes,
# counts for the probabilities only.
LOGIT_SCORES: dict[str, Callable[[np.ndarray, int, float], np.ndarray]] = {
    MAX_PROBABILITY: lambda logits, num_classes, temperature: (
        scores_lib.scores_from_logits(logits / temperature, num_classes)['score']),
    'max_logit': lambda logits, num_classes, temperature: (
        confidences.max_logit(logits[:, :num_classes])),
    'energy': lambda logits, num_classes, temperature: (
        confidences.energy(logits[:, :num_classes])),
    'gen': lambda logits, num_classes, temperature: (
        confidences.gen(logits[:, :num_classes])),
}
# Scores that need more than the logits, from `nat_jax.detectors`.
FEATURE_SCORES = ('odin', 'ash', 'react', 'she', 'knn', 'vim', 'mahalanobis',
                  'relative_mahalanobis')


def smallest_sample(accept: float, confidence: float = CONFIDENCE) -> int:
  """The smallest n for which `tolerance_threshold` exists: 1 - accept^n >= confidence.

  Args:
    accept: least share of new positives to accept, between 0 and 1.
    confidence: probability, over samples, that this share is accepted.
  """
  n = max(math.ceil(math.log(1 - confidence) / math.log(accept)), 1)
  return n if tolerance_rank(n, accept, confidence) else n + 1  # rounding of the log


def tolerance_rank(n: int, accept: float, confidence: float = CONFIDENCE) -> int:
  """The rank k of the tolerance threshold among n scores in rising order; 0: none.

  k is the largest rank with P(Binomial(n, 1 - accept) >= k) >= confidence. The share of
  new positives below the k-th smallest of n scores has the distribution
  Beta(k, n - k + 1) where scores have no ties; with ties it is smaller.

  Args:
    n: number of scores.
    accept: least share of new positives to accept, between 0 and 1.
    confidence: probability, over samples, that this share is accepted.

  Reference: Wilks, "Determination of Sample Sizes for Setting Tolerance Limits", Annals
  of Mathematical Statistics, 1941.
  """
  from scipy import stats  # half a second of imports

  return int(stats.binom.ppf(1 - confidence, n, 1 - accept))


def tolerance_threshold(
    scores: ArrayLike, accept: float, confidence: float = CONFIDENCE
) -> float:
  """The threshold that accepts the share `accept` of new positives with confidence.

  It is the k-th smallest of the scores, k from `tolerance_rank`: of all samples of n
  positives at least the share `confidence` gives a threshold that at least the share
  `accept` of new positives of the same distribution reaches.

  Args:
    scores: [n] of positives that were used for nothing else.
    accept: least share of new positives to accept, between 0 and 1.
    confidence: probability, over samples, that this share is accepted.

  Raises:
    ValueError: too few scores; the message has the smallest number.
  """
  scores = checks.samples('scores', scores)
  k = tolerance_rank(scores.size, accept, confidence)
  if not k:
    # Rounded down, with room for rounding in the binomial distribution.
    most = math.floor(1e3 * (1 - confidence) ** (1 / scores.size) - 1e-6) / 1e3
    raise ValueError(
        f'{scores.size} positives are too few to be {100 * confidence:g} % confident '
        f'that {100 * accept:g} % of new positives are accepted: this needs at least '
        f'{smallest_sample(accept, confidence)}; hold out more, or ask for a share of '
        f'at most {most:g}')
  return float(np.partition(scores, k - 1)[k - 1])


def conformal_rank(n: int, accept: float) -> int:
  """The rank of the split conformal threshold: floor((n + 1) (1 - accept)); 0: none."""
  return math.floor((n + 1) * (1 - accept) * (1 + 1e-12))  # .05 * 20 is 1, not below


def conformal_threshold(scores: ArrayLike, accept: float) -> float | None:
  """The split conformal threshold, which accepts the share `accept` on average.

  A new positive is accepted with a probability of at least `accept`, over both the n
  scores and the new positive. For the scores at hand the share may be lower, about
  every second time. None where n is below accept / (1 - accept).

  Args:
    scores: [n] of positives that were used for nothing else.
    accept: least probability that a new positive is accepted, between 0 and 1.

  Reference: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005;
  Lei et al., "Distribution-Free Predictive Inference for Regression", JASA 2018.
  """
  scores = checks.samples('scores', scores)
  k = conformal_rank(scores.size, accept)
  return float(np.partition(scores, k - 1)[k - 1]) if k else None


def risk_coverage(
    scores: ArrayLike, correct: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
  """The risk-coverage curve: the share of errors among the i highest scores.

  coverage_i = i / n, risk_i = (errors among the i highest scores) / i. Among equal
  scores errors are spread evenly. The area AURC is the mean of the risks.

  Args:
    scores: [n].
    correct: [n], whether each prediction is right, booleans or 0 and 1.

  Returns:
    (coverage [n], risk [n]).

  Reference: Geifman, El-Yaniv, "Selective Classification for Deep Neural Networks",
  NeurIPS 2017.
  """
  scores = checks.samples('scores', scores)
  correct = checks.samples('correct', correct).astype(np.float64)
  chex.assert_equal_shape([scores, correct])
  order = np.argsort(-scores, kind='stable')
  ends = np.append(np.flatnonzero(np.diff(scores[order])) + 1, scores.size)
  errors = np.append(0, np.cumsum(1 - correct[order]))
  accepted = np.arange(1, scores.size + 1)
  ends = np.append(0, ends)
  return accepted / scores.size, np.interp(accepted, ends, errors[ends]) / accepted


class Costs(NamedTuple):
  """What mistakes cost, and how frequent negatives are.

  Attributes:
    error: cost of a wrong answer: a wrong class, or any class for a negative.
    refusal: cost of the answer "none of these" for a positive.
    negative_share: share of negatives among the images to come.
  """

  error: float
  refusal: float
  negative_share: float = 0.0


def cheapest_threshold(
    scores: ArrayLike, correct: ArrayLike, negatives: Sequence[ArrayLike], costs: Costs
) -> dict[str, float | None]:
  """The threshold with the least expected cost per image.

  cost(t) = (1 - q) (error P(accepted and wrong) + refusal P(refused))
            + q error P(accepted | negative),
  where q is the share of negatives and P(accepted | negative) the mean over the sets.
  Among thresholds of equal cost it is the lowest.

  Args:
    scores: [n] of positives.
    correct: [n], whether the predicted class of each is right.
    negatives: [m] scores of each set of negatives; without any, q is 0.
    costs: the costs.

  Returns:
    'threshold' (None: refuse all images), 'cost', 'accepted' (share of positives),
    'errors' (share of positives that are accepted and wrong), 'negatives_accepted' and
    'negative_share', q.

  Reference: Chow, "On Optimum Recognition Error and Reject Tradeoff", IEEE Transactions
  on Information Theory, 1970.
  """
  scores = checks.samples('scores', scores).astype(np.float64)
  wrong = scores[~np.asarray(correct, bool)]
  q = costs.negative_share if negatives else 0.0
  candidates = np.append(np.unique(np.concatenate([scores, *negatives])), np.inf)

  def reach(values, n):
    below = np.searchsorted(np.sort(values), candidates, side='left')
    return (len(values) - below) / n

  accepted, errors = reach(scores, scores.size), reach(wrong, scores.size)
  passed = sum(reach(s, len(s)) for s in negatives) / max(len(negatives), 1)
  passed = np.zeros(candidates.size) + passed
  cost = (1 - q) * (costs.error * errors + costs.refusal * (1 - accepted)) + (
      q * costs.error * passed)
  best = int(cost.argmin())
  threshold = candidates[best]
  return {
      'threshold': float(threshold) if np.isfinite(threshold) else None,
      'cost': float(cost[best]), 'accepted': float(accepted[best]),
      'errors': float(errors[best]), 'negatives_accepted': float(passed[best]),
      'negative_share': q,
  }
