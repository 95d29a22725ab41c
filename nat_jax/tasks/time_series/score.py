"""Scores of the time steps of a series, high for anomalies, and their threshold.

    parts = score_series(predict, state, values, config)     # [n, 2]: residual, 1 - D
    rule = fit_rule(parts_of_validation, config)
    score = dr_score(parts, rule, config['measures']['disc_weight'])
    flagged = score > rule['threshold']
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tqdm

from nat_jax import data

CHUNK = 4096  # windows whose scores are in memory at once
BATCH = 256  # windows that are inverted at once
MOST_FITTED = 20_000  # windows that a PCA is fitted to


def average_windows(
    of_windows: Callable[[np.ndarray], np.ndarray], values: np.ndarray, length: int,
    stride: int,
) -> np.ndarray:
  """The mean of the scores of all windows that hold a time step, for each of them.

  The windows begin at 0, stride, 2 stride, ... and at the last possible step, so that
  each time step is in one or more.

  Args:
    of_windows: windows [m, length, c] -> scores [m, length, k].
    values: [n, c], n >= length.
    length: time steps per window.
    stride: at most `length`.

  Returns:
    float64 [n, k].
  """
  last = len(values) - length
  begin = np.unique(np.append(np.arange(0, last + 1, stride), last))
  view = data.windows(values, length, 1)
  total, count = None, np.zeros(len(values))
  for k in tqdm.tqdm(range(0, len(begin), CHUNK), disable=None, leave=False):
    at = begin[k:k + CHUNK]
    found, place = of_windows(view[at]), at[:, None] + np.arange(length)
    if total is None:
      total = np.zeros((len(values), found.shape[2]))
    np.add.at(total, place, found)
    np.add.at(count, place, 1)
  return total / count[:, None]


def score_series(
    predict: Callable[[Any, np.ndarray], np.ndarray], state: Any, values: np.ndarray,
    config: Mapping[str, Any],
) -> np.ndarray:
  """(residual, 1 - D) for each time step, float64 [n, 2].

  Args:
    predict: the head 'scores', from `inference.make_predict`.
    state: of the trainer.
    values: scaled, [n, c].
    config: of the task 'time_series'.
  """
  return average_windows(
      lambda windows: predict(state, windows), values, config['data']['window'],
      config['measures']['stride'])


def fit_pca(
    train: np.ndarray, config: Mapping[str, Any]
) -> Callable[[np.ndarray], np.ndarray]:
  """A PCA of training windows; returns values [n, c] -> residuals [n].

  The residual of a time step in a window is the mean over sensors of |x - x'|, x' the
  window's projection onto the first `measures.pca_components` components.

  Args:
    train: scaled, [n, c].
    config: of the task 'time_series'.
  """
  from sklearn import decomposition

  settings, measures = config['data'], config['measures']
  length = settings['window']
  windows = data.windows(train, length, settings['stride'])
  windows = windows[::-(-len(windows) // MOST_FITTED)]
  flat = windows.reshape(len(windows), -1)
  pca = decomposition.PCA(measures['pca_components'], random_state=0).fit(flat)

  def residual(windows):
    flat = windows.reshape(len(windows), -1)
    found = pca.inverse_transform(pca.transform(flat)).reshape(windows.shape)
    return np.abs(windows - found).mean(2, keepdims=True)

  return lambda values: average_windows(
      residual, values, length, measures['stride'])[:, 0]


def fit_rule(parts: np.ndarray, config: Mapping[str, Any]) -> dict[str, Any]:
  """Standardisation and threshold of the DR score, from normal data alone.

  Args:
    parts: (residual, 1 - D) of the validation part, [n, 2].
    config: of the task 'time_series'.

  Returns:
    {'mean': [2], 'std': [2], 'threshold': a number}.
  """
  rule = {'mean': parts.mean(0).tolist(),
          'std': np.where(parts.std(0) > 0, parts.std(0), 1.0).tolist()}
  score = dr_score(parts, rule, config['measures']['disc_weight'])
  return {**rule, 'threshold': threshold(score, config)}


def dr_score(
    parts: np.ndarray, rule: Mapping[str, Any], disc_weight: float
) -> np.ndarray:
  """(1 - lambda) R + lambda (1 - D), both standardised, [n].

  Args:
    parts: (residual, 1 - D), [n, 2].
    rule: with 'mean' and 'std' of both, from `fit_rule`.
    disc_weight: lambda.
  """
  standard = (parts - np.array(rule['mean'])) / np.array(rule['std'])
  return standard @ np.array([1 - disc_weight, disc_weight])


def threshold(score: np.ndarray, config: Mapping[str, Any]) -> float:
  """The threshold that the share `measures.false_alarm_rate` of scores exceeds."""
  return float(np.quantile(score, 1 - config['measures']['false_alarm_rate']))
