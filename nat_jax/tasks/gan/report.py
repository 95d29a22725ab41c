"""The tables and figures of a report on GANs.

    for table in tables(reports.group(runs)):
      print(table.markdown())

Rows are variants, with mean ± sample standard deviation over seeds. A table of
conventions names the evaluation classifier: metrics by different evaluation classifiers
are not comparable.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nat_jax import metrics
from nat_jax.reports import claims, paper
from nat_jax.reports import figures as shared
from nat_jax.reports.frames import frame
from nat_jax.reports.tables import Table, arrange, cells, mean_text, of_metrics
from nat_jax.tasks.gan import figures as plots
from nat_jax.tasks.gan import tables as more
from nat_jax.tasks.gan.tables import SAMPLES, classifier, samples_of

SCORES = ('inception_score', 'am_score', 'fid')
DISTANCES = ('kid', 'cafd', 'cafd_left_out', 'diversity')
MANIFOLD = ('precision', 'recall', 'density', 'coverage')
INDEPENDENT = ('independent_inception_score', 'reference_independent_inception_score')
INCEPTION = 'Inception 2015'  # in the name of the evaluation classifier of papers
ONE_ROW = {SAMPLES: {'eval': SAMPLES}}

Groups = Mapping[str, Sequence[Mapping[str, Any]]]


def tables(groups: Groups) -> list[Table]:
  """All tables of GAN runs.

  Args:
    groups: from `reports.group`: label -> runs of one experiment, one per seed.

  Returns:
    The metrics of the paper's Table 4 beside the paper's values, the other metrics, the
    best evaluation of each run, Welch's tests over seeds, class shares, conventions for
    each evaluation classifier, and the runs.
  """
  found = frame(groups)
  made = [
      _scores_table(found, groups), *_more_measures(found, groups), _best_table(groups),
      _tests_table(found, groups), more.class_shares(found, groups),
      *more.conventions(groups), more.about_runs(groups)]
  return [table for table in made if table]


def figures(groups: Groups) -> Iterator[tuple[str, str, str, Any]]:
  """Yields (file name, caption, note on what is missing or '', figure or None)."""
  runs = [run for same in groups.values() for run in same]
  note = shared.missing(runs, 'metrics.jsonl', shared.has_history)
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


def _scores_table(found, groups):
  """IS, AM score and FID, with the paper's values."""
  text, known = cells(found), more.classifiers(groups)
  columns = of_metrics([*SCORES, 'reference_inception_score'])
  title = ("Measures of the samples at the end of the run, in the form of the paper's "
           f'Table 4. {metrics.directions(SCORES)}')
  if any(len(runs) > 1 for runs in groups.values()):
    title += ' ±: sample standard deviation over seeds.'
  for label, runs in groups.items():
    published = paper.generated(runs[0]['name'], runs[0]['variant'])
    text[label, SAMPLES, 'classifier', ''] = str(known.index(classifier(runs)) + 1)
    if published:
      columns['paper: IS / AM / FID'] = {'metric': 'paper'}
      text[label, SAMPLES, 'paper', ''] = '{:.2f} / {:.3f} / {:.2f}{}'.format(
          *published.values(),
          '' if INCEPTION in classifier(runs) else ', not comparable')
  if {'metric': 'paper'} in columns.values():
    title += (' Paper: its full-size run of one seed, IS and FID of 50000 samples by '
              'Inception, AM score by a classifier of its own.')
  if len(known) > 1:
    title += ' Only rows of the same evaluation classifier compare.'
    columns['classifier'] = {'metric': 'classifier'}
  return arrange(title, text, ONE_ROW, columns, more.heads(groups))


def _more_measures(found, groups) -> Iterator[Table]:
  """KID, class-aware FID and diversity; precision, recall, density and coverage."""
  text = cells(found)
  for title, names in (
      ('CAFD: class-aware FID, without classes of fewer than two samples. Diversity: '
       'mean distance within a class, as a ratio to that of real images.', DISTANCES),
      ('Precision and density: how close samples are to real images. Recall and '
       'coverage: how many real images have samples close to them.', MANIFOLD),
      ('Inception Score by a classifier of other labels, which the discriminator was '
       'not trained on.', INDEPENDENT)):
    there = found[found.metric.isin(names) & found.value.notna()].metric.unique()
    names = [name for name in names if name in there]
    if names:
      yield arrange(f'{title} {metrics.directions(names)}', text, ONE_ROW,
                    of_metrics(names), more.heads(groups))


def _best_table(groups):
  """The best evaluation beside the last: the paper does not say which it reports."""
  rows = []
  for label, runs in groups.items():
    counts = sorted({len(run['history']['eval']) for run in runs})
    last = [samples_of(run).get('fid') for run in runs]
    row = [label, ' or '.join(map(str, counts)), _mean(last, 'fid')]
    for metric in SCORES:  # FID is the last
      choose = min if metrics.METRICS[metric].better == 'lower' else max
      best = []
      for run in runs:
        seen = [(value, step) for step, evals in run['history']['eval']
                if (value := evals.get(SAMPLES, {}).get(metric)) is not None]
        best += [choose(seen)] if seen else []
      row.append(_mean([value for value, _ in best], metric))
    rows.append([*row, ' '.join(str(step) for _, step in best) or '-'])
  if all(row[1] in ('0', '1') for row in rows):
    return None  # the best is the last
  return Table(
      'Best evaluation of each run, for each metric separately. It is better than the '
      'last one by selection alone, the more so the more evaluations there are.',
      ['run', 'evaluations', 'last FID', 'best IS', 'best AM score', 'best FID',
       'at update'],
      rows)


def _mean(values, metric):
  return mean_text([value for value in values if value is not None],
                   metrics.METRICS[metric].digits)


def _tests_table(found, groups):
  """Tests of each variant against 'am' of its experiment, else the first variant."""
  rivals = {}
  for label, runs in groups.items():
    others = [other for other, same in groups.items()
              if same[0]['name'] == runs[0]['name']
              and classifier(same) == classifier(runs)]
    rival = next((r for r in others if groups[r][0]['variant'] == 'am'), others[0])
    if label != rival and len(runs) > 1 < len(groups[rival]):
      rivals[label] = rival
  if not rivals:
    return None
  tests = claims.comparisons(found[found.metric.isin(SCORES)], rivals)
  return arrange(
      f'Against {" and ".join(dict.fromkeys(rivals.values()))}: higher or lower by '
      f'{claims.METHOD}', claims.verdicts(tests), ONE_ROW, of_metrics(SCORES),
      {label: label for label in rivals})
