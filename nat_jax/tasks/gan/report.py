"""The tables and figures of a report on GANs.

    for table in tables(reports.group(runs)):
      print(table.markdown())

Rows are variants, with mean ± sample standard deviation over seeds. A table of
conventions names the evaluation classifier: metrics by different evaluation classifiers
are not comparable.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nat_jax import metrics
from nat_jax.reports import claims, paper
from nat_jax.reports import figures as shared
from nat_jax.reports.frames import frame
from nat_jax.reports.tables import (
    Table,
    arrange,
    cells,
    joined,
    mean_text,
    of_metrics,
    percent,
)
from nat_jax.tasks.gan import figures as plots
from nat_jax.tasks.gan import tables as more
from nat_jax.tasks.gan.tables import SAMPLES, classifier, samples_of

SCORES = ('inception_score', 'am_score', 'fid')
DISTANCES = ('kid', 'cafd', 'cafd_left_out', 'class_kl', 'diversity')
MANIFOLD = ('precision', 'recall', 'density', 'coverage')
MEMORISED = ('repeats', 'nearer_training')
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
  name, real = more.real_images(found)
  text = {**cells(found), **real}
  made = [
      _scores_table(text, groups, name), *_more_measures(found, text, groups, name),
      _best_table(groups),
      _tests_table(found, groups), more.class_shares(found, groups),
      *more.conventions(groups), more.about_runs(groups)]
  return [table for table in made if table]


def verdict(groups: Groups) -> list[tuple[str, list[str]]]:
  """The quality of the samples in words: (headline, sentences) for each group.

  Args:
    groups: from `reports.group`.
  """
  rivals = _rivals(groups)
  tested = claims.verdicts(_tests(frame(groups), {
      label: rival for label, rival in rivals.items()
      if len(groups[label]) > 1 < len(groups[rival])}))
  said = []
  for label, runs in groups.items():
    headline, sentences = _paragraph(label, runs)
    if label in rivals:
      found = [f'{metrics.METRICS[metric].title} {text}' for metric in SCORES
               if (text := tested.get((label, SAMPLES, metric, '')))]
      sentences.append(f'Against {rivals[label]}: ' + (
          f'{joined(found)}; {claims.METHOD}' if found else
          'not tested, which needs two seeds of each.'))
    said.append((headline, sentences))
  return said


def _paragraph(label, runs):
  found = [samples_of(run) for run in runs]

  def text(metric):
    return mean_text([one[metric] for one in found if one.get(metric) is not None],
                     metrics.METRICS[metric].digits)

  collapsed = sum(bool(one.get('collapsed')) for one in found)
  headline = f'{label}: FID {text("fid")}' if text('fid') != '-' else f'{label}'
  headline += (f', Inception Score {text("inception_score")}'
               if text('inception_score') != '-' else '') + '.'
  sentences = []
  if collapsed:
    sentences.append('The samples are nearly all alike (collapsed)' + (
        f' in {collapsed} of {len(runs)} seeds.' if len(runs) > 1 else '.'))
  if text('fid') != '-':
    held_out = next((one['held_out'] for one in found if one.get('held_out')), None)
    sentences.append('A lower FID is better; that of ' + (
        f'{held_out["num_samples"]} real images that were not trained on is '
        f'{mean_text([held_out["fid"]], metrics.METRICS["fid"].digits)}'
        + (', and of as many as there are samples it would be lower.'
           if held_out['num_samples'] < found[0].get('num_samples', 0) else '.')
        if held_out else 'real images is near 0.'))
  if text('reference_inception_score') != '-':
    sentences.append('A higher Inception Score is better; real images have '
                     f'{text("reference_inception_score")}.')
  if text('precision') != '-':
    sentences.append(
        f'Share of samples that are close to real images (precision): '
        f'{text("precision")}; of real images that have a sample close by (recall): '
        f'{text("recall")}.')
  shares = [one['class_shares'] for one in found if one.get('class_shares')]
  # Not of a classifier with other classes, such as Inception's.
  if shares and len(shares[0]) == runs[0].get('num_classes', len(shares[0])):
    absent = [sum(value == 0 for value in one) for one in shares]
    number = mean_text(absent, 1) if len(absent) > 1 else absent[0]
    sentences.append(
        f'Of {len(shares[0])} classes {number} have no sample.' if any(absent) else
        f'Each of the {len(shares[0])} classes has samples; the rarest one makes up '
        f'{percent(statistics.fmean(map(min, shares)))} of them, and the most frequent '
        f'one {percent(statistics.fmean(map(max, shares)))}.')
  several = '±: sample standard deviation over seeds.'
  sentences.append(several if len(runs) > 1 else (
      'One seed: another one gives other figures, by an amount that is not known.'))
  return headline, sentences


def figures(groups: Groups) -> Iterator[tuple[str, str, str, Any]]:
  """Yields (file name, caption, note on what is missing or '', figure or None)."""
  runs = [run for same in groups.values() for run in same]
  note = shared.missing(runs, 'metrics.jsonl', shared.has_history)
  for name, caption, figure in (
      ('generator_loss', "The generator's loss", plots.generator_losses(groups)),
      ('training', 'Training curves', plots.training_curves(groups)),
      ('measures', 'Measures of the samples against updates; those of evaluations of '
       "the type 'quick' are of fewer samples, with a larger FID",
       plots.measures(groups))):
    missing = '' if figure else 'Left out: metrics.jsonl has no such figures.'
    yield name, caption, note or missing, figure
  figure = plots.samples(groups)
  yield ('samples', 'Samples, not selected',
         '' if figure else 'Left out: no run has samples.npz.', figure)


def _scores_table(text, groups, real):
  """IS, AM score and FID, with the paper's values."""
  text, known = dict(text), more.classifiers(groups)
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
  return arrange(title, text, ONE_ROW, columns, _heads(groups, real))


