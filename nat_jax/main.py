"""Negative-aware training: trains, evaluates and compares classifiers and GANs.

Train; at the end print the table of negative confidence rates and write a report:
  python -m nat_jax.main --config configs/digits.py --workdir runs/digits
  (The command `nat-jax` does the same. A config is a file, or the name of one that
  comes with the program: --config digits:nat, nat/cifar10:nat_small.)
  (The same command resumes a run that was stopped. --config.steps=100 changes a key of
  the config. Ctrl-C saves the run and exits with status 130, SIGHUP with 129, SIGTERM
  with 0, or with $NAT_JAX_SIGTERM_STATUS where a scheduler needs another status.
  --dry_run checks the config and its data, and trains nothing.)
Download and prepare the data sets of a config (extra `prepare`, TensorFlow):
  python -m nat_jax.main --mode=prepare --config nat/cifar10:nat
Evaluate a checkpoint; only the workdir is needed:
  python -m nat_jax.main --mode=evaluate --workdir runs/digits [--step 600]
  (--config CONFIG --out FOLDER evaluates it with the evals and measures of a config.)
Choose temperature and threshold on the positives held out for calibration:
  python -m nat_jax.main --mode=calibrate --workdir runs/digits --accept 0.95
Classify pictures (folders, files, patterns, lists); --out=FILE.jsonl, .parquet:
  python -m nat_jax.main --mode=predict --workdir runs/digits --images photos/
Score and flag the time steps of a series, with a detector of anomalies:
  python -m nat_jax.main --mode=predict --workdir runs/series today.csv [--out=FILE.csv]
Export a classifier as one file that runs without this package; --out=FILE.zip:
  python -m nat_jax.main --mode=export --workdir runs/digits
Show a page on which pictures can be tried, and a JSON interface (extra `serve`):
  python -m nat_jax.main --mode=serve --workdir runs/digits [--port 8000]
Make vectors of pictures with a pretrained network, to train on in seconds:
  python -m nat_jax.main --mode=embed --backbone jax:efficientnet_lite0 \\
    --images pets/ --images others/ --out features.npz
  python -m nat_jax.main --config embeddings:features.npz --workdir runs/pets
Compare post-hoc confidence scores of a checkpoint (energy, KNN, ViM, ODIN, ...):
  python -m nat_jax.main --mode=posthoc --workdir runs/digits [--step 600] \\
    [--scores energy,gen,knn] [--per_set 2000]
Make images with a trained GAN (--interpolate=5, --neighbours=4: more sheets):
  python -m nat_jax.main --mode=generate --workdir runs/gan --num 64 [--labels 0,3]
Find the training examples that help or harm a metric most:
  python -m nat_jax.main --mode=influence --workdir runs/digits \\
    [--of ncr@0.8:SET] [--top 100] [--method tracin]
Compare runs in one report:
  python -m nat_jax.main --mode=report runs/digits runs/digits-baseline
Train configs with several seeds, each in a folder of --workdir, and report on all:
  python -m nat_jax.main --mode=sweep --workdir runs/small --seeds 0,1,2 \\
    configs/nat/cifar10.py:baseline_small configs/nat/cifar10.py:nat_small
  (Finished runs are skipped, interrupted ones go on. --config.KEY=VALUE changes a key
  of all. --jobs=2 trains two at a time, --on=slurm and --on=skypilot elsewhere.)
"""

import gc
import os
import re
import signal
import sys
import traceback

from absl import app, flags, logging
from ml_collections import config_flags

from nat_jax import commands, names, schema
from nat_jax.commands import COMMANDS, config_file, jobs
from nat_jax.commands.flags import CONFIG, MISTAKES, ON, OUT, PROFILE, WORKDIR
from nat_jax.runtime import console, signals

MODE = flags.DEFINE_enum('mode', 'train', list(COMMANDS), 'What to do.')
DISTRIBUTED = flags.DEFINE_bool(
    'distributed', os.environ.get('NAT_JAX_DISTRIBUTED') == '1',
    'Train with several processes: detected on TPU pods and under Slurm, elsewhere set '
    'by NAT_JAX_COORDINATOR (host:port), NAT_JAX_NUM_PROCESSES and NAT_JAX_PROCESS_ID. '
    'See launch/.',
)
flags.adopt_module_key_flags(commands.flags)  # --help shows the flags of this module


