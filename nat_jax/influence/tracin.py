"""A cheap approximation of influence: gradients of the output layer at checkpoints.

With W, b the output layer, f_j the features and l_j the loss of example j, and E the
metric, the weight of example j has about the derivative

    dE/dw_j = - sum_c dose_jc <grad_{W,b} l_j, grad_{W,b} E> at checkpoint c,

    <.,.> = d_j' G f_j + d_j' g,   d_j = dl_j / dlogits_j,   G = dE/dW,  g = dE/db,

where dose_jc is the sum of learning rate times coefficient over the updates between
checkpoint c and the one before it that took example j. It takes one pass over the
training examples per checkpoint, and ignores all layers but the last, the optimiser,
augmentation, negative transforms and the batch statistics of BatchNorm.

Reference: Pruthi, Liu, Kale, Sundararajan, "Estimating Training Data Influence by
Tracing Gradient Descent", NeurIPS 2020.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nat_jax import losses
from nat_jax.runtime import inference
from nat_jax.task import Inputs, Trainer

BLOCK = 500  # updates whose coefficients are computed at once


def make_outputs(
    trainer: Trainer, state: Any, shape: tuple[int, ...], mesh, batch_size: int
) -> Callable[[Any, Any], tuple[np.ndarray, np.ndarray]]:
  """Compiles (state, images) -> (features [n, d], logits [n, k]).

  Args:
    trainer: of a classifier.
    state: of it; only its shapes matter.
    shape: of an example.
    mesh: the devices.
    batch_size: examples per batch.
  """
  heads = [trainer.heads[name] for name in ('features', 'logits')]
  one = np.zeros((1, *shape), np.uint8)
  width = jax.eval_shape(heads[0], state, one).shape[1]
  predict = inference.make_predict(
      lambda state, images: jnp.concatenate(
          [head(state, images) for head in heads], axis=1), mesh, batch_size)
  return lambda state, images: np.split(predict(state, images), [width], 1)


def doses(
    config: Mapping[str, Any], inputs: Inputs, learning_rate: Callable[[int], Any],
    steps: list[int],
) -> np.ndarray:
  """Sums of learning rate times coefficient of each example before each checkpoint.

  Args:
    config: of a classifier.
    inputs: with its pool and its stream.
    learning_rate: update -> learning rate.
    steps: of the checkpoints, in rising order.

  Returns:
    [checkpoints, examples of the pool] float64.
  """
  objective = losses.make_objective(config['loss'], config['num_classes'])
  weigh = jax.vmap(lambda labels, weight: losses.example_weights(
      labels, weight, objective))
  found = np.zeros((len(steps), len(inputs.pool.label)))
  for c, (first, last) in enumerate(zip([0, *steps], steps, strict=False)):
    for start in range(first, last, BLOCK):
      block = range(start, min(start + BLOCK, last))
      rows = np.stack([inputs.stream.index(step) for step in block])
      rates = np.array([float(learning_rate(step)) for step in block])
      filled = rows >= 0
      labels = np.where(filled, inputs.pool.label[rows], -1)
      share = np.asarray(weigh(labels, filled.astype(np.float32)))
      np.add.at(found[c], rows[filled], (rates[:, None] * share)[filled])
  return found


def slopes(
    config: Mapping[str, Any], examples: tuple[np.ndarray, np.ndarray],
    labels: np.ndarray, terms: Callable[[jax.Array, jax.Array], jax.Array],
    shown: tuple[np.ndarray, np.ndarray], shown_labels: np.ndarray,
) -> np.ndarray:
  """Minus the inner products of the gradients of a metric and of each example's loss.

  Args:
    config: of a classifier.
    examples: features [m, d] and logits [m, k] of the training examples.
    labels: int [m], -1: a negative.
    terms: of the metric, see `targets.Target`.
    shown: features [n, d] and logits [n, k] of the evaluation set.
    shown_labels: int [n].

  Returns:
    [m] float64.
  """
  objective = losses.make_objective(config['loss'], config['num_classes'])
  own = np.asarray(jax.grad(lambda x: objective.per_example(x, labels).sum())(
      jnp.asarray(examples[1])), np.float64)
  of_metric = np.asarray(jax.grad(lambda x: terms(x, shown_labels).mean())(
      jnp.asarray(shown[1])), np.float64)
  kernel = shown[0].astype(np.float64).T @ of_metric  # [d, k]
  return -((examples[0] @ kernel + of_metric.sum(0)) * own).sum(1)
