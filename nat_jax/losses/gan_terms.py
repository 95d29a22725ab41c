"""The form of a GAN objective, and the loss terms that several objectives share.

    objective = per_set(10, lambda outputs: outputs, real=..., fake=..., gen=...)
    losses = objective.disc({'real': Pass(...), 'fake': Pass(...)}, Axis())
    losses['real'], losses['fake']                    # [n] each

p = softmax(logits) and H(p) = -sum_k p_k log p_k throughout.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from nat_jax.task import GLOBAL, Axis, Pass

Passes = Mapping[str, Pass]
# (outputs [n, num_outputs], labels int [n], marginal [K] or None) -> [n] float32
Loss = Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]


def unknown(outputs: jax.Array) -> jax.Array:
  """NaN, [n, d] -> [n]: outputs that say nothing of an example without others."""
  return jnp.full(len(outputs), jnp.nan)


class GanObjective(NamedTuple):
  """Losses per example of both players, all to be minimised.

  The losses see the passes of all sets at once: 'real', 'fake', 'negative' where there
  are external negatives, and any set that a trainer adds.

  Attributes:
    num_outputs: the width of D's output.
    class_logits: outputs [n, num_outputs] -> [n, K]; None: D has no class outputs.
    disc: (passes, axis) -> D's losses {set: [n]}.
    gen: (passes, axis) -> G's losses [n], one per generated example.
    gen_sees: the sets whose passes `gen` reads.
    whole_batch: whether the loss of an example depends on the other examples of the
      batch, which then cannot be split into micro-batches.
    bounded: whether D's loss has a lower bound whatever D is. Without it D's slope
      must be bounded, by the penalty `gradient` or by spectral norm.
    score: outputs [n, num_outputs] -> [n], the number by which D tells real examples
      from others, larger for real ones, as far as the losses read it: it stays the same
      if a constant is added to all logits of a softmax. The penalties of
      `losses.penalties` are of its gradient. None: D has no such number, and penalties
      are refused.
    realness: outputs [n, num_outputs] -> [n] in [0, 1], how much D takes an example
      for real; for figures. NaN if D's outputs mean nothing without other examples.
  """

  num_outputs: int
  class_logits: Callable[[jax.Array], jax.Array] | None
  disc: Callable[[Passes, Axis], dict[str, jax.Array]]
  gen: Callable[[Passes, Axis], jax.Array]
  gen_sees: tuple[str, ...] = ('fake',)
  whole_batch: bool = False
  bounded: bool = True
  score: Callable[[jax.Array], jax.Array] | None = None
  realness: Callable[[jax.Array], jax.Array] = unknown


def per_set(
    num_outputs: int,
    class_logits: Callable[[jax.Array], jax.Array] | None,
    *,
    real: Loss,
    fake: Loss,
    gen: Loss,
    negative: Loss | None = None,
    whole_batch: bool = False,
    score: Callable[[jax.Array], jax.Array] | None = None,
) -> GanObjective:
  """Makes an objective whose losses depend on one set at a time.

  Args:
    num_outputs, class_logits: see `GanObjective`.
    real: D's loss on real examples, with their labels.
    fake: D's loss on generated examples; labels dynamic or predefined.
    gen: G's loss on generated examples; labels dynamic or predefined.
    negative: D's loss on external negatives; labels dynamic. None: the loss `fake`.
    whole_batch: whether a loss uses the marginal; see `GanObjective`.
    score: see `GanObjective`; its sigmoid is `realness`. None: the output of a D with
      one output, and neither score nor realness with several.
  """
  if score is None and num_outputs == 1:
    score = first
  losses = {'real': real, 'fake': fake, 'negative': negative or fake}

  def apply(loss: Loss, seen: Pass) -> jax.Array:
    chex.assert_shape(seen.outputs, (None, num_outputs))
    chex.assert_shape(seen.labels, (seen.outputs.shape[0],))
    chex.assert_type([seen.outputs, seen.labels], [float, int])
    return loss(seen.outputs.astype(jnp.float32), seen.labels, seen.marginal)

  return GanObjective(
      num_outputs, class_logits,
      disc=lambda passes, axis: {
          name: apply(losses[name], seen) for name, seen in passes.items()},
      gen=lambda passes, axis: apply(gen, passes['fake']),
      whole_batch=whole_batch,
      score=score,
      realness=unknown if score is None else lambda outputs: jax.nn.sigmoid(
          score(outputs)))


def first(outputs: jax.Array) -> jax.Array:
  """The first output, [n, num_outputs] -> [n]."""
  return outputs[:, 0]


def entropy(logits: jax.Array) -> jax.Array:
  """H(p) of each row, [n, K] -> [n]; its gradient is -p_k (log p_k + H(p))."""
  log_p = jax.nn.log_softmax(logits)
  return -jnp.sum(jnp.exp(log_p) * log_p, axis=1)


def marginal_entropy(logits: jax.Array, marginal: jax.Array | None) -> jax.Array:
  """Each example's term of H(m), the entropy of the batch's mean prediction m.

  e_i = -sum_k p_ik log m_k; the mean of e_i is H(m). With m held constant the gradient
  of the mean is that of H(m): the term from m's own change is -sum_k dm_k = 0.

  Args:
    logits: [n, K].
    marginal: [K], m, the mean of p over the global batch; no gradient flows into it.

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
  # Where m_k is 0 every p_ik is 0, so that the value of log m_k does not matter.
  log_m = jnp.log(jnp.maximum(m, jnp.finfo(jnp.float32).tiny))
  # Not a matrix product, which an accelerator may round to fewer digits.
  return -jnp.sum(jax.nn.softmax(logits) * log_m[None], axis=1)