def parse(argv: list[str]) -> list[str]:
  """Parses the command line; for a mistake the program exits with one message.

  absl would print a traceback for a mistake in a config.

  Args:
    argv: the command line, with the name of the program first.

  Returns:
    The arguments that are not flags, with the name of the program first.

  Raises:
    SystemExit: a mistake in a flag or in the config file, with status 1.
  """
  try:
    for arg in argv[1:]:
      _check_key(arg)
    modes = [mode for _, mode in _places_of('mode', argv)]
    for mode in modes:
      if mode not in COMMANDS:
        raise ValueError(names.unknown('mode', mode, COMMANDS))
    if modes[-1:] == ['sweep']:
      return _parse_sweep(argv)
    return flags.FLAGS(_with_config_paths(argv))
  except (flags.Error, *MISTAKES, LookupError, AttributeError, SyntaxError) as error:
    if _wants_traceback():
      raise
    text = str(error).strip()
    if isinstance(error, IndexError):
      text = ('the elements of a tuple or list of the config cannot be changed one by '
              'one: give all of them, as in --config.data.mean="(0.5,)"')
    elif isinstance(error, AttributeError | LookupError):
      text = (f'the config has no key {text.strip(chr(34))} that --config.KEY could '
              'change; arguments that a spec does not hold yet are added in the config '
              'file')
    sys.exit(f'error: {text}\n'
             '(--help shows the flags, NAT_JAX_TRACEBACK=1 shows the traceback)')


def _check_key(arg):
  """Raises ValueError if an argument is --config.KEY with a key that no config has."""
  found = re.match(r'--?config\.([^=]+)(?:=(.*))?', arg)
  if found:
    schema.check_override(found[1], found[2] or '')


def _with_config_paths(argv):
  """The command line with the path of each --config, which may be given by name.

  The config file is loaded first, since absl prints a traceback for a mistake in it.
  """
  found = list(argv)
  for i, value in _places_of('config', argv):
    name, variant = config_file.split(value)
    if name:
      _check_inner_keys(argv, config_file.load(name, variant))
      # The value stands in an argument of its own, or after '--config='.
      found[i] = argv[i].removesuffix(value) + config_file.with_path(value)
  return found


def _check_inner_keys(argv, config):
  """Raises ValueError if an argument changes a key that a part of the config lacks."""
  for arg in argv[1:]:
    found = re.match(r'--?(?:no)?config\.([\w.]+)', arg)
    part, place = config, ''
    for key in found[1].split('.') if found else ():
      if not hasattr(part, 'keys'):
        break
      if key not in part:
        hint = names.hint(key, part, schema.same_name(found[1], config))
        raise ValueError(
            f'the config has no key {key!r} in {place[:-1] or "it"}{hint} that '
            '--config.KEY could change, only '
            f'{", ".join(sorted(part))}; arguments that a spec does not hold yet are '
            'added in the config file')
      part, place = part[key], f'{place}{key}.'


def _places_of(name, argv):
  """(index in the command line, value) for each value of a flag, which ends there."""
  places = []
  for i in range(1, len(argv)):
    given = re.fullmatch(rf'--?{name}(?:=(.*))?', argv[i], re.S)
    if given and given[1] is not None:
      places.append((i, given[1]))
    elif given and i + 1 < len(argv):
      places.append((i + 1, argv[i + 1]))
  return places


def _parse_sweep(argv):
  """Parses the command line of a sweep, whose changes are for all of its configs."""
  if _places_of('config', argv):
    raise ValueError(
        '--mode=sweep takes its configs without --config: --mode=sweep --workdir DIR '
        'CONFIG:VARIANT ...')
  changes = [arg for arg in argv[1:] if jobs.CHANGE.match(arg)]
  found = [*flags.FLAGS([arg for arg in argv if arg not in changes]), *changes]
  jobs.asked(found[1:])
  return found


def main(argv: list[str]) -> None:
  """Runs the mode that the flags name; exits with a message if that fails."""
  logging.set_verbosity(logging.WARNING)
  try:
    _check_arguments(argv[1:])
  except MISTAKES as error:
    if _wants_traceback():
      raise
    _end(f'error: {error}')
  _run_mode(argv[1:])


def _check_arguments(argv):
  """Raises ValueError for the mistakes that can be found without importing JAX."""
  if argv and MODE.value not in ('report', 'sweep', 'predict', 'embed'):
    raise ValueError(
        f'unexpected arguments {argv}; only --mode=report, --mode=sweep, '
        '--mode=predict and --mode=embed take arguments without --')
  commands.flags.check_mode(MODE.value)
  for flag in (WORKDIR, OUT):  # shells leave ~ alone after =
    if flag.value:
      flags.FLAGS[flag.name].value = os.path.expanduser(flag.value)
  _sigterm_status()
  if MODE.value == 'sweep':
    if DISTRIBUTED.value:
      raise ValueError(
          '--mode=sweep runs as one process, which starts others: unset '
          'NAT_JAX_DISTRIBUTED and leave out --distributed')
    if '://' in (WORKDIR.value or '') and ON.value != 'skypilot':
      raise ValueError(
          f'--mode=sweep needs a local --workdir, got {WORKDIR.value}; a bucket is for '
          '--on=skypilot')
    return
  named = argv if MODE.value == 'report' else []
  for workdir in filter(None, [WORKDIR.value, *named]):
    _check_store(workdir)
  if CONFIG.value is None:
    return
  schema.plain(CONFIG.value)
  changes = [] if MODE.value != 'evaluate' else [
      key for key in config_flags.get_override_values(flags.FLAGS['config'])
      if key.partition('.')[0] not in schema.MEASURED]
  if changes:
    raise ValueError(
        '--mode=evaluate uses the config in the workdir, which cannot be changed but '
        f'for {", ".join(schema.MEASURED)}; leave out '
        + ', '.join(f'--config.{key}' for key in changes))


