"""The flags of all modes, and the mistakes that a user can make. Imports no JAX."""

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'A config file of configs/, with a variant after a colon: '
    'configs/digits.py:baseline. Keys are changed with --config.KEY=VALUE.',
    lock_config=True,
)
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
STEP = flags.DEFINE_integer('step', None, 'Checkpoint to use (default: the newest).')
OVERWRITE = flags.DEFINE_bool(
    'overwrite', False, 'Move a run of another config in --workdir aside first.'
)
IMAGES = flags.DEFINE_string('images', None, 'predict: a folder of pictures.')
THRESHOLD = flags.DEFINE_float(
    'threshold', None, 'predict: below this maximum probability the answer is "none of '
    'these" (default: keeps 95 % of the positives held out for calibration).',
)
NUM = flags.DEFINE_integer('num', 64, 'generate: how many images.')
LABELS = flags.DEFINE_list(
    'labels', None, 'generate: classes, by name or number (default: whatever comes).')
SEED = flags.DEFINE_integer('seed', 0, 'generate: of the noise.')
INTERPOLATE = flags.DEFINE_integer(
    'interpolate', 0, 'generate: rows of a sheet that lead from image to image.')
NEIGHBOURS = flags.DEFINE_integer(
    'neighbours', 0, 'generate: training images beside each, the nearest ones.')
MISTAKES = (ValueError, TypeError, OSError)  # of the user, most likely


def needed(flag: flags.FlagHolder, mode: str) -> str:
  """The value of a flag that a mode cannot do without.

  Raises:
    ValueError: it is not given.
  """
  if not flag.value:
    raise ValueError(f'--mode={mode} needs --{flag.name}')
  return flag.value
