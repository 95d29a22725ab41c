"""From logits to confidences: what every other metric is computed from.

    scores = scores_from_logits(logits, num_classes=10)
    scores['max_prob'], scores['score'], scores['prediction']    # [n] each
"""

import chex
import numpy as np
from numpy.typing import ArrayLike
from scipy import special


def scores_from_logits(logits: ArrayLike, num_classes: int) -> dict[str, np.ndarray]:
  """Confidence, its ranking score and the prediction of each image, in float64.

  With p = softmax(logits) over all k outputs and j the likeliest of the classes:
    max_prob   = p_j
    score      = log(p_j / (1 - p_j)) = -logsumexp_{i != j}(o_i - o_j)
    prediction = argmax_i p_i over all outputs
  The score is a strictly increasing function of max_prob, for ranking: max_prob
  itself rounds to 1.0 from a logit gap of 18 in float32 (38 in float64), and ties
  there distort AUROC and FPR95. max_prob is for thresholds.

  Args:
    logits: [n, k], finite; k = num_classes, or more with a background output. Then
      the background takes its share of the probability but is no class itself.
    num_classes: outputs 0..num_classes-1 stand for classes.

  Returns:
    `max_prob` and `score` [n] float64, `prediction` [n] int32, where num_classes or
    more means background.

  Raises:
    ValueError: a logit that is not finite, fewer than two outputs, or fewer outputs
      than classes.
  """
  logits = np.asarray(logits, np.float64)
  chex.assert_rank(logits, 2)
  if not 1 <= num_classes <= logits.shape[1] or logits.shape[1] < 2:
    raise ValueError(
        f'expected logits of at least two outputs, one for each of {num_classes} '
        f'classes; got {logits.shape[1]} outputs'
    )
  if not np.isfinite(logits).all():
    raise ValueError('expected finite logits, got NaN or infinity; did it diverge?')
  rows = np.arange(len(logits))
  top = logits[:, :num_classes].argmax(axis=1)
  against = logits - logits[rows, top][:, None]
  against[rows, top] = -np.inf
  return {
      'max_prob': special.softmax(logits, axis=1)[rows, top],
      'score': -special.logsumexp(against, axis=1),
      'prediction': logits.argmax(axis=1).astype(np.int32),
  }
