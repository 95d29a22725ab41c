"""Many runs of GANs of points -> the tables and the figures of their report."""

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
  """Figures of merit, and the distance against steps; the last against the first.

  Of two or more runs of the same seeds the last is tested against the first, seed by
  seed. The rows of a table are one family of tests.

  Raises:
    ValueError: runs of several experiments.
  """
  runs = _single(groups)
  names = {run['name'] for run in runs.values()}
  if len(names) > 1:
    raise ValueError(
        f'runs of one experiment are compared, got {", ".join(sorted(names))}')
  labels, one = list(runs), next(iter(runs.values()))['evaluation']
  same = one['seeds'] == runs[labels[-1]]['evaluation']['seeds']
  rivals = {labels[-1]: labels[0]} if len(labels) > 1 and same else {}
  tests = ('two-sided paired permutation tests over seeds at 5 %, p by Holm\'s '
           'correction over the rows of the table.')
  against = f' {labels[-1]} against {labels[0]}: {tests}' if rivals else ''
  curve = one['curve']['step']
  steps = [str(step) for step in curve[::max(1, (len(curve) - 1) // 10)]]
  return [
      _table(
          f'{one["name"]}: mean ± sample standard deviation over seeds '
          f'{one["seeds"][0]}..{one["seeds"][-1]}. Converged: distance at the end '
          f'below {one["threshold"]:.3f}, {one["threshold"] / one["floor"]:g} times '
          f'that of two samples of {one["num_samples"]} points of the data (the floor, '
          f'{one["floor"]:.4f}).{against}', 'measure', runs, rivals,
          {METRICS[name].title: (SAMPLES, name) for name in measures.MERIT}),
      _table(
          f'{one["name"]}: {one["measure"]} from the data against steps.{against}',
          'step', {label: run | {'evals': _distances(run)}
                   for label, run in runs.items()}, rivals,
          {step: (step, 'distance') for step in steps})]


def _distances(run):
  """The distances of all seeds at each step, as a set of figures each."""
  curve = run['evaluation']['curve']
  return {str(step): {'distance': values}
          for step, values in zip(curve['step'], curve['distance'], strict=True)}


def _table(title, corner, runs, rivals, rows):
  """A column for each run, with the mean over its seeds, and what a test shows."""
  found = frame({label: [run] for label, run in runs.items()})
  found = found.assign(threshold='')  # the values of a metric are those of the seeds
  # Without the steps that are not shown: the rows are the family of tests.
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
  """(file name, caption, note, figure or None) of density and boundary over time."""
  runs = {}
  for label, run in _single(groups).items():
    arrays = results.read_arrays(run['workdir'], results.POINTS, run['step'], KEYS)
    if arrays:
      runs[label] = {**run['evaluation'], 'arrays': arrays}
  missing = '' if runs else 'Left out: no run has points.npz.'
  yield ('points', 'Density and decision boundary over time', missing,
         plots.overview(runs) if runs else None)
  yield ('animation.gif', 'The same, each look a frame', missing,
         plots.animation(runs) if runs else None)


def _single(groups):
  """Label -> run; runs of one label (first seeds that differ) are shown apart."""
  return {label if len(runs) == 1 else f'{label}, seeds from {run["seed"]}': run
          for label, runs in groups.items() for run in runs}
