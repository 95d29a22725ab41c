"""The tables of a report on detectors of outliers.

    for table in tables(reports.group(runs)):
      print(table.markdown())
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nat_jax.metrics import METRICS
from nat_jax.reports.frames import frame
from nat_jax.reports.tables import Table, cells, labels, mean_text, values_of
from nat_jax.tasks.outliers.evaluate import BASELINES, CSV, GAAL

TITLES = {'isolation_forest': 'isolation forest', 'lof': 'LOF',
          'knn': 'k nearest neighbours'}  # of the baselines
COLUMNS = ('auroc', 'aupr_out', 'fpr95_id_positive', 'below_half')

Groups = Mapping[str, Sequence[Mapping[str, Any]]]


def tables(groups: Groups) -> list[Table]:
  """The metrics of every detector, and of scikit-learn's on the examples of the first.

  Args:
    groups: from `reports.group`: label -> runs of one experiment, one per seed.
  """
  found, first = cells(frame(groups)), next(iter(groups))
  rows = [(head, group, GAAL) for group, head in labels(groups).items()]
  rows += [(f'{TITLES[name]} (scikit-learn)', first, name) for name in BASELINES
           if (first, name, 'auroc', '') in found]
  one = groups[first][0]['evaluation']
  num, known = one['evals'][GAAL]['n'], one.get('num_outliers')
  return [Table(
      f'Outliers among {num} training examples'
      + (f', of which {known} are outliers. ' if known else '. ')
      + 'Positives are the normal examples; mean ± sample standard deviation over '
      'seeds. Every detector was fitted to the examples without labels.',
      ['detector', *(METRICS[name].title for name in COLUMNS)],
      [[head, *(found.get((group, of, name, ''), '-') for name in COLUMNS)]
       for head, group, of in rows])]


def verdict(groups: Groups) -> list[tuple[str, list[str]]]:
  """How well outliers are found, in words: (headline, sentences) for each group.

  Args:
    groups: from `reports.group`.
  """
  said = []
  for label, runs in groups.items():
    place = f'{runs[0]["workdir"]}/{CSV}'
    ranked = f'{place} lists all examples, the least normal first.'
    values = {name: values_of(runs, name, 'auroc') for name in (GAAL, *BASELINES)}
    values = {name: of_all for name, of_all in values.items() if of_all}
    if GAAL not in values:
      said.append((f'{label}: which examples are outliers is not known.', [ranked]))
      continue
    sentences = []
    rivals = {name: statistics.fmean(one) for name, one in values.items()
              if name != GAAL}
    if rivals:
      best, own = max(rivals, key=rivals.get), statistics.fmean(values[GAAL])
      relation = 'better' if rivals[best] > own else 'not better'
      sentences.append(
          f'The best of scikit-learn\'s detectors, {TITLES[best]}, is {relation}: '
          f'{rivals[best]:.3f}.')
    said.append((f'{label}: AUROC {mean_text(values[GAAL], 3)}.', [*sentences, ranked]))
  return said


def figures(groups: Groups) -> Iterator[tuple[str, str, str, Any]]:
  """Yields nothing: the tables say everything."""
  del groups
  yield from ()
