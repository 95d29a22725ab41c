"""The modes of the program: a module for each.

  train      trains the runs of a config and reports on them (plan: which runs)
  sweep      trains configs with several seeds, here (pool), or as jobs of Slurm or
             SkyPilot (remote), and reports on them (jobs: which runs)
  prepare    prepares the data sets of tfds that a config names
  evaluate   evaluates a checkpoint on every evaluation set
  calibrate  chooses temperature and threshold of a checkpoint on the calibration part
  embed      makes vectors of pictures with a pretrained network
  predict    classifies pictures, or answers "none of these" (predictions: its rows);
             scores the time steps of a series
  export     writes a classifier as one file that runs without this package (card: its
             model card; standalone: the program that travels with it)
  serve      a page and a JSON interface of a classifier, for a browser
  posthoc    evaluates post-hoc confidence scores of a checkpoint
  generate   generates images with a GAN's checkpoint
  influence  the value of every training example for a metric of a classifier
  report     writes one report on many workdirs

The flags of all modes are in `flags`, separate from the modules that import JAX, so
that --help and mistyped flags are answered without importing it.
"""

import functools
import importlib
from collections.abc import Sequence


def _run(mode: str, argv: Sequence[str] = ()) -> None:
  importlib.import_module(f'nat_jax.commands.{mode}').run(argv)


# Mode -> function of the positional arguments.
COMMANDS = {mode: functools.partial(_run, mode) for mode in (
    'train', 'sweep', 'prepare', 'evaluate', 'calibrate', 'embed', 'predict', 'export',
    'serve', 'posthoc', 'generate', 'influence', 'report')}
