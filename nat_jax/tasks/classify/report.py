"""The tables and figures of a report on classifiers.

    for table in tables(reports.group(runs)):
      print(table.markdown())
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nat_jax import metrics
from nat_jax.reports import claims, pictures
from nat_jax.reports import figures as plots
from nat_jax.reports.about import duration
from nat_jax.reports.frames import OF_POSITIVES, THRESHOLDS, frame
from nat_jax.reports.tables import (
    Table,
    arrange,
    cells,
    counts_text,
    labels,
    of_metrics,
)
from nat_jax.runtime import files
from nat_jax.schema import ACCURACY_NCR, CORRUPTION, TEST
from nat_jax.tasks.classify import classes

DETECTION = ('auroc', 'aupr_in', 'aupr_out', 'fpr95_id_positive', 'fpr95_ood_positive')
OVERLAP = 'overlap_with_training_negatives'
BY_THRESHOLD = {t: {'threshold': t} for t in THRESHOLDS}

Groups = Mapping[str, Sequence[Mapping[str, Any]]]


def tables(groups: Groups) -> list[Table]:
  """All tables of classifiers, on test sets only; validation sets choose checkpoints.

  Args:
    groups: from `reports.group`: label -> runs of one experiment, one per seed.
  """
  found = frame(groups)
  found = found[found.part == TEST]
  of_type = found.type == ACCURACY_NCR
  others = found[~of_type & (found.type != CORRUPTION)]
  return [*_figures(found[of_type], groups), *_intervals(found[of_type], groups),
          *_claims(found[of_type], groups), *classes.tables(groups),
          *_others(others, groups), _about(groups)]


def _figures(found, groups) -> Iterator[Table]:
  """NCR_t in the paper's form with PAR_t beside it, detection, accuracy and ECE."""
  text, named = cells(found) | _counts(found), labels(groups)
  positives, negatives = found[found.positive], found[~found.positive]
  if len(negatives):
    spread = (' ±: sample standard deviation over seeds.'
              if any(len(runs) > 1 for runs in groups.values()) else '')
    yield arrange(
        'NCR_t: share of negatives whose maximum prediction exceeds t (lower is '
        'better). PAR_t: the same share of positives (higher is better).'
        f'{_absent_thresholds(negatives)}{spread}', text, BY_THRESHOLD,
        _sets(negatives, '', metric='ncr') | _sets(positives, 'PAR_t ', metric='par'),
        named, 't')
    rows = of_metrics(DETECTION) | {
        'n': {'metric': 'n'}, 'in training': {'metric': 'seen'}}
    if (found[found.metric == OVERLAP].value > 0).any():
      rows['training images in it'] = {'metric': OVERLAP}
    yield arrange(
        'Detection of negatives by the maximum prediction. FPR95 (ID-positive): '
        'share of negatives accepted where 95 % of positives are; FPR95 '
        '(OOD-positive): share of positives rejected where 95 % of negatives are.',
        text, rows, _sets(negatives), named)
  if len(positives):
    yield arrange(
        'Positive sets: accuracy and expected calibration error.', text,
        of_metrics(['accuracy', 'ece']) | {'n': {'metric': 'n'}}, _sets(positives),
        named)


def _sets(found, title='', **key):
  """Columns for `tables.arrange`, one for each evaluation set in the data frame."""
  return {f'{title}{name}': {'eval': name, **key} for name in found['eval'].unique()}


def _counts(found) -> dict[tuple, str]:
  """The cells of a set's size, its overlap, and whether it was seen in training."""
  text = {}
  for (group, name), rows in found.groupby(['group', 'eval']):
    seen = rows.seen.dropna()
    text[group, name, 'n', ''] = counts_text(
        rows.n[~rows.metric.isin(OF_POSITIVES)].dropna())
    text[group, name, OVERLAP, ''] = counts_text(
        rows[rows.metric == OVERLAP].value.dropna())
    text[group, name, 'seen', ''] = '-' if seen.empty else (
        'seen' if seen.all() else 'mixed' if seen.any() else 'unseen')
  return text


def _absent_thresholds(found):
  """A sentence on the thresholds without values; '' if there are none."""
  present = found[found.metric == 'ncr'].groupby(['run', 'eval']).threshold.agg(set)
  absent = [t for t in THRESHOLDS if any(t not in of_set for of_set in present)]
  if not absent:
    return ''
  return (f' "-" at t of {", ".join(absent)}: says nothing, since the largest of K '
          'probabilities is at least 1/K for every network.')


