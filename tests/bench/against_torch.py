"""The updates of nat_jax beside those of PyTorch, on the same cores, in one run.

    python tests/bench/against_torch.py --torch_python ~/torch/bin/python

Each round measures one after the other while the other one waits: PyTorch, its
`torch.compile`, nat_jax (the bare compiled step), and PyTorch again. Printed are the
medians over the rounds, and PyTorch's time divided by that of nat_jax: above 1 nat_jax
is the faster one. The step of nat_jax also normalises and augments images and sums
metrics, which PyTorch's does not. `--torch_python` is a Python with PyTorch; it needs
neither JAX nor nat_jax, and nat_jax does not need PyTorch.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess

import jax
import throughput
from steps import make_bare, time_updates

from nat_jax import runs
from nat_jax.schema import presets, recipes

HERE = pathlib.Path(__file__).parent
BATCH = dict(positives=128, negatives=16)


def fake(shape, **source):
  return {'name': 'fake', 'num': 1000, 'shape': shape, 'num_classes': 10, **source}


def classifier(shape=(32, 32, 3), **settings):
  """A config of 128 positives and 16 negatives per batch, of generated images."""
  return presets.experiment(
      name='bench', num_classes=10, steps=40, **settings,
      data=dict(
          positives=fake(shape),
          negatives={'other': {'source': fake(shape, seed=1)}},
          mean=(0.5,), std=(0.25,),
          batch_size=BATCH['positives'], negatives_per_batch=BATCH['negatives'],
          augment=presets.CROP_FLIP if shape[2] == 3 else ()),
      evals={'test': {'source': fake(shape, num=10), 'positive': True}})


def gan():
  """Two dense networks on the images of digits, batch 64."""
  config = throughput.gan()
  config.data.batch_size = 64
  return config


SGD = {'optimizer': {'name': 'sgd', 'momentum': 0.9, 'weight_decay': 5e-4}}
IMAGE = dict(BATCH, shape=(3, 32, 32))
# name -> (our config, the request to PyTorch)
CASES = {
    'digits': (lambda: classifier((8, 8, 1), **SGD),
               dict(BATCH, network='digits', shape=(1, 8, 8))),
    'small01': (lambda: classifier(model=recipes.SMALL01['model'], **SGD),
                dict(IMAGE, network='small01')),
    'wrn_16_1': (lambda: classifier(
        model={'name': 'wide_resnet', 'depth': 16, 'widen': 1}, **SGD),
                 dict(IMAGE, network='wrn_16_1')),
    'resnet18': (lambda: classifier(model={'name': 'resnet18'}, **SGD),
                 dict(IMAGE, network='resnet18')),
    'resnet18_forward': (lambda: classifier(model={'name': 'resnet18'}),
                         dict(network='resnet18', batch=144, shape=(3, 32, 32))),
    'gan': (gan, dict(network='gan', batch=64, size=64, width=128, latent=32,
                      num_outputs=7)),
}


class Torch:
  """PyTorch in a process of its own, which waits while nothing is asked."""

  def __init__(self, python: str):
    self.process = subprocess.Popen(
        [python, str(HERE / 'torch_steps.py')], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True)
    self.version = self.read()['torch']

  def read(self):
    line = self.process.stdout.readline()
    if not line:
      raise SystemExit('--torch_python must be a Python that PyTorch is installed in')
    return json.loads(line)

  def seconds(self, **request):
    """Seconds per update; NaN, and a message, if PyTorch could not do it."""
    self.process.stdin.write(json.dumps(request) + '\n')
    self.process.stdin.flush()
    found = self.read()
    if 'error' in found:
      print(f'  PyTorch: {found["error"]}')
    return found.get('seconds', math.nan)


def ours(config, forward):
  """() -> seconds per update (or forward pass) of nat_jax, compiled already."""
  bare = make_bare(runs.resolve(config))
  state, fn, batch = bare.state(), bare.step, bare.batch
  if forward:
    trained, state, batch = state, None, batch['image']
    head = jax.jit(lambda state, images: jax.nn.softmax(
        bare.trainer.heads['logits'](state, images)).max(1))

    def fn(_, images):  # the result takes the place of the state, to be waited for
      return head(trained, images), None

  state, _ = time_updates(fn, state, batch, 1, 0.1)

  def measure(budget):
    nonlocal state
    state, seconds = time_updates(fn, state, batch, 1, budget)
    return seconds

  return measure


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('cases', nargs='*', help=f'of {", ".join(CASES)}; default all')
  parser.add_argument('--torch_python', required=True)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--budget', type=float, default=2.0, help='seconds per figure')
  args = parser.parse_args()
  if unknown := set(args.cases) - set(CASES):
    parser.error(f'unknown: {", ".join(unknown)}; valid: {", ".join(CASES)}')
  torch = Torch(args.torch_python)
  print(f'jax {jax.__version__}, torch {torch.version}; ms, medians of {args.rounds} '
        'rounds; ratio: PyTorch / nat_jax (lowest, highest)')
  for name in args.cases or CASES:
    make, request = CASES[name]
    measure = ours(make(), forward='batch' in request and name != 'gan')
    found = {'ours': [], 'eager': [], 'compiled': []}
    ratios = {'eager': [], 'compiled': []}
    for _ in range(args.rounds):
      before = torch.seconds(**request, compiled=False, budget=args.budget)
      middle = measure(args.budget)
      after = torch.seconds(**request, compiled=False, budget=args.budget)
      compiled = torch.seconds(**request, compiled=True, budget=args.budget)
      eager = (before + after) / 2
      for form, seconds in (('ours', middle), ('eager', eager), ('compiled', compiled)):
        found[form].append(seconds)
      ratios['eager'].append(eager / middle)
      ratios['compiled'].append(compiled / middle)
    cells = [f'{name:17} nat_jax {1e3 * statistics.median(found["ours"]):8.2f}']
    for form, each in ratios.items():
      cells.append(
          f'{form} {1e3 * statistics.median(found[form]):8.2f} ratio '
          f'{statistics.median(each):.2f} ({min(each):.2f}, {max(each):.2f})')
    print('  '.join(cells), flush=True)


if __name__ == '__main__':
  main()
