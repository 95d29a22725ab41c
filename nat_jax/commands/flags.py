"""The flags that several modes share, and the exceptions that are users' mistakes."""

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'train: config file, optionally with a variant after a colon: '
    'configs/digits.py:baseline. --config.KEY=VALUE changes a key.',
    lock_config=True,
)
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
STEP = flags.DEFINE_integer(
    'step', None, 'evaluate, predict, posthoc, generate: step of the checkpoint '
    '(default: the newest).')
MISTAKES = (ValueError, TypeError, OSError)  # most likely caused by the user


def needed(flag: flags.FlagHolder, mode: str) -> str:
  """The value of a flag that a mode requires.

  Raises:
    ValueError: the flag is not given.
  """
  if not flag.value:
    raise ValueError(f'--mode={mode} needs --{flag.name}')
  return flag.value
