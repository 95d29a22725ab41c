"""CPU seconds of starting the program: imports, --help, a mistyped key.

    python tests/bench/start.py                     # five rounds, medians

Each command runs in a process of its own, in turns; user and system time are added.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys

from steps import machine

MAIN = ['-m', 'nat_jax.main']
COMMANDS = {
    'import numpy': ['-c', 'import numpy'],
    'import jax, flax, optax': ['-c', 'import jax, flax, optax'],
    'import nat_jax': ['-c', 'import nat_jax'],
    'from nat_jax import Classifier': ['-c', 'from nat_jax import Classifier'],
    '--help': [*MAIN, '--help'],
    'a mistyped key': [*MAIN, '--config=configs/digits.py', '--config.stepps=3'],
    'a mistyped mode': [*MAIN, '--mode=trian'],
}


def cpu_seconds(arguments):
  """User and system time of a Python process."""
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  subprocess.run([sys.executable, *arguments], capture_output=True,
                 env=os.environ | {'JAX_PLATFORMS': 'cpu'})
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()
  found = {name: [] for name in COMMANDS}
  for arguments in COMMANDS.values():
    cpu_seconds(arguments)  # writes .pyc files and fills the disk's cache
  for _ in range(args.rounds):
    for name, arguments in COMMANDS.items():
      found[name].append(cpu_seconds(arguments))
  print(f'{machine()}; median of {args.rounds} rounds')
  print('| | CPU seconds |\n|---|--:|')
  for name, seconds in found.items():
    print(f'| `{name}` | {statistics.median(seconds):.2f} |')


if __name__ == '__main__':
  main()
