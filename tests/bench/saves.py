"""The share of training time that checkpoints take.

    python tests/bench/saves.py                # digits, a checkpoint every 50 updates
    python tests/bench/saves.py large --every 10 --rounds 3     # a state of 19 MB

Both forms are `train.train` with metrics and events, alternately in one process: with a
checkpoint every so many updates, and with one at the end. The rates are those of
metrics.jsonl without the first record (compilation). The ratio of each pair of runs is
taken, and the median printed.
"""

import argparse
import statistics

from steps import loop, machine
from throughput import BENCHES

from nat_jax import runs


def large():
  """Digits, with a network whose state has 19 MB."""
  return BENCHES['digits']().to_dict() | {
      'model': {'name': 'mlp', 'width': 1500, 'depth': 2}}


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('names', nargs='*', default=['digits'])
  parser.add_argument('--every', type=int, default=50, help='updates per checkpoint')
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()
  print(machine())
  for name in args.names:
    config = runs.resolve((BENCHES | {'large': large})[name]())
    steps = 10 * args.every

    def rate(every):
      run = {**config['run'], 'checkpoint_every': every, 'log_every': args.every}  # noqa: B023
      return loop({**config, 'steps': steps, 'run': run})  # noqa: B023

    rate(0)  # compiles
    pairs = [(rate(args.every), rate(0)) for _ in range(args.rounds)]
    shares = [1 - saving / plain for saving, plain in pairs]
    print(f'{name}: a checkpoint every {args.every} updates takes '
          f'{statistics.median(shares):.1%} of the time ({min(shares):.1%} to '
          f'{max(shares):.1%}); {statistics.median(p for p, _ in pairs):,.0f} against '
          f'{statistics.median(p for _, p in pairs):,.0f} images/s')


if __name__ == '__main__':
  main()
