"""The flags of all modes, and the exceptions that are users' mistakes. No JAX.

The help of a flag starts with the modes that use it: 'calibrate: share of ...'. Other
modes refuse the flag (`check_mode`).
"""

import re
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'train, prepare: config file, or its name, optionally with a '
    'variant after a colon: configs/digits.py:baseline, digits:baseline. '
    '--config.KEY=VALUE changes a key; evaluate: config whose evals, measures and '
    'data.test replace those of the run, with --out.',
    lock_config=True,
)
WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder of the run; sweep: of the workdirs of all runs.')
STEP = flags.DEFINE_integer(
    'step', None, 'evaluate, calibrate, predict, export, serve, posthoc, generate, '
    'influence: step of the checkpoint (default: the newest; after early stopping the '
    'best).')
OVERWRITE = flags.DEFINE_bool(
    'overwrite', False,
    'train, sweep: move a run of another config in its workdir aside (a sweep: with '
    '--on=here only).'
)
PROFILE = flags.DEFINE_integer(
    'profile', 0, 'train: trace this many updates with the profiler of JAX, after the '
    'first 100 of this start, into --workdir/profile; see docs/performance.md.',
    lower_bound=0)
IMAGES = flags.DEFINE_multi_string(
    'images', None, 'predict, embed: a picture, a folder, a quoted pattern, @FILE with '
    'a path on each line, or - for such a list on standard input; may be repeated, and '
    'pictures may also follow the flags. Of a detector of anomalies: a CSV file.')
THRESHOLD = flags.DEFINE_float(
    'threshold', None, 'predict, export, serve: below this maximum probability the '
    'answer is "none of these" (default: the rule of --mode=calibrate, or else the '
    'threshold that keeps 95 % of the calibration positives).',
)
SCORES = flags.DEFINE_list(
    'scores', None, 'posthoc: scores to compare, such as msp,energy,knn (default: all; '
    'an unknown name gets the list).')
PER_SET = flags.DEFINE_integer(
    'per_set', None, 'posthoc: most images of each test set, a random sample of larger '
    'ones (default: all).', lower_bound=1)
OUT = flags.DEFINE_string(
    'out', None, 'predict: file to write, .csv, .jsonl or .parquet (default: '
    'predictions.csv in the workdir), of segmenters a folder; export: .zip (default: '
    'model.zip in the workdir); embed: .npz; evaluate: folder of the results with the '
    'evals and measures of --config.')
BACKBONE = flags.DEFINE_string(
    'backbone', None, 'embed: pretrained network, jax:efficientnet_lite0, '
    'jax:resnet50, jax:vit_s16 or timm:NAME; with a file of its weights '
    'jax:efficientnet_lite0@model.safetensors.')
TOP = flags.DEFINE_integer(
    'top', None, 'predict: number of classes in a row (default: 3); influence: most '
    'helpful and most harmful examples of each set that are listed (default: 100).')
OF = flags.DEFINE_string(
    'of', '', 'influence: the metric, ncr@T:SET of negatives, loss:SET or accuracy:SET '
    'of positives (default: ncr@0.8 of the first negatives of part validation); of '
    'GANs of points likelihood@BANDWIDTH (default: 1).')
METHOD = flags.DEFINE_enum(
    'method', 'exact', ['exact', 'tracin'], 'influence: the exact derivative, by '
    'repeating the training, or an approximation by the output layer at the '
    'checkpoints that were kept.')
MEMORY = flags.DEFINE_float(
    'memory', 2.0, 'influence: GB for the training states of --method=exact.')
SHEET = flags.DEFINE_bool(
    'sheet', False, 'predict: draw pictures with their verdicts, beside the rows.')
SHARE = flags.DEFINE_string(
    'share', '1/1', 'predict: k/n classifies every n-th picture from the k-th on, so '
    'that n processes share the pictures.')
STRICT = flags.DEFINE_bool(
    'strict', False, 'predict: exit with status 1 if a picture cannot be read.')
ACCEPT = flags.DEFINE_float(
    'accept', 0.95, 'calibrate: share of new positives that are accepted with a '
    'confidence of 95 %.')
SCORE = flags.DEFINE_string(
    'score', 'max_probability', 'calibrate: score that the threshold is for: '
    'max_probability, energy, gen, knn, ... (an unknown name gets the list).')
COST_ERROR = flags.DEFINE_float(
    'cost_error', None, 'calibrate: cost of a wrong answer, with --cost_refusal; the '
    'cheapest threshold is reported too.')
COST_REFUSAL = flags.DEFINE_float(
    'cost_refusal', None, 'calibrate: cost of refusing a positive.')
NEGATIVE_SHARE = flags.DEFINE_float(
    'negative_share', 0.5, 'calibrate: share of negatives among the pictures to come, '
    'for the costs.')
HOST = flags.DEFINE_string(
    'host', '127.0.0.1', 'serve: address to listen on; there is no password, so the '
    'default is for this machine only.')
