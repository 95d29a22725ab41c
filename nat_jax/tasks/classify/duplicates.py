"""Reports near-duplicates among the pictures of a run, before it is trained.

    write(config, workdir, inputs, sets)      # workdir/duplicates.csv, and a warning

A picture that is also in the training set, in another size or quality, makes the
figures of a test set too good; one that is both a positive and a negative teaches
opposite answers. Pictures of two sets are compared unless both are positives or both
are negatives of one part. The sets must have perceptual hashes: sources of pictures
with lazy='auto' do.
"""

import csv
import io
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import logging

from nat_jax import data, schema
from nat_jax.runtime import checkpoint, files
from nat_jax.task import Inputs
from nat_jax.tasks.classify.inputs import EvalSet

FILE = 'duplicates.csv'  # in the workdir
COLUMNS = ('distance', 'set', 'path', 'other_set', 'other_path')
TRAIN = 'train'
_SHOWN = 3  # pairs of sets in the warning, with an example of each


class _Set(NamedTuple):
  title: str
  part: str
  positive: bool
  arrays: data.Arrays


def write(
    config: Mapping[str, Any], workdir: str, inputs: Inputs,
    sets: Mapping[str, EvalSet],
) -> None:
  """Writes duplicates.csv, and logs a warning if it has rows.

  Nothing is done for a run that goes on from a checkpoint and has that file.

  A row is a picture of one set with the closest picture of a set before it, in the
  order train, validation, calibration, test, if their distance is at most
  `data.duplicates`.

  Args:
    config: of the run.
    workdir: to which the file is written.
    inputs: with the training positives and negatives.
    sets: from `inputs.load_evals`.
  """
  path, most = os.path.join(workdir, FILE), config['data']['duplicates']
  known = [one for one in _sets(inputs, sets) if one.arrays.hashes is not None]
  if most is None or len(known) < 2 or (
      files.exists(path) and checkpoint.list_steps(workdir)):
    return
  found = [(other, one, rows) for k, one in enumerate(known) for other in known[:k]
           if (one.part, one.positive) != (other.part, other.positive)
           and (rows := _pairs(one.arrays, other.arrays, most))]
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(COLUMNS)
  for other, one, rows in found:
    writer.writerows((distance, one.title, mine, other.title, theirs)
                     for distance, mine, theirs in rows)
  with files.replacing(path, 'wb') as file:
    file.write(os.fsencode(text.getvalue()))  # paths may be of any bytes
  if found:
    logging.warning('%s', _warning(found, path))


def _sets(inputs, sets):
  """All sets of pictures as they are, by part."""
  trained = [_Set(f'{TRAIN}/positives', TRAIN, True, inputs.positives)]
  trained += [_Set(f'{TRAIN}/{name}', TRAIN, False, arrays)
              for name, arrays in (inputs.negatives or {}).items()]
  evaluated = [_Set(f'{one.part}/{name}', one.part, one.positive, one.arrays)
               for name, one in sets.items() if not one.corrupt]
  order = schema.VALIDATION, schema.CALIBRATION, schema.TEST
  return trained + sorted(evaluated, key=lambda one: order.index(one.part))


def _pairs(arrays, others, most):
  """(distance, path, path of the closest of the others), by distance."""
  index, distance = data.nearest(arrays.hashes, others.hashes)
  return sorted(
      (int(distance[row]), os.fspath(arrays.files[row]),
       os.fspath(others.files[index[row]]))
      for row in (distance <= most).nonzero()[0])


def _warning(found, path):
  """The pairs of sets with most pairs of pictures, with examples."""
  total = sum(len(rows) for *_, rows in found)
  lines = ['near-duplicates among pictures of different parts, or of positives and '
           f'negatives: {total}']
  for other, one, rows in sorted(found, key=lambda each: -len(each[2]))[:_SHOWN]:
    _, mine, theirs = rows[0]
    lines.append(f'  {len(rows)} in {one.title} (of {len(one.arrays.hashes)}) of '
                 f'pictures in {other.title}, such as {mine} of {theirs}')
  if len(found) > _SHOWN:
    lines.append(f'  and others in {len(found) - _SHOWN} more pairs of sets')
  return '\n'.join([*lines, (
      f'All are listed in {path}. Figures of these sets may be too good: remove '
      'copies, or keep them in one part by the column group of a table '
      '(docs/pictures.md)')])
