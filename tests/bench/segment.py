"""The table of docs/segmentation.md: segmenters of scenes with a rare class.

    python tests/bench/segment.py                       # three seeds, all variants
    python tests/bench/segment.py --variants real,gan --seeds 2

The variants of configs/segment.py, which says what each is. A seed chooses the 60
training scenes, three of which show the rare class, as well as the parameters and the
batches; the 1,000 test scenes are the same for all. IoU of each class and its mean
(mIoU, which is not the pixel accuracy), PAR .8 (the share of the pixels with a class
with a maximum probability above .8) and NCR .8 (that of the void), on kinds of void
that training scenes show and on others. Mean ± sample standard deviation over seeds.
"""

import argparse
import time

import jax
import numpy as np
from negatives import load
from steps import machine

from nat_jax import data, runs
from nat_jax.tasks import segment
from nat_jax.tasks.segment import evaluate

COLUMNS = ('mIoU', 'rare IoU', 'pixel accuracy', 'PAR .8', 'NCR .8 seen',
           'NCR .8 not seen')


def prepared(variant, seed):
  """The resolved config of a variant with a seed."""
  config = load('segment', variant)
  config['seed'] = config['data']['pairs']['seed'] = seed
  return runs.resolve(config)


def train(config, inputs, trainer, step):
  """The state after all updates."""
  state = jax.jit(trainer.init)(jax.random.key(config['seed']))
  for at in range(config['steps']):
    state, _ = step(state, {}, data.gather(inputs.pool, inputs.stream.index(at)))
  return state


def figures(config, state, head, sets):
  """The numbers of `COLUMNS`."""
  found = {name: evaluate.measure(
      config, name, sets[name], lambda x: np.asarray(head(state, x)))[0]
           for name in sets}
  of_void = {
      seen: np.mean([one['void_ncr']['0.8'] for name, one in found.items()
                     if name != 'test' and one['seen_in_training'] is seen])
      for seen in (True, False)}
  test = found['test']
  return [test['miou'], test['rare_iou'], test['pixel_accuracy'], test['par']['0.8'],
          of_void[True], of_void[False]]


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument('--variants', default=(
      'real,weighted,gan,l1,copy_paste,nat,copy_paste_nat'))
  args = parser.parse_args()
  if args.seeds < 2:
    parser.error('a standard deviation needs --seeds of 2 or more')
  first = prepared('real', 0)
  sets = {name: segment.build.load_pairs(first, entry['source'])
          for name, entry in first['evals'].items() if name != 'validation'}
  print(f'{machine()}; seeds 0 to {args.seeds - 1}\n')
  print(f'| variant | {" | ".join(COLUMNS)} |\n|---|{"---|" * len(COLUMNS)}')
  began, used = time.monotonic(), time.process_time()
  for variant in args.variants.split(','):
    rows, built = [], None
    for seed in range(args.seeds):
      config = prepared(variant, seed)
      inputs = segment.TASK.load(config)
      if built is None or config['data']['class_weights']:  # constants of the program
        trainer = segment.TASK.build(config, inputs.shape, None)
        built = jax.jit(trainer.step, donate_argnums=0), jax.jit(
            trainer.heads['pixels'])
      step, head = built
      rows.append(figures(config, train(config, inputs, trainer, step), head, sets))
    cells = (f'{mean:.3f} ± {spread:.3f}' for mean, spread in zip(
        np.mean(rows, 0), np.std(rows, 0, ddof=1), strict=True))
    print(f'| {variant} | {" | ".join(cells)} |', flush=True)
  print(f'\n{time.monotonic() - began:.0f} s, processor time '
        f'{time.process_time() - used:.0f} s')


if __name__ == '__main__':
  main()
