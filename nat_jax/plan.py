"""A config -> all runs that training it takes: judges, a rival, and itself.

    judges, runs = plan(config, 'configs/digits.py', 'nat', {'steps': 9}, 'runs/digits')
"""

import importlib.util
from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections.config_flags import config_path

from nat_jax.runtime import files, processes, results

Run = tuple[ml_collections.ConfigDict, str]  # config, workdir


def plan(
    config: ml_collections.ConfigDict, path: str, variant: str | None,
    changes: Mapping[str, Any], workdir: str,
) -> tuple[list[Run], list[Run]]:
  """Returns the judges that are still to be trained, and the runs; `config` is last.

  Args:
    config: to be trained, with `changes` made.
    path: of its config file.
    variant: of the file that it is; None: the default one.
    changes: dotted key -> value, of the command line. They hold for the variant that
      `config` is compared with too, but for the keys in which the two differ.
    workdir: of `config`.

  Raises:
    ValueError: a judge is there for some processes alone.
  """
  runs = [(config, workdir)]
  if config.compare_with:
    rival, original = load(path, config.compare_with), load(path, variant)
    for key, value in changes.items():
      if _shared(key, rival, original):
        config_path.set_value(key, rival, value)
    rival.compare_with = ''
    runs.insert(0, (rival, f'{workdir}-{config.compare_with}'))
  return _judges(config), runs


def load(path: str, variant: str | None = None) -> ml_collections.ConfigDict:
  """The config of a variant of a config file."""
  spec = importlib.util.spec_from_file_location('variant_config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*([] if variant is None else [variant]))


def _shared(key, rival, original):
  """Whether a change of `key` is one of both variants: it does not set them apart."""
  if key.startswith('data.treatment'):  # of negatives, which a rival may not have
    return False
  try:
    return config_path.get_value(key, rival) == config_path.get_value(key, original)
  except (KeyError, IndexError, TypeError, AttributeError):
    return False  # The rival has no such key.


def _judges(config):
  """The classifiers that measure a GAN's samples and are not there, or were cut off."""
  measures, missing = config.get('measures', {}), []
  for judge in (measures.get(key, {}) for key in ('features', 'independent')):
    if not judge.get('config'):
      continue
    count = processes.count(_is_done(judge.workdir))
    if 0 < count < processes.total():
      raise ValueError(
          f'the judge in {judge.workdir} is there for {count} of {processes.total()} '
          'processes; start them in a folder that all hosts share, or give its '
          'workdir on such a disk: --config.measures.features.workdir=DIR')
    if not count:
      missing.append((load(*judge.config.split(':')), judge.workdir))
  return missing


def _is_done(workdir):
  try:
    return results.read_evaluation(workdir) is not None
  except files.Unreadable:  # it is evaluated again
    return False