def not_last(logits: jax.Array) -> jax.Array:
  """-log D_r, D_r the probability of all outputs but the last; [n, K + 1] -> [n].

  softplus(-`log_odds`); its gradient is -alpha_k (1 - D_r) with alpha_k = p_k / D_r for
  the first K outputs, and 1 - D_r for the last one.
  """
  return jax.nn.softplus(-log_odds(logits))


def log_odds(logits: jax.Array) -> jax.Array:
  """log(D_r / (1 - D_r)), D_r as in `not_last`; [n, K + 1] -> [n].

  logsumexp(l_1..l_K) - l_{K+1}; its gradient is alpha_k for the first K outputs, and -1
  for the last one.
  """
  log_p = jax.nn.log_softmax(logits)  # keeps digits where all logits are large
  return jax.nn.logsumexp(log_p[:, :-1], axis=1) - log_p[:, -1]


def largest(logits: jax.Array) -> jax.Array:
  """The largest class probability, [n, K] -> [n]; D makes it small on fakes."""
  return jax.nn.softmax(logits).max(1)


def check_num_classes(name: str, num_classes: int) -> None:
  """Raises ValueError for an objective `name` with fewer than two classes."""
  if num_classes < 2:
    raise ValueError(
        f'{name} needs at least 2 classes, got {num_classes}; without classes, take '
        "loss={'name': 'gan'}, the sigmoid form (D's target is 1 for real, 0 for fake "
        "and negative), as in the paper's 1-D and 2-D demonstrations"
    )


def check_weight(name: str, weight: float) -> None:
  """Raises ValueError unless the weight called `name` is finite and 0 or more."""
  if not 0 <= weight < float('inf'):
    raise ValueError(f'{name}, a weight, must be finite and 0 or more, got {weight}')


def disc_weights(
    weights: Mapping[str, jax.Array], negative_weight: float | None = None,
    axis: Axis = GLOBAL,
) -> dict[str, jax.Array]:
  """The coefficient of each example's loss in the discriminator's loss.

  L_D = mean over real examples + mean over generated examples and negatives together;
  with lambda: L_D = mean over real + mean over generated + lambda * mean over
  negatives. The means are over the filled slots; the weight of an example multiplies
  its loss and does not change the number that a mean divides by.

  Args:
    weights: [n] for each of 'real', 'fake' and, if there are any, 'negative'; 0 = empty
      slot.
    negative_weight: lambda; 0 leaves negatives out of the loss. None: one mean over
      generated examples and negatives.
    axis: the devices that share the batch.

  Returns:
    {name: coefficients [n]} with the names of `weights`; with weights of 1 all of them
    sum to 2 (or 2 + lambda) where every set holds an example.
  """
  counts = {name: jnp.maximum(axis.sum(weight > 0).astype(jnp.float32), 1e-9)
            for name, weight in weights.items()}
  shares = dict.fromkeys(weights, 1.0)
  if 'negative' in weights:
    if negative_weight is None:
      both = counts['fake'] + counts['negative']
      shares = {name: counts[name] / both for name in counts} | {'real': 1.0}
    else:
      shares['negative'] = negative_weight
  return {name: shares[name] * weights[name] / counts[name] for name in weights}
