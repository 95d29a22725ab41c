"""Finds the training examples that help or harm a metric; writes files to act on it.

    found = write('runs/digits', influence.influence('runs/digits'), top=100)

All files are in a folder of the workdir, `folder`, that is named after the method and
the metric, so that the files of another metric, which runs may use, stay as they are:
  influence.csv    every training example with its value, most helpful first
  influence.json   the metric, the checks, and what the sign means
  influence.png    the most helpful and the most harmful pictures of each set
  drop_SET.json    the rows of the most harmful examples of a set, for `data.drop`
  keep_SET.json    the rows of the most helpful examples of a set, for `data.keep`
"""

import csv
import functools
import os
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nat_jax import data, influence, schema
from nat_jax.commands import flags
from nat_jax.commands.predictions import as_cell
from nat_jax.influence import Influence
from nat_jax.reports import figures, pictures, tables
from nat_jax.runtime import files
from nat_jax.tasks import subsets

FOLDER = 'influence'
COLUMNS = ('set', 'source', 'index', 'label', 'class', 'value', 'verdict', 'taken')
TOP = 100
LISTED = 5  # of each set, in the terminal
PICTURES = 16  # of each kind on the sheet
REPORT = 10.0  # least seconds between two lines of progress


def folder(workdir: str, found: Influence) -> str:
  """The folder of the files, such as influence/exact-ncr@0.8-noise in the workdir."""
  name = found.target.text.replace(':', '-')
  return os.path.join(workdir, FOLDER, f'{found.method}-{name}')


def write(workdir: str, found: Influence, top: int = TOP) -> dict[str, Any]:
  """Writes the table, the sheet and the files of rows.

  Args:
    workdir: of the run.
    found: from `influence.influence`.
    top: the number of most helpful and of most harmful examples of each set that the
      files of rows hold at most. Examples that `data.drop` or `data.keep` exclude
      already are in the files to drop as well, so that these add up.

  Returns:
    The content of influence.json.

  Raises:
    ValueError: `top` is below 1.
  """
  _check(top)
  content = {
      'format': schema.FORMAT, 'step': found.step, 'of': found.target.text,
      'higher_is_better': found.target.higher, 'method': found.method,
      'meaning': influence.MEANING, 'soft': found.soft, 'metric': found.hard,
      'difference_of_the_repeated_training': found.difference,
      'checkpoints': found.checkpoints, 'top': top,
      'sets': {name: _summary(found.value[part.here])
               for name, part in found.sets.items()}}
  with files.writing_together(folder(workdir, found)) as path:
    for name, part in found.sets.items() if has_files(found) else ():
      for what, rows in zip(('drop', 'keep'), _chosen(found, part, top), strict=True):
        files.write_json(path(f'{what}_{name}.json'), {
            name: {'size': part.size, 'rows': rows}})
    with open(path('influence.csv'), 'w', newline='', encoding='utf-8',
              errors='surrogateescape') as file:
      csv.writer(file).writerows([COLUMNS, *_rows(found)])
    if not data.is_vectors(found.pool.image.shape[1:]):
      figures.save(_sheet(found), path('influence.png'))
    files.write_json(path('influence.json'), content)
  return content


def has_files(found: Influence) -> bool:
  """Whether rows can be dropped from the training data of this run, as from sources."""
  return 'drop' in found.config['data']


def _check(top):
  if top < 1:
    raise ValueError(f'--top must be 1 or more examples, got {top}')


def _summary(value):
  return {'n': len(value), 'helpful': int((value > 0).sum()),
          'harmful': int((value < 0).sum()), 'sum': float(value.sum())}


def ranked(value: np.ndarray) -> np.ndarray:
  """The order from the most helpful to the most harmful example, [n]."""
  return np.argsort(-value, kind='stable')


def _chosen(found, part, top):
  """(rows of the source to drop, rows to keep), sorted."""
  value = found.value[part.here]
  order = ranked(value)
  harmful = [k for k in order[::-1][:top] if value[k] < 0]
  helpful = [k for k in order[:top] if value[k] > 0]
  out = np.setdiff1d(np.arange(part.size), part.rows)
  return (sorted([*out.tolist(), *part.rows[harmful].tolist()]),
          sorted(part.rows[helpful].tolist()))


