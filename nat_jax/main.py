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

import gc
import os
import re
import signal
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from nat_jax import commands, schema
from nat_jax.commands import COMMANDS, config_file
from nat_jax.commands.flags import CONFIG, MISTAKES
from nat_jax.runtime import console, signals

MODE = flags.DEFINE_enum('mode', 'train', list(COMMANDS), 'What to do.')
DISTRIBUTED = flags.DEFINE_bool(
    'distributed', os.environ.get('NAT_JAX_DISTRIBUTED') == '1',
    'Join the other processes: found by itself on TPU pods and under Slurm, else told '
    'by NAT_JAX_COORDINATOR (host:port), NAT_JAX_NUM_PROCESSES and NAT_JAX_PROCESS_ID. '
    'See launch/.',
)
flags.adopt_module_key_flags(commands.flags)  # --help shows the flags of this module


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
      config_file.load(path, variant or None)


def main(argv: list[str]) -> None:
  logging.set_verbosity(logging.WARNING)
  try:
    _check_arguments(argv[1:])
  except MISTAKES as error:
    if _wants_traceback():
      raise
    _end(f'error: {error}')
  _run_mode(argv[1:])


def _check_arguments(argv):
  """Raises ValueError for a mistake that can be seen without importing JAX."""
  if argv and MODE.value != 'report':
    raise ValueError(f'unexpected arguments {argv}; only --mode=report takes any')
  if CONFIG.value is None:
    return
  if MODE.value == 'train':
    schema.plain(CONFIG.value)
  elif changes := config_flags.get_override_values(flags.FLAGS['config']):
    raise ValueError(f'--mode={MODE.value} goes by the config in the workdir; leave '
                     'out ' + ', '.join(f'--config.{key}' for key in changes))


def _run_mode(argv):
  """Runs the mode that is asked for; an end that is foreseen is told in a sentence."""
  # Imports and traces make many objects and little garbage: looking for it each 700
  # objects takes a tenth of the CPU time of a short run.
  gc.set_threshold(20_000)
  # Here and not above: they take seconds, which --help and a mistyped flag need not.
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
    if stopped.number != signal.SIGTERM:  # which a scheduler sends: all is well
      sys.exit(128 + stopped.number)
  except KeyboardInterrupt as interrupt:
    _end(str(interrupt) or 'interrupted', 128 + signal.SIGINT)
  except Exception as error:
    if _wants_traceback():
      raise
    if processes.lost_one(error):
      _end(f'error: {processes.LOST}')
    if isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError)
        and 'RESOURCE_EXHAUSTED' in str(error)):
      reason = str(error).strip() or 'of this machine'
      _end(f'error: out of memory ({reason}); lower what is held at once: '
           '--config.data.batch_size, eval_batch_size, run.updates_per_call, '
           'measures.num_samples, --num, or the width of the networks\n'
           '(NAT_JAX_TRACEBACK=1 shows where)')
    if not isinstance(error, (*MISTAKES, train.Diverged)):
      raise
    _end(f'error: {error}\n(NAT_JAX_TRACEBACK=1 shows where)')


def _end(text, status=1):
  """Ends the program with a message."""
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
  """The program: a lost viewer does not stop it, Ctrl-C ends it with a sentence."""
  console.guard()
  with signals.interruptible():
    try:
      app.run(main, flags_parser=parse)
    except KeyboardInterrupt:  # before or after `main`
      _end('interrupted', 128 + signal.SIGINT)


if __name__ == '__main__':
  run()
