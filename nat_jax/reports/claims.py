"""Several seeds: 95 % intervals, the paper's figures beside ours, its claims tested.

    for table in claim_tables(report.group(runs)):
      print(table.markdown())
"""

import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from nat_jax.reports import paper
from nat_jax.reports.tables import THRESHOLDS, Table, set_names

CONFIDENCE = 0.95

Groups = Mapping[str, Sequence[Mapping[str, Any]]]


def claim_tables(groups: Groups) -> list[Table]:
  """Tables over the seeds of each group, or [] where no group has two.

  Args:
    groups: of `report.group`: label -> runs of one experiment, a seed each.

  Returns:
    A table of means with intervals over seeds, and one that compares every group with
    the baseline of the same experiment: 'student_nat' with 'student_baseline', say.
  """
  several = {label: runs for label, runs in groups.items() if len(runs) > 1}
  if not several:
    return []
  _, negatives = set_names([r['evals'] for r in runs] for runs in several.values())
  found = [_interval_table(several, negatives)]
  pairs = {label: _baseline_of(label, several) for label in several}
  pairs = {label: baseline for label, baseline in pairs.items() if baseline}
  if pairs:
    found.append(_comparison_table(several, negatives, pairs))
  return found


def _baseline_of(label, groups):
  """The baseline to compare a group with, of the same experiment; None: there is none.

  'student_baseline' rather than 'teacher_baseline' for 'student_nat'.
  """
  name, variant = (groups[label][0][key] for key in ('name', 'variant'))
  if variant.endswith('baseline'):
    return None
  return max(
      (other for other, runs in groups.items()
       if runs[0]['name'] == name and runs[0]['variant'].endswith('baseline')),
      key=lambda other: len(
          os.path.commonprefix([groups[other][0]['variant'], variant])), default=None)


def interval(values: Sequence[float]) -> tuple[float, float]:
  """The 95 % interval of the mean of a few values (Student's t)."""
  from scipy import stats

  mean, error = statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5
  reach = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * error
  return mean - reach, mean + reach


def welch(one: Sequence[float], other: Sequence[float]) -> float:
  """Two-sided p-value of Welch's t-test; 1 if neither group varies and means agree."""
  from scipy import stats

  if statistics.pstdev(one) == statistics.pstdev(other) == 0:
    return float(one[0] == other[0])
  return float(stats.ttest_ind(one, other, equal_var=False).pvalue)


def _values(runs, name, threshold):
  return [run['evals'][name]['ncr'][threshold] for run in runs if name in run['evals']]


def _interval_table(groups, negatives):
  rows = []
  for label, runs in groups.items():
    for t in THRESHOLDS:
      row = [label if t == THRESHOLDS[0] else '', t]
      for name in negatives:
        values = _values(runs, name, t)
        if len(values) < 2:
          row.append('-')
          continue
        low, high = interval(values)
        text = f'{max(low, 0):.3f}..{min(high, 1):.3f}'
        published = paper.ncr(runs[0]['name'], runs[0]['variant'], name, t)
        row.append(text if published is None else f'{text} ({published:g})')
      rows.append(row)
  counts = ', '.join(f'{label} {len(runs)}' for label, runs in groups.items())
  return Table(
      'NCR_t: 95 % interval of the mean over seeds (Student), in brackets the figure '
      f'the paper printed for its full-size run. Seeds: {counts}.',
      ['run', 't', *negatives], rows, left=2)


def _comparison_table(groups, negatives, pairs):
  rows = []
  for label, baseline in pairs.items():
    runs = groups[label]
    for t in THRESHOLDS:
      row = [label if t == THRESHOLDS[0] else '', t]
      for name in negatives:
        ours, theirs = _values(runs, name, t), _values(groups[baseline], name, t)
        if min(len(ours), len(theirs)) < 2:
          row.append('-')
          continue
        p = welch(ours, theirs)
        verdict = 'not shown'
        if p < 1 - CONFIDENCE:
          lower = statistics.fmean(ours) < statistics.fmean(theirs)
          verdict = 'lower' if lower else 'higher'
          verdict += _agreement(runs[0], groups[baseline][0], name, t, verdict)
        row.append(f'{verdict} (p {p:.1g})')
      rows.append(row)
  baselines = ' and '.join(dict.fromkeys(pairs.values()))
  return Table(
      f'NCR_t against {baselines}: lower or higher by a two-sided Welch test over '
      'seeds at 5 %, each cell for itself.',
      ['run', 't', *negatives], rows, left=2)


def _agreement(run, base, name, t, verdict):
  ours, theirs = (paper.ncr(r['name'], r['variant'], name, t) for r in (run, base))
  if ours is None or theirs is None:
    return ''
  claimed = 'lower' if ours < theirs else 'higher'
  return ' as in the paper' if claimed == verdict else ' against the paper'
