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
FEW = 6  # most runs of an experiment that are compared side by side
KEYS = ('steps', 'samples', 'boundary', 'grid', 'data', 'negative')  # of points.npz


def tables(groups: Groups) -> list[Table]:
  """Tables of each experiment, and one of the modes that all runs cover.

  Of an experiment with at most `FEW` runs, or whose data has no modes: the figures of
  merit, and the distance to the data against steps. Of two or more runs with equal
  seeds the last is tested against the first, with paired tests over seeds. The rows of
  a table are one family of tests.
  """
  found = []
  for runs in _experiments(groups).values():
    if len(runs) <= FEW or not any(map(_num_modes, runs.values())):
      found += _of_experiment(runs)
  return found + _coverage(_experiments(groups))


def _of_experiment(runs):
  """The tables of the runs of one experiment."""
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
          {METRICS[name].title: (SAMPLES, name) for name in (
              *measures.MERIT,
              *(measures.COVERAGE if any(map(_num_modes, runs.values())) else ()))}),
      _table(
          f'{first["name"]}: {first["measure"]} from the data against steps.{against}',
          'step', {label: run | {'evals': _distances(run)}
                   for label, run in runs.items()}, rivals,
          {step: (step, 'distance') for step in steps})]


def _coverage(experiments):
  """[the table of modes and good samples], a row per variant; [] without modes."""
  counted = {name: {label: run for label, run in runs.items()
                    if _num_modes(run)}
             for name, runs in experiments.items()}
  counted = {name: runs for name, runs in counted.items() if runs}
  if not counted:
    return []
  variants = list(dict.fromkeys(
      label for runs in counted.values() for label in runs))
  header, rows = ['variant'], [[variant] for variant in variants]
  for name, runs in counted.items():
    num = next(iter(runs.values()))['evaluation']['num_modes']
    header += [f'{name}: modes of {num}', 'found', 'good samples', 'distance']
    for row in rows:
      merit = runs[row[0]]['evals'][SAMPLES] if row[0] in runs else {}
      row += [mean_text(merit.get(key) or [], METRICS[key].digits)
              for key in (*measures.COVERAGE, 'distance_end')]
  return [Table(
      'Modes covered (by 1 % of the samples) and found (by one), share of good samples '
      'and distance from the data at the end: mean ± sample standard deviation over '
      'seeds.', header, rows)]


def _num_modes(run):
  """The number of modes of the data of a run; 0: they are not counted."""
  return run['evaluation'].get('num_modes', 0)


def verdict(groups: Groups) -> list[tuple[str, list[str]]]:
  """How many seeds converged, in words: (headline, sentences) for each run.

  Args:
    groups: from `reports.group`.
  """
  experiments, found = _experiments(groups), []
  for name, runs in experiments.items():
    before = f'{name}, ' if len(experiments) > 1 else ''
    found += [(before + headline, rest) for headline, rest in _verdicts(runs)]
  return found


def _verdicts(runs):
  """The headline and the sentences of each run of an experiment."""
  found, rivals = [], _rivals(runs)
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

  The figures are density and boundary over time, and an animation of them, of each
  experiment with at most `FEW` runs; and the last samples of all runs in a plane, where
  there are several.
  """
  experiments, planes = _experiments(groups), {}
  for name, labelled in experiments.items():
    runs = {}
    for label, run in labelled.items():
      arrays = results.read_arrays(run['workdir'], results.POINTS, run['step'], KEYS)
      if arrays:
        runs[label] = {**run['evaluation'], 'arrays': arrays}
    if runs and plots.is_plane(runs):
      planes[name] = runs
    missing = '' if runs else 'Left out: no run has points.npz.'
    if len(labelled) > FEW:
      missing = f'Left out: {name} has more than {FEW} runs.'
    after = f'_{name}' if len(experiments) > 1 else ''
    of = f' of {name}' if after else ''
    yield (f'points{after}', f'Density and decision boundary over time{of}', missing,
           None if missing else plots.overview(runs))
    yield (f'animation{after}.gif', f'Density and boundary over time{of}, animated',
           missing, None if missing else plots.animation(runs))
  if sum(map(len, planes.values())) > 1:
    yield ('last_samples', 'Samples of the first seed at the end', '',
           plots.last_samples(planes))


def _experiments(groups):
  """Name of an experiment -> {label without that name: run}."""
  found = {}
  for label, run in _single(groups).items():
    name = run['name']
    found.setdefault(name, {})[label.removeprefix(f'{name}:')] = run
  return found


def _single(groups):
  """Label -> run; runs that share a label are distinguished by their first seed."""
  return {label if len(runs) == 1 else f'{label}, seeds from {run["seed"]}': run
          for label, runs in groups.items() for run in runs}
