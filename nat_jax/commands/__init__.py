"""What the program can do: a module for each mode.

  train      a config -> trained runs, their table and their report; plan: which runs
  evaluate   a checkpoint -> its figures on every evaluation set
  predict    a folder of pictures -> a class for each, or "none of these"
  posthoc    a checkpoint -> other confidences
  generate   a GAN's checkpoint -> images
  report     many workdirs -> one report

The flags of all modes are in `flags`, apart from the modules that need JAX and more:
--help and a mistyped flag are answered before these are imported.
"""

import functools
import importlib
from collections.abc import Sequence


def _run(mode: str, argv: Sequence[str] = ()) -> None:
  importlib.import_module(f'nat_jax.commands.{mode}').run(argv)


# Mode -> function of the arguments that are no flags: `run` of the module of that name.
COMMANDS = {mode: functools.partial(_run, mode) for mode in (
    'train', 'evaluate', 'predict', 'posthoc', 'generate', 'report')}