PORT = flags.DEFINE_integer('port', 8000, 'serve: port to listen on; 0: any free one.')
RATE = flags.DEFINE_float(
    'rate', 10.0, 'serve: most pictures per second of one client.')
NUM = flags.DEFINE_integer('num', 64, 'generate: number of images.')
LABELS = flags.DEFINE_list(
    'labels', None, 'generate: classes to generate, comma-separated names or numbers '
    '(default: not selected).')
SEED = flags.DEFINE_integer('seed', 0, 'generate: seed of the noise.')
INTERPOLATE = flags.DEFINE_integer(
    'interpolate', 0, 'generate: number of rows of interpolations between two images, '
    'of the given classes in turn where the generator is given classes.')
TRUNCATION = flags.DEFINE_float(
    'truncation', None, 'generate: numbers of the noise that are farther from 0 are '
    'drawn again; 0: none (default: measures.truncation of the run).')
TRUNCATIONS = flags.DEFINE_list(
    'truncations', [], 'generate: draw a sheet of samples of one noise with a row for '
    'each of these truncations, such as 0.5,1,2,0.')
NEIGHBOURS = flags.DEFINE_integer(
    'neighbours', 0, 'generate: number of nearest training images shown beside each '
    'image.')
FORMAT = flags.DEFINE_enum(
    'format', 'npz', ['npz', 'png'], 'generate: png writes each image to a file of its '
    'own too, as published programs for IS and FID read them.')
SEEDS = flags.DEFINE_list(
    'seeds', ['0'], 'sweep: seeds of each config, such as 0,1,2.')
JOBS = flags.DEFINE_integer(
    'jobs', None, 'sweep: number of runs at a time, over which the accelerators or the '
    'CPU cores of this machine are shared out (default: the number of accelerators; '
    '1 on CPUs; all with --on=slurm; not with --on=skypilot). Where it is above the '
    'number of GPUs, runs share a GPU: they take turns, unless NVIDIA\'s MPS is '
    'started (nvidia-cuda-mps-control -d).', lower_bound=1)
ON = flags.DEFINE_enum(
    'on', 'here', ['here', 'slurm', 'skypilot'], 'sweep: where the runs are trained: '
    'on this machine, as an array of Slurm jobs, or as managed jobs of SkyPilot.')
SUBMIT = flags.DEFINE_string(
    'submit', '', 'sweep: further arguments of sbatch, such as "--partition=gpu '
    '--time=2:00:00", or of `sky jobs launch`, such as "--gpus L4:1 --use-spot".')
DRY_RUN = flags.DEFINE_bool(
    'dry_run', False, 'train, sweep: check everything and print what would be trained, '
    'in a sweep the commands, the script of Slurm or the YAML of SkyPilot; train '
    'nothing.')
MODES = r'([a-z]+(?:, [a-z]+)*): '  # in the help of a flag
EXAMPLES = {  # of flags that a mode requires, for messages
    'config': 'digits:nat', 'workdir': 'runs/nat', 'images': 'photos/',
    'backbone': 'jax:efficientnet_lite0', 'out': 'features.npz'}
MISTAKES = (ValueError, TypeError, OSError)  # most likely caused by the user


def needed(flag: flags.FlagHolder, mode: str) -> str:
  """The value of a flag that a mode requires.

  Raises:
    ValueError: the flag is not given.
  """
  require([flag], mode)
  return flag.value


def require(given: Sequence[flags.FlagHolder], mode: str) -> None:
  """Raises ValueError, with an example, if a flag that a mode requires is missing.

  Args:
    given: the flags, of EXAMPLES; the message names those that are missing.
    mode: that requires them.
  """
  missing = [flag.name for flag in given if not flag.value]
  if missing:
    raise ValueError(
        f'--mode={mode} needs {" and ".join(f"--{name}" for name in missing)}, such as '
        + ' '.join(f'--{name} {EXAMPLES[name]}' for name in missing))


def all_flags() -> list[flags.Flag]:
  """The flags of this module."""
  return flags.FLAGS.get_key_flags_for_module(__name__)


def modes_of(flag: flags.Flag) -> set[str]:
  """The modes that use a flag, by its help; empty: all."""
  text = re.sub(r'^<.*?>: ', '', flag.help)  # absl puts the values of an enum first
  if not re.match(MODES, text):
    return set()
  return {mode for modes in re.findall(rf'(?:^|; ){MODES}', text)
          for mode in modes.split(', ')}


def check_mode(mode: str) -> None:
  """Raises ValueError if a flag was given that a mode does not use."""
  for flag in all_flags():
    modes = modes_of(flag) if flag.present else set()
    if modes and mode not in modes:
      raise ValueError(
          f'--mode={mode} does not use --{flag.name}, which is a flag of '
          f'{" and ".join(f"--mode={one}" for one in sorted(modes))}; leave it out')


def refuse(given: Sequence[flags.FlagHolder], where: str) -> None:
  """Raises ValueError if one of the flags `given` was set, which `where` lacks."""
  for flag in given:
    if flags.FLAGS[flag.name].present:
      raise ValueError(f'{where} has no --{flag.name}; leave it out')
