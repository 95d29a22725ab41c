"""The metrics whose derivatives influence is made of, as differentiable functions.

    target = parse('ncr@0.8:validation_digits_6_7', config)
    terms = target.terms(logits, labels)          # [n]; the metric is their mean

A rate of examples above a threshold has a derivative of 0 almost everywhere, so its
step is replaced by a sigmoid of width `WIDTH`: 1[x > 0] becomes 1 / (1 + exp(-x /
WIDTH)). As the width goes to 0 the value becomes that of `nat_jax.metrics`.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nat_jax import losses, metrics, names, schema

WIDTH = 0.05  # of the sigmoid, in probability
DEFAULT = 'ncr@0.8'  # of the first set of negatives held out for validation


class Target(NamedTuple):
  """A metric of an evaluation set.

  Attributes:
    text: as it is asked for, such as 'ncr@0.8:noise'.
    set: name of the evaluation set; '' for GANs of points.
    terms: (logits [n, k], labels [n]) -> [n] float32, whose mean is the metric; for
      GANs of points (generated [n, d], points of the data [m, d]) -> [m].
    higher: whether a higher value is better.
  """

  text: str
  set: str
  terms: Callable[[jax.Array, jax.Array], jax.Array]
  higher: bool


def soft_ncr(
    logits: jax.Array, labels: jax.Array, *, threshold: float, num_classes: int,
    width: float = WIDTH,
) -> jax.Array:
  """The soft negative confidence rate per negative, sigmoid((max_k p_k - t) / width).

  Args:
    logits: [n, k] of negatives.
    labels: not used.
    threshold: t.
    num_classes: the maximum is over the outputs 0..num_classes-1.
    width: of the sigmoid; towards 0 the mean becomes NCR_t.

  Returns:
    [n] float32.
  """
  del labels
  return jax.nn.sigmoid(
      (losses.max_probability(logits, num_classes) - threshold) / width)


def soft_accuracy(
    logits: jax.Array, labels: jax.Array, *, width: float = WIDTH
) -> jax.Array:
  """The soft accuracy per positive, sigmoid((p_label - max_{k != label} p_k) / width).

  Args:
    logits: [n, k] of positives.
    labels: int [n].
    width: of the sigmoid; towards 0 the mean becomes the accuracy.

  Returns:
    [n] float32.
  """
  p = jax.nn.softmax(logits.astype(jnp.float32))
  own = jax.nn.one_hot(labels, p.shape[1], dtype=bool)
  margin = (jnp.where(own, p, 0).sum(1) - jnp.where(own, -1, p).max(1)) / width
  return jax.nn.sigmoid(margin)


def log_likelihood(
    samples: jax.Array, points: jax.Array, *, bandwidth: float
) -> jax.Array:
  """The log-likelihood of points by a kernel density of generated points.

  log 1/n sum_i N(x; g_i, h^2 I), with a Gaussian kernel of bandwidth h.

  Args:
    samples: generated points [n, d].
    points: x, [m, d].
    bandwidth: h.

  Returns:
    [m] float32.
  """
  n, d = samples.shape
  squares = jnp.square(points[:, None] - samples[None]).sum(-1) / bandwidth**2
  return (jax.nn.logsumexp(-squares / 2, axis=1) - jnp.log(n)
          - d / 2 * jnp.log(2 * jnp.pi * bandwidth**2))


METRICS = {  # name -> (whether it is of positives, whether higher is better)
    'ncr': (False, False), 'loss': (True, False), 'accuracy': (True, True)}
FORMS = 'ncr@T:SET of negatives, loss:SET or accuracy:SET of positives'


def default(config: Mapping[str, Any]) -> str:
  """The target that is used if none is named: NCR of held-out negatives, or the loss.

  Raises:
    ValueError: no evaluation set is of part 'validation'.
  """
  held_out = {name: spec.get('positive', False) for name, spec in
              config['evals'].items() if spec.get('part') == schema.VALIDATION}
  for name, positive in held_out.items():
    if not positive:
      return f'{DEFAULT}:{name}'
  for name in held_out:
    return f'loss:{name}'
  raise ValueError(
      'the config has no evaluation set of part validation, so name the metric that '
      f'influence is on: --of {FORMS}; sets: {", ".join(config["evals"])}')


def parse(text: str, config: Mapping[str, Any]) -> Target:
  """Reads a metric of an evaluation set.

  Args:
    text: 'ncr@T:SET', 'loss:SET' or 'accuracy:SET'.
    config: of a classifier.

  Raises:
    ValueError: another form, an unknown set, a set of the other kind (negatives have no
      classes), or a threshold at which the NCR of every network is 1.
  """
  found = re.fullmatch(r'(\w+)(?:@([\d.]+))?:(.+)', text)
  if not found or found[1] not in METRICS or (found[1] == 'ncr') != bool(found[2]):
    raise ValueError(f'--of must be {FORMS}; got {text!r}')
  name, threshold, of = found.groups()
  evals, num_classes = config['evals'], config['num_classes']
  if of not in evals:
    raise ValueError(names.unknown('evaluation set', of, evals))
  of_positives, higher = METRICS[name]
  positive = bool(evals[of].get('positive', False))
  if positive != of_positives:
    kinds = {True: 'positives', False: 'negatives'}
    valid = [each for each, spec in evals.items()
             if bool(spec.get('positive', False)) == of_positives]
    raise ValueError(
        f'--of {name} is of {kinds[of_positives]}, and {of!r} holds {kinds[positive]}'
        f'{"" if positive else ", which are of none of the classes"}; sets of '
        f'{kinds[of_positives]}: {", ".join(valid) or "none"}')
  if name == 'loss':
    return Target(text, of, losses.cross_entropy, higher)
  if name == 'accuracy':
    return Target(text, of, soft_accuracy, higher)
  t = _number(threshold, text)
  background = losses.make_objective(
      config['loss'], num_classes).num_outputs > num_classes
  if not 0 < t < 1 or not metrics.informative([t], num_classes, background):
    raise ValueError(
        f'--of {text}: the threshold must be below 1 and above 1/{num_classes}, at or '
        'below which the NCR of every network is 1')
  return Target(text, of, functools.partial(
      soft_ncr, threshold=t, num_classes=num_classes), higher)


def parse_points(text: str) -> Target:
  """Reads a metric of GANs of points: 'likelihood@BANDWIDTH'; '': bandwidth 1.

  Raises:
    ValueError: another form, or a bandwidth that is not above 0.
  """
  found = re.fullmatch(r'likelihood@([\d.]+)', text or 'likelihood@1')
  bandwidth = _number(found[1], text) if found else 0
  if not bandwidth > 0:
    raise ValueError(
        '--of must be likelihood@BANDWIDTH for GANs of points, with a bandwidth of the '
        f'kernel density above 0; got {text!r}')
  return Target(text or 'likelihood@1', '', functools.partial(
      log_likelihood, bandwidth=bandwidth), True)


def _number(text, of):
  try:
    return float(text)
  except ValueError:
    raise ValueError(f'--of {of}: {text!r} is no number') from None
