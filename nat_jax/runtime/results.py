"""What an evaluation leaves in a workdir: eval.json and the arrays beside it.

    write_evaluation(workdir, {'step': 6, 'evals': {...}}, {'scores/test': {...}})
    read_evaluation(workdir)                     # None where there is none
    read_arrays(workdir, 'scores/test', step=6)  # None where there is no such file

Every .npz file holds the step that it was made at. A reader that is given the step of
eval.json therefore never mixes two evaluations, wherever the writer was cut off.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nat_jax import schema
from nat_jax.runtime import files

EVALUATION = 'eval.json'
# Names of .npz files: folders of one for each evaluation set, and single ones.
SCORES, MISTAKES = 'scores', 'mistakes'
ATTENTION, SAMPLES, POINTS = 'attention', 'samples', 'points'
STEP = 'step'  # array of every .npz file: the step of the checkpoint that was evaluated
TEXT = ('part', 'type')  # entries of a set that are text


def write_evaluation(
    workdir: str, evaluation: Mapping[str, Any],
    arrays: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, Any]:
  """Writes the .npz files and then eval.json; of several processes the first does.

  All are written under other names first and put in their places together: an
  evaluation that is cut off leaves the one before it.

  Args:
    workdir: of the run.
    evaluation: what eval.json will hold; its 'step' goes into every .npz file too.
    arrays: from the name of a file without '.npz', such as 'scores/test', to what it
      holds.

  Returns:
    What eval.json holds: the evaluation and the number of its `format`.
  """
  evaluation = {'format': schema.FORMAT, **evaluation}
  if jax.process_index():
    return evaluation
  with files.writing_together(workdir) as path:
    for name, values in arrays.items():
      files.write_npz(path(f'{name}.npz'), **values, step=evaluation['step'])
    files.write_json(path(EVALUATION), evaluation)
  return evaluation


def read_evaluation(
    workdir: str | os.PathLike, remedy: str = ''
) -> dict[str, Any] | None:
  """What eval.json holds; None where there is none.

  Args:
    workdir: of the run.
    remedy: what mends a damaged file; by default evaluating the run again.

  Raises:
    files.Unreadable: it is damaged.
    schema.Newer: a later version of nat_jax wrote it.
  """
  path = os.path.join(workdir, EVALUATION)
  remedy = remedy or _again(workdir)
  try:
    found = files.read_json(path, remedy)
  except FileNotFoundError:
    return None
  schema.check_format(found, path)
  evals = found.get('evals', {})
  if type(found.get(STEP)) is not int or not _are_figures(evals):
    raise files.Unreadable(path, 'it holds no evaluation', remedy)
  return found


def read_arrays(
    workdir: str | os.PathLike, name: str, step: int, keys: Sequence[str] = (),
    remedy: str = '',
) -> dict[str, np.ndarray] | None:
  """The arrays of `workdir/name.npz`, made at `step`; None where there is no file.

  Args:
    workdir: of the run.
    name: of the file, without '.npz': 'scores/test'.
    step: of the evaluation that the arrays must belong to.
    keys: names of arrays that must be there.
    remedy: as for `read_evaluation`.

  Raises:
    files.Unreadable: the file is damaged, or belongs to the evaluation of another step.
  """
  path, remedy = os.path.join(workdir, f'{name}.npz'), remedy or _again(workdir)
  try:
    arrays = files.read_npz(path, remedy, keys=(*keys, STEP))
  except FileNotFoundError:
    return None
  made_at = arrays.pop(STEP)
  if made_at.shape or made_at != step:
    raise files.Unreadable(
        path, f'expected the arrays of step {step}, got those of {made_at}', remedy)
  return arrays


def _again(workdir):
  return ('evaluate the run again: python -m nat_jax.main --mode=evaluate '
          f'--workdir {workdir}')


def _are_figures(evals):
  """Whether these are figures by set: numbers, or lists or dicts of numbers."""
  return isinstance(evals, dict) and all(
      isinstance(values, dict) and all(
          _is_number(value) or name in TEXT
          or isinstance(value, list) and all(map(_is_number, value))
          or isinstance(value, dict) and all(
              _is_number(v) or isinstance(v, list) and all(map(_is_number, v))
              for v in value.values())
          for name, value in values.items())
      for values in evals.values())


def _is_number(value):
  return value is None or isinstance(value, int | float)
