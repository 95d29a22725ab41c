"""The share of an evaluation that the host spends on metrics.

    python tests/bench/evaluations.py        # digits; the small form for CIFAR-10
    python tests/bench/evaluations.py digits --rounds 5

Evaluations of an untrained network, after one that is not timed: as during training,
and as after the last update (with bootstrap intervals). Seconds of the whole evaluation
and of the network in it, medians over the rounds. The images of the small form are made
up, four sets of 5,000.
"""

import argparse
import os
import statistics
import time

import jax
from steps import machine

from nat_jax import runs
from nat_jax.commands import config_file
from nat_jax.runtime import inference, parallel
from nat_jax.tasks.classify import evaluate, inputs

CONFIGS = os.path.join(os.path.dirname(__file__), '..', '..', 'configs')


def digits():
  """configs/digits.py:nat."""
  return config_file.load(os.path.join(CONFIGS, 'digits.py'), 'nat').to_dict()


def cifar10_small():
  """configs/nat/cifar10.py:baseline_small with other images."""
  path = os.path.join(CONFIGS, 'nat', 'cifar10.py')
  config = config_file.load(path, 'baseline_small').to_dict()
  fake = {'name': 'fake', 'num': 5000, 'shape': (32, 32, 3), 'num_classes': 10}
  config['evals'] = {f'set{i}': {'source': {**fake, 'seed': i}} for i in range(3)}
  config['evals']['test'] = {'source': {**fake, 'seed': 3}, 'positive': True}
  config['data'] |= {'positives': {**fake, 'num': 1000}, 'negatives': {}}
  return config | {'best': ''}


BENCHES = {'digits': digits, 'cifar10_small': cifar10_small}


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('names', nargs='*', default=list(BENCHES))
  parser.add_argument('--rounds', type=int, default=3)
  args = parser.parse_args()
  print(machine())
  for name in args.names:
    config, mesh = runs.resolve(BENCHES[name]()), parallel.make_mesh()
    sets = inputs.load_evals(config)
    trainer = runs.build_trainer(config, sets['test'].arrays.image.shape[1:])
    state = parallel.init_state(trainer.init, jax.random.key(0), mesh)
    apply = inference.make_predict(
        trainer.heads['logits'], mesh, config['eval_batch_size'])
    spent = []

    def predict(images):
      start = time.perf_counter()
      logits = apply(state, images)  # noqa: B023
      spent.append(time.perf_counter() - start)  # noqa: B023
      return logits

    for bootstrap in (False, True):
      whole, network = [], []
      for _ in range(1 + args.rounds):
        spent.clear()
        start = time.perf_counter()
        evaluate.evaluate_sets(config, sets, predict, list(sets), bootstrap)
        whole.append(time.perf_counter() - start)
        network.append(sum(spent))
      total, own = (statistics.median(x[1:]) for x in (whole, network))
      print(f'{name}, {"with" if bootstrap else "without"} intervals: {total:.2f} s, '
            f'network {own:.2f} s, metrics {1 - own / total:.0%}')


if __name__ == '__main__':
  main()
