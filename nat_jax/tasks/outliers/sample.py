"""Generated outliers of a trained detector, as a source of negatives.

    draw = make_sampler(run)
    vectors = draw(num=500, seed=0)      # float32 [500, d]
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from nat_jax.runtime import parallel
from nat_jax.task import Run, Trainer
from nat_jax.tasks.outliers import step as steps


def make_sampler(run: Run) -> Callable[[int, int | Sequence[int]], np.ndarray]:
  """Returns draw(num, seed) -> float32 [num, d], in the units of the examples.

  Args:
    run: of the task 'outliers', on one device.
  """
  return functools.partial(draw, run.config, run.trainer, run.state, run.shape[0])


def draw(
    config: Mapping[str, Any], trainer: Trainer, state: Any, dimension: int, num: int,
    seed: int | Sequence[int],
) -> np.ndarray:
  """Vectors that the generators make, in the shares of the training.

  Args:
    config: of the task 'outliers', resolved.
    trainer: with the head 'samples'.
    state: on one device of this process.
    dimension: d.
    num: how many.
    seed: of the noise and of the generators.

  Returns:
    float32 [num, d], in the units of the training examples.
  """
  rng, k = np.random.default_rng(seed), config['num_generators']
  noise = {'z': rng.random((num, dimension), np.float32),
           'owner': rng.choice(k, num, p=steps.shares(k)).astype(np.int32)}
  head = parallel.wrap_head(
      trainer.heads['samples'], parallel.make_mesh(jax.local_devices()[:1]))
  return steps.unscale(np.asarray(head(state, noise)), config['data'])
