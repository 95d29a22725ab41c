"""Evaluations as tables of text: NCR in the paper's form, detection, accuracy.

    print(ncr_table({'baseline': evals, 'nat': [evals_of_seed_0, evals_of_seed_1]}))

`evals` is what eval.json holds under that key: one dict of figures for each set. Only
those of the part 'test' are shown: validation and calibration were chosen by. The
text is Markdown, aligned so that it reads well in a terminal. Nothing but the standard
library is imported, so that every part of the program may use it.
"""

import html
import math
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

THRESHOLDS = ('0.4', '0.6', '0.8', '0.9')
MAX_WIDTH = 110
DETECTION = {
    'auroc': 'AUROC',
    'aupr_in': 'AUPR-in',
    'aupr_out': 'AUPR-out',
    'fpr95_id_positive': 'FPR95 (ID-positive)',
    'fpr95_ood_positive': 'FPR95 (OOD-positive)',
}

TEST, VALIDATION = 'test', 'validation'  # parts that evaluation sets are of

Evals = Mapping[str, Mapping[str, Any]]


class Table(NamedTuple):
  """A title, the heads of the columns, and rows of texts.

  The first `left` columns stand to the left, the others, of numbers, to the right.
  """

  title: str
  header: list[str]
  rows: list[list[str]]
  left: int = 1

  def markdown(self) -> str:
    """The title and a pipe table, its columns aligned with spaces."""
    columns = list(zip(self.header, *self.rows, strict=True))
    for i, column in enumerate(columns):
      width = max(map(len, column))
      rule = '-' * width if i < self.left else '-' * (width - 1) + ':'
      pad = str.ljust if i < self.left else str.rjust
      columns[i] = [pad(text, width) for text in (column[0], rule, *column[1:])]
    lines = ['| ' + ' | '.join(row) + ' |' for row in zip(*columns, strict=True)]
    return '\n'.join([textwrap.fill(self.title, 100), '', *lines, ''])

  def html(self) -> str:
    """The same as HTML, in a box that scrolls sideways on a narrow screen."""
    def line(row, tag):
      opening = [f'<{tag} class="left">'] * self.left + [f'<{tag}>'] * len(row)
      cells = zip(opening, map(html.escape, row), strict=False)
      return '<tr>' + ''.join(f'{tag_}{x}</{tag}>' for tag_, x in cells) + '</tr>'

    body = [line(self.header, 'th'), *(line(row, 'td') for row in self.rows)]
    return (f'<p>{html.escape(self.title)}</p>\n'
            f'<div class="scroll"><table>{"".join(body)}</table></div>')


def ncr_table(evals_by_run: Mapping[str, Evals | Sequence[Evals]]) -> str:
  """The paper's NCR table with PAR beside it, then detection, accuracy and ECE.

  Args:
    evals_by_run: for each label, the evals of one run, or a list with those of its
      seeds: cells then read mean ± sample standard deviation.

  Returns:
    Markdown. Where a cell holds several runs they stand in the order of the labels,
    named in the title; where that grows too wide each run has a row of its own. '-'
    stands for what a run does not have.
  """
  return '\n'.join(table.markdown() for table in eval_tables(evals_by_run))


def eval_tables(evals_by_run: Mapping[str, Evals | Sequence[Evals]]) -> list[Table]:
  """The tables of `ncr_table`, still as tables."""
  groups = {
      label: [evals] if isinstance(evals, Mapping) else list(evals)
      for label, evals in evals_by_run.items()}
  labels = [
      label if len(runs) == 1 else f'{label} ({len(runs)} seeds)'
      for label, runs in groups.items()]
  positives, negatives = set_names(groups.values())

  def cell(name, *keys, digits=3):
    """One text a group: the figure at evals[name][key][key]..."""
    return [mean_text(find(groups[g], name, *keys), digits) for g in groups]

  def counts(name, key='n'):
    texts = [_counts(find(groups[g], name, key)) for g in groups]
    return texts[:1] if len(set(texts)) == 1 else texts

  spread = any(len(runs) > 1 for runs in groups.values())
  spread = ' ±: sample standard deviation over seeds.' if spread else ''
  tables = []
  if negatives:
    seen = [[_seen(find(groups[g], name, 'seen_in_training')) for g in groups]
            for name in negatives]
    rows = [(title, [cell(name, key) for name in negatives])
            for key, title in DETECTION.items()]
    rows += [('n', [counts(name) for name in negatives]), ('in training', seen)]
    overlap = [counts(name, 'overlap_with_training_negatives') for name in negatives]
    if any(text not in '0-' for texts in overlap for text in texts):
      rows.append(('training images in it', overlap))
    tables.append(arrange(
        'NCR_t: share of negatives whose maximum prediction exceeds t (lower is '
        'better). PAR_t: the same share of positives (higher is better).'
        f'{_silent(groups)}{spread}',
        't', negatives + [f'PAR_t {name}' for name in positives],
        [(t, [cell(name, 'ncr', t) for name in negatives]
          + [cell(name, 'par', t) for name in positives]) for t in THRESHOLDS],
        labels))
    tables.append(arrange(
        'Detection of negatives by the maximum prediction. FPR95 (ID-positive): '
        'share of negatives accepted where 95 % of positives are; FPR95 '
        '(OOD-positive): share of positives rejected where 95 % of negatives are.',
        'measure', negatives, rows, labels))
  if positives:
    tables.append(arrange(
        'Positive sets: accuracy and expected calibration error.', 'measure', positives,
        [('accuracy', [cell(name, 'accuracy', digits=4) for name in positives]),
         ('ECE', [cell(name, 'ece', digits=4) for name in positives]),
         ('n', [counts(name) for name in positives])], labels))
  return tables


