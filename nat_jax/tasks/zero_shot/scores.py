"""Scores of every class for feature vectors: by the networks, and by ridge regression.

    view = View(examples.test_seen, candidates, trained)
    score_of = network_scores(config, trainer, mesh, copy, examples, view)
    found, made = score_of(state)
    found['discriminator']                          # [n, k], high: likely
    ridge_scores(examples, view, alpha=1.0)         # [n, k]
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from nat_jax import data
from nat_jax.runtime import inference
from nat_jax.task import Trainer

DISCRIMINATOR, REGRESSOR, GENERATED = NETWORKS = (
    'discriminator', 'regressor', 'generated')


class View(NamedTuple):
  """Rows to be classified, the candidates, and what is known of them.

  Attributes:
    rows: int [n], of the examples that are classified.
    candidates: int [k], the classes, in rising order.
    trained: int [m], the rows that may be used for it. Candidates without one of these
      rows are unseen.
  """

  rows: np.ndarray
  candidates: np.ndarray
  trained: np.ndarray


def network_scores(
    config: Mapping[str, Any], trainer: Trainer, mesh, copy: int,
    examples: data.ZeroShot, view: View,
) -> Callable[[Any], tuple[dict[str, np.ndarray], dict[int, np.ndarray]]]:
  """Returns a function that scores the candidates by the networks, in three ways.

  'discriminator': D(x, s_c). 'regressor': -|R(x) - s_c|^2. 'generated': minus the
  distance of x from the nearest trained row of the class or, if it has none, from the
  nearest of `num_generated` features that the decoder makes of s_c and normal codes.

  Args:
    config: of the task 'zero_shot'.
    trainer: from `build`.
    mesh: the devices.
    copy: of the networks; 0: the model.
    examples: of the source.
    view: what is classified.

  Returns:
    state -> ({method: scores [n, k]}, {unseen class: generated features}).
  """
  embedding = examples.embedding[view.candidates]
  x, num = examples.feature[view.rows], config['num_generated']
  unseen = np.setdiff1d(view.candidates, examples.label[view.trained])
  codes = np.random.default_rng(config['seed']).standard_normal(
      (len(unseen) * num, config['latent']), np.float32)
  given = np.concatenate([np.repeat(examples.embedding[unseen], num, 0), codes], 1)
  arguments = {'pairs': (embedding, copy), 'regressed': (copy,), 'made': (copy,)}
  predict = {name: inference.make_predict(
      lambda state, inputs, name=name, rest=rest: trainer.heads[name](
          state, inputs, *rest), mesh, config['eval_batch_size'])
      for name, rest in arguments.items()}

  def score(state):
    made = dict(zip(unseen.tolist(), np.split(
        predict['made'](state, given), max(len(unseen), 1)), strict=False))
    return {
        DISCRIMINATOR: predict['pairs'](state, x),
        REGRESSOR: -_squares(predict['regressed'](state, x), embedding),
        GENERATED: _nearest(examples, view, made)}, made

  return score


def _squares(points, centres):
  """The squared distances of points [n, a] from centres [k, a], float64 [n, k]."""
  points, centres = points.astype(np.float64), centres.astype(np.float64)
  return (np.square(points).sum(1)[:, None] - 2 * points @ centres.T
          + np.square(centres).sum(1)[None])


def _nearest(examples, view, made):
  """Minus the distance from the nearest known or made feature of each candidate."""
  from sklearn import metrics  # imported here because it takes a second

  label, found = examples.label[view.trained], []
  for c in view.candidates.tolist():
    known = made[c] if c in made else examples.feature[view.trained[label == c]]
    found.append(-metrics.pairwise_distances_argmin_min(
        examples.feature[view.rows], known)[1])
  return np.stack(found, 1)


def ridge_scores(
    examples: data.ZeroShot, view: View, alpha: float
) -> np.ndarray:
  """Ridge regression of the embedding by the features: -|W x + b - s_c|^2, [n, k].

  Args:
    examples: of the source.
    view: what is classified; the regression is fitted to its trained rows.
    alpha: weight of |W|^2.
  """
  from sklearn import linear_model

  fitted = linear_model.Ridge(alpha=alpha).fit(
      examples.feature[view.trained],
      examples.embedding[examples.label[view.trained]])
  found = fitted.predict(examples.feature[view.rows])
  return -_squares(found, examples.embedding[view.candidates])
