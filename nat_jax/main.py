"""Trains, evaluates, uses and compares classifiers that know what they do not know.

Train, and end with the table of negative confidence rates and a report:
  python -m nat_jax.main --config configs/digits.py --workdir runs/digits
  (again: goes on where it stopped; --config.steps=100 changes a key of the config.
  Ctrl-C saves and ends with status 130, SIGHUP with 129, SIGTERM with 0)
Evaluate a checkpoint; needs nothing but the workdir:
  python -m nat_jax.main --mode=evaluate --workdir runs/digits [--step 600]
Classify your own pictures:
  python -m nat_jax.main --mode=predict --workdir runs/digits --images photos/
Compare other confidences of a checkpoint (energy, KNN, ViM, ODIN, ...):
  python -m nat_jax.main --mode=posthoc --workdir runs/digits [--step 600]
Make images with a trained GAN (--interpolate=5, --neighbours=4: more sheets):
  python -m nat_jax.main --mode=generate --workdir runs/gan --num 64 [--labels 0,3]
Compare runs in one report:
  python -m nat_jax.main --mode=report runs/digits runs/digits-baseline
"""

import contextlib
import os
import re
import signal
import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from nat_jax import generate, generation, plan, posthoc, predict, schema, train
from nat_jax.points import run as points
from nat_jax.reports import report
from nat_jax.runtime import checkpoint, console, files, processes, signals
from nat_jax.runtime import workdir as workdirs

CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'A config file of configs/, with a variant after a colon: '
    'configs/digits.py:baseline. Keys are changed with --config.KEY=VALUE.',
    lock_config=True,
)
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
MODE = flags.DEFINE_enum(
    'mode', 'train',
    ['train', 'evaluate', 'predict', 'posthoc', 'generate', 'report'],
    'What to do.',
)
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
DISTRIBUTED = flags.DEFINE_bool(
    'distributed', os.environ.get('NAT_JAX_DISTRIBUTED') == '1',
    'Join the other processes: found by itself on TPU pods and under Slurm, else told '
    'by NAT_JAX_COORDINATOR (host:port), NAT_JAX_NUM_PROCESSES and NAT_JAX_PROCESS_ID. '
    'See launch/.',
)
MISTAKES = (ValueError, TypeError, OSError)  # of the user, most likely


def run_train() -> None:
  """Trains the config, and first the variant it is to be compared with."""
  config, flag = CONFIG.value, flags.FLAGS['config']
  if config is None or not WORKDIR.value:
    raise ValueError('--mode=train needs --config and --workdir')
  path, _, variant = config_flags.get_config_filename(flag).partition(':')
  judges, runs = plan.plan(
      config, path, variant or None, config_flags.get_override_values(flag),
      WORKDIR.value.rstrip('/'))
  for run_config, workdir in runs:  # before any work is spent on the first
    train.check(run_config, workdir, OVERWRITE.value)
  for i, (run_config, workdir) in enumerate([*judges, *runs]):
    run = points.train if run_config.trainer.name == 'points' else train.train
    with _interrupted(workdir):
      if jax.process_index() == 0:
        print(f'== {run_config.name}:{run_config.variant} -> {workdir}', flush=True)
      # Several GANs may be started at once and want one judge.
      with workdirs.hold(workdir, wait=i < len(judges)):
        run(run_config, workdir, OVERWRITE.value)
  if jax.process_index() == 0:
    _report([workdir for _, workdir in runs[::-1]])


@contextlib.contextmanager
def _interrupted(workdir):
  """Says what an interrupted run has saved."""
  try:
    yield
  except KeyboardInterrupt:
    steps = checkpoint.list_steps(workdir)
    raise KeyboardInterrupt(
        f'interrupted; the same command goes on from step {steps[-1]} in {workdir}'
        if steps else
        f'interrupted; nothing of {workdir} is saved yet, so the same command begins '
        'it anew') from None


def _report(workdirs, out=None):
  print()
  try:
    with files.named(out or workdirs[0]):
      _write_report(workdirs, out)
  except OSError as error:
    raise OSError(
        f'the report cannot be written: {error}. Nothing of the runs is lost; free '
        f'some space and give --mode=report {" ".join(workdirs)}') from error


def _write_report(workdirs, out):
  if points.owns(workdirs[0]):
    print(points.report(workdirs, out))
    return
  print(report.tables([report.load_run(workdir) for workdir in workdirs]))
  print(f'\nreport: {report.report(workdirs, out)}')
  for workdir in workdirs:
    print(f'run: {workdir}  (eval.json, metrics.jsonl, checkpoints/, figures)')


def run_evaluate() -> None:
  """Evaluates a checkpoint."""
  generation.evaluate_run(_needed(WORKDIR, 'evaluate'), STEP.value)
  if jax.process_index() == 0:
    print(report.tables([report.load_run(WORKDIR.value)]))


def run_predict() -> None:
  """Classifies a folder of pictures."""
  workdir, images = _needed(WORKDIR, 'predict'), _needed(IMAGES, 'predict')
  path = predict.predict_folder(workdir, images, STEP.value, THRESHOLD.value)
  with open(path, encoding='utf-8', errors='backslashreplace') as file:
    print(file.read(), end='')
  print(f'written: {path}')


