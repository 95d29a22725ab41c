"""Evaluates zero-shot classifiers: U, S and H, as they are and calibrated.

    evaluator = make_evaluator(config, workdir, inputs, trainer, mesh, others)
    figures, _ = evaluator.run(state, ['discriminator'], final=True)
    figures['discriminator_calibrated']['harmonic_mean']

The constants of calibrated stacking are chosen with the twin: it classifies validation
rows, all its candidates are seen classes, and the held-out ones play the unseen. So no
test row, and nothing of an unseen class, takes part in a choice.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nat_jax import data, metrics, names
from nat_jax.runtime import results
from nat_jax.task import Evaluator, Inputs, Others, Run, Trainer
from nat_jax.tasks.zero_shot import build, scores
from nat_jax.tasks.zero_shot.scores import View
from nat_jax.tasks.zero_shot.step import COPIES, MODEL, TWIN

RIDGE = 'ridge'
METHODS = (*scores.NETWORKS, RIDGE)
CALIBRATED = '_calibrated'  # end of the name of an evaluation
ALPHAS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)  # of ridge regression
TEST, FEATURES = f'{results.SCORES}/test', 'features'  # names of .npz files
DRAWN = 40  # rows and generated features per class that are saved for a figure


def views_of(examples: data.ZeroShot, calibrate: bool) -> dict[str, View]:
  """What each copy of the networks classifies: the test rows, and the validation rows.

  The twin also classifies rows of held-out classes of the part train, on which it is
  not trained.

  Args:
    examples: of the source.
    calibrate: whether there is a twin.
  """
  trained = build.trained_rows(examples, calibrate)
  found = {MODEL: View(
      np.append(examples.test_seen, examples.test_unseen),
      np.append(examples.seen, examples.unseen), trained[MODEL])}
  if calibrate:
    left = np.setdiff1d(examples.train, trained[TWIN])
    found[TWIN] = View(
        np.append(examples.validation, left), examples.seen, trained[TWIN])
  return {name: view._replace(candidates=np.sort(view.candidates))
          for name, view in found.items()}


def make_evaluator(
    config: Mapping[str, Any], workdir: str, given: Inputs, trainer: Trainer, mesh,
    others: Others,
) -> Evaluator:
  """Returns the `Evaluator` of zero-shot classifiers.

  There is an evaluation for each method in `METHODS`, and one with the end
  '_calibrated' if there is a twin; that of ridge regression is made at the end only.

  Args:
    config, workdir, given, trainer, mesh, others: see `task.Task.evaluator`.

  Raises:
    ValueError: see `build.load_examples`.
  """
  del given, others
  examples = build.load_examples(config)
  views = views_of(examples, config['calibrate'])
  score_of = {name: scores.network_scores(
      config, trainer, mesh, COPIES.index(name), examples, view)
      for name, view in views.items()}

  def run(state, asked, final):
    del asked
    found = {name: score_of[name](state) for name in views}
    of_all = {name: of_copy for name, (of_copy, _) in found.items()}
    if final:
      ridge = by_ridge(examples, views)
      of_all = {name: of_all[name] | {RIDGE: ridge[name]} for name in views}
    return measure(of_all, examples, views), (of_all[MODEL], found[MODEL][1])

  def save(state, step, figures, details):
    del state
    by_method, made = details
    view = views[MODEL]
    evaluation = {
        'class_names': [examples.names[c] for c in view.candidates],
        'seen': seen_of(examples, view).tolist(), 'evals': figures}
    return results.write_evaluation(workdir, config, step, evaluation, {
        TEST: {'row': view.rows, 'candidate': view.candidates,
               'label': examples.label[view.rows], **by_method},
        FEATURES: drawn(examples, made)})

  d, (n, k) = examples.feature.shape[1], map(len, views[MODEL][:2])
  return Evaluator(
      {scores.DISCRIMINATOR: config['run']['eval_every']}, run, save, summary,
      8 * n * (k * len(METHODS) + 3) + 8 * DRAWN * k * (d + 2))


def seen_of(examples: data.ZeroShot, view: View) -> np.ndarray:
  """Which candidates have a trained row, bool [k]."""
  return np.isin(view.candidates, examples.label[view.trained])


def by_ridge(
    examples: data.ZeroShot, views: Mapping[str, View]
) -> dict[str, np.ndarray]:
  """{copy: scores by ridge regression}, with the best alpha on validation rows, or 1.
  """
  best, chosen = -1.0, 1.0
  for alpha in ALPHAS if TWIN in views else ():
    found = scores.ridge_scores(examples, views[TWIN], alpha)
    _, value = metrics.choose_constant(found, *_labels(examples, views[TWIN]))
    if value > best:
      best, chosen = value, alpha
  return {name: scores.ridge_scores(examples, view, chosen)
          for name, view in views.items()}


def _labels(examples, view):
  """(the place of the class of each row among the candidates, which are seen)."""
  return (np.searchsorted(view.candidates, examples.label[view.rows]),
          seen_of(examples, view))


def measure(
    of_all: Mapping[str, Mapping[str, np.ndarray]], examples: data.ZeroShot,
    views: Mapping[str, View],
) -> dict[str, dict[str, Any]]:
  """The figures of each method, and of each calibrated one if there is a twin.

  Args:
    of_all: copy of the networks -> {method: scores [n, k]}.
    examples: of the source.
    views: from `views_of`.
  """
  figures, (label, seen) = {}, _labels(examples, views[MODEL])
  for method, found in of_all[MODEL].items():
    figures[method] = metrics.generalised(found, label, seen) | {'n': len(label)}
    if TWIN in views:
      constant, value = metrics.choose_constant(
          of_all[TWIN][method], *_labels(examples, views[TWIN]))
      figures[method + CALIBRATED] = {
          **metrics.generalised(found, label, seen, constant), 'n': len(label),
          'constant': constant, 'validation_harmonic_mean': value}
  return figures


def drawn(
    examples: data.ZeroShot, made: Mapping[int, np.ndarray]
) -> dict[str, np.ndarray]:
  """At most `DRAWN` test rows and generated features of each unseen class.

  Args:
    examples: of the source.
    made: unseen class -> features.

  Returns:
    {'feature': [n, d], 'label': [n], 'generated': bool [n]}.
  """
  label = examples.label[examples.test_unseen]
  parts = [(c, kind, values[:DRAWN]) for c in made for kind, values in (
      (False, examples.feature[examples.test_unseen[label == c]]), (True, made[c]))]
  return {'feature': np.concatenate([values for *_, values in parts]),
          'label': np.repeat([c for c, *_ in parts], [len(one[2]) for one in parts]),
          'generated': np.repeat([kind for _, kind, _ in parts],
                                 [len(one[2]) for one in parts])}


def summary(figures: Mapping[str, Any]) -> str:
  """Returns H of every method in a line, calibrated where it is."""
  parts = []
  for method in METHODS:
    one = figures.get(method + CALIBRATED, figures.get(method))
    if one:
      parts.append(f'{method} {one["harmonic_mean"]:.3f}')
  calibrated = any(name.endswith(CALIBRATED) for name in figures)
  return f'H{" (calibrated)" * calibrated}: ' + '  '.join(parts)


def predict(
    run: Run, features: np.ndarray, method: str = scores.DISCRIMINATOR,
    constant: float = 0.0,
) -> np.ndarray:
  """The class of each of new feature vectors, int [n], a place in `run.class_names`.

  Args:
    run: of the task 'zero_shot', from `runs.restore`; its source is read again.
    features: [n, d], of the network that made those of the source.
    method: one of `scores.NETWORKS`.
    constant: of calibrated stacking, as in eval.json; 0: none.

  Raises:
    ValueError: another method, or other features than the source has.
  """
  if method not in scores.NETWORKS:
    raise ValueError(names.unknown('method', method, scores.NETWORKS))
  features = np.asarray(features, np.float32)
  if features.shape[1:] != run.shape or not np.isfinite(features).all():
    raise ValueError(
        f'expected finite features [n, {run.shape[0]}], as in the source of the run, '
        f'got the shape {list(features.shape)}')
  examples = build.load_examples(run.config)
  view = views_of(examples, run.config['calibrate'])[MODEL]
  rows = len(examples.label) + np.arange(len(features))
  examples = examples._replace(feature=np.concatenate([examples.feature, features]))
  found, _ = scores.network_scores(
      run.config, run.trainer, run.mesh, 0, examples, view._replace(rows=rows))(
          run.state)
  seen = seen_of(examples, view)
  return view.candidates[(found[method] - constant * seen).argmax(1)]
