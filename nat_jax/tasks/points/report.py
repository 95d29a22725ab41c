"""Many runs of GANs of points -> the tables and the figures of their report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nat_jax.reports.tables import Table
from nat_jax.runtime import results
from nat_jax.tasks.points import figures as plots
from nat_jax.tasks.points import measures

Groups = Mapping[str, Sequence[Mapping[str, Any]]]
KEYS = ('steps', 'samples', 'boundary', 'grid', 'data', 'negative')  # of points.npz


def tables(groups: Groups) -> list[Table]:
  """Figures of merit, and the distance against steps; the last against the first.

  Raises:
    ValueError: runs of several experiments.
  """
  found = _single(groups)
  names = {run['name'] for run in found.values()}
  if len(names) > 1:
    raise ValueError(
        f'runs of one experiment are compared, got {", ".join(sorted(names))}')
  return measures.compare({label: run['evaluation'] for label, run in found.items()})


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
