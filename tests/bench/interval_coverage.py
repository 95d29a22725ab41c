"""How often a 95 % interval of a share holds the true share, for small shares.

    python tests/bench/interval_coverage.py

The coverage is exact, the sum of Binomial(n, p) over the counts whose interval holds p:
  bootstrap  percentiles 2.5 and 97.5 of Binomial(n, count / n) / n, what version 0.1
             drew a thousand times
  Wilson     `metrics.proportion_interval`, what is used now
The last rows are means over a grid of shares.

The second table is of the share of negatives that is accepted where 95 % of the
positives are, by 2,000 draws of normal scores: Wilson's interval as if the threshold
were known, and `metrics.accepted_interval`, which is used.
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


def accepted_coverage(num_positives, num_negatives, distance, draws=2000):
  """(The true share, how often Wilson's and `accepted_interval` hold it)."""
  rng, found = np.random.default_rng(0), np.zeros(2)
  true = stats.norm.sf(stats.norm.isf(0.95, distance))
  for _ in range(draws):
    positives = rng.normal(distance, 1, num_positives)
    negatives = rng.normal(0, 1, num_negatives)
    count = int((negatives >= metrics.threshold_at_recall(positives)).sum())
    intervals = (metrics.proportion_interval(count, num_negatives),
                 metrics.accepted_interval(positives, negatives))
    found += [low <= true <= high for low, high in intervals]
  return true, found / draws


def main():
  found = {n: intervals_of(n) for n in {n for n, _ in CASES}}
  rows = [(n, str(p), p) for n, p in CASES]
  rows += [(n, f'0 to {end:g}', np.linspace(0, end, 1001)[1:])
           for n in (100, 1000) for end in (0.02, 1.0)]
  print('|      n | true share | bootstrap | Wilson |\n|---|---|---|---|')
  for n, text, p in rows:
    cells = [np.mean(coverage(n, p, one)) for one in found[n].values()]
    print('| {:6} | {:>10} | {:9.3f} | {:6.3f} |'.format(n, text, *cells))
  print('\n| positives | negatives | true share | Wilson | accepted_interval |'
        '\n|---|---|---|---|---|')
  for sizes in ((60, 60), (300, 2000), (1000, 1000), (1000, 10_000), (10_000, 10_000)):
    for distance in (1.0, 2.0, 4.0):
      true, shares = accepted_coverage(*sizes, distance)
      print('| {} | {} | {:.3f} | {:.3f} | {:.3f} |'.format(*sizes, true, *shares))


if __name__ == '__main__':
  main()
