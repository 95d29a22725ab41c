"""Pictures per second and peak memory of --mode=predict, beside the decoder alone.

    python tests/bench/predict.py                       # 500 and 20,000 pictures
    python tests/bench/predict.py --nums 50 200 --rounds 1

Trains a few updates on toy pictures of 32 pixels, writes JPEG pictures of 320x256 to a
temporary folder, and predicts them in a process of its own. The decoder alone reads the
same files, in the same threads and to the same size, in another process. The rates
leave out what comes before the first picture (imports, compilation).
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

from pictures_memory import write_pictures
from steps import machine

from nat_jax import data, train
from nat_jax.commands import predict
from nat_jax.data import picture_paths
from nat_jax.schema import presets

SIDE = 32  # to which the pictures are decoded
SHAPE = (SIDE, SIDE, 3)


def trained(workdir):
  """Trains the classifier."""
  train.train(presets.experiment(
      steps=4, num_classes=3, model={'name': 'small_conv', 'widths': (8, 16)},
      loss={'name': 'cross_entropy'}, eval_batch_size=64,
      data=dict(positives={'name': 'fake', 'num': 96, 'shape': SHAPE,
                           'classes': (0, 1, 2)}, batch_size=32),
      evals={'test': {'source': {'name': 'fake', 'num': 96, 'shape': SHAPE, 'seed': 1,
                                 'classes': (0, 1, 2)}, 'positive': True}},
      run=dict(tensorboard=False)), workdir)


def decode(folder):
  """Decodes all pictures; returns their number per second."""
  start, num = None, 0
  for _ in data.decode_each(picture_paths.find([folder]), SIDE):
    start = start or time.perf_counter()
    num += 1
  return (num - 1) / (time.perf_counter() - start)


def classify(folder, workdir):
  """Predicts all pictures; returns their number per second, from the first row on."""
  start, written, write = None, 0, predict.predictions.Rows.write

  def timed(self, batch):
    nonlocal start, written
    write(self, batch)
    written += len(batch) if start else 0
    start = start or time.perf_counter()

  predict.predictions.Rows.write = timed
  predict.predict(workdir, [folder], threshold=0.5, out=f'{workdir}/rows.csv')
  return written / (time.perf_counter() - start)


def child(what, folder, workdir):
  """The figures of one process, which are printed as JSON."""
  rate = decode(folder) if what == 'decode' else classify(folder, workdir)
  # getrusage's maximum would include that of the process that started this one.
  peak = re.search(r'VmHWM:\s+(\d+) kB', pathlib.Path('/proc/self/status').read_text())
  print(json.dumps({'rate': rate, 'peak': int(peak[1]) / 1000}))


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--nums', type=int, nargs='+', default=[500, 20_000])
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--child', nargs=3, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    child(*args.child)
    return
  print(f'{machine()}; median of {args.rounds} rounds')
  print('| pictures | predict, MB | decoder alone, MB | predict, pictures/s '
        '| decoder alone, pictures/s |')
  print('|--:|--:|--:|--:|--:|')
  with tempfile.TemporaryDirectory() as root:
    trained(f'{root}/run')
    for num in args.nums:
      folder = pathlib.Path(root, f'pictures-{num}')
      write_pictures(folder, num)
      found = {'decode': [], 'predict': []}
      for _ in range(args.rounds):
        for what, rounds in found.items():
          ran = subprocess.run(
              [sys.executable, __file__, '--child', what, folder, f'{root}/run'],
              env=os.environ | {'JAX_PLATFORMS': 'cpu'}, text=True, capture_output=True)
          if ran.returncode:
            sys.exit(ran.stderr)
          rounds.append(json.loads(ran.stdout.splitlines()[-1]))

      def median(what, key):
        return statistics.median(one[key] for one in found[what])  # noqa: B023

      print(f'| {num:,} | {median("predict", "peak"):,.0f} '
            f'| {median("decode", "peak"):,.0f} | {median("predict", "rate"):,.0f} '
            f'| {median("decode", "rate"):,.0f} |', flush=True)


if __name__ == '__main__':
  main()
