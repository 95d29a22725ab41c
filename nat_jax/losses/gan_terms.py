"""What GAN objectives are made of: their form, and the terms that several share.

    m = jax.lax.stop_gradient(jax.nn.softmax(logits).mean(axis=0))
    loss = entropy(logits) - marginal_entropy(logits, m)   # sure of each, fair to all

p = softmax(logits) and H(p) = -sum_k p_k log p_k throughout.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

# (outputs [n, num_outputs], labels int [n], marginal [K] or None) -> [n] float32
Loss = Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]


class GanObjective(NamedTuple):
  """Losses per example of both players, all to be minimised.

  `marginal` is the mean of softmax(class_logits) over the whole batch that the loss
  is taken on; only marginal-entropy terms read it. A label of -1 gets no class loss.

  Attributes:
    num_outputs: the width of D's output.
    class_logits: outputs [n, num_outputs] -> [n, K]; None: it knows no classes.
    real: D's loss on real examples; labels are theirs.
    fake: D's loss on generated examples; labels dynamic or predefined.
    negative: D's loss on external negatives; labels dynamic.
    gen: G's loss on generated examples; labels dynamic or predefined.
  """

  num_outputs: int
  class_logits: Callable[[jax.Array], jax.Array] | None
  real: Loss
  fake: Loss
  negative: Loss
  gen: Loss


def make(
    num_outputs: int,
    class_logits: Callable[[jax.Array], jax.Array] | None,
    *,
    real: Loss,
    fake: Loss,
    gen: Loss,
    negative: Loss | None = None,
) -> GanObjective:
  """An objective whose losses check their arguments and are float32.

  Negatives are treated as fakes unless `negative` is given.
  """

  def checked(loss: Loss) -> Loss:
    def fn(
        outputs: jax.Array, labels: jax.Array, marginal: jax.Array | None = None
    ) -> jax.Array:
      chex.assert_shape(outputs, (None, num_outputs))
      chex.assert_shape(labels, (outputs.shape[0],))
      chex.assert_type([outputs, labels], [float, int])
      return loss(outputs.astype(jnp.float32), labels, marginal)

    return fn

  losses = checked(real), checked(fake), checked(negative or fake), checked(gen)
  return GanObjective(num_outputs, class_logits, *losses)


def entropy(logits: jax.Array) -> jax.Array:
  """H(p) of each row, [n, K] -> [n]; its gradient is -p_k (log p_k + H(p))."""
  log_p = jax.nn.log_softmax(logits)
  return -jnp.sum(jnp.exp(log_p) * log_p, axis=1)


def marginal_entropy(logits: jax.Array, marginal: jax.Array | None) -> jax.Array:
  """The share of each example in the entropy of the batch's mean prediction m.

  e_i = -sum_k p_ik log m_k, of mean H(m). With m held constant the mean's gradient is
  H(m)'s too: what m's own change would add is -sum_k dm_k = 0.

  Args:
    logits: [n, K].
    marginal: [K], m, the mean of p over all of the batch; no gradient goes into it.

  Returns:
    [n].

  Raises:
    ValueError: no marginal.
  """
  if marginal is None:
    raise ValueError(
        'a loss with a marginal entropy needs the mean prediction of the batch: '
        'expected marginal [K], got None'
    )
  chex.assert_shape(marginal, (logits.shape[1],))
  m = jax.lax.stop_gradient(marginal.astype(jnp.float32))
  # Where m_k is 0 every p_ik is 0: any finite logarithm will do.
  log_m = jnp.log(jnp.maximum(m, jnp.finfo(jnp.float32).tiny))
  # Not a matrix product, which an accelerator may round to fewer digits.
  return -jnp.sum(jax.nn.softmax(logits) * log_m[None], axis=1)


def not_last(logits: jax.Array) -> jax.Array:
  """-log of the probability of all outputs but the last, [n, K + 1] -> [n].

  softplus(l_{K+1} - logsumexp(l_1..l_K)); its gradient is -alpha_k (1 - D_r), where
  D_r is that probability and alpha_k = p_k / D_r, and 1 - D_r for the last output.
  """
  log_p = jax.nn.log_softmax(logits)
  return jax.nn.softplus(log_p[:, -1] - jax.nn.logsumexp(log_p[:, :-1], axis=1))


def check_num_classes(name: str, num_classes: int) -> None:
  if num_classes < 2:
    raise ValueError(
        f'{name} needs at least 2 classes, got {num_classes}; without classes, take '
        "'gan' with negatives: the sigmoid form (D's target 1 for real, 0 for fake and "
        "negative), which is what the paper's 1-D and 2-D demos use"
    )


def check_weight(name: str, weight: float) -> None:
  if not 0 <= weight < float('inf'):
    raise ValueError(f'{name}, a weight, must be finite and 0 or more, got {weight}')


def disc_weights(
    weights: Mapping[str, jax.Array],
    negative_weight: float = 0.0,
    total: Callable[[jax.Array], jax.Array] = jnp.sum,
) -> dict[str, jax.Array]:
  """What each example counts in the discriminator's loss.

  L_D = mean over real images + mean over generated images and negatives together; or,
  with lambda, + mean over generated images + lambda * mean over negatives.

  Args:
    weights: [n] for each of 'real', 'fake' and, if there are any, 'negative'; 0 = empty
      slot.
    negative_weight: lambda; 0: one mean over both.
    total: sums over the global batch.

  Returns:
    Coefficients [n] by the same names; their sum is 2 (or 2 + lambda) where every set
    holds an example.
  """
  counts = {name: jnp.maximum(total(weight), 1e-9) for name, weight in weights.items()}
  shares = dict.fromkeys(weights, 1.0)
  if 'negative' in weights:
    if not negative_weight:
      both = counts['fake'] + counts['negative']
      shares = {name: counts[name] / both for name in counts} | {'real': 1.0}
    else:
      shares['negative'] = negative_weight
  return {name: shares[name] * weights[name] / counts[name] for name in weights}
