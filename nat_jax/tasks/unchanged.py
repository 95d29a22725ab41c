"""Whether the training examples of a run are still those that it was trained on.

    record(workdir, config, inputs, going_on, others)    # before a training goes on
    check(workdir, config, config['evals'])              # before an evaluation
    check_classifiers(workdir, config, others)           # of a GAN

The parts of a run are often shares of one folder or file. If it grows, the shares take
other examples, and a test or a calibration would use some that were trained on. So a
run keeps, in data.json, what its training sets were: the number of their examples, and
a checksum of labels and names of files, or of vectors. A GAN also keeps which
classifiers it is measured by, since figures of different ones do not compare.
"""

import os
import re
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from nat_jax import data
from nat_jax.runtime import files
from nat_jax.task import Inputs, Others
from nat_jax.tasks import images, subsets
from nat_jax.tasks.segment import build as segment

RECORD = 'data.json'
CHANGING = ('folder', 'table', 'arrays', 'masks', 'csv')  # files that a user may change
MEASURES = 'measures.'  # before the names of evaluation classifiers
EXAMPLES = ('positives', 'examples', 'pairs', 'series')  # keys of `data`: trained on


def fingerprint(arrays: data.Arrays) -> dict[str, int]:
  """The number of examples, and a checksum of what tells them apart.

  Pictures are told apart by their paths, examples in memory by their content.
  """
  crc32 = zlib.crc32(np.ascontiguousarray(arrays.label, np.int32))
  if arrays.files is not None:
    for path in arrays.files:
      crc32 = zlib.crc32(os.fsencode(path) + b'\0', crc32)
  elif isinstance(arrays.image, np.ndarray):
    crc32 = zlib.crc32(np.ascontiguousarray(arrays.image), crc32)
  return {'n': len(arrays.label), 'crc32': crc32}


def record(
    workdir: str, config: Mapping[str, Any], inputs: Inputs, going_on: bool,
    others: Others,
) -> dict[str, Any]:
  """Returns the content of data.json; see `write`.

  Args:
    workdir: of a run, which may be new.
    config: of the run.
    inputs: of the run.
    going_on: whether a training in the workdir goes on.
    others: reads the evaluation classifiers of a GAN.

  Raises:
    ValueError: a training set of the training that goes on was another one, or a
      classifier by which it is measured.
  """
  specs = _training_sources(config)
  sets = {name: inputs.positives for name in specs if name in EXAMPLES}
  sets |= inputs.negatives or {}
  found = {name: fingerprint(arrays) for name, arrays in sets.items()
           if arrays is not None and specs.get(name, {}).get('name') in CHANGING}
  found |= _classifiers(config, others)
  saved = _read(workdir) if going_on else {}
  for name in saved.keys() & found.keys():
    if saved[name] != found[name]:
      differs = (
          _differs(workdir, name, specs[name], found[name], saved[name])
          if name in specs else
          _other_classifier(workdir, name, found[name], saved[name]))
      raise ValueError(
          f'{differs}. Put back what it was, or train in another --workdir; what is '
          'saved here stays')
  return found | saved


def write(workdir: str, content: Mapping[str, Any]) -> None:
  """Writes data.json, unless no training set comes from a source that may change."""
  if content and jax.process_index() == 0:
    files.write_json(os.path.join(workdir, RECORD), content)


def check(
    workdir: str, config: Mapping[str, Any], evals: Mapping[str, Mapping[str, Any]],
    others: Others | None = None,
) -> None:
  """Checks that evaluation sets hold no examples that the run was trained on.

  Only training sets that share a folder or file with an evaluation set are read again.

  Args:
    workdir: of a run. One without data.json is not checked.
    config: of the run.
    evals: entries of the key `evals`; those without a source are left out.
    others: opens the runs that negatives are drawn from.

  Raises:
    ValueError: a training set is not what the run was trained on.
  """
  specs = _training_sources(config)
  saved = _read(workdir)
  for name, spec in specs.items():
    sharing = [each for each, entry in evals.items()
               if _share(entry.get('source', {}), spec)]
    if name not in saved or not sharing:
      continue
    found = fingerprint(_load(config, name, spec, others))
    if found != saved[name]:
      raise ValueError(
          f'{_differs(workdir, name, specs[name], found, saved[name])}. The sets '
          f'{", ".join(sharing)} are shares of it too, and may now hold examples that '
          'were trained on. Put back what it was, or give these sets a folder of their '
          "own (docs/pictures.md, 'Your own classes and negatives')")


def check_classifiers(
    workdir: str, config: Mapping[str, Any], others: Others
) -> None:
  """Checks that a GAN is evaluated by the classifiers that it was measured by before.

  Args:
    workdir: of a run. One without data.json is not checked.
    config: of the run.
    others: reads the classifiers.

  Raises:
    ValueError: a classifier is another one.
  """
  saved = _read(workdir)
  if not any(name.startswith(MEASURES) for name in saved):
    return
  for name, found in _classifiers(config, others).items():
    if found != saved.get(name, found):
      raise ValueError(
          f'{_other_classifier(workdir, name, found, saved[name])}. Put that one back, '
          'or give --config and --out: then the figures go into a folder of their own')


def _training_sources(config):
  """{name of a training set: its source}; {} of points, which a function draws."""
  settings = config['data']
  found = {key: settings[key] for key in EXAMPLES
           if isinstance(settings.get(key), Mapping)}
  return found and found | {
      name: entry['source']
      for name, entry in settings.get('negatives', {}).items()}


def _load(config, name, spec, others):
  """A training set as `Inputs` had it; pictures that need not be are not decoded."""
  if name == 'pairs':
    return segment.as_arrays(segment.load_pairs(config, spec))
  if spec.get('size') and not (spec.get('lazy') or spec.get('skip_unreadable')):
    spec = {**spec, 'lazy': True}
  arrays = images.load_source(config, spec, others=others)
  return subsets.apply(config['data'], {name: arrays})[name]


def _classifiers(config, others):
  """{key of a config: step and checksum} of the evaluation classifiers of a GAN."""
  measures, found = config.get('measures', {}), {}
  for key in ('features', 'independent'):
    spec = measures.get(key) or {}
    if spec.get('name') == 'checkpoint' and spec.get('workdir'):
      about = others.about(spec['workdir'], spec.get('step'))
      found[f'{MEASURES}{key}'] = {'step': about['step'], 'crc32': about['crc32']}
  return found


def _share(one, other) -> bool:
  """Whether two sources are shares of the same examples of one folder or file."""
  if any(one.get(key) != other.get(key) for key in ('name', 'path')):
    return False
  # A part that has a folder, or rows, of its own is no share of the training part.
  parts = [re.match(r'\w*', spec.get('split', 'all'))[0] for spec in (one, other)]
  return 'all' in parts or parts[0] == parts[1]


def _other_classifier(workdir, name, found, saved):
  """The beginning of a message."""
  return (f'{workdir}: the classifier of {name} is another one (step {found["step"]}) '
          f'than the one that the figures of this run are of (step {saved["step"]})')


def _differs(workdir, name, spec, found, saved):
  """The beginning of a message."""
  num = (f'{found["n"]:,} examples, and {saved["n"]:,} when it was trained on'
         if found['n'] != saved['n'] else
         f'{found["n"]:,} examples as before, but not the same ones, or of other '
         'classes')
  return (f'{workdir}: the training set {name!r}, of {spec["path"]}, has changed: it '
          f'has {num}')


def _read(workdir):
  try:
    return files.read_json(
        os.path.join(workdir, RECORD), 'remove it, and the data are not checked')
  except (FileNotFoundError, NotADirectoryError):
    return {}
