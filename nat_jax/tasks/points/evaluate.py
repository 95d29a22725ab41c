"""Evaluates GANs of points: samples, decision boundary, distance from the data.

    evaluator = make_evaluator(config, workdir, inputs, trainer, mesh, others)
    figures, _ = evaluator.run(state, ['samples'], final=False)
    figures['samples']['distance']                       # one per seed

The samples and the boundary of each evaluation are saved in snapshots/ of the workdir,
so that the results of a resumed run include the evaluations before it was resumed.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from nat_jax import data, registry
from nat_jax.runtime import files, parallel, results
from nat_jax.task import Evaluator, Inputs, Others, Run, Trainer
from nat_jax.tasks.points import measures
from nat_jax.tasks.points.step import seeds_of

GRID = {1: 301, 2: 61}  # dimension -> grid points per axis at which D is evaluated
DRAWN = 400  # samples per seed that are saved for figures
SNAPSHOTS = 'snapshots'  # folder in the workdir
KEYS = ('distance', 'samples', 'boundary')  # arrays of a snapshot


def make_evaluator(
    config: Mapping[str, Any], workdir: str, given: Inputs, trainer: Trainer, mesh,
    others: Others,
) -> Evaluator:
  """Returns the `Evaluator` of GANs of points, with the one evaluation 'samples'.

  Args:
    config, workdir, given, trainer, mesh, others: see `task.Task.evaluator`.

  Raises:
    ValueError: steps is no multiple of run.eval_every, or samples exceed the memory.
  """
  del others
  every = _period(config)
  points = registry.build(data.POINTS, config['data'], what='set of points')
  held_out = measures.hold_out(config['data'], config['num_samples'])
  where = grid(points)
  data.check_memory(
      8 * config['num_seeds'] * (config['num_samples'] * 4 * given.shape[0]
                                 + len(where)),
      f'the samples of {config["num_seeds"]} seeds', 'lower num_seeds or num_samples')
  z = np.random.default_rng(0).standard_normal(  # for all seeds and evaluations
      (config['num_samples'], config['generator']['latent'])).astype(np.float32)
  heads = {name: parallel.wrap_head(
      lambda state, nothing, head=head, x=x: head(state, x), mesh)
      for name, head, x in (('samples', trainer.heads['samples'], {'z': z}),
                            ('boundary', trainer.heads['boundary'], where))}

  def look(state):
    """(distance [seeds], samples [seeds, n, d], boundary [seeds, grid])."""
    samples, boundary = (
        np.asarray(heads[name](state, {})) for name in ('samples', 'boundary'))
    return measures.wasserstein(samples, held_out.points), samples, boundary

  def run(state, names, final):
    del names, final
    step = int(state.step[0])  # equal for all seeds
    found = look(state)
    if jax.process_index() == 0:
      _keep(workdir, step, *found)
    distance, samples, _ = found
    spread = measures.spread(samples) / measures.spread(held_out.points)
    return {'samples': {'distance': distance.tolist(), 'spread': spread.tolist(),
                        'mean_distance': float(distance.mean())}}, samples

  def save(state, step, figures, samples):
    del state, figures
    start = _place(workdir, 0)
    if jax.process_index() == 0 and not files.exists(start):
      first = parallel.init_state(trainer.init, jax.random.key(config['seed']), mesh)
      _keep(workdir, 0, *look(first))
    # Some are missing where run.eval_every was lowered when the run was resumed.
    steps = [at for at in sorted({*range(0, step + 1, every), step})
             if at in (0, step) or files.exists(_place(workdir, at))]
    seen = [files.read_npz(_place(workdir, at), AGAIN.format(workdir), KEYS)
            for at in steps]
    distance, drawn, boundary = (np.stack([one[key] for one in seen]) for key in KEYS)
    threshold = config['tolerance'] * held_out.floor
    merit = measures.measure(
        np.array(steps), distance, boundary, samples, held_out, threshold
    ) | measures.coverage(samples, points.modes)
    evaluation = {
        'seeds': seeds_of(config), 'num_samples': config['num_samples'],
        'measure': ('' if given.shape[0] == 1 else 'sliced ') + 'Wasserstein distance',
        'floor': held_out.floor, 'threshold': threshold,
        'num_modes': points.modes.num if points.modes else 0,
        'evals': {'samples': {name: x.tolist() for name, x in merit.items()}},
        'curve': {'step': steps, 'distance': distance.tolist()},
    }
    rows = np.linspace(0, len(points.negative) - 1, DRAWN, dtype=int)
    return results.write_evaluation(workdir, config, step, evaluation, {
        results.POINTS: dict(
            steps=np.array(steps), samples=drawn, boundary=boundary, grid=where,
            data=held_out.points[:DRAWN], negative=points.negative[rows])})

  # float16 arrays of all evaluations, once in snapshots/ and once in points.npz.
  size = config['num_seeds'] * (2 * DRAWN * given.shape[0] + len(where)) * 2
  return Evaluator(
      {'samples': every}, run, save, summary,
      2 * size * (1 + config['steps'] // every))


def sampler_of(run: Run) -> Callable[..., np.ndarray]:
  """Returns draw(num, seed) -> float32 [num, d], of the GANs of all seeds in turn.

  Args:
    run: of GANs of points.
  """
  head = parallel.wrap_head(run.trainer.heads['samples'], run.mesh)
  latent = run.config['generator']['latent']

  def draw(num, seed):
    rng = np.random.default_rng(seed)
    each = -(-num // len(seeds_of(run.config)))  # of every GAN
    z = rng.standard_normal((each, latent), np.float32)
    points = np.asarray(head(run.state, {'z': z}))  # [seeds, each, d]
    return points.swapaxes(0, 1).reshape(-1, *run.shape)[:num]

  return draw


def _period(config):
  """The period of the evaluations; ValueError unless `steps` is a multiple of it."""
  every = config['run']['eval_every'] or config['steps']
  if config['steps'] % every:
    raise ValueError(
        'expected steps to be a multiple of run.eval_every, got steps='
        f'{config["steps"]} and run.eval_every={every}; change one of them')
  return every


AGAIN = 'move {} away and train the run again: each of its snapshots is needed'


def _keep(workdir, step, distance, samples, boundary):
  """Writes a snapshot to the workdir, with at most `DRAWN` samples per seed."""
  thin = -(-samples.shape[1] // DRAWN)
  path = _place(workdir, step)
  files.as_path(path).parent.mkdir(parents=True, exist_ok=True)
  files.write_npz(
      path, distance=distance, samples=samples[:, ::thin].astype(np.float16),
      boundary=boundary.astype(np.float16))


def _place(workdir, step):
  return os.path.join(workdir, SNAPSHOTS, f'{step:09d}.npz')


def summary(figures: Mapping[str, Any]) -> str:
  """Returns a line with the mean and the range over seeds of the distance."""
  distance = np.array(figures['samples']['distance'])
  return (f'distance from the data {distance.mean():.3f} '
          f'({distance.min():.3f} to {distance.max():.3f} over {len(distance)} seeds)')


def grid(points: data.Points) -> np.ndarray:
  """Returns the grid points at which D is evaluated, float32 [g, d].

  Args:
    points: `window` is the range of the grid in each dimension. For d = 2 the first
      coordinate varies fastest.
  """
  dimension = points.positive.shape[1]
  axis = np.linspace(*points.window, GRID[dimension], dtype=np.float32)
  return np.stack([x.ravel() for x in np.meshgrid(*[axis] * dimension)], -1)