def _heads(groups, real):
  """The names of the rows of a table: of the groups, and of real images unless ''."""
  return {**more.heads(groups), **({more.REAL: real} if real else {})}


def _more_measures(found, text, groups, real) -> Iterator[Table]:
  """KID, CAFD, class KL and diversity; precision, recall, density and coverage."""
  for title, names in (
      ('CAFD: class-aware FID, without classes of fewer than two samples. Class KL: KL '
       'divergence between the mean predictions for real images and for samples. '
       'Diversity: mean distance within a class, as a ratio to that of real images.',
       DISTANCES),
      ('Precision and density: how close samples are to real images. Recall and '
       'coverage: how many real images have samples close to them.', MANIFOLD),
      ('Repeated training images: share of samples that are nearer to a training image '
       'than 99 % of the held-out images are; about .01 without repetition. Nearer to '
       'training images: than to equally many held-out ones; about .5.', MEMORISED),
      ('Inception Score by a classifier of other labels, which the discriminator was '
       'not trained on.', INDEPENDENT),
      ('Label fidelity: share of samples that the evaluation classifier assigns to the '
       'class that the generator was given.', ('label_fidelity',))):
    there = found[found.metric.isin(names) & found.value.notna()].metric.unique()
    names = [name for name in names if name in there]
    if names:
      known = any((more.REAL, SAMPLES, name, '') in text for name in names)
      yield arrange(f'{title} {metrics.directions(names)}', text, ONE_ROW,
                    of_metrics(names), _heads(groups, real if known else ''))


def _best_table(groups):
  """The best evaluation beside the last: the paper does not say which it reports."""
  rows = []
  for label, runs in groups.items():
    counts = sorted({sum(SAMPLES in evals for _, evals in run['history']['eval'])
                     for run in runs})
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
  rivals = {label: rival for label, rival in _rivals(groups).items()
            if len(groups[label]) > 1 < len(groups[rival])}
  if not rivals:
    return None
  return arrange(
      f'Against {" and ".join(dict.fromkeys(rivals.values()))}: higher or lower by '
      f'{claims.METHOD}', claims.verdicts(_tests(found, rivals)), ONE_ROW,
      of_metrics(SCORES), {label: label for label in rivals})


def _rivals(groups):
  """Label -> the variant that it is compared with; the latter have no entry."""
  rivals = {}
  for label, runs in groups.items():
    others = [other for other, same in groups.items()
              if same[0]['name'] == runs[0]['name']
              and classifier(same) == classifier(runs)]
    rival = next((r for r in others if groups[r][0]['variant'] == 'am'), others[0])
    if label != rival:
      rivals[label] = rival
  return rivals


def _tests(found, rivals):
  return claims.comparisons(
      found[(found['eval'] == SAMPLES) & found.metric.isin(SCORES)], rivals)
