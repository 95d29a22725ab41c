"""Tables of means over seeds whose bold cells are differences that paired tests find.

    table({'none': {'AUROC': '.95 ± .01'}, 'near': {'AUROC': '.97 ± .01'}},
          {'near': {'AUROC': ([.98, .96], [.96, .94])}})
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from nat_jax.reports import claims


def text_of(values: Sequence[float], digits: int = 3, sign: str = '') -> str:
  """Mean ± sample standard deviation; of one value, the value."""
  text = f'{np.mean(values):{sign}.{digits}f}'
  return f'{text} ± {np.std(values, ddof=1):.{digits}f}' if len(values) > 1 else text


def p_value(one: Sequence[float], other: Sequence[float]) -> float:
  """p of the two-sided paired t-test; 1 where all pairs are equal, or there is one.

  NaN, no test, where all differences are equal and not 0: their variance is not known.
  """
  if len(one) < 2 or np.array_equal(one, other):
    return 1.0
  if np.ptp(np.subtract(one, other)) < 1e-12:
    return math.nan
  return float(stats.ttest_rel(one, other).pvalue)


def table(
    rows: Mapping[str, Mapping[str, str]],
    pairs: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    corner: str = 'variant',
) -> None:
  """Prints a table in Markdown.

  Args:
    rows: row -> column -> text.
    pairs: row -> column -> two series of numbers, one for each seed. The cell is bold
      if they differ by `p_value` at 5 %, with Holm's correction over all these cells.
    corner: header of the first column.
  """
  columns = list(next(iter(rows.values())))
  cells = [(row, column) for row in pairs for column in pairs[row]]
  p_values = claims.holm([p_value(*pairs[row][column]) for row, column in cells])
  differs = {cell for cell, p in zip(cells, p_values, strict=True) if p < 0.05}
  print(f'\n| {corner} | {" | ".join(columns)} |\n|---{"|---" * len(columns)}|')
  for row, texts in rows.items():
    print(f'| `{row}` | ' + ' | '.join(
        f'**{text}**' if (row, column) in differs else text
        for column, text in texts.items()) + ' |')
