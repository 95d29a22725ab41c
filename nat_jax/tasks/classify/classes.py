"""Tables of single classes, of confusions between them, and of corrupted positives.

    for table in tables(reports.group(runs)):
      print(table.markdown())
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nat_jax import metrics
from nat_jax.reports.tables import Table, counts_text, mean_text
from nat_jax.schema import CORRUPTION

Groups = Mapping[str, Sequence[Mapping[str, Any]]]

MOST_CLASSES = 50  # rows of the table of classes
MOST_CELLS = 12  # classes of a confusion matrix; with more, the most frequent mistakes
MOST_PAIRS = 20
MOST_GROUPS = 4  # with a confusion matrix each: the last ones, after the baselines


def tables(groups: Groups) -> Iterator[Table]:
  """Yields the tables of the runs whose eval.json has such figures.

  Args:
    groups: from `reports.group`.
  """
  known = {label: same for label, runs in groups.items()
           if (same := [run for run in runs if 'classes' in run['evaluation']])}
  alike = len({  # the same test sets for all groups
      (*runs[0]['class_names'],
       frozenset(tuple(run['evaluation']['classes']['n']) for run in runs))
      for runs in known.values()}) <= 1
  if known and alike:
    yield _classes(known)
  for label, runs in list(known.items())[-MOST_GROUPS:]:
    yield _confusions(label, runs)
  yield from _corrupted(groups)


def _classes(groups):
  """Accuracy and acceptance of each class, for each group."""
  names = next(iter(groups.values()))[0]['class_names']
  of_group = {label: [run['evaluation']['classes'] for run in runs]
              for label, runs in groups.items()}
  rows = []
  for k, name in enumerate(names):
    row = [name, counts_text(
        one['n'][k] for found in of_group.values() for one in found)]
    for found in of_group.values():
      row += [mean_text([one[key][k] for one in found if one[key][k] is not None], 3)
              for key in ('accuracy', 'accepted')]
      row += [_interval(found[0], k)] if len(groups) == len(found) == 1 else []
    rows.append(row)
  title = ('Classes of the test positives. Accepted: share of its images whose score '
           'reaches the threshold that keeps 95 % of all of them.')
  if len(names) > MOST_CLASSES:
    first = next(iter(of_group.values()))[0]['accuracy']
    worst = sorted(range(len(names)), key=lambda k: (first[k] is None, first[k]))
    rows = [rows[k] for k in worst[:MOST_CLASSES]]
    title += f' The {MOST_CLASSES} of {len(names)} classes with the lowest accuracy.'
  one, header = len(groups) == 1, ['class', 'n']
  for label, found in of_group.items():
    header += [key if one else f'{key} {label}' for key in ('accuracy', 'accepted')]
    header += ['95 % of accuracy'] if one and len(found) == 1 else []
  return Table(title, header, rows)


def _interval(found, k):
  n, accuracy = found['n'][k], found['accuracy'][k]
  if not n:
    return '-'
  low, high = metrics.proportion_interval(round(accuracy * n), n)
  return f'{low:.3f} to {high:.3f}'


def _confusions(label, runs):
  """The confusion matrix of a group, summed over its runs; or its largest counts."""
  names, found = runs[0]['class_names'], [run['evaluation']['classes'] for run in runs]
  which = f'{label}, sum of {len(runs)} seeds' if len(runs) > 1 else label
  if all('confusion' in one for one in found):
    width = max(len(one['confusion'][0]) for one in found)
    counts = np.zeros((len(names), width), int)
    for one in found:
      part = np.array(one['confusion'])
      counts[:, :part.shape[1]] += part
    if len(names) <= MOST_CELLS:
      return Table(
          f'Confusion matrix of the test positives, number of images: {which}. Row: '
          'the class; column: the prediction.',
          ['class', *names, *['none'] * (width - len(names))],
          [[name, *(str(count) if count else '·' for count in row)]
           for name, row in zip(names, counts.tolist(), strict=True)])
    np.fill_diagonal(counts, 0)
    pairs = [(i, j, int(counts[i, j])) for i, j in np.argwhere(counts)]
  else:
    sums: dict[tuple[int, int], int] = {}
    for one in found:
      for i, j, count in one['confused']:
        sums[i, j] = sums.get((i, j), 0) + count
    pairs = [(*pair, count) for pair, count in sums.items()]
  pairs = sorted(pairs, key=lambda pair: -pair[2])[:MOST_PAIRS]
  return Table(
      f'Most frequent mistakes on the test positives, number of images: {which}.',
      ['class', 'prediction', 'images'],
      [[names[i], names[j] if j < len(names) else 'none', str(count)]
       for i, j, count in pairs], left=2)


def _corrupted(groups) -> Iterator[Table]:
  """Accuracy and acceptance of corrupted positives, by strength, for each group."""
  for label, runs in groups.items():
    cells: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for run in runs:
      for figures in run['evals'].values():
        if figures.get('type') == CORRUPTION:
          cells.setdefault((figures['corruption'], figures['strength']), []).append(
              figures)
    if not cells:
      continue
    kinds = list(dict.fromkeys(kind for kind, _ in cells))
    counts = sorted({str(one['n']) for found in cells.values() for one in found})
    yield Table(
        f'Corrupted test positives ({" or ".join(counts)} images): {label}. Accuracy / '
        'accepted, the share whose score reaches the threshold that keeps 95 % of the '
        'uncorrupted ones. Wrong classes should rather be refused than accepted.',
        ['strength', *kinds],
        [[str(strength), *(_both(cells.get((kind, strength), [])) for kind in kinds)]
         for strength in sorted({strength for _, strength in cells})])


def _both(found):
  """'accuracy / accepted' of one cell, means over seeds."""
  return ' / '.join(mean_text([one[key] for one in found], 3)
                    for key in ('accuracy', 'accepted'))
