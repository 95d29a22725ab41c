"""Several seeds: 95 % intervals, and groups compared with the one they compete with.

    tests = comparisons(frame(groups), {'nat': 'baseline'})
    verdicts(tests)['nat', 'noise', 'ncr', '0.4']        # 'lower (p 0.01)'
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from nat_jax.reports.tables import KEY

CONFIDENCE = 0.95
METHOD = ("two-sided Welch tests over seeds at 5 %, p by Holm's correction over all "
          'cells of the table. "no test": two constants that differ.')


class Comparison(NamedTuple):
  """The values of two groups over seeds, and the paper's figure of each or None."""

  ours: Sequence[float]
  theirs: Sequence[float]
  published: Sequence[float | None] = (None, None)


def comparisons(frame, rivals: Mapping[str, str]) -> dict[tuple, Comparison]:
  """What to test: each cell of a group with that of its rival.

  Args:
    frame: of `reports.frame`: all rows that one table is to compare.
    rivals: group -> the group that it is compared with.

  Returns:
    From (group, eval, metric, threshold) to the values of both, NaN where missing.
  """
  found = dict(list(frame.groupby(list(KEY), sort=False)))
  tests = {}
  for (group, *cell), ours in found.items():
    theirs = found.get((rivals.get(group), *cell))
    if theirs is not None:
      both = ours, theirs
      tests[group, *cell] = Comparison(
          *(one.value.tolist() for one in both),
          [None if math.isnan(one.paper.iloc[0]) else one.paper.iloc[0]
           for one in both])
  return tests


def intervals(frame) -> dict[tuple, str]:
  """The text of each cell that has several seeds: '0.785..0.835 (0.971)'.

  That is the interval of `interval`, cut off at 0 and 1, and the paper's value if any.
  """
  found = {}
  for key, rows in frame.groupby(list(KEY), sort=False):
    values, published = rows.value.dropna(), rows.paper.iloc[0]
    if len(values) > 1:
      low, high = interval(values.tolist())
      found[key] = f'{max(low, 0):.3f}..{min(high, 1):.3f}' + (
          '' if math.isnan(published) else f' ({published:g})')
  return found


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

  one, other = _finite(one), _finite(other)
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


def verdicts(
    tests: Mapping[tuple, Comparison],
    p_value: Callable[[Sequence[float], Sequence[float]], float] = welch,
) -> dict[tuple, str]:
  """Compares groups of seeds by tests that are one family for Holm's correction.

  Args:
    tests: what the cells of one table compare.
    p_value: of the values of two groups.

  Returns:
    For each a text: 'lower (p 0.01)', 'higher against the paper (p 0.01)', 'not shown
    (p 0.2)'; '-' without two seeds in each group, 'no test' for two constants.
  """
  adjusted = holm([p_value(test.ours, test.theirs) for test in tests.values()])
  return {key: _verdict(test, p)
          for (key, test), p in zip(tests.items(), adjusted, strict=True)}


def _verdict(test, p):
  ours, theirs = _finite(test.ours), _finite(test.theirs)
  if min(len(ours), len(theirs)) < 2:
    return '-'
  if math.isnan(p):
    return 'no test'
  if p >= 1 - CONFIDENCE:
    return f'not shown (p {p:.1g})'
  found = _direction(statistics.fmean(ours), statistics.fmean(theirs))
  if None not in test.published:
    agrees = _direction(*test.published) == found
    found += ' as in the paper' if agrees else ' against the paper'
  return f'{found} (p {p:.1g})'


def _direction(one, other):
  return 'higher' if one > other else 'lower'


def _finite(values):
  return [value for value in values if math.isfinite(value)]
