"""Scores of the time steps of a CSV file, and which of them are flagged.

    print(predict(run, 'runs/pumps', ['today.csv'], None))
"""

import csv
import os
from collections.abc import Sequence

import numpy as np

from nat_jax import data
from nat_jax.runtime import files, inference, results
from nat_jax.task import Run
from nat_jax.tasks.time_series import evaluate, inputs, score

PREDICTIONS = 'predictions.csv'  # in the workdir
COLUMNS = ('score', 'residual', 'one_minus_d', 'flag')  # after the time
MANY = 10  # a share that is so many times the false alarm rate deserves a warning


def predict(run: Run, workdir: str, given: Sequence[str], out: str | None) -> str:
  """Writes a row for each row of a file: time, DR score, its parts, flag (1: anomaly).

  Time steps without a row in the file, if `data.fill` permits them, get none.

  Args:
    run: of the task 'time_series'.
    workdir: of the run, with an eval.json of the same step, whose threshold is used.
    given: the path of one file with the sensors of the training series.
    out: the .csv file to write; None: predictions.csv in the workdir.

  Returns:
    A summary.

  Raises:
    ValueError: several files, a mistake in the file, or no evaluation of this step.
  """
  if len(given) != 1:
    raise ValueError(
        f'--mode=predict takes one CSV file of a time series at a time, got '
        f'{len(given)}: {", ".join(given)}')
  out = out or os.path.join(workdir, PREDICTIONS)
  folder = os.path.dirname(os.path.abspath(out))
  if os.path.splitext(out)[1] != '.csv' or not os.path.isdir(folder):
    raise ValueError(
        f'--out must be a file .csv in a folder that exists, got {out}')
  if os.path.realpath(out) == os.path.realpath(given[0]):
    raise ValueError(f'--out is the series itself, {out}; choose another file')
  evaluation = results.read_evaluation(workdir)
  if not evaluation or evaluation['step'] != run.step:
    raise ValueError(
        f'{workdir} has no eval.json of step {run.step}, whose threshold is needed: '
        f'python -m nat_jax.main --mode=evaluate --workdir {workdir} --step {run.step}')
  rule, config = evaluation[evaluate.RULE], run.config
  series = data.SERIES['csv'](given[0], reading=inputs.reading(config['data']))
  inputs.check_length(series, config, given[0])
  head = inference.make_predict(run.trainer.heads['scores'], run.mesh, score.BATCH)
  parts = score.score_series(
      head, run.state, inputs.scale(series.values, config['data']), config)
  found = score.dr_score(parts, rule, config['measures']['disc_weight'])
  flagged = found > rule['threshold']
  with files.replacing(out, newline='') as file:
    table = csv.writer(file)
    table.writerow([config['data']['time'], *COLUMNS])
    for k in np.flatnonzero(series.given):
      numbers = (found[k], *parts[k])
      table.writerow([series.time[k], *(f'{x:.6g}' for x in numbers), int(flagged[k])])
  flagged, rate = flagged[series.given], config['measures']['false_alarm_rate']
  spans = int((np.diff(flagged.astype(int), prepend=0) > 0).sum())
  text = (f'{flagged.sum():,} of {len(flagged):,} time steps ({flagged.mean():.1%}) '
          f'are flagged, in {spans:,} span{"s" * (spans != 1)}; at this threshold '
          f'{rate:.1%} of normal validation data are')
  if flagged.mean() > MANY * rate:
    text += ('\nwarning: so many time steps are flagged that the series may be of '
             'another kind than the training series, or normal operation has changed')
  return f'{text}\nwritten: {out}'
