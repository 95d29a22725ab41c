"""Error against the number of labels: the tables of docs/semi_supervised.md.

    python tests/bench/semi_supervised.py                       # six seeds
    python tests/bench/semi_supervised.py --form open --labels 5

The variants of configs/semi_supervised.py, which says what each is. First table: error
in per cent on the test positives. The others are of the largest number of labels:
PAR .8 (share of test positives with a maximum probability above .8) and NCR .8 on
negatives that no variant was trained on, then the AUROC of these negatives by the
maximum probability, and by logsumexp of the logits (with an implicit logit, the
discriminator's logit of `real`). Each number is a mean over seeds, ± the sample
standard deviation; a seed chooses the labelled examples, the same for all variants.

The runs of a variant, of all seeds and numbers of labels, are trained side by side, by
a `vmap` of the trainer's step, in half the processor time of as many calls of
nat_jax.main. Supervised runs reach the same accuracies as there; those with a generator
differ, since the training of a GAN amplifies the rounding of sums. --out keeps what
each run reached, variant by variant, and a second call goes on.
"""

import argparse
import json
import os
import pathlib
import runpy
import time

import jax
import jax.numpy as jnp
import numpy as np
from negatives import CONFIGS, load
from scipy import special
from steps import machine

from nat_jax import data, metrics
from nat_jax.tasks import semi_supervised
from nat_jax.tasks.classify import evaluate, inputs

CHUNK = 100  # updates per call of the compiled program
FREE = 'auroc_logsumexp'  # of the logits; with implicit_gan the logit of 'real'


def stack(trees):
  return jax.tree.map(lambda *x: np.stack(x), *trees)


def train(configs):
  """(trainer, states [r, ...]) of r runs that differ in seed and labelled examples."""
  loaded = [semi_supervised.TASK.load(config) for config in configs]
  trainer = semi_supervised.TASK.build(configs[0], loaded[0].shape, None)
  keys = jnp.stack([jax.random.key(config['seed']) for config in configs])
  states = jax.jit(jax.vmap(trainer.init))(keys)
  pools = stack([one.pool for one in loaded])

  @jax.jit
  def advance(states, index):
    def one(states, rows):
      return jax.vmap(lambda state, pool, rows: trainer.step(
          state, {}, data.gather(pool, rows))[0])(states, pools, rows), ()

    return jax.lax.scan(one, states, index)[0]

  for start in range(0, configs[0]['steps'], CHUNK):
    steps = range(start, min(start + CHUNK, configs[0]['steps']))
    states = advance(states, stack(
        [stack([one.stream.index(step) for one in loaded]) for step in steps]))
  return trainer, states


def figures_of(configs):
  """The figures of each run on each test set, as in eval.json."""
  trainer, states = train(configs)
  sets = inputs.load_evals(configs[0], {}, parts=['test'])
  head = jax.jit(jax.vmap(trainer.heads['logits'], (0, None)))
  found = {id(one.arrays.image): np.asarray(head(states, one.arrays.image))
           for one in sets.values()}
  figures = []
  for run, config in enumerate(configs):
    one, scores = evaluate.evaluate_sets(
        config, sets, lambda images, run=run: found[id(images)][run], list(sets),
        bootstrap=False)
    free = {name: special.logsumexp(values['logits'], axis=1)
            for name, values in scores.items()}
    for name in sets:
      if not sets[name].positive:
        one[name][FREE] = metrics.detection_metrics(
            free['test'], free[name])['auroc']
    figures.append(one)
  return figures


def study(variants, labels, seeds, form, out):
  """{(variant, number of labels): [figures of each seed]}."""
  found = {}
  for variant in variants:
    path = pathlib.Path(out, '-'.join(filter(None, [variant, form])) + '.json')
    runs = [(num, seed) for num in labels for seed in seeds]
    names = [f'{num} labels, seed {seed}' for num, seed in runs]
    known = json.loads(path.read_text()) if out and path.exists() else {}
    if set(names) - set(known):
      before = time.perf_counter()
      figures = figures_of([
          load('semi_supervised', '_'.join(filter(None, [variant, str(num), form])))
          | {'seed': seed} for num, seed in runs])
      print(f'{variant}: {len(runs)} runs in {time.perf_counter() - before:.0f} s',
            flush=True)
      known |= dict(zip(names, figures, strict=True))
      if out:
        os.makedirs(out, exist_ok=True)
        path.write_text(json.dumps(known))
    for (num, _), name in zip(runs, names, strict=True):
      found.setdefault((variant, num), []).append(known[name])
  return found


def cell(values, digits):
  spread = f' ± {np.std(values, ddof=1):.{digits}f}' if len(values) > 1 else ''
  return f'{np.mean(values):.{digits}f}{spread}'


def table(title, rows):
  """Prints {variant: {column: text}}."""
  columns = list(next(iter(rows.values())))
  print(f'\n| {title} | {" | ".join(columns)} |\n|---{"|---" * len(columns)}|')
  for variant, row in rows.items():
    print(f'| {variant} | {" | ".join(row.values())} |')


def errors(found, variant, labels):
  """The first table's row of a variant."""
  return {f'{num} per class': cell(
      [100 * (1 - one['test']['accuracy']) for one in found[variant, num]], 1)
          for num in labels}


def kinds(runs):
  """The negative sets of an evaluation."""
  return [name for name, one in runs[0].items() if not one['positive']]


def rates(runs):
  """The second table's row, of the evaluations of a variant's runs."""
  return {'PAR .8': cell([one['test']['par']['0.8'] for one in runs], 3)} | {
      f'NCR .8, {kind}': cell([one[kind]['ncr']['0.8'] for one in runs], 3)
      for kind in kinds(runs)}


def aurocs(runs):
  """The third table's row."""
  return {f'{kind}, {title}': cell([one[kind][key] for one in runs], 3)
          for title, key in (('maximum probability', 'auroc'), ('logsumexp', FREE))
          for kind in kinds(runs)}


def main():
  every = runpy.run_path(os.path.join(CONFIGS, 'semi_supervised.py'))['VARIANTS']
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--seeds', default='0,1,2,3,4,5')
  parser.add_argument('--labels', default='1,2,5', help='of each class')
  parser.add_argument('--variants', default=','.join(every))
  parser.add_argument('--form', default='', choices=('', 'open', 'small'))
  parser.add_argument('--out', default='', help="folder of what is known; '': none")
  args = parser.parse_args()
  seeds, labels = ([int(x) for x in text.split(',')]
                   for text in (args.seeds, args.labels))
  variants = args.variants.split(',')
  print(f'{machine()}; {len(seeds)} seeds', flush=True)
  found = study(variants, labels, seeds, args.form, args.out)
  table('test error, %', {one: errors(found, one, labels) for one in variants})
  for title, row in (('', rates), ('AUROC, ', aurocs)):
    table(f'{title}{max(labels)} labels per class',
          {one: row(found[one, max(labels)]) for one in variants})


if __name__ == '__main__':
  main()