def _rows(found):
  """Rows of the table, the most helpful example first."""
  names, rows = found.class_names, []
  for name, part in found.sets.items():
    spec = found.config['data']
    if has_files(found):
      spec = (spec['positives'] if name == subsets.POSITIVES else
              spec['negatives'][name]['source'])
    source = spec.get('dataset') or spec.get('path') or spec['name']
    for k, row in zip(range(part.first, part.first + len(part.rows)), part.rows,
                      strict=True):
      label, value = int(found.pool.label[k]), float(found.value[k])
      taken = int(found.taken[k])
      verdict = ('unused' if not taken else 'helpful' if value > 0 else
                 'harmful' if value < 0 else 'neutral')
      rows.append((as_cell(name), as_cell(source), int(row), label,
                   as_cell(names[label]) if 0 <= label < len(names) else '',
                   f'{value:.6g}', verdict, taken))
  return [rows[k] for k in ranked(found.value)]


def _sheet(found):
  """The most helpful and the most harmful pictures of each set."""
  groups = {}
  for name, part in found.sets.items():
    order = part.first + ranked(found.value[part.here])
    for what, chosen in (('helpful', order), ('harmful', order[::-1])):
      chosen = chosen[:PICTURES]
      groups[f'{name}: most {what}'] = (found.pool.image[chosen], [
          f'{part.rows[k - part.first]}{_class(found, k)}\n{found.value[k]:+.1e}'
          for k in chosen])
  return pictures.captioned(groups)


def _class(found, k):
  """The class of an example of the pool, for a caption; '' for a negative."""
  label, names = int(found.pool.label[k]), found.class_names
  if label < 0:
    return ''
  return f': {names[label][:8] if label < len(names) else label}'


def text(found: Influence, content: Mapping[str, Any], workdir: str) -> str:
  """What was found, for the terminal."""
  better = 'higher' if found.target.higher else 'lower'
  lines = [
      f'Influence on {found.target.text} ({better} is better) of checkpoint '
      f'{found.step}, method {found.method}: {found.hard:.4f}, differentiable form '
      f'{found.soft:.4f}.', influence.MEANING]
  if found.difference:
    lines.append(
        f'The repeated training differs from the checkpoint by up to '
        f'{found.difference:.2g} in a parameter, as after training on another number '
        'or kind of devices; values are those of the repeated training.')
  elif found.method == 'exact':
    lines.append('The repeated training has the bits of the checkpoint.')
  else:
    lines.append(
        f'An approximation by the output layer at {len(found.checkpoints)} checkpoints '
        f'({", ".join(map(str, found.checkpoints[:8]))}'
        f'{" ..." if len(found.checkpoints) > 8 else ""}); it ignores what BatchNorm, '
        'other layers and the optimiser do. More checkpoints make it better: '
        'run.checkpoint_every and run.keep.')
  chosen = found.config.get('evals', {}).get(found.target.set, {'part': ''})
  if chosen.get('part', schema.TEST) == schema.TEST:
    lines.append(
        f'{found.target.set!r} is a test set: after dropping examples by these values '
        'it does not measure generalisation; report results on other sets.')
  rows = []
  for name, one in found.sets.items():
    order = ranked(found.value[one.here])
    for what, chosen in (('helpful', order), ('harmful', order[::-1])):
      for k in chosen[:LISTED]:
        rows.append([name, what, f'{one.rows[k]}',
                     _class(found, one.first + k)[2:] or '-',
                     f'{found.value[one.first + k]:+.3g}'])
  sums = ', '.join(f'{name}: {one["helpful"]} of {one["n"]} helpful, sum '
                   f'{one["sum"]:+.3g}' for name, one in content['sets'].items())
  table = tables.Table(
      f'The most helpful and most harmful examples; {sums}.',
      ['set', 'most', 'index', 'class', 'value'], rows, left=2)
  drop = os.path.join(
      folder(workdir, found), f'drop_{list(found.sets)[-1]}.json')
  advice = [
      f'Train without the {content["top"]} most harmful examples of a set, in another '
      f'--workdir:\n  --config.data.drop={drop}'] if has_files(found) else []
  return '\n'.join([
      *(textwrap.fill(line, 88) for line in lines), '', table.markdown(), *advice])


def run(argv: Sequence[str] = ()) -> None:
  """--mode=influence: writes the value of every training example."""
  del argv
  workdir = flags.needed(flags.WORKDIR, 'influence')
  top = TOP if flags.TOP.value is None else flags.TOP.value
  _check(top)
  found = influence.influence(
      workdir, flags.OF.value, flags.METHOD.value, flags.STEP.value,
      flags.MEMORY.value, functools.partial(_tell, [time.monotonic()]))
  if jax.process_index() == 0:
    content = write(workdir, found, top)
    print(text(found, content, workdir))
    print(f'written: {folder(workdir, found)}')


def _tell(last, done, num):
  """Prints a line of progress from time to time; `last` holds the time of the last."""
  now = time.monotonic()
  if now - last[0] >= REPORT and done < num:
    last[0] = now
    print(f'traced back {done:,} of {num:,} updates', flush=True)
