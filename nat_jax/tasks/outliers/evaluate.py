"""Evaluates detectors of outliers, beside three of scikit-learn on the same examples.

    evaluator = make_evaluator(config, workdir, inputs, trainer, mesh, others)
    figures, _ = evaluator.run(state, ['gaal'], final=True)
    figures['gaal']['auroc'], figures['lof']['auroc']

All scores are high for normal examples, as in scikit-learn. A detector is trained on
the examples that it is evaluated on, and without their labels.
"""

import csv
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from nat_jax import metrics
from nat_jax import names as names_lib
from nat_jax.runtime import files, inference, results
from nat_jax.task import Evaluator, Inputs, Others, Trainer
from nat_jax.tasks.outliers import step as steps

GAAL = 'gaal'  # the evaluation set of the trained detector
TRAINING = f'{results.SCORES}/training'
CSV = 'outliers.csv'  # all examples, the least normal one first
BATCH = 1024


def isolation_forest(vectors: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
  """Scores of an isolation forest of 100 trees, of the run's seed, [n]."""
  from sklearn import ensemble

  forest = ensemble.IsolationForest(random_state=config['seed']).fit(vectors)
  return forest.score_samples(vectors)


def lof(vectors: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
  """Local Outlier Factors of `lof_neighbours` neighbours, with the sign -, [n]."""
  from sklearn import neighbors

  num = _count('lof_neighbours', vectors, config)
  return neighbors.LocalOutlierFactor(num).fit(vectors).negative_outlier_factor_


def knn(vectors: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
  """Distances to the k-th nearest other example, k = `neighbours`, with the sign -."""
  from sklearn import neighbors

  num = _count('neighbours', vectors, config)
  found = neighbors.NearestNeighbors(n_neighbors=num).fit(vectors)
  return -found.kneighbors()[0][:, -1]


def _count(key, vectors, config):
  if config[key] >= len(vectors):
    raise ValueError(
        f'{key} must be below {len(vectors)}, the number of examples, got '
        f'{config[key]}; set {key} lower')
  return config[key]


# Name of an evaluation set -> function with the arguments of `isolation_forest`.
BASELINES: dict[str, Callable[..., np.ndarray]] = {
    'isolation_forest': isolation_forest, 'lof': lof, 'knn': knn}


def make_evaluator(
    config: Mapping[str, Any], workdir: str, given: Inputs, trainer: Trainer, mesh,
    others: Others,
) -> Evaluator:
  """Returns the `Evaluator` of a detector, with the evaluation 'gaal'.

  Args:
    config, workdir, given, trainer, mesh, others: see `task.Task.evaluator`.

  Raises:
    ValueError: no example, or each one, is of a class in `data.outliers`; or, if
      classes are named, too few examples for the neighbours of a baseline.
  """
  del given, others
  settings = config['data']
  arrays = steps.load_examples(config)
  vectors = steps.scale(arrays.image, settings)
  known, is_outlier = bool(settings['outliers']), outliers_of(arrays, settings)
  for key in ('neighbours', 'lof_neighbours') if known else ():
    _count(key, vectors, config)
  predict = inference.make_predict(trainer.heads['score'], mesh, BATCH)

  def measure(score):
    figures = {'n': len(score)}
    if known:
      figures |= metrics.detection_metrics(score[~is_outlier], score[is_outlier])
    return figures

  def run(state, names, final):
    del names
    score = predict(state, vectors)
    figures = {GAAL: measure(score) | {'below_half': float((score < 0).mean())}}
    if final and known:
      figures |= {name: measure(of_all(vectors, config))
                  for name, of_all in BASELINES.items()}
    return figures, score

  def save(state, step, figures, score):
    del state
    evaluation = {
        'class_names': list(arrays.names), 'evals': figures,
        'num_outliers': int(is_outlier.sum()) if known else None}
    if jax.process_index() == 0:
      _write_csv(os.path.join(workdir, CSV), score, arrays)
    return results.write_evaluation(workdir, config, step, evaluation, {
        TRAINING: {'score': score, 'label': arrays.label}})

  return Evaluator(
      {GAAL: config['run']['eval_every']}, run, save, summary, 100 * len(vectors))


def outliers_of(arrays, settings: Mapping[str, Any]) -> np.ndarray:
  """Which examples are of the classes `data.outliers`, bool [n].

  Args:
    arrays: `data.Arrays` of the examples.
    settings: `config['data']`.

  Raises:
    ValueError: none or all are, although classes are named; a name that no class has,
      or a number that may mean two classes.
  """
  named = list(settings['outliers'])
  chosen = [_number(one, arrays.names) for one in named]
  found = np.isin(arrays.label, chosen)
  if named and not 0 < found.sum() < len(found):
    classes = np.unique(arrays.label).tolist()
    raise ValueError(
        f'data.outliers={named} must name some of the classes of the examples, '
        f'{classes} (names: {names_lib.listed(arrays.names) or "none"}), and not all '
        f'of them; it chooses {_chosen(chosen, arrays)}; () if the outliers are not '
        'known')
  return found


def _number(one, names):
  """The number of the class that an element of `data.outliers` means.

  Text is the name of a class. A number is that of a class, or else its name: labels of
  a file are numbered from 0 in their order, and their names are as in the file.
  """
  if isinstance(one, str):
    if one not in names:
      raise ValueError(names_lib.unknown('class in data.outliers,', one, names))
    return names.index(one)
  named = names.index(str(one)) if str(one) in names else one
  if named != one and one < len(names):
    raise ValueError(
        f'data.outliers: {one} may mean the class with the label {one}, or the class '
        f'number {one} (from 0), whose label is {names[one]}; write the label as text, '
        f'{str(one)!r} or {names[one]!r}')
  return named


def _chosen(numbers, arrays):
  """The names of those of the numbers that are classes of the examples."""
  present = [k for k in numbers if k in arrays.label]
  return names_lib.listed(
      [arrays.names[k] if arrays.names else k for k in present]) or 'none of them'


def _write_csv(path, score, arrays):
  """The rows of the examples in their file, or else in their source, from 0, with the
  lowest score first."""
  files.as_path(path).parent.mkdir(parents=True, exist_ok=True)
  with files.replacing(path, newline='') as file:
    out = csv.writer(file)
    out.writerow(['row', 'score', 'label'])
    for k in np.argsort(score, kind='stable').tolist():
      label = int(arrays.label[k])
      out.writerow([k if arrays.row is None else int(arrays.row[k]), f'{score[k]:.6g}',
                    arrays.names[label] if arrays.names else label])


def summary(figures: Mapping[str, Any]) -> str:
  """Returns the AUROC of every detector in a line, or the share of D below 1/2."""
  parts = [f'{name.replace("_", " ")} AUROC {one["auroc"]:.3f}'
           for name, one in figures.items() if 'auroc' in one]
  return '  '.join(parts) or f'D below 1/2: {figures[GAAL]["below_half"]:.1%}'
