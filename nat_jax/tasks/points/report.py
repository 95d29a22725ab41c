"""The tables and figures of a report on GANs of points.

    for table in tables(reports.group(runs)):
      print(table.markdown())
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nat_jax.metrics import METRICS
from nat_jax.reports import claims
from nat_jax.reports.frames import frame
from nat_jax.reports.tables import Table, cells
from nat_jax.runtime import results
from nat_jax.tasks.points import figures as plots
from nat_jax.tasks.points import measures

Groups = Mapping[str, Sequence[Mapping[str, Any]]]
SAMPLES = 'samples'  # the evaluation set of generated points
KEYS = ('steps', 'samples', 'boundary', 'grid', 'data', 'negative')  # of points.npz


def tables(groups: Groups) -> list[Table]:
  """Two tables: figures of merit, and the distance to the data against steps.

  Of two or more runs with equal seeds the last is tested against the first, with paired
  tests over seeds. The rows of a table are one family of tests.

  Raises:
    ValueError: runs of several experiments.
  """
  runs = _single(groups)
  names = {run['name'] for run in runs.values()}
  if len(names) > 1:
    raise ValueError(
        f'expected runs of one experiment, got {", ".join(sorted(names))}')
  labels, first = list(runs), next(iter(runs.values()))['evaluation']
  same = first['seeds'] == runs[labels[-1]]['evaluation']['seeds']
  rivals = {labels[-1]: labels[0]} if len(labels) > 1 and same else {}
  tests = ('two-sided paired permutation tests over seeds at 5 %, p by Holm\'s '
           'correction over the rows of the table.')
  against = f' {labels[-1]} against {labels[0]}: {tests}' if rivals else ''
  curve = first['curve']['step']
  steps = [str(step) for step in curve[::max(1, (len(curve) - 1) // 10)]]
  return [
      _table(
          f'{first["name"]}: mean ± sample standard deviation over seeds '
          f'{first["seeds"][0]}..{first["seeds"][-1]}. Converged: distance at the end '
          f'below {first["threshold"]:.3f}, {first["threshold"] / first["floor"]:g} '
          f'times that of two samples of {first["num_samples"]} points of the data '
          f'(the floor, {first["floor"]:.4f}).{against}', 'measure', runs, rivals,
          {METRICS[name].title: (SAMPLES, name) for name in measures.MERIT}),
      _table(
          f'{first["name"]}: {first["measure"]} from the data against steps.{against}',
          'step', {label: run | {'evals': _distances(run)}
                   for label, run in runs.items()}, rivals,
          {step: (step, 'distance') for step in steps})]


def _distances(run):
  """The distances of all seeds at each step, as an evaluation set per step."""
  curve = run['evaluation']['curve']
  return {str(step): {'distance': values}
          for step, values in zip(curve['step'], curve['distance'], strict=True)}


def _table(title, corner, runs, rivals, rows):
  """A table with a column for each run, of means over seeds, and one for the test."""
  found = frame({label: [run] for label, run in runs.items()})
  found = found.assign(threshold='')  # it numbers the seeds, which are averaged here
  # Steps that are not shown are removed: only the rows are tested.
  found = found[[cell in rows.values() for cell in zip(
      found['eval'], found.metric, strict=True)]]
  text = cells(found)
  shown = claims.verdicts(claims.comparisons(found, rivals), measures.paired_test)
  tested = [f'{label} against {rival}' for label, rival in rivals.items()]
  return Table(
      title, [corner, *runs, *tested],
      [[head, *(text.get((label, *cell, ''), '-') for label in runs),
        *(shown.get((label, *cell, ''), '-') for label in rivals)]
       for head, cell in rows.items()])


def figures(groups: Groups) -> Iterator[tuple[str, str, str, Any]]:
  """Yields (file name, caption, note, figure or None) for each figure.

  The figures are density and boundary over time, and an animation of them.
  """
  runs = {}
  for label, run in _single(groups).items():
    arrays = results.read_arrays(run['workdir'], results.POINTS, run['step'], KEYS)
    if arrays:
      runs[label] = {**run['evaluation'], 'arrays': arrays}
  missing = '' if runs else 'Left out: no run has points.npz.'
  yield ('points', 'Density and decision boundary over time', missing,
         plots.overview(runs) if runs else None)
  yield ('animation.gif', 'Density and boundary over time, animated', missing,
         plots.animation(runs) if runs else None)


def _single(groups):
  """Label -> run; runs that share a label are distinguished by their first seed."""
  return {label if len(runs) == 1 else f'{label}, seeds from {run["seed"]}': run
          for label, runs in groups.items() for run in runs}
