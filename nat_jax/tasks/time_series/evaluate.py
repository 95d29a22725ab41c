"""Evaluates detectors of anomalies on a test series, beside a PCA of windows.

    evaluator = make_evaluator(config, workdir, inputs, trainer, mesh, others)
    figures, _ = evaluator.run(state, [DR], final=True)
    figures['dr']['auroc'], figures['pca']['auroc']

All thresholds are quantiles of the scores of the validation part, which is normal. A
time step counts by itself: there is no point adjustment.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from nat_jax import metrics
from nat_jax.runtime import inference, parallel, results
from nat_jax.task import Evaluator, Inputs, Others, Trainer
from nat_jax.tasks.time_series import inputs, score

# Names of evaluations: the DR score, its parts, and what they are compared with.
DR, RESIDUAL, UNREAL = 'dr', 'residual', 'one_minus_d'
UNTRAINED, PCA = f'untrained_{DR}', 'pca'
TEST = f'{results.SCORES}/test'
RULE = 'rule'  # key of eval.json: standardisation and threshold of the DR score


def make_evaluator(
    config: Mapping[str, Any], workdir: str, given: Inputs, trainer: Trainer, mesh,
    others: Others,
) -> Evaluator:
  """Returns the `Evaluator` of a detector, with the evaluation 'dr'.

  Args:
    config, workdir, given, trainer, mesh, others: see `task.Task.evaluator`.

  Raises:
    ValueError: a mistake in the test series, or settings that do not fit it.
  """
  del given, others
  parts = inputs.load_parts(config)
  _check(config, len(parts.train))
  predict = inference.make_predict(trainer.heads['scores'], mesh, score.BATCH)

  def of_state(state):
    """(rule, {name: (scores of the validation part, of the test series or None)})."""
    found = [score.score_series(predict, state, values, config)
             for values in (parts.validation, *_test_values(parts))]
    rule = score.fit_rule(found[0], config)
    weight = config['measures']['disc_weight']
    return rule, {
        DR: [score.dr_score(one, rule, weight) for one in found],
        RESIDUAL: [one[:, 0] for one in found], UNREAL: [one[:, 1] for one in found]}

  def run(state, names, final):
    del names
    rule, found = of_state(state)
    if final:
      start = parallel.init_state(trainer.init, jax.random.key(config['seed']), mesh)
      found |= {f'untrained_{name}': one for name, one in of_state(start)[1].items()}
      residual = score.fit_pca(parts.train, config)
      found[PCA] = [
          residual(values) for values in (parts.validation, *_test_values(parts))]
    figures = {name: measure(one, parts.test, config) for name, one in found.items()}
    return figures, (rule, found)

  def save(state, step, figures, details):
    del state
    rule, found = details
    evaluation = {
        RULE: rule, 'evals': figures}
    arrays = {}
    if parts.test is not None:
      arrays[TEST] = {
          'values': parts.test.values, **{name: one[1] for name, one in found.items()}}
      if parts.test.label is not None:
        arrays[TEST]['label'] = parts.test.label
        evaluation['kinds'] = list(parts.test.kinds)
    return results.write_evaluation(workdir, config, step, evaluation, arrays)

  num = sum(len(values) for values in _test_values(parts))
  return Evaluator(
      {DR: config['run']['eval_every']}, run, save, summary,
      num * (4 * parts.train.shape[1] + 50))


def _test_values(parts):
  return () if parts.test is None else (parts.test.values,)


def _check(config, num_steps):
  """Raises ValueError for settings of the measures that do not fit the windows.

  Args:
    config: of the task 'time_series'.
    num_steps: time steps of the training part.
  """
  settings, measures = config['data'], config['measures']
  length, values = settings['window'], settings['window'] * len(settings['columns'])
  num = (num_steps - length) // settings['stride'] + 1
  if measures['stride'] > length:
    raise ValueError(
        f'measures.stride must be at most data.window={length}, so that each time step '
        f'is in a window, got {measures["stride"]}')
  if measures['pca_components'] >= values:
    raise ValueError(
        f'measures.pca_components must be below {values}, the numbers in a window, got '
        f'{measures["pca_components"]}')
  if measures['pca_components'] > min(num, score.MOST_FITTED // 2):
    raise ValueError(
        f'measures.pca_components must be at most {min(num, score.MOST_FITTED // 2)}, '
        f'as the PCA is fitted to {num} training windows, got '
        f'{measures["pca_components"]}; lower it, or data.stride')


def measure(found, test, config: Mapping[str, Any]) -> dict[str, Any]:
  """The metrics of a score, high for anomalies.

  Args:
    found: scores of the validation part [m] and, if there is one, of the test series
      [n].
    test: the test `data.Series`; None: there is none.
    config: of the task 'time_series'.

  Returns:
    'threshold', at which the share `measures.false_alarm_rate` of the validation part
    is flagged; with a test series 'n' and the share 'flagged'; with labels 'auroc' and
    'aupr_out', and at the threshold 'f1', 'precision', 'recall', 'false_alarms' (share
    of normal time steps), 'false_alarms_apart' (share of those that are more than a
    window away from every anomaly; missing where there are none) and, of each kind of
    anomalies against normal time steps, 'kind_auroc'.
  """
  from scipy import ndimage
  from sklearn import metrics as sk

  threshold = score.threshold(found[0], config)
  if test is None:
    return {'threshold': threshold}
  flagged = found[1] > threshold
  figures = {'threshold': threshold, 'n': len(flagged),
             'flagged': float(flagged.mean())}
  if test.label is None:
    return figures
  is_anomaly = test.label > 0

  def detection(chosen):
    return metrics.detection_metrics(-found[1][~is_anomaly], -found[1][chosen])

  of_all = detection(is_anomaly)
  precision, recall, f1, _ = sk.precision_recall_fscore_support(
      is_anomaly, flagged, average='binary', zero_division=0)
  apart = ~ndimage.binary_dilation(is_anomaly, iterations=config['data']['window'])
  if apart.any():
    figures['false_alarms_apart'] = float(flagged[apart].mean())
  return figures | {
      'auroc': of_all['auroc'], 'aupr_out': of_all['aupr_out'], 'f1': float(f1),
      'precision': float(precision), 'recall': float(recall),
      'false_alarms': float(flagged[~is_anomaly].mean()),
      'kind_auroc': {
          test.kinds[k]: detection(test.label == k)['auroc']
          for k in np.unique(test.label[is_anomaly])}}


def summary(figures: Mapping[str, Any]) -> str:
  """Returns the AUROC of every score in a line, or the share that is flagged."""
  parts = [f'{name.replace("_", " ")} AUROC {one["auroc"]:.3f}'
           for name, one in figures.items() if 'auroc' in one]
  if not parts and 'flagged' in figures[DR]:
    parts = [f'flagged {figures[DR]["flagged"]:.1%} of the test series']
  return '  '.join(parts) or f'threshold {figures[DR]["threshold"]:.3g}'
