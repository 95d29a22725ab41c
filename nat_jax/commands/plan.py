"""Plans training: the runs that a config depends on, its comparison run, and its own.

    needed, runs = plan(config, 'configs/digits.py', 'nat', {'steps': 9}, 'runs/digits')
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections.config_flags import config_path

from nat_jax import runs, schema
from nat_jax.commands import config_file
from nat_jax.runtime import files, processes, results
from nat_jax.runtime import workdir as workdirs

Run = tuple[ml_collections.ConfigDict, str]  # config, workdir


def plan(
    config: ml_collections.ConfigDict, path: str, variant: str | None,
    changes: Mapping[str, Any], workdir: str,
) -> tuple[list[Run], list[Run]]:
  """Lists the runs to train for a config.

  Args:
    config: to be trained, with `changes` applied.
    path: of its config file.
    variant: the variant of the file; None: the default one.
    changes: dotted key -> value, from the command line. They are applied to the
      comparison run (`compare_with`) too, except for keys in which the variants differ.
    workdir: of `config`.

  Returns:
    (runs that `config` depends on, such as an evaluation classifier, and that are not
    trained yet; the comparison run, if there is one, and `config` itself).

  Raises:
    ValueError: a mistake in the config or in a config file; or a run that it depends on
      is visible to some processes only, or has another config.
  """
  schema.plain(config)
  planned = [(config, workdir)]
  if config.compare_with:
    rival, original = (
        config_file.load(path, name) for name in (config.compare_with, variant))
    for key, value in changes.items():
      if _shared(key, rival, original):
        config_path.set_value(key, rival, value)
    rival.compare_with = ''
    planned.insert(0, (rival, f'{workdir}-{config.compare_with.partition(":")[0]}'))
  return _needed(config), planned


def _shared(key, rival, original):
  """Whether the two variants agree in `key`, so that a change of it is for both."""
  if key.startswith('data.treatment'):  # the rival may have no negatives
    return False
  try:
    return config_path.get_value(key, rival) == config_path.get_value(key, original)
  except (KeyError, IndexError, TypeError, AttributeError):
    return False  # the rival has no such key


def _needed(config):
  """The runs that a config depends on and that are missing or not finished.

  A spec with the keys 'config' (FILE:VARIANT) and 'workdir' depends on that run.
  """
  missing = []
  for place, spec in _specs(config.to_dict()):
    if not spec.get('config'):
      continue
    if not spec.get('workdir'):
      raise ValueError(
          f'{place} needs the workdir of its run beside config={spec["config"]!r}')
    needed = config_file.load(*config_file.split(spec['config']))
    workdir = spec['workdir']
    count = processes.count(is_done(workdir, needed))
    if 0 < count < processes.total():
      raise ValueError(
          f'the run in {workdir} is there for {count} of {processes.total()} '
          'processes; start them in a folder that all hosts share, or set its '
          f'workdir to such a folder: --config.{place}.workdir=DIR')
    # Raises if a run of another config is in that workdir.
    workdirs.check(workdir, runs.resolve(needed), remedy=(
        f'Choose another folder for the run that this config needs: --config.{place}'
        '.workdir=DIR'))
    if not count:
      missing.append((needed, workdir))
  return missing


def _specs(value, place=''):
  """Yields (dotted key, spec) for every spec in a config."""
  if isinstance(value, dict):
    if 'name' in value and place:
      yield place, value
    for key, part in value.items():
      yield from _specs(part, f'{place}.{key}' if place else key)


def is_done(workdir: str, config: Mapping[str, Any]) -> bool:
  """Whether a run is trained to its last step and evaluated.

  Args:
    workdir: of the run; it need not exist.
    config: of the run.
  """
  try:
    found = results.read_evaluation(workdir)
  except files.Unreadable:  # damaged: training evaluates it again
    return False
  if found is None or not config.get('patience'):
    return found is not None and found['step'] == config['steps']
  return found['step'] == runs.saved_result_step(workdir, config)
