"""Per-example losses of Negative-Aware Training, for positives and negatives.

    >>> logits, labels = jnp.zeros([2, 4]), jnp.array([3, -1])  # [b, k], [b]
    >>> nat_loss(logits, labels).round(3).tolist()              # label -1: a negative
    [1.3860000371932983, 0.0]

p = softmax(logits) and u = (1/k, ..., 1/k) throughout. Everything is computed and
returned in float32, whatever the dtype of the logits, and nothing is reduced over the
batch: `example_weights` gives the coefficients of the batch loss.

Reference: Li, Jia, Jing, "Negative-Aware Training: Be Aware of Negative Samples",
ECAI 2020, equations 1-4.
"""

import chex
import jax
import jax.numpy as jnp

DIRECTIONS = ('uniform_first', 'uniform_second')


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """The cross-entropy of positives, -log p[label]; 0 for negatives.

  Args:
    logits: [b, k], any float dtype.
    labels: [b] integers in 0..k-1, or -1 for a negative. A label of k or more gives
      NaN: under jit it cannot raise.

  Returns:
    [b] float32; for a negative both the value and the gradient are 0.
  """
  _check(logits, labels)
  # log_softmax and not logsumexp - logit, which loses digits where the logits have a
  # large common offset.
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
  index = jnp.maximum(labels, 0)[:, None]
  picked = jnp.take_along_axis(log_p, index, axis=1)[:, 0]
  return jnp.where(labels >= 0, -picked, 0.0)


def uniform_kl(logits: jax.Array, direction: str = 'uniform_first') -> jax.Array:
  """The KL divergence between the uniform distribution and the prediction.

  'uniform_first':  KL(u || p) = logsumexp(o) - mean(o) - log k, with gradient
    p - u: it grows with the logit gap and pulls hardest on a confident mistake.
  'uniform_second': KL(p || u) = log k - H(p), which is at most log k and whose
    gradient vanishes for a confident mistake.

  Exactly 0, with a gradient of exactly 0, where all logits are equal.

  Args:
    logits: [b, k], any float dtype.
    direction: one of `DIRECTIONS`. The paper's equation 1 reads KL(p || u); its
      equation 4 and the authors' code use KL(u || p), the default here.

  Returns:
    [b] float32.

  Raises:
    ValueError: an unknown direction.
  """
  check_direction(direction)
  chex.assert_rank(logits, 2)
  chex.assert_type(logits, float)
  o = logits.astype(jnp.float32)
  z = o - jax.lax.stop_gradient(o.max(axis=1, keepdims=True))
  # r = log(p / u). The mean of exp(r) is 1, so KL(u || p) = mean(-r) equals
  # mean(exp(r) - 1 - r), and KL(p || u) = mean(r exp(r)) equals
  # mean(r exp(r) - exp(r) + 1). These forms have no negative terms and their
  # derivatives are 0 at r = 0, so nothing cancels near the uniform distribution.
  r = z - _log_mean_exp(z)
  if direction == 'uniform_first':
    return jnp.mean(jnp.expm1(r) - r, axis=1)
  return jnp.mean(r * jnp.exp(r) - jnp.expm1(r), axis=1)


def nat_loss(
    logits: jax.Array, labels: jax.Array, direction: str = 'uniform_first'
) -> jax.Array:
  """The NAT loss: cross-entropy for positives, KL divergence for negatives.

  l_i = -log p_i[label_i] where label_i >= 0, and KL(u || p_i) where label_i = -1. The
  paper's objective (equation 4) is the mean of l over all positives and negatives.

  Args:
    logits: [b, k], any float dtype.
    labels: [b] integers in 0..k-1, or -1 for a negative.
    direction: of the KL divergence, one of `DIRECTIONS`.

  Returns:
    [b] float32; finite also where a batch holds only positives or only negatives.

  Raises:
    ValueError: an unknown direction.
  """
  _check(logits, labels)
  kl = uniform_kl(logits, direction)
  return jnp.where(labels >= 0, cross_entropy(logits, labels), kl)


def max_probability(logits: jax.Array, num_classes: int) -> jax.Array:
  """The maximum probability of each example, the confidence that NCR thresholds.

  It is float32, for running averages during training; the figures of an evaluation come
  from `metrics.scores_from_logits`, in float64.

  Args:
    logits: [b, k], k >= num_classes. The softmax is over all k outputs, so that a
      background output takes its share of the probability.
    num_classes: the maximum is over the outputs 0..num_classes-1.

  Returns:
    [b] float32.
  """
  chex.assert_rank(logits, 2)
  chex.assert_axis_dimension_gteq(logits, 1, num_classes)
  p = jax.nn.softmax(logits.astype(jnp.float32))
  return p[:, :num_classes].max(axis=1)


def _log_mean_exp(z: jax.Array) -> jax.Array:
  """log(mean(exp(z))) over axis 1 for z <= 0, [b, 1]; exactly 0 at z = 0."""
  m = jnp.mean(jnp.expm1(z), axis=1, keepdims=True)
  # Where m is near -1 (one logit dominates many), 1 + m has lost its digits.
  far = jnp.log(jnp.mean(jnp.exp(z), axis=1, keepdims=True))
  return jnp.where(m > -0.5, jnp.log1p(jnp.maximum(m, -0.5)), far)


def _check(logits: jax.Array, labels: jax.Array) -> None:
  chex.assert_rank([logits, labels], [2, 1])
  chex.assert_equal_shape_prefix([logits, labels], 1)
  chex.assert_type([logits, labels], [float, int])


def check_direction(direction: str) -> None:
  """Raises ValueError unless `direction` is one of `DIRECTIONS`."""
  if direction not in DIRECTIONS:
    raise ValueError(
        f'unknown direction {direction!r} of the KL divergence; '
        f'valid ones: {", ".join(DIRECTIONS)}'
    )
