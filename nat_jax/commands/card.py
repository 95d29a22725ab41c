"""The model card of an exported classifier, in Markdown.

    print(text(clf, predict.promised(clf)))
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from nat_jax import metrics, schema
from nat_jax.classifier import Classifier
from nat_jax.commands import predict
from nat_jax.reports import tables
from nat_jax.runtime import results
from nat_jax.tasks.classify import inputs
from nat_jax.tasks.classify.rule import NONE

PATHS = ('path', 'workdir', 'classifier')  # arguments of sources
NOT_FOR = (
    'Pictures of another kind than those above. The shares were measured on particular '
    'sets of negatives; a network may accept negatives that are unlike those it was '
    'trained on, and the shares say nothing about them.',
    'Data that have changed. What the threshold promises holds for new positives of '
    'the same origin as the calibration pictures: the same cameras, places, classes '
    'and selection. Measure it again on your own.',
    'Decisions about people, or where a mistake is dangerous, without a person who '
    'looks at the picture.',
    'Probabilities of negatives. That of a class is calibrated, if at all, for '
    'positives.',
    'Text, detection or segmentation: one picture gets one answer.',
)


def text(clf: Classifier, promise: predict.Promise) -> str:
  """The model card.

  Args:
    clf: the classifier.
    promise: what is known about its rule.
  """
  config, (height, width, channels) = clf.run.config, clf.view.shape
  sections = {
      'Classes': ', '.join(clf.classes_.tolist()) + '.',
      'Training': '\n'.join(f'- {line}' for line in _training(clf)),
      'Threshold': '\n'.join(_threshold(clf, promise)),
      'Figures': '\n'.join(_figures(clf)),
      'What it is not for': '\n'.join(f'- {line}' for line in NOT_FOR),
  }
  return '\n'.join([
      f'# {config["name"]}:{config["variant"]}, checkpoint of step {clf.run.step}', '',
      f'Gives a picture one of {len(clf.classes_)} classes, or the answer "{NONE}". '
      f'Pictures may have any size; they are resized to {height} x {width} pixels in '
      f'{"grey" if channels == 1 else "colour"} (meta.json, `resizing`).', '',
      *(f'## {title}\n\n{body.rstrip()}\n' for title, body in sections.items())])


def _training(clf) -> Iterator[str]:
  config, settings = clf.run.config, clf.run.config['data']
  yield f'positives: {_source(settings["positives"])}'
  # A plain classifier keeps those of the config, without using them.
  used = inputs.uses_negatives(config)
  for name, entry in settings['negatives'].items() if used else ():
    yield f'negatives "{name}": {_source(entry["source"])}'
  if not used:
    yield 'negatives: none in training'
  elif not settings['negatives']:
    yield f'negatives: what the trainer {config["trainer"]["name"]} makes of positives'
  backbone = settings['backbone']
  if backbone:
    yield (f'inputs: vectors of {backbone["name"]}:{backbone["model"]}, which is not '
           f'trained (SHA-256 {backbone["sha256"][:16]}...)')
  yield (f'network {config["model"]["name"]}, loss {config["loss"]["name"]}, '
         f'checkpoint of step {clf.run.step:,} of at most {config["steps"]:,} updates '
         f'of {settings["batch_size"]} positives, seed {config["seed"]}')


def _source(spec: Mapping[str, Any]) -> str:
  """A source in words; of a path the last name only, since folders may be private."""
  spec = {key: os.path.basename(os.path.normpath(value)) if key in PATHS else value
          for key, value in spec.items()
          if value not in (None, '') and not key.endswith('_dir')}
  name = spec.pop('name')
  return ' '.join([name, *(f'{key}={value}' for key, value in spec.items())])


def _threshold(clf, promise) -> Iterator[str]:
  yield f'Rule: {promise.origin}.'
  yield ''
  calibration = clf.basis.calibration or {}
  known = {}
  if calibration:
    known = {'positives on which the threshold was chosen': calibration['accepted']}
    known |= {f'class {name}': one for name, one in calibration['classes'].items()}
  known |= {f'positives "{name}"': one
            for name, one in predict.accepted_shares(clf, positive=True).items()}
  known |= {
      f'negatives "{name}" ({"seen" if one["seen_in_training"] else "not seen"} in '
      'training)': one for name, one in promise.negatives.items()}
  if not any(one['n'] for one in known.values()):
    yield 'Which share of negatives it accepts is not known.'
    return
  yield tables.Table(
      'Accepted, of held-out pictures:', ['set', 'accepted', '95 % interval', 'n'],
      [[name, tables.percent(one['share']), _interval(one['interval'], percent=True),
        f'{one["n"]:,}'] for name, one in known.items() if one['n']]).markdown()


def _figures(clf) -> Iterator[str]:
  """The figures of the test sets in eval.json, if it is of this checkpoint."""
  found = results.read_evaluation(clf.workdir)
  if not found or found['step'] != clf.run.step:
    yield ('There is no evaluation of this checkpoint; --mode=evaluate makes one, '
           'after which an export has its figures.')
    return
  rows = []
  for name, figures in found['evals'].items():
    if figures.get('part', schema.TEST) != schema.TEST:
      continue
    for key, interval in figures.items():
      if not key.endswith('_interval') or isinstance(interval, Mapping):
        continue
      metric = key.removesuffix('_interval')
      if metric == 'accepted':  # at another threshold than that of the rule
        continue
      about = metrics.describe(metric)
      rows.append([
          name, about.title, f'{figures[metric]:.{about.digits}f}',
          _interval(interval, about.digits), f'{figures["n"]:,}'])
  yield tables.Table(
      'Test sets; the intervals are of the choice of pictures, not of the seed. AUROC: '
      'how well the maximum probability tells the negatives of the set from the '
      'positives.',
      ['set', 'measure', 'value', '95 % interval', 'n'], rows, left=2).markdown()


def _interval(interval, digits=3, percent=False):
  low, high = interval
  if percent:
    return f'{tables.percent(low)} - {tables.percent(high)}'
  return f'{low:.{digits}f} - {high:.{digits}f}'
