"""Detectors of anomalies in time series of several sensors: MAD-GAN, with negatives.

  inputs      series, their windows and batches; the trainer of a config
  step        the update of an LSTM GAN, and the scores of windows
  anomalies   windows that are made anomalous, as negatives
  score       scores of time steps, and their threshold
  evaluate    metrics on a test series, beside a PCA of windows
  predict     scores of the time steps of a file
  report      tables and words on many runs (figures: their plots)
"""

from nat_jax.task import Task
from nat_jax.tasks.time_series import evaluate, inputs, predict, report
from nat_jax.tasks.time_series.anomalies import ANOMALIES

TASK = Task(
    title='detectors of anomalies in time series',
    load=inputs.load,
    build=inputs.build,
    evaluator=evaluate.make_evaluator,
    tables=report.tables,
    figures=report.figures,
    commands=('evaluate', 'predict'),
    resolve=inputs.resolve,
    verdict=report.verdict,
    predict=predict.predict,
)

__all__ = ['ANOMALIES', 'TASK']
