"""The tables, the figure and the verdict of a report on segmenters.

    for table in tables(reports.group(runs)):
      print(table.markdown())
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nat_jax.reports import pictures
from nat_jax.reports.frames import frame
from nat_jax.reports.tables import (
    Table,
    arrange,
    cells,
    joined,
    labels,
    mean_text,
    of_metrics,
    percent,
    values_of,
)
from nat_jax.runtime import results
from nat_jax.tasks.segment.evaluate import EXAMPLES, SYNTHETIC
from nat_jax.tasks.segment.predict import palette

THRESHOLD = '0.8'
Groups = Mapping[str, Sequence[Mapping[str, Any]]]


def tables(groups: Groups) -> list[Table]:
  """IoU of each class on the reference set, and the figures of all sets.

  Args:
    groups: from `reports.group`.
  """
  found, run = cells(frame(groups)), next(iter(groups.values()))[0]
  first = run['reference']
  columns = of_metrics(['miou', 'rare_iou', 'pixel_accuracy'])
  classes = {name: {'metric': 'iou', 'threshold': str(k)}
             for k, name in enumerate(_names(run))}
  rare = [_names(run)[k] for k in run['evaluation']['rare']]
  sets = {f'{name}{_seen(figures)}': {'eval': name}
          for name, figures in run['evals'].items()}
  confident = {
      title: {'metric': name, 'threshold': THRESHOLD}
      for title, name in (('PAR.8', 'par'), ('void NCR.8', 'void_ncr'))}
  return [
      arrange(
          f'Intersection over union on {first}, '
          f'{run["evals"].get(first, {}).get("n", 0)} pictures. '
          'mIoU is the mean over classes, and is not the pixel accuracy. The void is '
          f'left out. Rare: {joined(rare) or "no class"}.', found,
          {first: {'eval': first}}, columns | classes, labels(groups)),
      arrange(
          'All evaluation sets. PAR.8 and void NCR.8: the share of the pixels with a '
          f'class, and of the void, with a maximum probability above {THRESHOLD}. '
          'Seen: whether training pictures show void of this kind.',
          found, sets, columns | confident, labels(groups), corner='set')]


def _names(run):
  """Names of the classes; 'class 0', ... if they have none."""
  return run['evaluation']['class_names'] or [
      f'class {k}' for k in range(run['num_classes'])]


def _seen(figures):
  seen = figures.get('seen_in_training')
  return '' if seen is None else ' (void: seen)' if seen else ' (void: not seen)'


def verdict(groups: Groups) -> list[tuple[str, list[str]]]:
  """What the runs reach, in words: (headline, sentences) for each group.

  Args:
    groups: from `reports.group`.
  """
  said, first = [], next(iter(groups.values()))[0]['reference']
  rare = {}
  for label, runs in groups.items():
    values = {name: values_of(runs, first, name) for name in (
        'miou', 'rare_iou', 'pixel_accuracy')}
    text = {name: mean_text(found, 3) for name, found in values.items()}
    headline, sentences = f'{label}: mIoU {text["miou"]}', []
    if values['rare_iou']:
      rare[label] = statistics.fmean(values['rare_iou'])
      headline += f', rare IoU {text["rare_iou"]}'
      sentences = [f'The pixel accuracy, {text["pixel_accuracy"]}, says little about '
                   'rare classes.']
    elif values['miou']:
      sentences = [f'The pixel accuracy is {text["pixel_accuracy"]}.']
    else:
      headline = f'{label}: no IoU is known'
      sentences = [f'The masks of {first} show no class.']
    for seen, what in ((True, 'seen in training'), (False, 'not seen in training')):
      shares = [figures['void_ncr'][THRESHOLD] for run in runs
                for figures in run['evals'].values() if 'void_ncr' in figures
                and figures.get('seen_in_training') is seen]
      if shares:
        sentences.append(
            f'Of the void of kinds {what}, {percent(statistics.fmean(shares))} of the '
            f'pixels have a maximum probability above {THRESHOLD}.')
    said.append((f'{headline} on {first}.', sentences))
  if len(rare) > 1:
    ranked = sorted(rare, key=rare.get, reverse=True)
    said.append(('', [
        'Rare IoU, best first: '
        + ', '.join(f'{label} {rare[label]:.3f}' for label in ranked) + '.']))
  return said


def figures(groups: Groups) -> Iterator[tuple[str, str, str, Any]]:
  """Yields (file name, caption, note on what is missing or '', figure or None)."""
  first = next(iter(groups.values()))[0]['reference']
  colours, sheets, made = palette(), {}, {}
  for label, runs in groups.items():
    run = runs[0]
    shown, pairs = (results.read_arrays(
        run['workdir'], f'{EXAMPLES}/{name}', run['step'], ['image', 'mask'])
        for name in (first, SYNTHETIC))
    if shown is not None:
      if not sheets:
        sheets |= _legend(colours, _names(run))
        sheets[f'pictures of {first}'] = _sheet(shown['image'])
        sheets['masks (void: black)'] = _sheet(colours[shown['mask']])
      sheets[f'predicted by {label}'] = _sheet(colours[shown['prediction']])
    if pairs is not None:
      made[f'{label}: masks with a region pasted in'] = _sheet(colours[pairs['mask']])
      made[f'{label}: pictures of these masks'] = _sheet(pairs['image'])
  for name, caption, found in (
      ('predictions', f'Pictures of {first}, masks and predictions', sheets),
      ('synthetic', 'Synthetic pairs', made)):
    yield (name, caption, '' if found else 'Left out: no run has such pictures.',
           pictures.captioned(found) if found else None)


def _legend(colours, names):
  """The colours of all classes, as sheets with as many as one can show."""
  most, found = pictures.SHEET_COLUMNS * pictures.SHEET_ROWS, {}
  for first in range(0, len(names), most):
    shown = names[first:first + most]
    title = 'classes' + f', from number {first}' * bool(first)
    found[title] = colours[first:first + len(shown)].reshape(-1, 1, 1, 3), shown
  return found


def _sheet(images: np.ndarray) -> tuple[np.ndarray, list[str]]:
  return images, [''] * len(images)
