"""A user's own pictures -> classes, or "none of these".

    path = predict_folder('runs/digits', 'photos/')      # 'runs/digits/predictions.csv'
"""

import csv
import os

import numpy as np

from nat_jax import data, evaluate, experiment, metrics
from nat_jax.runtime import results


def predict_folder(
    workdir: str, images: str, step: int | None = None, threshold: float | None = None,
    keep: float = 0.95,
) -> str:
  """Classifies a folder of pictures; writes predictions.csv and returns its path.

  Args:
    workdir: of a run.
    images: a folder of pictures of any size.
    step: of the checkpoint; None: the newest.
    threshold: answers below this maximum probability are "none of these"; None: the
      highest that keeps the share `keep` of the run's own positive test images.
    keep: see `threshold`.

  Raises:
    ValueError: a threshold that is no probability, no checkpoint, no pictures, no
      evaluation of this checkpoint to take a threshold from.
  """
  if threshold is not None and not 0 <= threshold <= 1:
    raise ValueError(f'threshold is a probability, from 0 to 1, got {threshold}')
  restored = experiment.restore(workdir, step, 'classifier')
  config = restored.config
  if threshold is None:
    threshold = _threshold(workdir, restored.step, config['reference'], keep)
    print(f'threshold {threshold:.4f}: keeps {keep:.0%} of the positive test images')
  height, width, channels = restored.image_shape
  mode = 'L' if channels == 1 else 'RGB'
  files = data.list_pictures(images).image
  pictures, _ = data.read_pictures(files, (height, width), mode)
  logits = evaluate.predictor(restored)(pictures)
  scores = metrics.scores_from_logits(logits, config['num_classes'])
  names = restored.class_names or [str(k) for k in range(config['num_classes'])]
  names = [*names, 'none of these']  # also the answer of a background class
  path = os.path.join(workdir, 'predictions.csv')
  with open(path, 'w', newline='') as file:
    rows = csv.writer(file)
    rows.writerow(['file', 'answer', 'nearest class', 'max_prob'])
    for name, k, p in zip(files, scores['prediction'], scores['max_prob'], strict=True):
      answer = names[k] if p >= threshold else names[-1]
      rows.writerow([name, answer, names[k], p])
  return path


def _threshold(workdir, step, reference, keep):
  evaluation = results.read_evaluation(workdir)
  evaluated = evaluation['step'] if evaluation else None
  if evaluated != step:
    found = 'none' if evaluated is None else f'that of step {evaluated}'
    raise ValueError(
        f'a threshold is chosen by the evaluation of checkpoint {step}, and {workdir} '
        f'has {found}; give --threshold, or run: python -m nat_jax.main '
        f'--mode=evaluate --workdir {workdir} --step {step}')
  # 'lower': a score among the images, so that no fewer than `keep` of them reach it.
  scores = results.read_arrays(
      workdir, f'{results.SCORES}/{reference}', step, ['max_prob'])
  return float(np.quantile(scores['max_prob'], 1 - keep, method='lower'))
