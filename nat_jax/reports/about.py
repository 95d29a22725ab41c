"""What a report says about the runs themselves: data, classes, duration, command.

    facts(groups)       # [('Classes', '6: 0, 1, 2, 3, 4, 5'), ('Command', '...'), ...]
"""

import datetime
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nat_jax import losses
from nat_jax.names import listed
from nat_jax.reports.frames import part_of
from nat_jax.schema import PARTS

Groups = Mapping[str, Sequence[Mapping[str, Any]]]

DATA, POSITIVES, NEGATIVES = 'Data', 'Trained on', 'Negatives'  # terms
MOST_NAMES = 20  # names of classes, or commands, that are written out


def facts(groups: Groups) -> list[tuple[str, str]]:
  """Data, classes, negatives, duration and command, as (term, text).

  Duration and command are of all runs. All else is that of each group, where they
  differ. What a run has not recorded is left out, or said to be unknown.

  Args:
    groups: from `report.group`.
  """
  found = [
      *((term, _each(groups, lambda runs, term=term: _data(runs[0]).get(term, '')))
        for term in (DATA, POSITIVES, NEGATIVES)),
      ('Evaluated on', _each(
          groups, lambda runs: '; '.join(_evaluated(runs[0]['evals'])))),
      ('Classes', _each(groups, lambda runs: _classes(runs[0]))),
      ('Training', ' '.join([f'{_each(groups, _updates)}.', *_durations(groups)])),
      *(('Made by', text) for text in _commands(
          [run for runs in groups.values() for run in runs])),
  ]
  return [(term, text) for term, text in found if text]


def _each(groups, text_of):
  """A text of all groups; where they differ, each with the groups that it is of."""
  found: dict[str, list[str]] = {}
  for label, runs in groups.items():
    found.setdefault(text_of(runs), []).append(label)
  if len(found) == 1:
    return next(iter(found))
  return '. '.join(
      f'{listed(labels)}: {text}' for text, labels in found.items() if text)


def _data(run):
  """{term: text} of the training data."""
  config, counts = run['config'], trained_on(run)
  settings = config.get('data', {})
  if 'positives' not in settings:  # GANs of points, detectors, segmenters, zero-shot
    source = next((settings[name] for name in ('examples', 'pairs', 'series', 'source')
                   if name in settings), settings)
    return {DATA: source_text(source)} if settings else {}
  text, of = source_text(settings['positives']), ' images'
  if 'labels_per_class' in settings:
    text += f', labels of {settings["labels_per_class"]} images per class'
    of = ' images with labels' + (
        f', {counts["unlabelled"]:,} without' if 'unlabelled' in counts else '')
  found = {POSITIVES: text + _number(counts.get('positives'), of)}
  if config.get('trainer', {}).get('fake_weight'):  # with few labels
    return found | {NEGATIVES: 'images of the generator'}
  if (not settings.get('negatives') or counts and not counts['negatives']
      or not _uses_negatives(run)):
    return found | {NEGATIVES: 'none in training'}
  return found | {NEGATIVES: '; '.join(
      f'{name}: {source_text(entry["source"])}'
      f'{_number(counts.get("negatives", {}).get(name), " images")}'
      for name, entry in settings['negatives'].items())}


def _uses_negatives(run):
  """Whether a loss uses negatives: a plain classifier keeps those of its config."""
  loss = run['config'].get('loss', {})
  if loss.get('name') not in losses.OBJECTIVES:  # that of a GAN
    return True
  return losses.make_objective(loss, max(2, run['num_classes'])).uses_negatives


def source_text(spec: Mapping[str, Any]) -> str:
  """A source in a few words: 'cifar10, train[:90%], classes 0, 1'.

  Args:
    spec: `{'name': ..., arguments}`.
  """
  named = (spec.get(key) for key in ('dataset', 'path', 'workdir'))
  text = [str(next(filter(None, named), spec.get('name', '-')))]
  text += [spec['split']] if spec.get('split') else []
  if spec.get('classes'):
    text += [f'classes {listed(spec["classes"], MOST_NAMES)}']
  return ', '.join(text)


def _evaluated(evals) -> Iterable[str]:
  """'test: test (335), noise (1,000)' for each part."""
  for part in PARTS:
    names = [f'{name}{_number(figures.get("n"))}' for name, figures in evals.items()
             if part_of(name, figures) == part and 'corruption' not in figures]
    if names:
      yield f'{part}: {", ".join(names)}'


def _classes(run):
  names, num = run['class_names'], run['num_classes']
  if num < 2:
    return ''
  if names == list(map(str, range(num))):
    return str(num)
  return f'{num}: {listed(names, MOST_NAMES)}'


def _updates(runs) -> str:
  """'Checkpoint of step 40; 45 of 50 updates made. Batches of 64'.

  Of several seeds 'Checkpoints of steps 30 to 40'. The updates that were made are left
  out where they are not known.
  """
  config, made = runs[0]['config'], [run['made'] for run in runs]
  steps = _range([run['step'] for run in runs])
  text = (f'Checkpoints of steps {steps}' if ' to ' in steps
          else f'Checkpoint of step {steps}')
  if None not in made:
    most = f' of {config["steps"]:,}' if config.get('steps') else ''
    text += f'; {_range(made)}{most} updates made'
  batch = config.get('data', {}).get('batch_size') or config.get('batch_size')
  return f'{text}. Batches of {batch}' if batch else text


def _range(numbers):
  return ' to '.join(f'{n:,}' for n in sorted({min(numbers), max(numbers)}))


def _durations(groups) -> Iterable[str]:
  """For each group the time of training and evaluations, and on what."""
  found: dict[str, list[str]] = {}  # devices -> texts
  for label, runs in groups.items():
    for run in runs:
      if not run['sessions']:
        continue
      name = label if len(runs) == 1 else f'{label} seed {run["seed"]}'
      devices = run['sessions'][-1].get('devices', 'unknown devices')
      found.setdefault(devices, []).append(f'{name} {duration(run)}')
  for devices, texts in found.items():
    yield (f'Time on {devices}, with compilation and evaluations: '
           f'{listed(texts, MOST_NAMES)}.')


def duration(run: Mapping[str, Any]) -> str:
  """The time that a run took: '0:16', 'at least 0:16' after a kill, '-' if unknown."""
  seconds = [one.get('seconds') for one in run['sessions']]
  known = [value for value in seconds if value is not None]
  if not known:
    return '-'
  text = str(datetime.timedelta(seconds=round(sum(known))))
  return text if len(known) == len(seconds) else f'at least {text}'


def trained_on(run: Mapping[str, Any]) -> Mapping[str, Any]:
  """The numbers of training examples, {'positives': n, 'negatives': {name: n}} and
  with few labels 'unlabelled': n; {} where they are not recorded."""
  return next((one['examples'] for one in run['sessions'] if 'examples' in one), {})


def _commands(runs):
  """The different commands that made the runs; where none is recorded, the configs."""
  commands = dict.fromkeys(
      one['command'] for run in runs for one in run['sessions'] if one.get('command'))
  if commands:
    return list(commands)[:MOST_NAMES]
  configs = dict.fromkeys(os.path.join(run['workdir'], 'config.json') for run in runs)
  return ['a command that is not recorded; the settings are in '
          f'{listed(configs, MOST_NAMES)}']


def _number(n, of=''):
  return '' if n is None else f' ({n:,}{of})'
