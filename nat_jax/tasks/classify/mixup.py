"""Mixup: positives that are mixed in pairs, with mixed targets.

    trainer = mixup(alpha=1.0, model=..., objective=..., ...)

Reference: Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk
Minimization", ICLR 2018.
"""

import functools
from typing import Any

from nat_jax import registry, task
from nat_jax.tasks.classify import adaptive_mix, treatments
from nat_jax.tasks.classify import step as supervised


@registry.arguments(supervised.Setup)
def mixup(*, alpha: float = 1.0, **settings: Any) -> task.Trainer:
  """Returns the trainer `supervised` on mixed positives.

  x' = s x + (1 - s) x_p,  target s onehot(y) + (1 - s) onehot(y_p),
  s ~ Beta(alpha, alpha),

  with partners x_p and one s per batch as in `adaptive_mix`. Negatives are not mixed
  here (`treatments.mix` does that). Training accuracy is that of x' against y.

  Args:
    alpha: of the Beta distribution.
    **settings: the arguments of `supervised`.

  Raises:
    ValueError: alpha of 0 or less.
  """
  treat = functools.partial(
      mix_positives, settings.pop('treat', None), treatments.symmetric_beta(alpha))
  return supervised.supervised(treat=treat, **settings)


def mix_positives(treat, draw, batch, key, confidence, axis):
  """The batch with mixed positives, and their 'share' and 'partner'."""
  found = adaptive_mix.pair(treat, draw, batch, key, confidence, axis)
  return {'image': found['mixed'], **{
      name: found[name] for name in ('label', 'weight', 'share', 'partner')}}
