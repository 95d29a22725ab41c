"""The flags that several commands share, and the mistakes that a user can make."""

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'A config file of configs/, with a variant after a colon: '
    'configs/digits.py:baseline. Keys are changed with --config.KEY=VALUE.',
    lock_config=True,
)
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
STEP = flags.DEFINE_integer('step', None, 'Checkpoint to use (default: the newest).')
MISTAKES = (ValueError, TypeError, OSError)  # of the user, most likely


def needed(flag: flags.FlagHolder, mode: str) -> str:
  """The value of a flag that a mode cannot do without.

  Raises:
    ValueError: it is not given.
  """
  if not flag.value:
    raise ValueError(f'--mode={mode} needs --{flag.name}')
  return flag.value
