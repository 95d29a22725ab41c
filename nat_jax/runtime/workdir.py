"""The folder of a run: what may be started there, and what must not be lost.

    prepare(workdir, config, overwrite=False, num_bytes=1_000_000)
"""

import json
import os
import shutil
import tempfile
import time
from typing import Any

from nat_jax.runtime import writers

CONFIG = 'config.json'
FREE_TO_CHANGE = ('run', 'compare_with')  # keys that do not change what is learned


def prepare(
    workdir: str, config: dict[str, Any], overwrite: bool = False, num_bytes: int = 0
) -> None:
  """Makes `workdir` ready for a run of `config` and writes config.json there.

  Args:
    workdir: a new folder, or one with a run of the same config, which is resumed.
    config: plain, as JSON gives it back.
    overwrite: move a run of another config aside (to `workdir.old-TIME`).
    num_bytes: disk space that the run will need.

  Raises:
    ValueError: a run of another config stands there (the keys that differ are
      named), the folder cannot be written, or the disk is too full.
  """
  path = os.path.join(workdir, CONFIG)
  if os.path.exists(path):
    with open(path) as file:
      differences = differing_keys(_learned(json.load(file)), _learned(config))
    if differences and not overwrite:
      raise ValueError(
          f'{workdir} holds a run with another config; these keys differ (there -> '
          f'asked for): {"; ".join(differences)}. Choose another --workdir, or move '
          'that run aside with --overwrite (nothing is deleted)'
      )
    if overwrite:
      aside = f'{workdir.rstrip("/")}.old-{time.strftime("%Y%m%d-%H%M%S")}'
      os.rename(workdir, aside)
      print(f'moved the run in {workdir} to {aside}')
  try:
    os.makedirs(workdir, exist_ok=True)
    with tempfile.TemporaryFile(dir=workdir):
      pass
  except OSError as error:
    raise ValueError(f'cannot write to --workdir {workdir}: {error}') from error
  free = shutil.disk_usage(workdir).free
  if free < num_bytes:
    raise ValueError(
        f'the checkpoints of this run need about {num_bytes / 1e6:,.0f} MB in '
        f'{workdir} and {free / 1e6:,.0f} MB are free; free some space, choose another '
        '--workdir, or keep fewer with --config.run.keep=1'
    )
  writers.write_json(path, config)


def differing_keys(one: Any, other: Any, prefix: str = '') -> list[str]:
  """Lists the keys in which two configs differ, as 'a.b: 1 -> 2'."""
  if isinstance(one, dict) and isinstance(other, dict):
    found = []
    for key in sorted(set(one) | set(other)):
      found += differing_keys(
          one.get(key, '(none)'), other.get(key, '(none)'), f'{prefix}{key}.'
      )
    return found
  return [] if one == other else [f'{prefix[:-1]}: {one} -> {other}']


def _learned(config):
  return {k: v for k, v in config.items() if k not in FREE_TO_CHANGE}
