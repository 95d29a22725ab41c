"""Cleaning the data of a small GAN by influence, as Terashita et al. (2021) do.

    python tests/bench/influence_gan.py                  # 5 seeds

400 points of a correlated normal distribution in a plane, of which a tenth come from a
far cluster. A GAN of dense networks is trained for 20 epochs by SGD, batches of 50.
The influence of each point on the log-likelihood of clean validation points (kernel
density of generated points, bandwidth 1) is compared with true leave-one-out of 60
points, and the GAN is trained again without a tenth of the points:
  influence  the most harmful by influence
  random     a random tenth
  forest     the most abnormal of scikit-learn's isolation forest
  oracle     the points of the far cluster
The gain is of the log-likelihood of clean test points, generated with other noise.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from sklearn import ensemble
from steps import machine

from nat_jax import data, runs, train
from nat_jax.influence import adjoint, targets
from nat_jax.runtime import parallel
from nat_jax.schema import presets
from nat_jax.task import Inputs
from nat_jax.tasks.points import step as points

NUM, FAR, BATCH, LOO = 400, 40, 50, 60
STEPS = 20 * NUM // BATCH
COVARIANCE = [[1.0, 0.6], [0.6, 1.0]]


def draw(rng, num):
  return rng.multivariate_normal([0, 0], COVARIANCE, num).astype(np.float32)


def make_run(seed, rate):
  """(config, trainer, inputs) of one seed; the last `FAR` points are far away."""
  config = runs.resolve(presets.experiment(
      task='points', variant='gan', negatives=False, num_seeds=1, seed=seed,
      steps=STEPS, batch_size=BATCH, data={'name': 'rings2d'},
      generator={'name': 'toy_generator', 'latent': 2, 'widths': (16,)},
      discriminator={'name': 'toy_discriminator', 'widths': (16,)},
      optimizer={'name': 'sgd', 'momentum': 0.0, 'nesterov': False},
      schedule={'name': 'constant', 'learning_rate': rate}))
  rng = np.random.default_rng(seed)
  positive = np.concatenate([
      draw(rng, NUM - FAR), [[5, -5]] + 0.3 * draw(rng, FAR)]).astype(np.float32)
  stream = data.apart(
      data.make_stream(NUM, {}, {}, batch_size=BATCH, negatives_per_batch=0,
                       inside=False, seed=seed), NUM, BATCH, 0)
  # A last axis of one seed, as in `points.load`.
  index = lambda step: {k: x[..., None] for k, x in stream.index(step).items()}  # noqa: E731
  return config, points.build(config, (2,), runs.OTHERS), Inputs(
      data.Pool(positive, np.zeros(NUM, np.int32)),
      data.Stream(stream.num_slots, index), (2,))


def study(seed, rate):
  """(Kendall's tau, gain of each way to remove a tenth) of one seed."""
  config, trainer, inputs = make_run(seed, rate)
  mesh = parallel.make_mesh(jax.devices()[:1])
  replay = adjoint.make_replay(config, inputs, trainer, mesh)
  start = train.initial_state(config, trainer, mesh)
  rng = np.random.default_rng((seed, 1))
  held_out = [(draw(rng, 500), rng.standard_normal((500, 2)).astype(np.float32))
              for _ in range(2)]  # validation, test: points and noise
  index = [inputs.stream.index(step) for step in range(STEPS)]
  index = jax.tree.map(lambda *rows: np.stack(rows), *index)
  batches = data.gather(inputs.pool, index)

  def likelihood(leaves, state, which):
    shown, z = held_out[which]
    samples, = trainer.heads['samples'](adjoint.with_floats(state, leaves), {'z': z})
    return targets.log_likelihood(samples, shown, bandwidth=1.0).mean()

  def training(weights):
    given = {name: {**one, 'weight': one['weight'] * weights[index[name]]}
             for name, one in batches.items()}
    return jax.lax.scan(lambda state, batch: (
        trainer.step(state, {}, batch)[0], None), start, given)[0]

  values = jax.jit(jax.vmap(lambda weights: jnp.stack([
      likelihood(adjoint.floats(state), state, which) for state in [training(weights)]
      for which in (0, 1)])))

  def without(*groups):
    """[groups, (validation, test)]; a weight of not quite 0 keeps means' numbers."""
    weights = np.ones((len(groups), NUM), np.float32)
    for one, rows in zip(weights, groups, strict=True):
      one[rows] = 1e-12
    return np.asarray(values(weights), np.float64)

  state = training(jnp.ones(NUM))
  cotangent = jax.grad(likelihood)(adjoint.floats(state), state, 0)
  slope = np.zeros(NUM)
  adjoint.trace_back(
      replay, start, 0, STEPS, cotangent, 20,
      lambda rows, weights: np.add.at(slope, rows, weights))
  chosen = rng.permutation(NUM)[:LOO]
  whole, *left = without([], *chosen[:, None])
  tau = stats.kendalltau(slope[chosen], whole[0] - np.array(left)[:, 0]).statistic
  forest = ensemble.IsolationForest(random_state=seed).fit(inputs.pool.image)
  removed = {
      'influence': np.argsort(slope)[:FAR], 'random': rng.permutation(NUM)[:FAR],
      'forest': np.argsort(forest.score_samples(inputs.pool.image))[:FAR],
      'oracle': np.arange(NUM - FAR, NUM)}
  gains = without(*removed.values())[:, 1] - whole[1]
  return tau, dict(zip(removed, gains, strict=True))


def text(values):
  return f'{np.mean(values):+.3f} ± {np.std(values, ddof=1):.3f}'


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--seeds', type=int, default=5)
  parser.add_argument('--rate', type=float, default=0.01, help='learning rate')
  args = parser.parse_args()
  if args.seeds < 2:
    parser.error('a standard deviation needs --seeds of 2 or more')
  print(f'{machine()}; {args.seeds} seeds, {STEPS} updates, learning rate '
        f'{args.rate}\n')
  taus, gains = zip(
      *(study(seed, args.rate) for seed in range(args.seeds)), strict=True)
  print(f"Kendall's tau against leave-one-out: {text(taus)}\n")
  print('| removed | gain in log-likelihood |\n|---|---|')
  for name in gains[0]:
    print(f'| {name} | {text([one[name] for one in gains])} |')
  print('\ninfluence minus random, by seed: ' + ', '.join(
      f'{one["influence"] - one["random"]:+.3f}' for one in gains))


if __name__ == '__main__':
  main()
