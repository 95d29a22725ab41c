"""GAN runs -> the tables and the figures of a report.

    for table in tables(reports.group(runs)):
      print(table.markdown())

`runs` are what `reports.load_run` returns. Rows are variants: mean ± sample standard
deviation over seeds. What judged the samples stands in a table of conventions, since no
number means anything without it; numbers of different judges do not compare.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nat_jax.reports import claims, paper
from nat_jax.reports.tables import Table, find, mean_text
from nat_jax.tasks.gan import figures as plots
from nat_jax.tasks.gan import tables as gan_tables
from nat_jax.tasks.gan.tables import head, judge, values

SCORES = {'inception_score': ('IS', 2), 'am_score': ('AM score', 3), 'fid': ('FID', 2)}
INCEPTION = 'Inception 2015'  # in the name of the judge that papers have
BEST = {'inception_score': max, 'am_score': min, 'fid': min}
Groups = Mapping[str, Sequence[Mapping[str, Any]]]


def tables(groups: Groups) -> list[Table]:
  """All tables of GAN runs.

  Args:
    groups: of `report.group`: label -> runs of one experiment, a seed each.

  Returns:
    The form of the paper's Table 4 with its figures beside, the other measures, the
    last against the best evaluation, Welch's tests over seeds, class shares, the
    conventions of each judge, and the runs.
  """
  found = [
      _scores_table(groups), *gan_tables.more_measures(groups), _best_table(groups),
      _tests_table(groups), gan_tables.class_shares(groups),
      *gan_tables.conventions(groups), gan_tables.about_runs(groups)]
  return [table for table in found if table]


def figures(groups: Groups) -> Iterator[tuple[str, str, str, Any]]:
  """(file name, caption, note on what is missing or '', figure or None)."""
  runs = [run for same in groups.values() for run in same]
  without = [run['label'] for run in runs if not any(run['history'].values())]
  if len(without) == len(runs):
    note = 'Left out: no run has metrics.jsonl.'
  else:
    note = f'Without metrics.jsonl: {", ".join(without)}.' if without else ''
  for name, caption, figure in (
      ('generator_loss', "The generator's loss", plots.generator_losses(groups)),
      ('training', 'Training curves', plots.training_curves(groups)),
      ('measures', 'Measures of the samples against updates',
       plots.measures(groups))):
    missing = '' if figure else 'Left out: metrics.jsonl has no such figures.'
    yield name, caption, note or missing, figure
  figure = plots.samples(groups)
  yield ('samples', 'Samples, not selected',
         '' if figure else 'Left out: no run has samples.npz.', figure)


def _scores_table(groups):
  judges = gan_tables.judges_of(groups)
  rows = []
  for label, runs in groups.items():
    row = [head(label, runs)]
    row += [mean_text(values(runs, m), digits) for m, (_, digits) in SCORES.items()]
    row.append(mean_text(values(runs, 'reference_inception_score'), 2))
    published = paper.generated(runs[0]['name'], runs[0]['variant'])
    text = '{:.2f} / {:.3f} / {:.2f}'.format(*published.values()) if published else '-'
    if published and INCEPTION not in judge(runs):
      text += ', not comparable'
    row.append(text)
    if len(judges) > 1:
      row.append(str(judges.index(judge(runs)) + 1))
    rows.append(row)
  title = ('Measures of the samples at the end of the run, in the form of the paper\'s '
           'Table 4. IS: higher is better; AM score and FID: lower.')
  if any(len(runs) > 1 for runs in groups.values()):
    title += ' ±: sample standard deviation over seeds.'
  header = ['run', *(name for name, _ in SCORES.values()), 'IS of real images']
  if any(row[5] != '-' for row in rows):
    title += (' Paper: its full-size run of one seed, IS and FID of 50000 samples by '
              'Inception, AM score by a classifier of its own.')
    header.append('paper: IS / AM / FID')
  else:
    rows = [row[:5] + row[6:] for row in rows]
  if len(judges) > 1:
    title += ' Only rows of the same judge compare.'
    header.append('judge')
  return Table(title, header, rows)


def _best_table(groups):
  """Last against best of the run, since the paper does not say which it prints."""
  rows = []
  for label, runs in groups.items():
    counts = sorted({len(run['history']['eval']) for run in runs})
    row = [label, ' or '.join(map(str, counts)), mean_text(values(runs, 'fid'), 2)]
    for measure, choose in BEST.items():  # FID is the last
      digits, best = SCORES[measure][1], []
      for run in runs:
        seen = [(value, step) for step, evals in run['history']['eval']
                for value in find([evals], 'samples', measure)]
        best += [choose(seen)] if seen else []
      row.append(mean_text([value for value, _ in best], digits))
    row.append(' '.join(str(step) for _, step in best) or '-')
    rows.append(row)
  if all(row[1] in ('0', '1') for row in rows):
    return None  # the best is the last
  return Table(
      'Best evaluation of each run, each measure for itself: better than the last by '
      'selection alone, the more so the more evaluations there were.',
      ['run', 'evaluations', 'last FID', 'best IS', 'best AM score', 'best FID',
       'at update'],
      rows)


def _tests_table(groups):
  """Each variant against 'am' of its experiment, or against the first."""
  bases = {}
  for label, runs in groups.items():
    rivals = [
        other for other, members in groups.items()
        if members[0]['name'] == runs[0]['name'] and judge(members) == judge(runs)
    ]
    bases[label] = next(
        (r for r in rivals if groups[r][0]['variant'] == 'am'), rivals[0])
  found = claims.verdicts({
      (label, measure): _comparison(groups[label], groups[base], measure)
      for label, base in bases.items() if label != base for measure in SCORES})
  rows = [[label, *(found[label, measure] for measure in SCORES)]
          for label, base in bases.items() if label != base]
  rows = [row for row in rows if any(cell != '-' for cell in row[1:])]
  if not rows:
    return None
  rivals = ' and '.join(dict.fromkeys(bases[label] for label, *_ in rows))
  return Table(
      f'Against {rivals}: higher or lower by {claims.METHOD}',
      ['run', *(name for name, _ in SCORES.values())], rows)


def _comparison(runs, base, measure):
  published = [paper.generated(r[0]['name'], r[0]['variant']) for r in (runs, base)]
  return claims.Comparison(
      values(runs, measure), values(base, measure),
      [figures and figures[measure] for figures in published])
