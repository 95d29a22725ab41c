"""Statistics over seeds: 95 % intervals, and tests of groups against their baselines.

    tests = comparisons(frame(groups), {'nat': 'baseline'})
    verdicts(tests)['nat', 'noise', 'ncr', '0.4']        # 'lower (p 0.01)'

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.02])]
    [0.03, 0.04, 0.04]
"""

import math
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from nat_jax.reports.tables import KEY

CONFIDENCE = 0.95
METHOD = ("two-sided Welch tests over seeds at 5 %, p by Holm's correction over all "
          'cells of the table. "no test": two constants that differ.')


class Comparison(NamedTuple):
  """A test of a group of runs against its baseline.

  Attributes:
    ours: the values of the group, one per seed.
    theirs: the values of its baseline, one per seed.
    published: the paper's values of the group and of the baseline, or None.
  """

  ours: Sequence[float]
  theirs: Sequence[float]
  published: Sequence[float | None] = (None, None)


def comparisons(frame, rivals: Mapping[str, str]) -> dict[tuple, Comparison]:
  """The tests of one table: each cell of a group against that of its baseline.

  Args:
    frame: from `reports.frame`, the rows that the table compares.
    rivals: group -> the group that it is compared with.

  Returns:
    {(group, eval, metric, threshold): Comparison}; missing values are NaN.
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
  """Interval and published value of each cell with several seeds: '0.78..0.83 (0.971)'.

  Args:
    frame: from `reports.frame`.

  Returns:
    {(group, eval, metric, threshold): text}. The text holds the ends of `interval`,
    limited to [0, 1], and in brackets the paper's value, if there is one.
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
  """Student's 95 % confidence interval (low, high) of the mean of `values`."""
  from scipy import stats

  mean, error = statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5
  reach = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * error
  return mean - reach, mean + reach


def welch(one: Sequence[float], other: Sequence[float]) -> float:
  """The two-sided p-value of Welch's t-test between two groups of values.

  It is 1 where both groups are constant and equal. It is NaN where there is no test:
  fewer than two values in a group, or two different constants, where t divides by 0.
  Values that are not finite are ignored.

  Reference: Welch, "The Generalization of 'Student's' Problem when Several Different
  Population Variances are Involved", 1947.
  """
  from scipy import stats

  one, other = _finite(one), _finite(other)
  if min(len(one), len(other)) < 2:
    return math.nan
  if statistics.pstdev(one) == statistics.pstdev(other) == 0:
    return 1.0 if one[0] == other[0] else math.nan
  with warnings.catch_warnings():
    # SciPy warns that it cannot know the variance of a constant group, which is 0.
    warnings.filterwarnings('ignore', 'Precision loss', RuntimeWarning)
    return float(stats.ttest_ind(one, other, equal_var=False).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
  """Holm's correction of the p-values of a family of tests, dependent or not.

  The adjusted p_(i) of p_(1) <= ... <= p_(m) is max_{j <= i} min(1, (m - j + 1) p_(j)).
  With 95 % confidence all differences with an adjusted p below 5 % are real.

  Args:
    p_values: [m]; NaN (no test) does not count.

  Returns:
    [m] adjusted p-values in the order given; NaN stays NaN.

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
  """The result of each test in words; all tests are one family of Holm's correction.

  Args:
    tests: from `comparisons`, of one table.
    p_value: (values, values of the baseline) -> p-value.

  Returns:
    {key of `tests`: text}. The text is such as 'lower (p 0.01)', 'higher against the
    paper (p 0.01)' or 'not shown (p 0.2)'; '-' with fewer than two seeds in a group;
    'no test' for two different constants.
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
