"""A config -> all runs that training it takes: those it needs, a rival, and itself.

    needed, runs = plan(config, 'configs/digits.py', 'nat', {'steps': 9}, 'runs/digits')
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections.config_flags import config_path

from nat_jax import schema
from nat_jax.commands import config_file
from nat_jax.runtime import files, processes, results
from nat_jax.runtime import workdir as workdirs

Run = tuple[ml_collections.ConfigDict, str]  # config, workdir


def plan(
    config: ml_collections.ConfigDict, path: str, variant: str | None,
    changes: Mapping[str, Any], workdir: str,
) -> tuple[list[Run], list[Run]]:
  """Returns the runs that `config` needs and that are still to be trained, such as an
  evaluation classifier, and the runs asked for; `config` is last.

  Args:
    config: to be trained, with `changes` made.
    path: of its config file.
    variant: of the file that it is; None: the default one.
    changes: dotted key -> value, of the command line. They hold for the variant that
      `config` is compared with too, but for the keys in which the two differ.
    workdir: of `config`.

  Raises:
    ValueError: a mistake in the config or in a config file; a run that it needs is
      there for some processes alone, or is one of another config.
  """
  schema.plain(config)
  runs = [(config, workdir)]
  if config.compare_with:
    rival, original = (
        config_file.load(path, name) for name in (config.compare_with, variant))
    for key, value in changes.items():
      if _shared(key, rival, original):
        config_path.set_value(key, rival, value)
    rival.compare_with = ''
    runs.insert(0, (rival, f'{workdir}-{config.compare_with}'))
  return _needed(config), runs


def _shared(key, rival, original):
  """Whether a change of `key` is one of both variants: it does not set them apart."""
  if key.startswith('data.treatment'):  # of negatives, which a rival may not have
    return False
  try:
    return config_path.get_value(key, rival) == config_path.get_value(key, original)
  except (KeyError, IndexError, TypeError, AttributeError):
    return False  # The rival has no such key.


def _needed(config):
  """The runs that a config needs and that are not there, or were cut off.

  They are named where a spec holds the config file of another run, and its workdir.
  """
  missing = []
  for place, spec in _specs(config.to_dict()):
    if not spec.get('config'):
      continue
    if not spec.get('workdir'):
      raise ValueError(
          f'{place} needs the workdir of its run beside config={spec["config"]!r}')
    path, _, variant = spec['config'].partition(':')
    needed, workdir = config_file.load(path, variant or None), spec['workdir']
    count = processes.count(_is_done(workdir))
    if 0 < count < processes.total():
      raise ValueError(
          f'the run in {workdir} is there for {count} of {processes.total()} '
          'processes; start them in a folder that all hosts share, or give its '
          f'workdir on such a disk: --config.{place}.workdir=DIR')
    # One of another config, under a name that happens to be this one, is refused.
    workdirs.check(workdir, schema.plain(needed))
    if not count:
      missing.append((needed, workdir))
  return missing


def _specs(value, place=''):
  """(dotted key, spec) of every spec in a config."""
  if isinstance(value, dict):
    if 'name' in value and place:
      yield place, value
    for key, part in value.items():
      yield from _specs(part, f'{place}.{key}' if place else key)


def _is_done(workdir):
  try:
    return results.read_evaluation(workdir) is not None
  except files.Unreadable:  # it is evaluated again
    return False
