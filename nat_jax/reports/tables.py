"""Tables of text, made of the data frame of `reports.frame`.

    found = cells(frame(groups))
    table = arrange('Accuracy.', found, {'accuracy': {'metric': 'accuracy'}},
                    {'test': {'eval': 'test'}}, labels(groups))
    print(table.markdown())

    >>> mean_text([0.96, 0.97, 0.98], digits=3), mean_text([0.97], 3)
    ('0.970 ± 0.010', '0.970')
"""

import itertools
import math
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from nat_jax import metrics

KEY = ('group', 'eval', 'metric', 'threshold')  # columns that identify a cell
LONG = 64  # longer cells, in characters, are wrapped

Cells = Mapping[tuple[str, ...], str]
# Header of a row or column -> the entries of KEY that its cells share.
Parts = Mapping[str, Mapping[str, str]]


class Table(NamedTuple):
  """A table of text.

  Attributes:
    title: what the table shows.
    header: of the columns.
    rows: of cells.
    left: the number of columns, from the first on, that are aligned to the left; the
      others, of numbers, are aligned to the right.
  """

  title: str
  header: list[str]
  rows: list[list[str]]
  left: int = 1

  def markdown(self) -> str:
    """The title and a Markdown table, padded with spaces so as to be read as text."""
    rows = [line for row in self.rows for line in _folded(row)]
    columns = [[text.replace('|', '\\|') for text in column]
               for column in zip(self.header, *rows, strict=True)]
    for i, column in enumerate(columns):
      width = max(3, *map(len, column))  # of a rule that Markdown knows as one
      rule = '-' * width if i < self.left else '-' * (width - 1) + ':'
      pad = str.ljust if i < self.left else str.rjust
      columns[i] = [pad(text, width) for text in (column[0], rule, *column[1:])]
    lines = ['| ' + ' | '.join(row) + ' |' for row in zip(*columns, strict=True)]
    return '\n'.join([textwrap.fill(self.title, 100), '', *lines, ''])


def _folded(row):
  """The lines of a row whose long cells are wrapped."""
  parts = [textwrap.wrap(cell, LONG, break_long_words=False, break_on_hyphens=False)
           if len(cell) > LONG else [cell] for cell in row]
  return itertools.zip_longest(*parts, fillvalue='')


def cells(frame) -> dict[tuple[str, ...], str]:
  """The text of each cell: mean ± sample standard deviation over the runs of a group.

  The number of runs stands in brackets where it is less than that of the group.

  Args:
    frame: from `reports.frame`, or some of its rows.

  Returns:
    {(group, eval, metric, threshold): text}.
  """
  sizes, found = frame.groupby('group').run.nunique(), {}
  for key, values in frame.groupby(list(KEY), sort=False).value:
    known = values.dropna().tolist()
    found[key] = mean_text(known, metrics.describe(key[2]).digits)
    if 0 < len(known) < sizes[key[0]]:
      found[key] += f' ({len(known)} of {sizes[key[0]]})'
  return found


def arrange(
    title: str, found: Cells, rows: Parts, columns: Parts, labels: Mapping[str, str],
    corner: str = 'measure',
) -> Table:
  """Arranges cells in a table with a line for each row of `rows` and each group.

  Args:
    title: what the table shows.
    found: (group, eval, metric, threshold) -> text; missing cells are shown as '-'.
    rows: header of a row -> the entries of the key that its cells share. With a single
      row the table has one line per group and no column for the header.
    columns: header of a column -> the entries of the key that its cells share. The
      threshold is '' where neither row nor column gives it.
    labels: group -> the name that the table shows.
    corner: header of the first column.

  Returns:
    The table. A row whose cells are equal for all groups appears once.
  """
  def line(group, row):
    keys = ({'group': group, 'threshold': '', **row, **column}
            for column in columns.values())
    return [found.get(tuple(key[name] for name in KEY), '-') for key in keys]

  lines = {head: {label: line(group, row) for group, label in labels.items()}
           for head, row in rows.items()}
  if len(rows) == 1:
    of_group, = lines.values()
    return Table(title, ['run', *columns],
                 [[label, *row] for label, row in of_group.items()])
  if len(labels) == 1:
    only, = labels.values()
    return Table(f'{title} Run: {only}.', [corner, *columns],
                 [[head, *of_group[only]] for head, of_group in lines.items()])
  laid = []
  for head, of_group in lines.items():
    one, *others = of_group.values()
    if all(row == one for row in others) and '±' not in ''.join(one):
      of_group = {'all': one}  # not with '±', which would look like a mean over groups
    laid += [['' if i else head, label, *row]
             for i, (label, row) in enumerate(of_group.items())]
  return Table(title, [corner, 'run', *columns], laid, left=2)


def labels(
    groups: Mapping[str, Sequence[Any]], notes: Mapping[str, str] | None = None
) -> dict[str, str]:
  """Label -> the name in tables, such as 'nat' or 'nat (3 seeds, 1 collapsed)'.

  Args:
    groups: label -> runs.
    notes: label -> text that is added in the brackets.
  """
  found = {}
  for label, runs in groups.items():
    about = [f'{len(runs)} seeds'] if len(runs) > 1 else []
    about += [notes[label]] if notes and label in notes else []
    found[label] = f'{label} ({", ".join(about)})' if about else label
  return found


def of_metrics(names: Iterable[str], **key: str) -> dict[str, dict[str, str]]:
  """Rows or columns for `arrange`, one per metric; `key` holds further entries."""
  return {metrics.describe(name).title: {'metric': name, **key} for name in names}


def values_of(
    runs: Sequence[Mapping[str, Any]], name: str, metric: str
) -> list[float]:
  """The values of a metric of an evaluation, of the runs that have one."""
  found = [run['evals'].get(name, {}).get(metric) for run in runs]
  return [value for value in found if value is not None]


def mean_text(values: Sequence[float], digits: int) -> str:
  """'0.970' for one value, '0.970 ± 0.012' for several, '-' for none.

  '0' without decimals is exactly 0; a value that would round to 0 gets one more digit.
  """
  if not values:
    return '-'
  mean = statistics.fmean(values)
  if not any(values):
    return '0'
  digits += abs(mean) < 10.0 ** -digits
  spread = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
  return f'{mean:z.{digits}f}{spread}'  # z: no minus before 0


def percent(value: float) -> str:
  """A share as text with at least two significant digits next to 0 and 1."""
  digits = 2 if 0 < min(value, 1 - value) < 0.01 else 1
  return f'{100 * value:.{digits}f}'.rstrip('0').rstrip('.') + ' %'


def joined(texts: Sequence[str]) -> str:
  """'a', 'a and b', 'a, b and c'; '' for none."""
  return ' and '.join(filter(None, [', '.join(texts[:-1]), *texts[-1:]]))


def counts_text(values: Iterable[float]) -> str:
  """The distinct counts, such as '1000' or '102 or 354'; '-' without any."""
  found = sorted({int(value) for value in values if not math.isnan(value)})
  return ' or '.join(map(str, found)) or '-'
