"""Images/s and parity of 1, 2, 4 and 8 devices, under jit and pmap.

    python tests/bench/devices.py                      # digits, WRN-16-1 at 32x32
    python tests/bench/devices.py digits --updates 50 --rounds 5

Every number of devices trains on the same global batches from the same state. The table
has the images/s of all devices together (median of the rounds), their ratio to one
device under jit, and the difference of the parameters from those of one device under
jit after the first `--updates` updates: the largest absolute difference within an
array, divided by the largest absolute value in it, of the array where it is largest.

Without GPUs or TPUs the devices are simulated on the CPU, which they share: they show
what splitting a batch costs, not what several chips gain.
"""

import argparse
import statistics

import jax
import numpy as np
from steps import machine, timed
from throughput import digits, wide_resnet

from nat_jax import data, runs
from nat_jax.runtime import parallel
from nat_jax.tasks import TASKS

NUMBERS = (1, 2, 4, 8)
BENCHES = {'digits': digits, 'wide_resnet': wide_resnet}


def difference(one, other):
  """The largest difference of two pytrees of arrays, relative to each array's scale."""
  return max(
      float(np.abs(a - b).max() / max(np.abs(b).max(), np.finfo(np.float32).tiny))
      for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def measure(config, numbers, updates, rounds):
  """Yields (mode, number of devices, images/s, difference) for all forms.

  Args:
    config: resolved.
    numbers: of devices; the first is the one that the others are compared with.
    updates: per round.
    rounds: that are timed, after the one whose parameters are compared.
  """
  inputs = TASKS[config['task']].load(config, max(numbers))
  trainer = runs.build_trainer(config, inputs.shape)
  batches = data.gather(inputs.pool, jax.tree.map(
      lambda *rows: np.stack(rows), *map(inputs.stream.index, range(updates))))
  expected = None
  for mode in parallel.MODES:
    for num in numbers:
      mesh = parallel.make_mesh(jax.devices()[:num])
      frozen = parallel.replicate(trainer.frozen(), mesh)
      step = parallel.wrap_step(trainer.step, mesh, mode=mode)

      def run(state):
        return step(state, frozen, (), batches)[0]  # noqa: B023  called in this turn

      state, _ = timed(run, parallel.init_state(trainer.init, jax.random.key(0), mesh))
      params = jax.device_get({name: net.params for name, net in state.nets.items()})
      expected = expected or params
      seconds = []
      for _ in range(rounds):
        state, took = timed(run, state)
        seconds.append(took)
      rate = inputs.stream.num_slots * updates / statistics.median(seconds)
      yield mode, num, rate, difference(params, expected)


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('names', nargs='*', default=list(BENCHES))
  parser.add_argument('--updates', type=int, default=10)
  parser.add_argument('--rounds', type=int, default=3)
  args = parser.parse_args()
  jax.config.update('jax_num_cpu_devices', max(NUMBERS))
  numbers = [num for num in NUMBERS if num <= jax.device_count()]
  print(f'{machine()}, {args.updates} updates, {args.rounds} rounds')
  for name in args.names:
    print(f'\n| {name} | devices | images/s | ratio | difference |\n'
          '|---|--:|--:|--:|--:|')
    first = None
    for mode, num, rate, differs in measure(
        runs.resolve(BENCHES[name]()), numbers, args.updates, args.rounds):
      first = first or rate
      print(f'| {mode} | {num} | {rate:,.0f} | {rate / first:.2f} | {differs:.1e} |',
            flush=True)


if __name__ == '__main__':
  main()
