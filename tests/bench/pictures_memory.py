"""Peak memory of training on 500 and on 5,000 pictures of 224 pixels, streamed.

    python tests/bench/pictures_memory.py                     # ten minutes on a CPU
    python tests/bench/pictures_memory.py --nums 50 100 --size 64 --steps 4

Writes that many JPEG pictures of 320x256 to a temporary folder, four fifths of them in
two class folders and the rest as negatives, and trains configs/pictures.py on them with
--config.data.image_size=224 in a process of its own, with an empty cache: the pictures
are decoded, near-duplicates looked for, some updates made, and all sets evaluated. Once
the decoded pictures are kept on disk, and once each picture is decoded each time it is
read, as without room on the disk. Prints the peak of the resident memory of each
process, the pictures that it decoded for the cache per second, and the images that it
trained on per second, without the first third of the updates.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image
from steps import machine

from nat_jax import data, runs, train
from nat_jax.commands import config_file

WIDE, HIGH = 320, 256


def write_pictures(root, num):
  """Smooth random pictures with noise, pure functions of their numbers."""
  for k in range(num):
    rng = np.random.default_rng(k)
    smooth = Image.fromarray(rng.integers(0, 256, (8, 10, 3), np.uint8)).resize(
        (WIDE, HIGH), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth, int) + rng.integers(-8, 9, (HIGH, WIDE, 3))
    folder = root / ('others' if k % 5 == 4 else f'pets/{k % 5 % 2}')
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(
        folder / f'{k}.jpg', quality=85)


def measure(root, size, steps, lazy):
  """Trains in this process; returns its figures."""
  config = config_file.load('pictures', f'{root}/pets,{root}/others')
  config.update_from_flattened_dict({
      'data.image_size': size, 'steps': steps, 'patience': 0, 'best': '',
      'run.eval_every': 0, 'run.log_every': max(1, steps // 3),
      'run.checkpoint_every': 0, 'run.tensorboard': False})
  config = runs.resolve(config)
  entries = [config['data']['positives'],
             *(one['source'] for one in config['data']['negatives'].values()),
             *(one['source'] for one in config['evals'].values())]
  for source in entries:
    if source['name'] == 'folder':
      source['lazy'] = lazy
  start = time.perf_counter()
  for source in entries[:2]:  # the folders as a whole are decoded
    data.load(source)
  seconds = time.perf_counter() - start
  train.train(config, f'{root}/run-{lazy}')
  records = [json.loads(line) for line in open(f'{root}/run-{lazy}/metrics.jsonl')]
  rates = [one['images_per_second'] for one in records if one['kind'] == 'train']
  return {
      'peak': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
      'decoding': seconds, 'images': sum(rates[1:]) / len(rates[1:])}


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--nums', type=int, nargs='+', default=[500, 5000])
  parser.add_argument('--size', type=int, default=224)
  parser.add_argument('--steps', type=int, default=18)
  parser.add_argument('--child', help='the folder of the pictures, and lazy')
  args = parser.parse_args()
  if args.child:
    root, _, lazy = args.child.rpartition(',')
    found = measure(root, args.size, args.steps, lazy == 'True' or lazy)
    print(json.dumps(found))
    return
  print(f'{machine()}; {args.steps} updates, pictures of {args.size}x{args.size}')
  print('| pictures | decoded | peak memory, MB | decoded for the cache per s '
        '| images/s |')
  print('|--:|---|--:|--:|--:|')
  for lazy, title in (('auto', 'once, kept on disk'), (True, 'each time')):
    for num in args.nums:
      with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        write_pictures(root, num)
        ran = subprocess.run(
            [sys.executable, __file__, '--size', str(args.size), '--steps',
             str(args.steps), '--child', f'{root},{lazy}'],
            env=os.environ | {'NAT_JAX_CACHE': f'{root}/cache'}, text=True,
            capture_output=True)
        if ran.returncode:
          sys.exit(ran.stderr)
        found = json.loads(ran.stdout.splitlines()[-1])
        decoding = f'{num / found["decoding"]:,.0f}' if lazy == 'auto' else '-'
        print(f'| {num:,} | {title} | {found["peak"]:,.0f} | {decoding} | '
              f'{found["images"]:.1f} |', flush=True)


if __name__ == '__main__':
  main()
