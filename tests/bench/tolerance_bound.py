"""How often the tolerance bound keeps its promise with a fitted temperature.

    PYTHONPATH=. python tests/bench/tolerance_bound.py          # five minutes

Draws samples of n calibration positives with six classes, fits the temperature to
each, takes the threshold for 95 %, and computes which share of 100,000 other positives
it accepts. The promise is kept where that is 95 % or more. Without a fitted temperature
the exact probability is P(Beta(k, n - k + 1) <= .05). The others are a sample too,
which moves both shares together by up to one percent: compare them with each other.
"""

import numpy as np
from scipy import stats

from nat_jax import metrics
from nat_jax.metrics import selective

NUM_CLASSES, ACCEPT, SAMPLES = 6, 0.95, 2000


def draw(rng, n):
  labels = rng.integers(0, NUM_CLASSES, n)
  noise = 0.8 * rng.normal(size=(n, NUM_CLASSES))
  return 3 * (noise + 1.7 * np.eye(NUM_CLASSES)[labels]), labels


def main():
  rng = np.random.default_rng(1)
  others, _ = draw(rng, 100_000)
  score = selective.LOGIT_SCORES[selective.MAX_PROBABILITY]
  plain = np.sort(score(others, NUM_CLASSES, 1.0))
  for n in (59, 181):
    kept = np.zeros(2)
    for _ in range(SAMPLES):
      logits, labels = draw(rng, n)
      temperature = metrics.fit_temperature(logits, labels)
      threshold, fixed = (
          selective.tolerance_threshold(score(logits, NUM_CLASSES, t), ACCEPT)
          for t in (temperature, 1.0))
      accepted = np.mean(score(others, NUM_CLASSES, temperature) >= threshold)
      reach = 1 - np.searchsorted(plain, fixed) / plain.size
      kept += accepted >= ACCEPT, reach >= ACCEPT
    k = selective.tolerance_rank(n, ACCEPT)
    exact = stats.beta.cdf(1 - ACCEPT, k, n - k + 1)
    fitted, fixed = kept / SAMPLES
    print(f'n = {n}: kept in {fitted:.1%} with a fitted temperature, {fixed:.1%} with '
          f'1 (exact: {exact:.1%})', flush=True)


if __name__ == '__main__':
  main()
