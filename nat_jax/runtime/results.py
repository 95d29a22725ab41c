"""The results of an evaluation in a workdir: eval.json and .npz files of arrays.

    write_evaluation(workdir, config, 6, {'evals': {...}}, {'scores/test': {...}})
    read_evaluation(workdir)                     # None if there is no eval.json
    read_arrays(workdir, 'scores/test', step=6)  # None if there is no such file

Every .npz file holds the step of its evaluation. Readers compare it with the step of
eval.json, so that they never mix two evaluations, even if a writer was interrupted.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nat_jax import schema
from nat_jax.runtime import files

EVALUATION = 'eval.json'
SCORES, MISTAKES = 'scores', 'mistakes'  # folders with an .npz per evaluation set
ATTENTION, SAMPLES, POINTS = 'attention', 'samples', 'points'  # names of .npz files
CLASSIFIER = 'evaluation_classifier'  # key of a GAN's conventions in eval.json
STEP = 'step'  # array in every .npz file: the step of the evaluated checkpoint
# Keys of an evaluation set in eval.json whose values are text.
TEXT = ('part', 'type', 'corruption')
IDENTITY = ('name', 'variant', 'seed')  # keys of a config that eval.json has too


def write_evaluation(
    workdir: str, config: Mapping[str, Any], step: int, evaluation: Mapping[str, Any],
    arrays: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, Any]:
  """Writes the .npz files and then eval.json, in the first process only.

  All files are written under temporary names and then renamed together, so that an
  interrupted evaluation leaves the files of the one before it.

  Args:
    workdir: of the run.
    config: of the run; its name, variant and seed stand in eval.json.
    step: of the state that was evaluated; it stands in every file.
    evaluation: the rest of eval.json, with the figures of the sets in 'evals'.
    arrays: file name without '.npz', such as 'scores/test' -> arrays by name.

  Returns:
    The content of eval.json, with None in place of NaN and infinity.
  """
  evaluation = files.finite({
      'format': schema.FORMAT, **{key: config[key] for key in IDENTITY}, 'step': step,
      **evaluation})
  if jax.process_index():
    return evaluation
  with files.writing_together(workdir) as path:
    for name, values in arrays.items():
      files.write_npz(path(f'{name}.npz'), **values, step=step)
    files.write_json(path(EVALUATION), evaluation)
  return evaluation


def read_evaluation(
    workdir: str | os.PathLike, remedy: str = ''
) -> dict[str, Any] | None:
  """Reads eval.json; None if there is no such file.

  Args:
    workdir: of the run.
    remedy: what to do about a damaged file, for the error message; '': evaluate again.

  Raises:
    files.Unreadable: the file is damaged.
    schema.Newer: a later version of nat_jax wrote the file.
  """
  path = os.path.join(workdir, EVALUATION)
  remedy = remedy or _again(workdir)
  try:
    found = files.read_json(path, remedy)
  except (FileNotFoundError, NotADirectoryError):
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
  """Reads the arrays of `workdir/name.npz`; None if there is no such file.

  Args:
    workdir: of the run.
    name: of the file without '.npz', such as 'scores/test'.
    step: of the evaluation that the arrays must belong to.
    keys: names of arrays that the file must hold.
    remedy: what to do about a damaged file, for the error message; '': evaluate again.

  Returns:
    The arrays by name, without the step.

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
  """Whether `evals` is {set: {metric: a number, or a list or dict of numbers}}."""
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
