"""Benchmark of images that are read from disk: time waiting for batches, and memory.

    python tests/bench/input_pipeline.py --folder /tmp/big --gigabytes 6.5

Writes a data set of random 96x96 images to FOLDER, unless it is there, in three forms:
decoded arrays on disk, PNG files in class folders, and ArrayRecord; the latter two have
2,000 images. Trains a small network on each with run.placement=streamed and prints the
share of the time that updates waited for their batch, images/s, and the memory of this
process at the start and at the end: anonymous memory, and pages mapped from files,
which the operating system can reclaim.
"""

import argparse
import pathlib
import time

import jax
import numpy as np
from PIL import Image

from nat_jax import data, runs
from nat_jax.runtime import feed, parallel
from nat_jax.schema import presets

SIZE, CLASSES, FEW = 96, 10, 2000


def picture(numbers):
  """Returns random images uint8 [n, 96, 96, 3], pure functions of their indices [n]."""
  return np.stack([np.random.default_rng(int(i)).integers(
      0, 256, (SIZE, SIZE, 3), np.uint8) for i in numbers])


def prepare(folder, gigabytes):
  """Writes the forms of the data set that are missing; returns {title: source}."""
  num = int(gigabytes * 1e9 / SIZE**2 / 3)
  label = np.arange(num) % CLASSES
  name = f'random_{num}'
  if not (data.cache_folder(name, str(folder)) / 'train').exists():
    data.write_cache(name, 'train', data.Rows(picture, num, (SIZE, SIZE, 3)), label, (),
                     str(folder))
  pictures = folder / 'pictures'
  for k in range(CLASSES):
    (pictures / str(k)).mkdir(parents=True, exist_ok=True)
  for i in range(FEW):
    path = pictures / str(i % CLASSES) / f'{i}.png'
    if not path.exists():
      Image.fromarray(picture([i])[0]).save(path)
  write_records(folder / 'tfds', pictures)
  return {
      f'arrays on disk, {gigabytes} GB': {
          'name': 'tfds', 'dataset': name, 'cache_dir': str(folder)},
      f'folder of PNG, {FEW} lazy': {
          'name': 'folder', 'path': str(pictures), 'size': SIZE, 'lazy': True},
      f'ArrayRecord, {FEW} lazy': {
          'name': 'tfds', 'dataset': 'random_pictures', 'lazy': True,
          'data_dir': str(folder / 'tfds'), 'cache_dir': str(folder)},
  }


def write_records(root, pictures):
  """Prepares the PNG files as a tfds data set in ArrayRecord, without TensorFlow."""
  import tensorflow_datasets as tfds

  class RandomPictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.0.0')
    pkg_dir_path = pathlib.Path(__file__).parent

    def _info(self):
      return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({
          'image': tfds.features.Image(shape=(SIZE, SIZE, 3)),
          'label': tfds.features.ClassLabel(num_classes=CLASSES)}))

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples()}

    def _generate_examples(self):
      for path in sorted(pictures.glob('*/*.png')):
        yield path.name, {'image': path.open('rb'), 'label': int(path.parent.name)}

  RandomPictures(data_dir=root, file_format='array_record').download_and_prepare()


def memory():
  """Returns this process's resident memory in MB: [anonymous, mapped from files]."""
  lines = dict(line.split(':') for line in open('/proc/self/status') if ':' in line)
  return [int(lines[key].split()[0]) // 1000 for key in ('RssAnon', 'RssFile')]


def measure(source, steps, batch_size):
  """Trains on a source.

  Returns:
    (share of the time spent waiting for batches, images/s, memory at the start, memory
    at the end).
  """
  config = runs.resolve(presets.experiment(
      name='bench', num_classes=CLASSES, steps=steps + 40,
      model={'name': 'resnet', 'blocks': [1, 1], 'width': 16, 'stem_stride': 2},
      loss={'name': 'cross_entropy'},
      data=dict(positives=source, batch_size=batch_size, negatives_per_batch=0,
                augment=presets.CROP_FLIP),
      evals={'test': {'source': {'name': 'fake', 'shape': (SIZE, SIZE, 3),
                                 'num_classes': CLASSES}, 'positive': True}},
      run=dict(placement='streamed', updates_per_call=10, log_every=10)))
  mesh = parallel.make_mesh()
  inputs = runs.TASKS['classify'].load(config)
  trainer = runs.build_trainer(config, inputs.shape)
  step_fn, source, items = feed.make_feed(
      config, inputs, trainer, mesh, feed.periods(config['run'], []))
  state = parallel.init_state(trainer.init, jax.random.key(0), mesh)
  waited, start, before = 0.0, None, None
  for step in range(0, steps + 40, 10):
    if step == 40:  # programs are compiled and the buffers are full
      start, waited, before = time.perf_counter(), 0.0, memory()
    asked = time.perf_counter()
    batches = items(step, 10)
    waited += time.perf_counter() - asked
    state, _ = step_fn(state, {}, source, batches, 10)
    jax.block_until_ready(state)
  seconds = time.perf_counter() - start
  return waited / seconds, steps * batch_size / seconds, before, memory()


def main():
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--folder', required=True, type=pathlib.Path)
  parser.add_argument('--gigabytes', type=float, default=6.5)
  parser.add_argument('--steps', type=int, default=300)
  parser.add_argument('--batch_size', type=int, default=128)
  args = parser.parse_args()
  args.folder.mkdir(parents=True, exist_ok=True)
  print(f'{jax.devices()[0].device_kind}, jax {jax.__version__}, {args.steps} updates '
        f'of {args.batch_size} pictures {SIZE}x{SIZE}')
  print('| source | waiting | images/s | anonymous MB | mapped MB |')
  print('|---|--:|--:|--:|--:|')
  for title, source in prepare(args.folder, args.gigabytes).items():
    share, rate, before, after = measure(source, args.steps, args.batch_size)
    print(f'| {title} | {share:.1%} | {rate:,.0f} | {before[0]} to {after[0]} | '
          f'{before[1]} to {after[1]} |', flush=True)


if __name__ == '__main__':
  main()