def run_posthoc() -> None:
  """Scores a checkpoint's evaluation sets by other confidences."""
  workdir = _needed(WORKDIR, 'posthoc')
  found = posthoc.posthoc(workdir, STEP.value)
  if jax.process_index() == 0:
    print(posthoc.text(found))
    print(f'written: {os.path.join(workdir, posthoc.POSTHOC)}')


def run_generate() -> None:
  """Makes images with a GAN."""
  path = generate.generate(
      _needed(WORKDIR, 'generate'), NUM.value, LABELS.value, SEED.value, STEP.value,
      INTERPOLATE.value, NEIGHBOURS.value)
  if jax.process_index() == 0:
    print(f'written: {path} and the sheets beside it')


def run_report(workdirs: list[str]) -> None:
  """Compares runs; the report goes to --workdir, or into the first run."""
  _report(workdirs or [_needed(WORKDIR, 'report')], WORKDIR.value)


MODES = {
    'train': run_train, 'evaluate': run_evaluate, 'predict': run_predict,
    'posthoc': run_posthoc, 'generate': run_generate,
}


def _needed(flag, mode):
  if not flag.value:
    raise ValueError(f'--mode={mode} needs --{flag.name}')
  return flag.value


def parse(argv: list[str]) -> list[str]:
  """Parses the command line; a mistake ends the program with one message.

  absl would print a traceback for a mistake in a config.
  """
  try:
    for arg in argv[1:]:
      _check_key(arg)
    _check_config_file(argv)
    return flags.FLAGS(argv)
  except (flags.Error, *MISTAKES, LookupError, AttributeError, SyntaxError) as error:
    if _wants_traceback():
      raise
    text = str(error).strip()
    if isinstance(error, AttributeError | LookupError):
      text = (f'the config has no key {text.strip(chr(34))} where --config.KEY looks '
              'for it; what a spec does not hold yet is added in the config file')
    sys.exit(f'error: {text}\n'
             '(--help shows the flags, NAT_JAX_TRACEBACK=1 where it went wrong)')


def _check_key(arg):
  """Raises ValueError for --config.KEY of a key that no config has."""
  found = re.match(r'--?config\.([^=]+)', arg)
  if found:
    schema.check_override(found[1])


def _check_config_file(argv):
  """Loads the config file: of a mistake in it absl would print a traceback."""
  for arg, following in zip(argv[1:], [*argv[2:], ''], strict=True):
    found = re.fullmatch(r'--?config(?:=(.*))?', arg)
    path, _, variant = ((found[1] or following) if found else '').partition(':')
    if path:
      plan.load(path, variant or None)


def main(argv: list[str]) -> None:
  logging.set_verbosity(logging.WARNING)
  try:
    if argv[1:] and MODE.value != 'report':
      raise ValueError(f'unexpected arguments {argv[1:]}; only --mode=report takes any')
    changes = (CONFIG.value is not None and
               config_flags.get_override_values(flags.FLAGS['config']))
    if changes and MODE.value != 'train':
      raise ValueError(f'--mode={MODE.value} goes by the config in the workdir; leave '
                       'out ' + ', '.join(f'--config.{key}' for key in changes))
    if DISTRIBUTED.value:
      if not _wants_traceback():
        processes.read_errors()
      processes.join()
    if MODE.value not in ('train', 'report') and points.owns(WORKDIR.value or ''):
      raise ValueError(f'{WORKDIR.value} holds GANs of points, which are measured as '
                       'they are trained: for them there is --mode=report')
    if MODE.value == 'report':
      run_report(argv[1:])
    else:
      MODES[MODE.value]()
  except train.Preempted as stopped:
    if jax.process_index() == 0:
      print(stopped, flush=True)
    if stopped.number != signal.SIGTERM:  # which a scheduler sends: all is well
      sys.exit(128 + stopped.number)
  except KeyboardInterrupt as interrupt:
    _end(str(interrupt) or 'interrupted', 128 + signal.SIGINT)
  except Exception as error:
    if _wants_traceback():
      raise
    if processes.lost_one(error):
      _end(f'error: {processes.LOST}')
    if _is_out_of_memory(error):
      reason = str(error).strip() or 'of this machine'
      _end(f'error: out of memory ({reason}); lower what is held at once: '
           '--config.data.batch_size, eval_batch_size, run.updates_per_call, '
           'measures.num_samples, --num, or the width of the networks\n'
           '(NAT_JAX_TRACEBACK=1 shows where)')
    if not isinstance(error, (*MISTAKES, train.Diverged)):
      raise
    _end(f'error: {error}\n(NAT_JAX_TRACEBACK=1 shows where)')


def _is_out_of_memory(error):
  return isinstance(error, MemoryError) or (
      isinstance(error, jax.errors.JaxRuntimeError)
      and 'RESOURCE_EXHAUSTED' in str(error))


def _end(text, status=1):
  """Ends the program with a message."""
  processes.leave(text, status)
  if status == 1:
    sys.exit(text)
  print(text, file=sys.stderr, flush=True)
  sys.exit(status)


def _wants_traceback():
  return os.environ.get('NAT_JAX_TRACEBACK') == '1'


def run() -> None:
  """The program: a lost viewer does not stop it, Ctrl-C ends it with a sentence."""
  console.guard()
  with signals.interruptible():
    try:
      app.run(main, flags_parser=parse)
    except KeyboardInterrupt:  # before or after `main`
      _end('interrupted', 128 + signal.SIGINT)


if __name__ == '__main__':
  run()
