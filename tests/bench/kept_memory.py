"""CPU time and page faults of an update, with and without memory that is kept.

    taskset -c 1 python tests/bench/kept_memory.py gan/mnist:nat3_small

See nat_jax/runtime/allocator.py. Each row is of a process of its own; rounds alternate
between the two.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

CALLS, UPDATES = 4, 5


def measure(source):
  """Prints [CPU ms per update, page faults per update], medians over calls."""
  import jax
  from steps import make_bare

  from nat_jax import runs
  from nat_jax.commands import config_file

  bare = make_bare(runs.resolve(config_file.load(*config_file.split(source))))
  state, found = bare.state(), []
  for _ in range(1 + CALLS):
    faults, began = page_faults(), time.process_time()
    for _ in range(UPDATES):
      state, _ = bare.step(state, bare.batch)
    jax.block_until_ready(state)
    found.append(((time.process_time() - began) / UPDATES * 1e3,
                  (page_faults() - faults) / UPDATES))
  print(json.dumps([statistics.median(one) for one in zip(*found[1:], strict=True)]))


def page_faults():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('config', help='FILE:VARIANT, or the name of one')
  parser.add_argument('--rounds', type=int, default=2)
  parser.add_argument('--of', choices=('kept', 'returned'), help='one process')
  args = parser.parse_args()
  if args.of:
    if args.of == 'kept':
      from nat_jax.runtime import allocator
      allocator.keep_memory()
    measure(args.config)
    return
  print('| memory | CPU ms per update | page faults |\n|---|--:|--:|')
  for _ in range(args.rounds):
    for of in ('returned', 'kept'):
      ran = subprocess.run(
          [sys.executable, __file__, args.config, '--of', of], check=True, text=True,
          stdout=subprocess.PIPE, env={**os.environ, 'JAX_PLATFORMS': 'cpu'})
      spent, faults = json.loads(ran.stdout)
      print(f'| {of} | {spent:.0f} | {faults:,.0f} |', flush=True)


if __name__ == '__main__':
  main()