def interval_table(evals_by_run: Mapping[str, Evals]) -> Table | None:
  """95 % intervals of accuracy, AUROC and NCR_t, or None if there are none."""
  positives, negatives = set_names([e] for e in evals_by_run.values())
  rows = [('accuracy', 'accuracy_interval', ()), ('AUROC', 'auroc_interval', ())]
  rows += [(f'NCR_{t}', 'ncr_interval', (t,)) for t in THRESHOLDS]

  def cell(evals, name, key, rest):
    found = find([evals], name, key, *rest)
    return '{:.3f} to {:.3f}'.format(*found[0]) if found else '-'

  cells = [
      (title, [[cell(evals, name, key, rest) for evals in evals_by_run.values()]
               for name in positives + negatives]) for title, key, rest in rows]
  if all(text == '-' for _, row in cells for texts in row for text in texts):
    return None
  return arrange('95 % intervals over the images of a set, one trained network each: '
                 'Wilson for shares, bootstrap for the AUROC.',
                 'measure', positives + negatives, cells, list(evals_by_run))


def set_names(
    groups: Iterable[Sequence[Evals]], part: str = TEST
) -> tuple[list[str], list[str]]:
  """The names of the positive and of the negative sets of a part, in order."""
  positive = {
      name: figures.get('positive', 'ncr' not in figures)
      for runs in groups for evals in runs for name, figures in evals.items()
      if part_of(figures) == part}
  return ([name for name, p in positive.items() if p],
          [name for name, p in positive.items() if not p])


def part_of(figures: Mapping[str, Any]) -> str:
  """The part of a set by its figures; evaluations of version 0.1 knew the test only."""
  return figures.get('part', TEST)


def arrange(
    title: str, corner: str, columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Sequence[str]]]], labels: Sequence[str],
) -> Table:
  """Lays out cells that hold one text for each run.

  Args:
    title: what the table shows.
    corner: head of the first column.
    columns: heads of the others.
    rows: (head, cells); a cell is one text for each label, or one for all.
    labels: the runs.

  Returns:
    A table with the runs side by side in each cell, parted by slashes; one row for
    each run if that is wider than MAX_WIDTH.
  """
  if len(labels) == 1:
    return Table(f'{title} Run: {labels[0]}.', [corner, *columns],
                 [[head, *(cell[0] for cell in cells)] for head, cells in rows])
  widths = [max(len(x) for _, cells in rows for x in cells[i] if len(cells[i]) > 1)
            for i in range(len(columns))]
  joined = [
      [head, *(' / '.join(x.rjust(w) for x in cell) if len(cell) > 1 else cell[0]
               for cell, w in zip(cells, widths, strict=True))] for head, cells in rows]
  side_by_side = Table(
      f'{title} Cells: {" / ".join(labels)}.', [corner, *columns], joined)
  if len(side_by_side.markdown().splitlines()[-1]) <= MAX_WIDTH:
    return side_by_side
  stacked = []
  for head, cells in rows:
    lines = max(map(len, cells))
    for i in range(lines):
      stacked.append([
          head if i == 0 else '', labels[i] if lines > 1 else 'all',
          *(cell[i] if len(cell) > 1 else cell[0] for cell in cells)])
  return Table(title, [corner, 'run', *columns], stacked, left=2)


def find(runs: Iterable[Evals], name: str, *keys: str) -> list:
  """evals[name][key]... of those runs that have it."""
  found = []
  for value in runs:
    for key in (name, *keys):
      value = value.get(key) if isinstance(value, Mapping) else None
    if value is not None and not (isinstance(value, float) and math.isnan(value)):
      found.append(value)
  return found


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


def _silent(groups):
  """Why rows of thresholds are without figures, if some are."""
  rates = [figures['ncr'] for runs in groups.values() for evals in runs
           for figures in evals.values() if isinstance(figures.get('ncr'), Mapping)]
  silent = [t for t in THRESHOLDS if any(t not in found for found in rates)]
  if not silent:
    return ''
  return (f' "-" at t of {", ".join(silent)}: says nothing, since the largest of K '
          'probabilities is at least 1/K whatever the network.')


def _counts(values):
  return '-' if not values else ' or '.join(str(n) for n in sorted(set(values)))


def _seen(values):
  if not values:
    return '-'
  return 'seen' if all(values) else 'mixed' if any(values) else 'unseen'
