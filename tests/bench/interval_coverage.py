"""How often a 95 % interval of a share holds the true share, for small shares.

    python tests/bench/interval_coverage.py

The coverage is exact, the sum of Binomial(n, p) over the counts whose interval holds p:
  bootstrap  percentiles 2.5 and 97.5 of Binomial(n, count / n) / n, what version 0.1
             drew a thousand times
  Wilson     `metrics.proportion_interval`, what is used now
The last rows are means over a grid of shares.
"""

import numpy as np
from scipy import stats

from nat_jax import metrics

CASES = [(100, 0.01), (100, 0.005), (100, 0.002), (1000, 0.01), (1000, 0.001),
         (1000, 0.0002), (10_000, 0.0003), (1000, 0.1), (1000, 0.5)]


def coverage(n, p, intervals):
  """Shares of samples of n whose interval holds p [k]; intervals [n + 1, 2]."""
  p, counts = np.asarray(p)[..., None], np.arange(n + 1)
  holds = (intervals[:, 0] <= p) & (p <= intervals[:, 1])
  return (stats.binom.pmf(counts, n, p) * holds).sum(-1)


def intervals_of(n):
  """Every count's interval, [n + 1, 2], by name."""
  shares = np.arange(n + 1) / n
  return {
      'bootstrap': np.stack(
          [stats.binom.ppf(q, n, shares) / n for q in (0.025, 0.975)], -1),
      'Wilson': np.array([metrics.proportion_interval(k, n) for k in range(n + 1)])}


def main():
  found = {n: intervals_of(n) for n in {n for n, _ in CASES}}
  rows = [(n, str(p), p) for n, p in CASES]
  rows += [(n, f'0 to {end:g}', np.linspace(0, end, 1001)[1:])
           for n in (100, 1000) for end in (0.02, 1.0)]
  print('|      n | true share | bootstrap | Wilson |\n|---|---|---|---|')
  for n, text, p in rows:
    cells = [np.mean(coverage(n, p, one)) for one in found[n].values()]
    print('| {:6} | {:>10} | {:9.3f} | {:6.3f} |'.format(n, text, *cells))


if __name__ == '__main__':
  main()
