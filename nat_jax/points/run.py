"""GANs of points, with and without external negatives: runs, and their comparison.

    evaluation = train(config, 'runs/gaussian1d')
    print(report(['runs/gaussian1d', 'runs/gaussian1d-gan']))
"""

import functools
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from nat_jax import data, experiment, registry
from nat_jax.points import figures, measures, training
from nat_jax.runtime import files, results, writers
from nat_jax.runtime import workdir as workdirs

REPORT = 'report.md'
DRAWN = 400  # samples of a seed kept for figures
KEYS = ('steps', 'samples', 'boundary', 'grid', 'data', 'negative')  # of points.npz
EVALUATION_KEYS = {
    'name', 'variant', 'seeds', 'num_samples', 'measure', 'floor', 'threshold',
    'figures', 'curve'}
AGAIN = 'train the run again, which takes a minute'


def train(
    config: Mapping[str, Any], workdir: str, overwrite: bool = False
) -> dict[str, Any]:
  """Trains a variant, measures it and writes eval.json and points.npz.

  A run that is cut off begins anew: it takes a minute.

  Raises:
    ValueError: a mistake in the config or the workdir, or a seed diverged.
  """
  config = experiment.plain(config)
  check(config)
  other = workdirs.check(workdir, config, overwrite)
  done = None if other else _finished(workdir)
  if done:
    print(f'{workdir} is trained already ({config["steps"]} steps); nothing to do',
          flush=True)
    return done
  points = registry.build(data.POINTS, config['data'], what='set of points')
  dimension = points.positive.shape[1]
  held_out = measures.hold_out(config['data'], config['num_samples'])
  training.check(config, points)
  workdirs.prepare(workdir, config, overwrite, 10_000_000)
  start = time.monotonic()
  seen = training.run_seeds(config, points, functools.partial(print, flush=True))
  seconds = time.monotonic() - start
  distance = np.stack([  # one by one: all projections at once would fill the memory
      measures.wasserstein(x, held_out.points) for x in seen['samples']])
  threshold = config['tolerance'] * held_out.floor
  figures = measures.measure(
      seen['step'], distance, seen['boundary'], seen['samples'][-1], held_out,
      threshold)
  every = -(-config['num_samples'] // DRAWN)
  arrays = dict(
      steps=seen['step'], samples=seen['samples'][:, :, ::every].astype(np.float16),
      boundary=seen['boundary'].astype(np.float16), grid=training.grid(points),
      data=held_out.points[:DRAWN], negative=points.negative[
          np.linspace(0, len(points.negative) - 1, DRAWN, dtype=int)])
  evaluation = writers.finite({
      'name': config['name'], 'variant': config['variant'], 'step': config['steps'],
      'seeds': [config['seed'] + i for i in range(config['num_seeds'])],
      'num_samples': config['num_samples'],
      'measure': ('' if dimension == 1 else 'sliced ') + 'Wasserstein distance',
      'floor': held_out.floor, 'threshold': threshold, 'seconds': round(seconds, 1),
      'figures': {name: values.tolist() for name, values in figures.items()},
      'curve': {'step': seen['step'].tolist(), 'distance': distance.tolist()},
  })
  results.write_evaluation(workdir, evaluation, {results.POINTS: arrays})
  return evaluation


def _finished(workdir):
  """The evaluation of a run that is whole, else None."""
  try:
    return _read(workdir)[0]
  except files.Unreadable as error:
    logging.warning('%s.', error)
  except FileNotFoundError:
    pass
  return None


def check(config: Mapping[str, Any]) -> None:
  """Raises ValueError for settings that do not fit each other."""
  if jax.process_count() > 1:
    raise ValueError('GANs of points run on one device: start one process alone')
  if config['steps'] % config['snapshots']:
    raise ValueError(
        f'steps {config["steps"]} must be a multiple of snapshots '
        f'{config["snapshots"]}')


def owns(workdir: str) -> bool:
  """Whether a run of this module stands in `workdir`."""
  try:
    config = files.read_json(
        os.path.join(workdir, workdirs.CONFIG), 'mend or remove that file')
  except FileNotFoundError:
    return False
  trainer = config.get('trainer')
  return isinstance(trainer, dict) and trainer.get('name') == 'points'


def report(workdirs: Sequence[str], out: str | None = None) -> str:
  """Writes report.md, a figure and an animation of runs; returns the tables.

  Args:
    workdirs: the variant that the first is to be tested against comes last.
    out: where it is written; None: into the first.
  """
  out = out or workdirs[0]
  os.makedirs(out, exist_ok=True)
  runs = {}
  for workdir in workdirs[::-1]:  # the original GAN above
    evaluation, arrays = _read(workdir)
    runs[evaluation['variant']] = {**evaluation, 'arrays': arrays}
  if len(runs) < len(workdirs) or len({run['name'] for run in runs.values()}) > 1:
    raise ValueError(
        'runs of one experiment and of different variants are compared, got '
        + ', '.join('{name}:{variant}'.format(**_read(w)[0]) for w in workdirs))
  text = '\n'.join(table.markdown() for table in measures.compare(runs))
  figures.save_figure(runs, os.path.join(out, 'figure.png'))
  figures.save_animation(runs, os.path.join(out, 'animation.gif'))
  with files.replacing(os.path.join(out, REPORT)) as file:
    file.write(text)
  return f'{text}\nwritten: {out}/{REPORT}, figure.png, animation.gif'


def _read(workdir):
  """What eval.json and points.npz hold."""
  evaluation = results.read_evaluation(workdir, AGAIN)
  arrays = evaluation and results.read_arrays(
      workdir, results.POINTS, evaluation['step'], KEYS, AGAIN)
  if arrays is None:
    raise FileNotFoundError(
        f'{workdir} holds no finished run of GANs of points; train it first')
  if not EVALUATION_KEYS <= set(evaluation):
    missing = ', '.join(sorted(EVALUATION_KEYS - set(evaluation)))
    raise files.Unreadable(
        os.path.join(workdir, results.EVALUATION), f'it has no {missing}', AGAIN)
  return evaluation, arrays
