"""The jobs of a sweep: a training run for each config and seed. No JAX.

    jobs = list_jobs(['configs/digits.py:nat', '--config.steps=9'], ['0', '1'], 'out')
    jobs[1].workdir          # 'out/digits-nat-1'
    command(jobs[1].args)    # ['python', '-m', 'nat_jax.main', '--config', ...]
"""

import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags
from ml_collections import config_flags

from nat_jax import schema
from nat_jax.commands import config_file
from nat_jax.commands import flags as our_flags

MOUNT = '/nat_jax'  # where machines of SkyPilot mount the bucket of the workdirs
OVERWRITE = '--overwrite'
CHANGE = re.compile(r'--?(no)?config\.')


class Job(NamedTuple):
  """A training run of a sweep.

  Attributes:
    name: of its workdir, such as 'cifar10-nat_small-0'.
    workdir: of the run.
    source: CONFIG or CONFIG:VARIANT, where CONFIG is the file of its config or the
      name of it.
    config: with the seed and all changes.
    changes: dotted key -> value, the changes of the command line.
    args: the arguments of `python -m nat_jax.main` that train the run.
  """

  name: str
  workdir: str
  source: str
  config: ml_collections.ConfigDict
  changes: dict[str, Any]
  args: tuple[str, ...]


def command(args: Sequence[str], python: str = 'python') -> list[str]:
  """The command of this program with some arguments, for a given Python."""
  return [python, '-m', 'nat_jax.main', *args]


def asked(argv: Sequence[str]) -> list[Job]:
  """Lists the jobs that the command line of a sweep asks for.

  Args:
    argv: the arguments that are not flags, and the changes --config.KEY=VALUE.

  Raises:
    ValueError, flags.Error, LookupError, AttributeError: see `list_jobs`; or --workdir
      is missing, or is no folder of a bucket for --on=skypilot; or a flag is given that
      --on does not use.
  """
  out = our_flags.needed(our_flags.WORKDIR, 'sweep').rstrip('/')
  _check_place(our_flags.ON.value)
  if our_flags.ON.value == 'skypilot':
    out = split_bucket(out)[1]
  return list_jobs(
      argv, our_flags.SEEDS.value, out,
      [OVERWRITE] if our_flags.OVERWRITE.value else [])


def _check_place(place):
  """Raises ValueError if a flag is given that has no effect, or no sound one, there."""
  if place == 'here':
    our_flags.refuse([our_flags.SUBMIT], f'--on={place}')
  elif our_flags.OVERWRITE.value:
    raise ValueError(
        f'--on={place} has no --overwrite, since its report would take the old run for '
        'that of a job that failed; move the old runs aside, or choose another '
        '--workdir')
  if place == 'skypilot':
    our_flags.refuse([our_flags.JOBS], f'--on={place}')


def split_bucket(url: str) -> tuple[str, str]:
  """Splits 'gs://bucket/runs/x' into 'gs://bucket' and its path, '/nat_jax/runs/x'.

  Raises:
    ValueError: it is no folder of a bucket.
  """
  found = re.fullmatch(r'((?:gs|s3|r2)://[\w.-]+)/(.+)', url)
  if not found:
    raise ValueError(
        '--on=skypilot needs a --workdir in a bucket that all machines reach, such as '
        f'gs://BUCKET/runs/small (or s3://, r2://), got {url!r}')
  return found[1], f'{MOUNT}/{found[2]}'


def list_jobs(
    given: Sequence[str], seeds: Sequence[str], out: str,
    flags_of_all: Sequence[str] = (),
) -> list[Job]:
  """Lists the jobs of a sweep, seed by seed, and checks their configs.

  Args:
    given: configs, as files or names, such as 'configs/digits.py:nat' or
      'digits:nat', and changes of all, --config.KEY=VALUE.
    seeds: whole numbers as text.
    out: folder of the workdirs.
    flags_of_all: further flags of each run.

  Raises:
    ValueError: there is no config; a config file or a value in it is wrong; a seed is
      not a whole number or occurs twice; or two jobs have the same workdir.
    flags.Error, LookupError, AttributeError: a change of a key that a config does not
      have, or a value of another type.
  """
  changes = [arg for arg in given if CHANGE.match(arg)]
  sources = [arg for arg in given if not CHANGE.match(arg)]
  if not sources:
    raise ValueError(
        '--mode=sweep needs at least one config, a file or a name, such as '
        'configs/digits.py:nat or nat/cifar10:nat_small')
  jobs: dict[str, Job] = {}
  for seed in _checked_seeds(seeds):
    for source in sources:
      job = _make_job(source, seed, out, changes, flags_of_all)
      schema.plain(job.config)
      if job.workdir in jobs:
        other = jobs[job.workdir].source
        raise ValueError(
            f'{source} is listed twice; leave one out' if source == other else
            f'{other} and {source} would both be trained in {job.workdir}; sweep them '
            'in two folders')
      jobs[job.workdir] = job
  return list(jobs.values())


def _checked_seeds(seeds):
  """The seeds as numbers; their range is that of the config key `seed`."""
  if not seeds:
    raise ValueError('--seeds must be whole numbers such as 0,1,2, got none')
  for seed in seeds:
    if not re.fullmatch(r'-?\d+', seed):
      raise ValueError(f'--seeds must be whole numbers such as 0,1,2, got {seed!r}')
  numbers = [int(seed) for seed in seeds]
  for number in numbers:
    if numbers.count(number) > 1:
      raise ValueError(f'--seeds must differ, got {number} more than once')
  return numbers


def _make_job(source, seed, out, changes, flags_of_all):
  for change in changes:
    if re.match(r'--?config\.seed\b', change):
      raise ValueError(f'a sweep has its seeds from --seeds, not from {change}')
  # Each variant is a job of its own, so that none trains its comparison run too.
  changes = [f'--config.seed={seed}', '--config.compare_with=', *changes]
  config, values = _load(source, changes)
  name = f'{_name(source)}-{seed}'
  workdir = os.path.join(out, name)
  args = ('--config', source, '--workdir', workdir, *changes, *flags_of_all)
  return Job(name, workdir, source, config, values, args)


def _name(source):
  """'configs/nat/cifar10.py:nat_small' -> 'cifar10-nat_small'."""
  path, variant = config_file.split(source)
  name = os.path.basename(path).removesuffix('.py')
  name = f'{name}-{variant}' if variant else name
  return name.replace('/', '_').replace(':', '-')


def _load(source, changes):
  """(config with the changes, dotted key -> value), as --config FILE would give."""
  config_file.load(*config_file.split(source))  # its errors name file and line
  found = f'--config={config_file.with_path(source)}'
  values, argv = flags.FlagValues(), ['sweep', found, *changes]
  config_flags.DEFINE_config_file(
      'config', flag_values=values, lock_config=True, sys_argv=argv)
  values(argv)
  return values['config'].value, config_flags.get_override_values(values['config'])