def _check_store(workdir):
  """Raises ValueError where a workdir in an object store cannot be used."""
  if '://' not in workdir:
    return
  from nat_jax.runtime import files  # imported here because it imports numpy

  files.check_store(workdir)
  what = (f'--mode={MODE.value}' if MODE.value not in ('train', 'evaluate', 'report')
          else '--profile' if PROFILE.value else '')
  if what:
    raise ValueError(
        f'{what} needs a local --workdir; copy the run first: '
        f'gcloud storage cp -r {workdir} runs')


def _sigterm_status():
  """The exit status after SIGTERM, which schedulers send: 0, or what they need."""
  text = os.environ.get('NAT_JAX_SIGTERM_STATUS') or '0'
  if not text.isdecimal() or int(text) > 255:
    raise ValueError(
        f'NAT_JAX_SIGTERM_STATUS must be an exit status, 0 to 255; got {text!r}')
  return int(text)


def _run_mode(argv):
  """Runs the mode that --mode names; expected failures end with a message."""
  # Imports and traces make many objects and little garbage: a garbage collection every
  # 700 objects, Python's default, takes a tenth of the CPU time of a short run.
  gc.set_threshold(20_000)
  # Imported here because they take seconds, which --help does not need.
  from nat_jax.runtime import allocator

  allocator.keep_memory()
  import jax

  from nat_jax import train
  from nat_jax.runtime import compilation, processes

  try:
    compilation.keep_programs()
    if DISTRIBUTED.value:
      if not _wants_traceback():
        processes.read_errors()
      processes.join()
    COMMANDS[MODE.value](argv)
  except train.Preempted as stopped:
    if jax.process_index() == 0:
      print(stopped, flush=True)
    sys.exit(_sigterm_status() if stopped.number == signal.SIGTERM
             else 128 + stopped.number)
  except KeyboardInterrupt as interrupt:
    _end(str(interrupt) or 'interrupted', 128 + signal.SIGINT)
  except Exception as error:
    if _wants_traceback():
      raise
    if processes.lost_one(error):
      _end(f'error: {processes.LOST}')
    wanted = os.environ.get('JAX_PLATFORMS')
    if wanted and _is_about_devices(error):
      _end(f'error: JAX finds no device of JAX_PLATFORMS={wanted}; install JAX for it '
           "(pip install -e '.[cuda]' or '.[tpu]'), or unset JAX_PLATFORMS\n"
           '(NAT_JAX_TRACEBACK=1 shows the traceback)')
    if isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError)
        and 'RESOURCE_EXHAUSTED' in str(error)):
      reason = str(error).strip() or 'of this machine'
      _end(f'error: out of memory ({reason}); lower one of the sizes that memory '
           'depends on: --config.data.batch_size, eval_batch_size, '
           'run.updates_per_call, measures.num_samples, measures.num_quick, --num, or '
           'the width of the networks; or set --config.run.placement=streamed, if the '
           'training images lie on the device\n'
           '(NAT_JAX_TRACEBACK=1 shows the traceback)')
    if not isinstance(error, (*MISTAKES, train.Diverged)):
      raise
    _end(f'error: {error}\n(NAT_JAX_TRACEBACK=1 shows the traceback)')


def _is_about_devices(error):
  """Whether JAX raised an error when it was asked for its devices."""
  frames = traceback.extract_tb(error.__traceback__)
  return isinstance(error, RuntimeError | AssertionError) and (
      os.path.basename(frames[-1].filename) == 'xla_bridge.py')


def _end(text, status=1):
  """Prints a message and exits with a status."""
  if flags.FLAGS.is_parsed() and DISTRIBUTED.value:
    from nat_jax.runtime import processes

    processes.leave(text, status)
  if status == 1:
    sys.exit(text)
  print(text, file=sys.stderr, flush=True)
  sys.exit(status)


def _wants_traceback():
  return os.environ.get('NAT_JAX_TRACEBACK') == '1'


def run() -> None:
  """Runs the program; it survives a closed output, and Ctrl-C shows no traceback."""
  console.guard()
  with signals.interruptible():
    try:
      app.run(main, flags_parser=parse)
    except KeyboardInterrupt:  # before or after `main`
      _end('interrupted', 128 + signal.SIGINT)


if __name__ == '__main__':
  run()
