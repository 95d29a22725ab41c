"""A detector of outliers in the conventions of scikit-learn.

    detector = Detector(contamination=0.03).fit(vectors)   # float [n, d]
    detector.decision_function(vectors)                    # below 0: an outlier
    detector.predict(vectors)                              # 1: normal; -1: outlier
    detector.sample(500)                                   # generated outliers

It makes the updates of the task 'outliers': with equal settings, on one device, the
scores are those of such a run.
"""

from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from nat_jax import data
from nat_jax.runtime import inference, parallel
from nat_jax.schema import bounds, presets
from nat_jax.tasks.outliers import evaluate
from nat_jax.tasks.outliers import sample as sampling
from nat_jax.tasks.outliers import step as steps

MOST_BYTES = 2 ** 26  # of the batches of one call
AUTO = 'auto'
# Argument -> key of the config, where their names differ.
KEYS = {'updates': 'steps', 'batch_size': 'data.batch_size'}


class Detector:
  """SO-GAAL (one generator) or MO-GAAL (several), with `fit` and `decision_function`.

  Attributes that `fit` sets:
    offset_: the score that `decision_function` subtracts.
    n_features_in_: number of columns d.
    config_: the config of the task 'outliers' that was trained.
  """

  def __init__(
      self, num_generators: int = 10, updates: int = 600, freeze_after: int = 200,
      contamination: float | str = AUTO, hidden: int = 0, batch_size: int = 500,
      seed: int = 0,
  ):
    """Stores the settings.

    Args:
      num_generators: 1: SO-GAAL; more: MO-GAAL.
      updates: number of updates of the discriminator.
      freeze_after: number of updates of the generators. It matters: the method has no
        rule for it, and results depend on it.
      contamination: the share of training examples whose `decision_function` is below
        0, in (0, 0.5]; 'auto': those to which the discriminator gives a probability
        below 1/2 of being data.
      hidden: units of the discriminator; 0: the root of the number of examples.
      batch_size: examples per batch; the whole set if it is smaller.
      seed: of the batches, the noise and the parameters.

    Raises:
      ValueError: a setting that is not valid.
    """
    found = dict(
        num_generators=num_generators, updates=updates, freeze_after=freeze_after,
        hidden=hidden, batch_size=batch_size, seed=seed, contamination=contamination)
    found = {name: value.item() if isinstance(value, np.generic) else value
             for name, value in found.items()}
    contamination, share = found.pop('contamination'), bounds.number('(0, 0.5]')
    if contamination != AUTO and not share.holds(contamination):
      raise ValueError(
          f'contamination must be {AUTO!r} or {share.what}, got {contamination!r}')
    for name, value in found.items():
      bounds.check(name, KEYS.get(name, name), value)
    self.contamination = contamination
    self._config = presets.experiment(
        task='outliers', steps=found.pop('updates'),
        data=dict(batch_size=found.pop('batch_size')), **found).to_dict()

  def fit(self, x: ArrayLike, y: Any = None) -> 'Detector':
    """Trains on examples [n, d].

    Args:
      x: numbers, at least two rows.
      y: not used, as in all detectors of scikit-learn.

    Returns:
      The detector itself.

    Raises:
      ValueError: other arrays, or numbers that are not finite; or the training
        diverged.
    """
    del y
    x = _vectors(x)
    if len(x) < 2:
      raise ValueError(f'x must have 2 rows or more, got {len(x)}')
    config = steps.with_ranges(self._config, x)
    scaled = steps.scale(x, config['data'])
    mesh = parallel.make_mesh(jax.local_devices()[:1])
    inputs = steps.make_inputs(config, scaled, 1)
    self._trainer = steps.build(config, inputs.shape, None)
    self._state = _trained(config, inputs, self._trainer, mesh)
    self._predict = inference.make_predict(
        self._trainer.heads['score'], mesh, evaluate.BATCH)
    self.config_, self.n_features_in_ = config, x.shape[1]
    score = self._predict(self._state, scaled)
    if not np.isfinite(score).all():
      raise ValueError(
          'the training diverged: scores are not finite. Remove columns that have a '
          'few extreme values, or transform them')
    self.offset_ = 0.0 if self.contamination == AUTO else float(
        np.quantile(score, self.contamination))
    return self

  def score_samples(self, x: ArrayLike) -> np.ndarray:
    """The logit of the discriminator, float32 [n]: high for normal examples.

    Args:
      x: numbers [n, d].

    Raises:
      ValueError: not fitted, or another number of columns than in `fit`.
    """
    if not hasattr(self, '_state'):
      raise ValueError('the detector is not trained yet; call fit(x) first')
    x = _vectors(x)
    if x.shape[1] != self.n_features_in_:
      raise ValueError(
          f'x must have {self.n_features_in_} columns, as in fit, got {x.shape[1]}')
    return self._predict(self._state, steps.scale(x, self.config_['data']))

  def decision_function(self, x: ArrayLike) -> np.ndarray:
    """`score_samples` - `offset_`, float32 [n]: below 0 for outliers."""
    return self.score_samples(x) - np.float32(self.offset_)

  def predict(self, x: ArrayLike) -> np.ndarray:
    """1 for normal examples and -1 for outliers, int [n]."""
    return np.where(self.decision_function(x) < 0, -1, 1)

  def fit_predict(self, x: ArrayLike, y: Any = None) -> np.ndarray:
    """`predict` of the examples that it is trained on, int [n]."""
    return self.fit(x, y).predict(x)

  def sample(self, num: int, seed: int = 0) -> np.ndarray:
    """Generated outliers in the units of the training examples, float32 [num, d].

    Args:
      num: how many.
      seed: of the noise.

    Raises:
      ValueError: not fitted.
    """
    if not hasattr(self, '_state'):
      raise ValueError('the detector is not trained yet; call fit(x) first')
    return sampling.draw(
        self.config_, self._trainer, self._state, self.n_features_in_, num, seed)


def _vectors(x):
  """float32 [n, d], finite; ValueError for anything else."""
  try:
    x = np.asarray(x, np.float32)
  except (ValueError, TypeError) as error:
    raise ValueError(f'x must be numbers [n, d] ({error})') from None
  if x.ndim != 2 or not x.size:
    raise ValueError(f'x must be numbers [n, d], got the shape {list(x.shape)}')
  if not np.isfinite(x).all():
    row, column = np.argwhere(~np.isfinite(x))[0]
    raise ValueError(
        f'x must be finite, got {x[row, column]} in row {row}, column {column}')
  return x


def _trained(config, inputs, trainer, mesh):
  """The state after all updates."""
  state = parallel.init_state(trainer.init, jax.random.key(config['seed']), mesh)
  run = parallel.wrap_step(trainer.step, mesh)
  per_call = _per_call(inputs, config['steps'])
  for start in range(0, config['steps'], per_call):
    num = min(per_call, config['steps'] - start)
    # A call of fewer updates is padded, so that its shapes are those of the others.
    index = [inputs.stream.index(min(start + i, config['steps'] - 1))
             for i in range(per_call)]
    batches = data.gather(
        inputs.pool, jax.tree.map(lambda *rows: np.stack(rows), *index))
    state, _ = run(state, {}, (), batches, num)
  return state


def _per_call(inputs, steps):
  """The number of updates whose batches are gathered at a time, 1 to `steps`."""
  rows = sum(index.size for index in jax.tree.leaves(inputs.stream.index(0)))
  return min(max(MOST_BYTES // (rows * inputs.pool.image[:1].nbytes), 1), steps)