def _intervals(found, groups) -> Iterator[Table]:
  """95 % intervals of accuracy, AUROC and NCR_t, for groups of a single run."""
  single = {label: label for label, runs in groups.items() if len(runs) == 1}
  found = found[found.group.isin(single) & found.low.notna()]
  if len(found):
    yield arrange(
        '95 % intervals over the images of a set, one trained network each: Wilson for '
        'shares, bootstrap for the AUROC.',
        {(row.group, row.eval, row.metric, row.threshold):
         f'{row.low:.3f} to {row.high:.3f}' for row in found.itertuples()},
        of_metrics(['accuracy', 'auroc'])
        | {f'NCR_{t}': {'metric': 'ncr', 'threshold': t} for t in THRESHOLDS},
        _sets(found[found.positive]) | _sets(found[~found.positive]), single)


def _claims(found, groups) -> Iterator[Table]:
  """NCR_t over seeds: intervals, and tests of every group against its baseline."""
  several = {label: runs for label, runs in groups.items() if len(runs) > 1}
  found = found[found.group.isin(several) & (found.metric == 'ncr')]
  if not len(found):
    return
  columns, rivals = _sets(found, metric='ncr'), baselines(several)
  yield arrange(
      'NCR_t: 95 % interval of the mean over seeds (Student), in brackets the value '
      'that the paper printed for its full-size run.',
      claims.intervals(found), BY_THRESHOLD, columns, labels(several), 't')
  if rivals:
    yield arrange(
        f'NCR_t against {" and ".join(dict.fromkeys(rivals.values()))}: lower or '
        f'higher by {claims.METHOD}',
        claims.verdicts(claims.comparisons(found, rivals)), BY_THRESHOLD, columns,
        {label: label for label in rivals}, 't')


def _others(found, groups) -> Iterator[Table]:
  """A table for each other type of evaluation, with a row for each of its metrics."""
  for kind, rows in found.groupby('type', sort=False):
    keys = dict.fromkeys(zip(rows.metric, rows.threshold, strict=True))
    yield arrange(
        f'Evaluations of type {kind!r}.', cells(rows),
        {f'{metrics.describe(metric).title} {t}'.strip(): {
            'metric': metric, 'threshold': t} for metric, t in keys},
        _sets(rows), labels(groups))


def baselines(groups: Groups) -> dict[str, str]:
  """Group -> the baseline of its experiment, for groups that have one.

  A baseline with other classes, or another test set, is of another experiment.
  Of several baselines the one with the most similar name is taken: 'student_baseline'
  and not 'teacher_baseline' for 'student_nat'.
  """
  rivals = {}
  for label, (run, *_) in groups.items():
    found = [other for other, (one, *_) in groups.items()
             if one['variant'].endswith('baseline') and _experiment(one) == (
                 _experiment(run))]
    if found and label not in found:
      rivals[label] = max(found, key=lambda other: len(os.path.commonprefix(
          [groups[other][0]['variant'], run['variant']])))
  return rivals


def _experiment(run):
  """What runs must have in common to be compared: name, classes and test set."""
  return (run['name'], run['class_names'],
          run['evals'].get(run['reference'], {}).get('n'))


def _about(groups):
  """The table of runs: step, time, loss, network and workdir of each."""
  rows = [[run['label'], str(run['step']), duration(run),
           *(run['config'].get(key, {}).get('name', '-') for key in ('loss', 'model')),
           run['workdir']] for runs in groups.values() for run in runs]
  return Table('Runs. Time: of training and evaluations, hours:minutes:seconds.',
               ['run', 'step', 'time', 'loss', 'model', 'workdir'], rows, left=6)


def figures(groups: Groups) -> Iterator[tuple[str, str, str, Any]]:
  """Yields (file name, caption, note on what is missing or '', figure or None)."""
  runs = [run for same in groups.values() for run in same]

  def has_scores(run):
    folder = files.as_path(run['workdir']) / 'scores'
    return any((folder / f'{name}.npz').exists() for name in run['evals'])

  no_metrics = plots.missing(runs, 'metrics.jsonl', plots.has_history)
  no_scores = plots.missing(runs, 'scores/*.npz', has_scores)
  yield 'training', 'Training curves', no_metrics, plots.training_curves(groups)
  yield ('histogram', 'Maximum probabilities of each set, as shares of its images',
         no_scores, plots.histograms(groups))
  yield ('rates', 'NCR_t (lower is better) and PAR_t (higher is better) against t',
         no_scores, plots.rates(groups))
  if any(run['config'].get('trainer', {}).get('teacher') for run in runs):
    figure = pictures.attention(groups)
    yield ('attention', 'Attention maps of the groups, low to high',
           'Test images above, negatives below; brighter where activation is stronger.'
           if figure else 'Left out: fewer than two runs have attention.npz.',
           figure)
  for i, run in enumerate(runs):
    figure = pictures.mistakes(run)
    yield (f'mistakes_{i}', f'Most confidently mistaken negatives: {run["label"]}',
           'Below each: the predicted class and its probability; none: the prediction '
           'is the background output.' if figure and run['evaluation'].get('background')
           else 'Below each: the predicted class and its probability.' if figure else
           'Left out: the run has no mistakes/*.npz.', figure)
