"""Classifies a user's own pictures, with the answer "none of these" where unconfident.

    path = predict_folder('runs/digits', 'photos/')      # 'runs/digits/predictions.csv'
"""

import csv
import os
from collections.abc import Sequence

import numpy as np

from nat_jax import data, metrics, runs, schema
from nat_jax.commands import flags
from nat_jax.runtime import files, results
from nat_jax.tasks.classify import evaluate, inputs

PREDICTIONS = 'predictions.csv'
NONE, UNREADABLE = 'none of these', 'unreadable'  # answers beside the classes
# Spreadsheets interpret cells that start with one of these as formulas. The apostrophe
# is included so that the one that is put before a cell can always be removed again.
ESCAPED = ('=', '+', '-', '@', '\t', '\r', '\n', "'")


def predict_folder(
    workdir: str, images: str, step: int | None = None, threshold: float | None = None,
    keep: float = 0.95,
) -> str:
  """Classifies a folder of pictures and writes predictions.csv.

  An older file is replaced atomically. Columns: file, answer, nearest class and its
  probability. A picture that cannot be read has the answer 'unreadable' and two empty
  cells; a warning gives the reason. File names keep their bytes, UTF-8 or not: read
  them with open(path, encoding='utf-8', errors='surrogateescape', newline=''). A cell
  that starts with = + - @ tab, carriage return, newline or ' gets a leading ' so that
  spreadsheets do not run it as a formula; readers must remove that character.

  Args:
    workdir: of a run.
    images: a folder of pictures of any size.
    step: of the checkpoint; None: the newest.
    threshold: below this maximum probability the answer is "none of these"; None: the
      highest threshold that keeps the share `keep` of the positives of part
      'calibration', which are used for nothing else.
    keep: share of calibration positives; only used if threshold is None.

  Returns:
    The path of predictions.csv.

  Raises:
    ValueError: a threshold that is no probability, no checkpoint, no picture that can
      be read, no positives to take a threshold from, or no evaluation of this
      checkpoint on them.
  """
  if threshold is not None and not 0 <= threshold <= 1:
    raise ValueError(f'threshold must be a probability, from 0 to 1, got {threshold}')
  restored = runs.restore(workdir, step, 'classify')
  config = restored.config
  if threshold is None:
    threshold = _threshold(workdir, restored.step, config, keep)
    print(f'threshold {threshold:.4f}: keeps {keep:.0%} of the positives that were '
          'held out for calibration')
  height, width, channels = restored.shape
  mode = 'L' if channels == 1 else 'RGB'
  pictures = data.list_pictures(images).image
  pixels, unreadable = data.read_pictures(
      pictures, (height, width), mode, skip_unreadable=True)
  logits = evaluate.predictor(restored)(pixels)
  scores = metrics.scores_from_logits(logits, config['num_classes'])
  names = restored.class_names or [str(k) for k in range(config['num_classes'])]
  names = [*names, NONE]  # a background prediction is "none of these" too
  found = zip(scores['prediction'], scores['max_prob'], strict=True)
  path = os.path.join(workdir, PREDICTIONS)
  with files.replacing(path, newline='', errors='surrogateescape') as file:
    rows = csv.writer(file)
    rows.writerow(['file', 'answer', 'nearest class', 'max_prob'])
    for place, picture in enumerate(pictures):
      name = _cell(os.fsencode(picture).decode('utf-8', 'surrogateescape'))
      if place in unreadable:
        rows.writerow([name, UNREADABLE, '', ''])
        continue
      k, p = next(found)
      answer = names[k] if p >= threshold else NONE
      rows.writerow([name, _cell(answer), _cell(names[k]), p])
  return path


def _cell(text):
  """Escapes a text that spreadsheets would run as a formula."""
  return f"'{text}" if text.startswith(ESCAPED) else text


def _threshold(workdir, step, config, keep):
  """The highest threshold that keeps the share `keep` of calibration positives."""
  calibration = inputs.references(config).get(schema.CALIBRATION)
  if calibration is None:
    raise ValueError(
        f'the run in {workdir} held out no positives to take a threshold from (a '
        f'positive evaluation set of part {schema.CALIBRATION!r}), and it must not be '
        'chosen by the test; give --threshold, between 0 and 1')
  evaluation = results.read_evaluation(workdir)
  evaluated = evaluation['step'] if evaluation else None
  scores = None if evaluated != step else results.read_arrays(
      workdir, f'{results.SCORES}/{calibration}', step, ['max_prob'])
  if scores is None:
    found = ('none' if evaluated is None else f'that of step {evaluated}'
             if evaluated != step else f'no {results.SCORES}/{calibration}.npz')
    raise ValueError(
        f'the threshold needs the evaluation of checkpoint {step}, and {workdir} '
        f'has {found}; give --threshold, or run: python -m nat_jax.main '
        f'--mode=evaluate --workdir {workdir} --step {step}')
  # 'lower' returns one of the scores, so that at least the share `keep` reaches it.
  return float(np.quantile(scores['max_prob'], 1 - keep, method='lower'))


def run(argv: Sequence[str] = ()) -> None:
  """--mode=predict: classifies a folder of pictures."""
  del argv
  workdir, images = (
      flags.needed(flag, 'predict') for flag in (flags.WORKDIR, flags.IMAGES))
  path = predict_folder(workdir, images, flags.STEP.value, flags.THRESHOLD.value)
  with open(path, encoding='utf-8', errors='backslashreplace') as file:
    print(file.read(), end='')
  print(f'written: {path}')
