"""The table, the figures and the verdict of a report on zero-shot classifiers.

    for table in tables(reports.group(runs)):
      print(table.markdown())
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nat_jax.metrics import METRICS
from nat_jax.reports.frames import frame
from nat_jax.reports.tables import Table, cells, labels, mean_text, values_of
from nat_jax.runtime import results
from nat_jax.tasks.zero_shot import figures as plots
from nat_jax.tasks.zero_shot.evaluate import CALIBRATED, FEATURES, METHODS, RIDGE
from nat_jax.tasks.zero_shot.scores import DISCRIMINATOR, NETWORKS

TITLES = {  # of the methods
    'discriminator': 'discriminator, argmax D(x, s)',
    'regressor': 'regressor, nearest embedding',
    'generated': 'generated features, nearest neighbour',
    'ridge': 'ridge regression, nearest embedding'}
DRAWN = ('discriminator', 'generated', 'ridge')  # methods in the figure of classes
COLUMNS = ('accuracy_unseen', 'accuracy_seen', 'harmonic_mean', 'accuracy_unseen_only',
           'constant', 'validation_harmonic_mean')

Groups = Mapping[str, Sequence[Mapping[str, Any]]]


def tables(groups: Groups) -> list[Table]:
  """U, S and H of every method, as they are and calibrated, beside ridge regression.

  Args:
    groups: from `reports.group`: label -> runs of one experiment, one per seed.
  """
  found, shown, rows = cells(frame(groups)), labels(groups), []
  for method in METHODS:
    for end in ('', CALIBRATED):
      of_group = {
          label: [found.get((label, method + end, metric, ''), '-')
                  for metric in COLUMNS] for label in groups}
      of_group = {label: row for label, row in of_group.items() if set(row) != {'-'}}
      distinct = {tuple(row) for row in of_group.values()}
      if method == RIDGE and len(distinct) == 1 and len(of_group) > 1:
        of_group = {'all': of_group[next(iter(of_group))]}
      title = TITLES[method] + (', calibrated' if end else '')
      rows += [[title, shown.get(label, label), *row]
               for label, row in of_group.items()]
  one = next(iter(groups.values()))[0]
  num, seen = next(iter(one['evals'].values()))['n'], one['evaluation']['seen']
  return [Table(
      f'Accuracy on {num} test rows of {sum(seen)} seen and '
      f'{len(seen) - sum(seen)} unseen classes, all of which are candidates; mean ± '
      'sample standard deviation over seeds. U, S: means over the unseen and over the '
      'seen classes of the accuracy of each class; H: their harmonic mean. Calibrated: '
      'a constant, chosen on validation rows and held-out seen classes, is subtracted '
      'from the scores of seen classes.',
      ['method', 'run', *(METRICS[name].title for name in COLUMNS)], rows, left=2)]


def best_method(runs: Sequence[Mapping[str, Any]]) -> str:
  """The method of the networks with the largest H on validation rows, calibrated.

  Without a calibration nothing is known of the methods but what the test says, which
  may not choose: it is the discriminator then.

  Args:
    runs: of one group.
  """
  values = {
      name: statistics.fmean(run['evals'][name]['validation_harmonic_mean']
                             for run in runs)
      for name in (method + CALIBRATED for method in NETWORKS)
      if all(name in run['evals'] for run in runs)}
  return max(values, key=values.get) if values else DISCRIMINATOR


def verdict(groups: Groups) -> list[tuple[str, list[str]]]:
  """How well seen and unseen classes are told apart, in words: (headline, sentences).

  Args:
    groups: from `reports.group`.
  """
  said = []
  for label, runs in groups.items():
    best = best_method(runs)
    end = CALIBRATED if best.endswith(CALIBRATED) else ''

    def text(name, metric, runs=runs):
      return mean_text(values_of(runs, name, metric), METRICS[metric].digits)

    title = TITLES[best.removesuffix(CALIBRATED)] + (', calibrated' if end else '')
    sentences = [
        'The accuracy on classes without training examples is '
        f'{text(best, "accuracy_unseen")} (U), on the others '
        f'{text(best, "accuracy_seen")} (S).',
        'Of the three ways to classify by the networks it has the largest H on '
        f'validation rows, {text(best, "validation_harmonic_mean")}.' if end else
        'Nothing is calibrated, so that no method was chosen.']
    if statistics.fmean(values_of(runs, best, 'accuracy_unseen')) < 0.05:
      sentences.append(_unrecognised(runs, best))
    if best.removesuffix(CALIBRATED) != DISCRIMINATOR:
      sentences.append(
          'By the discriminator of pairs alone: H '
          f'{text(DISCRIMINATOR + end, "harmonic_mean")}.')
    if all(RIDGE + end in run['evals'] for run in runs):
      own, rival = (statistics.fmean(values_of(runs, name, 'harmonic_mean'))
                    for name in (best, RIDGE + end))
      sentences.append(
          'Ridge regression of the embedding, a baseline without any network, is '
          f'{"better" if rival > own else "not better"}: H '
          f'{text(RIDGE + end, "harmonic_mean")}.')
    sentences.append(
        '±: sample standard deviation over seeds.' if len(runs) > 1 else
        'One seed: another one gives other figures, by an amount that is not known.')
    said.append((f'{label}: H {text(best, "harmonic_mean")} ({title}).', sentences))
  return said


def _unrecognised(runs, best):
  """What is known of the rows of unseen classes that are hardly ever recognised.

  With the seen classes as candidates, rows that are right among the unseen classes
  alone are right still, or taken for a seen class.
  """
  alone, right = (values_of(runs, best, name)
                  for name in ('accuracy_unseen_only', 'accuracy_unseen'))
  taken = statistics.fmean(alone) - statistics.fmean(right) if alone else 0.0
  return 'Unseen classes are hardly ever recognised' + (
      ': most of their rows are taken for seen classes.' if taken > 0.5 else '.')


def figures(groups: Groups) -> Iterator[tuple[str, str, str, Any]]:
  """Yields (file name, caption, note on what is missing or '', figure or None)."""
  bars, clouds = {}, {}
  end = CALIBRATED if all(
      DISCRIMINATOR + CALIBRATED in run['evals'] for runs in groups.values()
      for run in runs) else ''
  for label, runs in groups.items():
    first = runs[0]['evaluation']
    bars[label] = plots.Bars(
        {TITLES[name]: _class_means(runs, name + end) for name in DRAWN
         if all(name + end in one['evals'] for one in runs)},
        first['seen'], first['class_names'])
  yield ('class_accuracies', 'Accuracy of every class, seen classes on the left and '
         f'unseen ones on the right{", calibrated" if end else ""}', '',
         plots.class_accuracies(bars))
  known = next(iter(groups.values()))[0]['evaluation']
  for label, runs in groups.items():
    if runs[0]['evaluation']['class_names'] != known['class_names']:
      continue
    found = results.read_arrays(
        runs[0]['workdir'], FEATURES, runs[0]['step'],
        ['feature', 'label', 'generated'])
    if found is not None:
      clouds[label] = found
  yield ('features', 'Features of the first unseen classes in the plane of their first '
         'two principal components: test rows, and features that the decoder made of '
         'the embedding', '' if clouds else f'Left out: no run has {FEATURES}.npz.',
         plots.projections(clouds, known) if clouds else None)


def _class_means(runs, name):
  """The mean over runs of the accuracy of each class; NaN where it is not known."""
  return np.mean([np.array(run['evals'][name]['class_accuracies'], float)
                  for run in runs], 0)
