"""Tables of text, made of the data frame of `reports.frame`.

    found = cells(frame(groups))
    table = arrange('Accuracy.', found, {'accuracy': {'metric': 'accuracy'}},
                    {'test': {'eval': 'test'}}, labels(groups))
    print(table.markdown())
"""

import itertools
import math
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from nat_jax import metrics

KEY = ('group', 'eval', 'metric', 'threshold')  # of a cell
LONG = 64  # characters of a cell that is folded

Cells = Mapping[tuple[str, ...], str]
Parts = Mapping[str, Mapping[str, str]]  # head of a row or column -> part of its KEY


class Table(NamedTuple):
  """A title, the heads of the columns, and rows of texts.

  The first `left` columns stand to the left, the others, of numbers, to the right.
  """

  title: str
  header: list[str]
  rows: list[list[str]]
  left: int = 1

  def markdown(self) -> str:
    """The title and a pipe table, its columns aligned with spaces for a terminal."""
    rows = [line for row in self.rows for line in _folded(row)]
    columns = list(zip(self.header, *rows, strict=True))
    for i, column in enumerate(columns):
      width = max(map(len, column))
      rule = '-' * width if i < self.left else '-' * (width - 1) + ':'
      pad = str.ljust if i < self.left else str.rjust
      columns[i] = [pad(text, width) for text in (column[0], rule, *column[1:])]
    lines = ['| ' + ' | '.join(row) + ' |' for row in zip(*columns, strict=True)]
    return '\n'.join([textwrap.fill(self.title, 100), '', *lines, ''])


def _folded(row):
  """The lines of a row whose long cells are folded."""
  parts = [textwrap.wrap(cell, LONG, break_long_words=False, break_on_hyphens=False)
           if len(cell) > LONG else [cell] for cell in row]
  return itertools.zip_longest(*parts, fillvalue='')


def cells(frame) -> dict[tuple[str, ...], str]:
  """The text of each cell, mean ± sample standard deviation over the runs of a group.

  Args:
    frame: of `reports.frame`, or some of its rows.

  Returns:
    From (group, eval, metric, threshold) to the text.
  """
  return {key: mean_text(values.dropna().tolist(), metrics.describe(key[2]).digits)
          for key, values in frame.groupby(list(KEY), sort=False).value}


def arrange(
    title: str, found: Cells, rows: Parts, columns: Parts, labels: Mapping[str, str],
    corner: str = 'measure',
) -> Table:
  """Lays out cells: for each row of `rows` a line for each group.

  Args:
    title: what the table shows.
    found: texts by (group, eval, metric, threshold); '-' stands for what it lacks.
    rows: head of a row -> the part of the key that its cells share. A table of one row
      has a line for each group, without a column for the head.
    columns: the same for columns; threshold is '' where neither says it.
    labels: group -> what the table calls it.
    corner: head of the first column.

  Returns:
    A table. A row that is the same for all groups stands there once.
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
      of_group = {'all': one}  # with '±' it would pass for a mean over all groups
    laid += [['' if i else head, label, *row]
             for i, (label, row) in enumerate(of_group.items())]
  return Table(title, [corner, 'run', *columns], laid, left=2)


def labels(
    groups: Mapping[str, Sequence[Any]], notes: Mapping[str, str] | None = None
) -> dict[str, str]:
  """What a table calls each group: 'nat', or 'nat (3 seeds, 1 collapsed)'.

  Args:
    groups: label -> runs.
    notes: label -> what else stands in the brackets.
  """
  found = {}
  for label, runs in groups.items():
    about = [f'{len(runs)} seeds'] if len(runs) > 1 else []
    about += [notes[label]] if notes and label in notes else []
    found[label] = f'{label} ({", ".join(about)})' if about else label
  return found


def of_metrics(names: Iterable[str], **key: str) -> dict[str, dict[str, str]]:
  """Rows or columns of `arrange`, one for each metric."""
  return {metrics.describe(name).title: {'metric': name, **key} for name in names}


def mean_text(values: Sequence[float], digits: int) -> str:
  """'0.970', '0.970 ± 0.012' from several values, or '-' from none.

  A 0 without decimals is an exact 0; what is rounded to 0 gets one digit more.
  """
  if not values:
    return '-'
  mean = statistics.fmean(values)
  if not any(values):
    return '0'
  digits += abs(mean) < 10.0 ** -digits
  spread = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
  return f'{mean:.{digits}f}{spread}'


def counts_text(values: Iterable[float]) -> str:
  """'1000', or '102 or 354' where runs differ, or '-' from none."""
  found = sorted({int(value) for value in values if not math.isnan(value)})
  return ' or '.join(map(str, found)) or '-'
