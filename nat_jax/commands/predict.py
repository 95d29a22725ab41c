"""A user's own pictures -> classes, or "none of these".

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
# A spreadsheet takes a cell that starts with one of these for a formula. The apostrophe
# itself is among them so that the one put before a cell can always be taken off again.
ESCAPED = ('=', '+', '-', '@', '\t', '\r', '\n', "'")


def predict_folder(
    workdir: str, images: str, step: int | None = None, threshold: float | None = None,
    keep: float = 0.95,
) -> str:
  """Classifies a folder of pictures; writes predictions.csv and returns its path.

  The file replaces an older one when it is whole. A row holds the file, the answer, the
  nearest class and its probability; a picture that cannot be read has the answer
  'unreadable', the last two empty, and its reason among the warnings. Names are the
  bytes they are on disk, UTF-8 or not: open(path, encoding='utf-8',
  errors='surrogateescape', newline='') gives them back. A cell that starts with one of
  = + - @ tab, carriage return, newline or ' has a further ' before it, so that no
  spreadsheet runs it as a formula; a reader takes off the first ' of a cell.

  Args:
    workdir: of a run.
    images: a folder of pictures of any size.
    step: of the checkpoint; None: the newest.
    threshold: answers below this maximum probability are "none of these"; None: the
      highest that keeps the share `keep` of the positives of part 'calibration', which
      are used for nothing else.
    keep: see `threshold`.

  Raises:
    ValueError: a threshold that is no probability, no checkpoint, no picture that can
      be read, no positives to take a threshold from, or no evaluation of this
      checkpoint on them.
  """
  if threshold is not None and not 0 <= threshold <= 1:
    raise ValueError(f'threshold is a probability, from 0 to 1, got {threshold}')
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
  names = [*names, NONE]  # also the answer of a background class
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
  """Keeps a text from being a formula of a spreadsheet."""
  return f"'{text}" if text.startswith(ESCAPED) else text


def _threshold(workdir, step, config, keep):
  calibration = inputs.references(config).get(schema.CALIBRATION)
  if calibration is None:
    raise ValueError(
        f'the run in {workdir} held out no positives for a threshold (one positive '
        f'evaluation set of part {schema.CALIBRATION!r}), and none is taken from the '
        'test; give --threshold, between 0 and 1')
  evaluation = results.read_evaluation(workdir)
  evaluated = evaluation['step'] if evaluation else None
  scores = None if evaluated != step else results.read_arrays(
      workdir, f'{results.SCORES}/{calibration}', step, ['max_prob'])
  if scores is None:
    found = ('none' if evaluated is None else f'that of step {evaluated}'
             if evaluated != step else f'no {results.SCORES}/{calibration}.npz')
    raise ValueError(
        f'a threshold is chosen by the evaluation of checkpoint {step}, and {workdir} '
        f'has {found}; give --threshold, or run: python -m nat_jax.main '
        f'--mode=evaluate --workdir {workdir} --step {step}')
  # 'lower': a score among the images, so that no fewer than `keep` of them reach it.
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
