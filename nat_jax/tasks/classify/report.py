"""Classifiers -> the tables and the figures of a report.

    for table in tables(reports.group(runs)):
      print(table.markdown())
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nat_jax.reports import claims, pictures
from nat_jax.reports import figures as plots
from nat_jax.reports.tables import Table, eval_tables, interval_table

Groups = Mapping[str, Sequence[Mapping[str, Any]]]


def tables(groups: Groups) -> list[Table]:
  """All tables of classifiers.

  Args:
    groups: of `reports.group`: label -> runs of one experiment, a seed each.
  """
  found = eval_tables({label: [run['evals'] for run in runs]
                       for label, runs in groups.items()})
  single = {label: runs[0]['evals'] for label, runs in groups.items() if len(runs) == 1}
  intervals = interval_table(single)
  about = [[run['label'], str(run['step']),
            *(run['config'].get(key, {}).get('name', '-') for key in ('loss', 'model')),
            run['workdir']] for runs in groups.values() for run in runs]
  return [*found, *([intervals] if intervals else []), *claims.claim_tables(groups),
          Table('Runs.', ['run', 'step', 'loss', 'model', 'workdir'], about, left=5)]


def figures(groups: Groups) -> Iterator[tuple[str, str, str, Any]]:
  """(file name, caption, note on what is missing or '', figure or None)."""
  runs = [run for same in groups.values() for run in same]

  def note(what, has):
    without = [run['label'] for run in runs if not has(run)]
    if len(without) == len(runs):
      return f'Left out: no run has {what}.'
    return f'Without {what}: {", ".join(without)}.' if without else ''

  def has_scores(run):
    return any(Path(run['workdir'], 'scores', f'{name}.npz').exists()
               for name in run['evals'])

  no_metrics = note('metrics.jsonl', lambda run: any(run['history'].values()))
  no_scores = note('scores/*.npz', has_scores)
  yield 'training', 'Training curves', no_metrics, plots.training_curves(groups)
  yield ('histogram', 'Maximum predictions of each set, as shares of its images',
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
           'Below each: the predicted class and its probability.' if figure else
           'Left out: the run has no mistakes/*.npz.', figure)
