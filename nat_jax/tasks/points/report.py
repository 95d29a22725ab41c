"""The tables and figures of a report on GANs of points.

    for table in tables(reports.group(runs)):
      print(table.markdown())
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nat_jax.metrics import METRICS, proportion_interval
from nat_jax.reports import claims
from nat_jax.reports.frames import frame
from nat_jax.reports.tables import Table, cells, mean_text, percent
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
  rivals = _rivals(runs)
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


def verdict(groups: Groups) -> list[tuple[str, list[str]]]:
  """How many seeds converged, in words: (headline, sentences) for each run.

  Args:
    groups: from `reports.group`.
  """
  runs, found = _single(groups), []
  rivals = _rivals(runs)
  tests = _tests(_figures(runs), rivals)
  for label, run in runs.items():
    one, merit = run['evaluation'], run['evals'][SAMPLES]
    converged, far = merit['converged'], merit['distance_end']
    num, count = len(converged), int(sum(converged))
    low, high = proportion_interval(count, num)
    steps = [step for step in merit['steps_converged'] if step is not None]
    found.append((
        f'{label}: {count} of {num} seeds converged.',
        [f'The share of seeds that converge is {percent(count / num)} (95 % interval '
         f'{percent(low)} to {percent(high)}).',
         f'Distance from the data at the end: {mean_text(far, 3)}; converged means '
         f'below {one["threshold"]:.3f}, two samples of the data have '
         f'{one["floor"]:.3f}.',
         *([f'Those that converged needed {mean_text(steps, 0)} updates.']
           if steps else []),
         *([f'Distance at the end against {rivals[label]}: '
            f'{tests[label, SAMPLES, "distance_end", ""]}.']
           if label in rivals and num > 1 else [])]))
  return found


def _distances(run):
  """The distances of all seeds at each step, as an evaluation set per step."""
  curve = run['evaluation']['curve']
  return {str(step): {'distance': values}
          for step, values in zip(curve['step'], curve['distance'], strict=True)}


def _table(title, corner, runs, rivals, rows):
  """A table with a column for each run, of means over seeds, and one for the test."""
  found = _figures(runs)
  # Steps that are not shown are removed: only the rows are tested.
  found = found[[cell in rows.values() for cell in zip(
      found['eval'], found.metric, strict=True)]]
  text, shown = cells(found), _tests(found, rivals)
  tested = [f'{label} against {rival}' for label, rival in rivals.items()]
  return Table(
      title, [corner, *runs, *tested],
      [[head, *(text.get((label, *cell, ''), '-') for label in runs),
        *(shown.get((label, *cell, ''), '-') for label in rivals)]
       for head, cell in rows.items()])


def _rivals(runs):
  """{last label: first label} of two or more runs with equal seeds; else {}."""
  first, *_, last = [*runs, *runs]
  same = runs[first]['evaluation']['seeds'] == runs[last]['evaluation']['seeds']
  return {last: first} if len(runs) > 1 and same else {}


def _figures(runs):
  """The data frame of the figures of all seeds."""
  found = frame({label: [run] for label, run in runs.items()})
  return found.assign(threshold='')  # it numbers the seeds, which are averaged here


def _tests(found, rivals):
  return claims.verdicts(claims.comparisons(found, rivals), measures.paired_test)


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
