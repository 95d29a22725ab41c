"""Several seeds: 95 % intervals, the paper's figures beside ours, its claims tested.

    for table in claim_tables(report.group(runs)):
      print(table.markdown())
"""

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nat_jax.reports import paper
from nat_jax.reports.tables import THRESHOLDS, Table, find, set_names

CONFIDENCE = 0.95
METHOD = ("two-sided Welch tests over seeds at 5 %, p by Holm's correction over all "
          'cells of the table. "no test": two constants that differ.')

Groups = Mapping[str, Sequence[Mapping[str, Any]]]


class Comparison(NamedTuple):
  """The values of two groups over seeds, and the paper's figure of each or None."""

  ours: Sequence[float]
  theirs: Sequence[float]
  published: Sequence[float | None] = (None, None)


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
  """Two-sided p-value of Welch's t-test over seeds.

  1 where neither group varies and the means agree. NaN where there is no test: fewer
  than two values, or two constants that differ, whose t is a division by 0.

  Reference: Welch, "The Generalization of 'Student's' Problem when Several Different
  Population Variances are Involved", 1947.
  """
  from scipy import stats

  if min(len(one), len(other)) < 2:
    return math.nan
  if statistics.pstdev(one) == statistics.pstdev(other) == 0:
    return 1.0 if one[0] == other[0] else math.nan
  return float(stats.ttest_ind(one, other, equal_var=False).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
  """Holm's correction of the p-values of one family of tests, however they depend.

  Of p_(1) <= ... <= p_(m), adjusted: max_{j <= i} min(1, (m - j + 1) p_(j)). All that
  are below 5 % hold together with 95 % confidence.

  Args:
    p_values: [m]; NaN, which is no test, does not count.

  Returns:
    The adjusted ones, in the order given; NaN stays.

  Reference: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
  """
  found, adjusted, largest = list(p_values), list(p_values), 0.0
  order = sorted((i for i, p in enumerate(found) if not math.isnan(p)),
                 key=lambda i: found[i])
  for rank, i in enumerate(order):
    largest = max(largest, min(1.0, (len(order) - rank) * found[i]))
    adjusted[i] = largest
  return adjusted


def verdicts(tests: Mapping[tuple, Comparison]) -> dict[tuple, str]:
  """Compares groups of seeds by Welch's tests, which are one family for Holm.

  Args:
    tests: what the cells of one table compare.

  Returns:
    For each a text: 'lower (p 0.01)', 'higher against the paper (p 0.01)', 'not shown
    (p 0.2)'; '-' without two seeds in each group, 'no test' for two constants.
  """
  adjusted = holm([welch(test.ours, test.theirs) for test in tests.values()])
  return {key: _verdict(test, p)
          for (key, test), p in zip(tests.items(), adjusted, strict=True)}


def _verdict(test, p):
  if min(len(test.ours), len(test.theirs)) < 2:
    return '-'
  if math.isnan(p):
    return 'no test'
  if p >= 1 - CONFIDENCE:
    return f'not shown (p {p:.1g})'
  found = _direction(statistics.fmean(test.ours), statistics.fmean(test.theirs))
  if None not in test.published:
    agrees = _direction(*test.published) == found
    found += ' as in the paper' if agrees else ' against the paper'
  return f'{found} (p {p:.1g})'


def _direction(one, other):
  return 'higher' if one > other else 'lower'


def _values(runs, name, threshold):
  return find([run['evals'] for run in runs], name, 'ncr', threshold)


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
  found = verdicts({
      (label, t, name): Comparison(
          *(_values(groups[one], name, t) for one in (label, baseline)),
          [paper.ncr(groups[one][0]['name'], groups[one][0]['variant'], name, t)
           for one in (label, baseline)])
      for label, baseline in pairs.items() for t in THRESHOLDS for name in negatives})
  rows = [
      [label if t == THRESHOLDS[0] else '', t,
       *(found[label, t, name] for name in negatives)]
      for label in pairs for t in THRESHOLDS]
  baselines = ' and '.join(dict.fromkeys(pairs.values()))
  return Table(
      f'NCR_t against {baselines}: lower or higher by {METHOD}',
      ['run', 't', *negatives], rows, left=2)
