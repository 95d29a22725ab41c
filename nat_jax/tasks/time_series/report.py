"""The tables, figures and words of a report on detectors of anomalies in time series.

    for table in tables(reports.group(runs)):
      print(table.markdown())
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nat_jax.metrics import METRICS
from nat_jax.reports.frames import frame
from nat_jax.reports.tables import (
  Table,
  cells,
  joined,
  labels,
  mean_text,
  percent,
  values_of,
)
from nat_jax.runtime import results
from nat_jax.tasks.time_series import figures as plots
from nat_jax.tasks.time_series.evaluate import (
  DR,
  PCA,
  RESIDUAL,
  TEST,
  UNREAL,
  UNTRAINED,
)

TITLES = {DR: 'DR', RESIDUAL: 'R alone', UNREAL: '1 - D alone',
          UNTRAINED: 'DR, untrained networks', PCA: 'PCA of windows'}
COLUMNS = ('auroc', 'f1', 'precision', 'recall', 'false_alarms', 'false_alarms_apart')
CLOSE = 0.01  # AUROC that differ by less are called equal

Groups = Mapping[str, Sequence[Mapping[str, Any]]]


def tables(groups: Groups) -> list[Table]:
  """The metrics of every score, and its AUROC for every kind of anomalies.

  Args:
    groups: from `reports.group`: label -> runs of one experiment, one per seed.
  """
  found = cells(frame(groups))
  rows = _rows(groups, found)
  if not rows:
    return [Table(
        'The anomalies are not known: the share of the test series that is flagged.',
        ['run', 'flagged'],
        [[head, found.get((group, DR, 'flagged', ''), '-')]
         for group, head in labels(groups).items()])]
  kinds = list(dict.fromkeys(
      t for group, _, metric, t in found if metric == 'kind_auroc'))
  aim = next(iter(groups.values()))[0]['config']['measures']['false_alarm_rate']
  about = 'mean ± sample standard deviation over seeds'
  return [
      Table(f'Scores of time steps. F1, precision, recall and false alarms (share of '
            f'normal time steps; apart: more than a window away from anomalies) are at '
            f'the threshold that {aim:.1%} of normal validation data exceed, without '
            f'point adjustment; {about}.',
            ['score', *(METRICS[name].title for name in COLUMNS)],
            [[head, *(found.get((group, name, one, ''), '-') for one in COLUMNS)]
             for head, group, name in rows]),
      Table(f'AUROC of every kind of anomalies against normal time steps; {about}.',
            ['score', *kinds],
            [[head, *(found.get((group, name, 'kind_auroc', kind), '-')
                      for kind in kinds)] for head, group, name in rows])]


def _rows(groups, found):
  """(head, group, name of the score); a PCA that is the same as the first once."""
  heads = {group: f'{head}: ' if len(groups) > 1 else ''
           for group, head in labels(groups).items()}
  first = next(iter(groups))
  rows = [(head + TITLES[name], group, name) for group, head in heads.items()
          for name in (DR, RESIDUAL, UNREAL, UNTRAINED)]
  rows += [(head + TITLES[PCA], group, PCA) for group, head in heads.items()
           if group == first or any(found.get((group, PCA, one, '')) != found.get(
               (first, PCA, one, '')) for one in COLUMNS)]
  return [row for row in rows if (*row[1:], 'auroc', '') in found]


def verdict(groups: Groups) -> list[tuple[str, list[str]]]:
  """How well anomalies are found, in words: (headline, sentences) for each group.

  Args:
    groups: from `reports.group`.
  """
  said = []
  for label, runs in groups.items():
    values = {name: values_of(runs, name, 'auroc') for name in TITLES}
    if not values[DR]:
      said.append((f'{label}: which time steps are anomalies is not known.', []))
      continue
    own = statistics.fmean(values[DR])
    sentences = [
        _compared(TITLES[name], statistics.fmean(values[name]), own)
        for name in (PCA, UNTRAINED, RESIDUAL, UNREAL) if values[name]]
    aim = runs[0]['config']['measures']['false_alarm_rate']
    alarms, apart = (values_of(runs, DR, name)
                     for name in ('false_alarms', 'false_alarms_apart'))
    sentences.append(
        f'At the threshold for false alarms in {percent(aim)} of normal time steps, '
        f'the F1 is {mean_text(values_of(runs, DR, "f1"), 3)} and false alarms are '
        f'{percent(statistics.fmean(alarms))} of all normal time steps'
        + (f', and {percent(statistics.fmean(apart))} of the normal time steps that '
           'are more than a window away from every anomaly.' if apart else '.'))
    said.append((f'{label}: AUROC of the DR score {mean_text(values[DR], 3)}.',
                 [*sentences, _negatives(runs[0])]))
  return said


def _compared(title, other, own):
  relation = ('about as good' if abs(other - own) < CLOSE else
              'better' if other > own else 'worse')
  return f'{title}: {relation}, {other:.3f}.'


def _negatives(run):
  settings = run['config']['data']
  if not settings['negative_share'] or run['config']['negative_weight'] == 0:
    return 'No negatives in training.'
  shown = run['evaluation'].get('kinds', [])[1:]
  seen = [kind for kind in shown if kind in settings['negative_kinds']]
  return (f'Negatives in training: {joined(settings["negative_kinds"])}. Anomalies of '
          f'the test series: {joined(shown)}; of these names, negatives in training '
          f'have {joined(seen) or "none"}.')


def figures(groups: Groups) -> Iterator[tuple[str, str, str, Any]]:
  """Yields (file name, caption, note, figure or None): a test series with its scores.

  Args:
    groups: from `reports.group`.
  """
  for label, runs in groups.items():
    run = runs[0]
    arrays = results.read_arrays(run['workdir'], TEST, run['step'])
    note = '' if arrays else 'Left out: the run has no test series.'
    part = ''.join(
        f', the first {most:,} {what}' for num, most, what in zip(
            arrays['values'].shape if arrays else (),
            (plots.MOST_STEPS, plots.MOST_SENSORS), ('time steps', 'sensors'),
            strict=False) if num > most)
    yield (f'series-{label}' if len(groups) > 1 else 'series',
           f'Test series and scores: {label}, seed {run["seed"]}{part}', note,
           arrays and plots.series(arrays, run))
