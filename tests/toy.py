"""Set-ups that several test files share: tiny data, networks, configs and runs."""

import importlib.util
import json
import os
import pathlib
import shutil
import sys

import jax
import numpy as np
import optax
from absl import flags

from nat_jax import commands, losses, main, models, registry, runs, train
from nat_jax.runtime import checkpoint, feed, parallel

ROOT = pathlib.Path(__file__).parents[1]
NUM_CLASSES = 3


# Configs and the files of runs.


def fake(seed=0, **source):
  """The spec of 48 images of 6 x 6 of the source 'fake', with changes."""
  return {'name': 'fake', 'num': 48, 'shape': (6, 6, 1), 'seed': seed, **source}


def change(settings, **changes):
  """The settings with changes made in place; keys 'a__b' change what is nested."""
  for key, value in changes.items():
    *path, last = key.split('__')
    place = settings
    for part in path:
      place = place[part]
    place[last] = value
  return settings


def config_file(path):
  """get_config of a config file, whose path is given from configs/ on."""
  return module_of(ROOT / 'configs' / path).get_config


def module_of(path):
  """The module of a file that is not imported as one."""
  spec = importlib.util.spec_from_file_location('a_file', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def timm_weights(name):
  """Weights of a network as tests/golden/make_pretrained.py makes them: {name: array}.

  The names are timm's, and the shapes too.
  """
  with np.load(ROOT / 'tests' / 'golden' / 'pretrained.npz') as file:
    names, shapes = (file[f'{name}/{key}'].tolist() for key in ('names', 'shapes'))
  made = {key: tuple(map(int, text.split()))
          for key, text in zip(names, shapes, strict=True)}
  return module_of(ROOT / 'tests' / 'golden' / 'make_pretrained.py').weights_of(made)


def run_main(monkeypatch, *args):
  """The program in this process, with the arguments of its command line."""
  monkeypatch.setattr(sys, 'argv', ['main', *args])  # where ml_collections looks too
  flags.FLAGS.unparse_flags()
  # Overrides are flags that are defined when a command line names them.
  for name in [name for name in flags.FLAGS if name.startswith('config.')]:
    delattr(flags.FLAGS, name)
  for flag in commands.flags.all_flags():
    flag.unparse()
  flags.FLAGS['mode'].unparse()
  main.main(main.parse(sys.argv))


def records(workdir, kind='train'):
  """The records of one kind in metrics.jsonl."""
  lines = pathlib.Path(workdir, 'metrics.jsonl').read_text().splitlines()
  return [record for record in map(json.loads, lines) if record['kind'] == kind]


def evaluations(workdir):
  """Step -> figures of each set, of the evaluations in metrics.jsonl."""
  return {record['step']: record['evals'] for record in records(workdir, 'eval')}


def arrays(path):
  """The arrays of an .npz file by name."""
  with np.load(path) as found:
    return dict(found)


def assert_resumes(whole, cut, config, last, names=('eval.json',)):
  """A copy of a run without its last checkpoint ends with the same bits and files."""
  shutil.copytree(whole, cut)
  (cut / 'eval.json').unlink()
  shutil.rmtree(cut / 'checkpoints' / str(last))
  train.train(config, str(cut))
  for a, b in zip(final_state(whole), final_state(cut), strict=True):
    np.testing.assert_array_equal(a, b)
  for name in names:
    assert (whole / name).read_bytes() == (cut / name).read_bytes()


def before_update(monkeypatch, step, do):
  """Calls of one update; `do()` before update `step` is dispatched."""
  def make_feed(*args):
    step_fn, source, items = feed_made(*args)
    return step_fn, source, lambda at, k: (at == step and do(), items(at, k))[1]

  feed_made = feed.make_feed
  monkeypatch.setattr(feed, 'make_feed', make_feed)
  monkeypatch.setattr(
      feed, 'make_call_length', lambda config, ends, adapt: lambda step: 1)


def final_state(workdir, step=None):
  """The numpy leaves of the last checkpoint of a run, or of that of a step."""
  return leaves(runs.restore(str(workdir), step).state)


def leaves(state):
  """The numpy leaves of a state, its random key as numbers."""
  return [np.asarray(x) for x in jax.tree.leaves(checkpoint._without_keys(state))]


# The program as a process.


PROGRAM_CONFIG = """
from nat_jax.schema import presets

def source(seed, *classes):
  return {'name': 'fake', 'num': 64, 'shape': (6, 6, 1), 'seed': seed,
          'classes': classes}

def get_config(variant='nat'):
  if variant != 'nat':
    raise ValueError(f'unknown variant {variant!r}; valid: nat')
  return presets.experiment(
      name='toy', variant=variant, steps=STEPS, num_classes=3, ema_decay=0.9,
      model={'name': 'small_conv', 'widths': (4,)},
      data=dict(positives=source(0, 0, 1, 2),
                negatives={'three': {'source': source(0, 3)}},
                batch_size=8, negatives_per_batch=(2, 4)),
      evals={'test': {'source': source(1, 0, 1, 2), 'positive': True},
             'three': {'source': source(1, 3)}},
      run=dict(log_every=50, checkpoint_every=150, tensorboard=False))
"""


def write_config(folder, steps):
  """A config file toy.py of a run of so many steps."""
  (folder / 'toy.py').write_text(PROGRAM_CONFIG.replace('STEPS', str(steps)))


def environment(folder, **env):
  """An environment with one CPU device, and programs compiled once for all."""
  return os.environ | {
      'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1', 'PYTHONUNBUFFERED': '1',
      'JAX_COMPILATION_CACHE_DIR': str(folder / 'cache'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'} | env


def command(folder, workdir, *args):
  """The command that trains the config of `write_config`."""
  return [sys.executable, '-m', 'nat_jax.main', '--config', str(folder / 'toy.py'),
          '--workdir', str(folder / workdir), *args]


def wait_for(process, text):
  """Reads the output up to a line with `text`; returns it all."""
  lines = []
  for line in process.stdout:
    lines.append(line)
    if text in line:
      return ''.join(lines)
  raise AssertionError(f'no {text!r} in:\n{"".join(lines)}')


# Batches, networks and updates of trainers.


def make_batch(shape, n=16, seed=0, lowest=-1):
  """A batch of a classifier, labels from `lowest` to 2; slots 1, 2 and 7 are empty."""
  rng = np.random.default_rng(seed)
  weight = np.ones(n, np.float32)
  weight[[1, 2, 7]] = 0  # unequal over devices
  return {
      'image': rng.normal(size=(n, *shape)).astype(np.float32),
      'label': rng.integers(lowest, NUM_CLASSES, n).astype(np.int32), 'weight': weight}


def make_items(shape, steps, repeats=1, negatives=8, positives=16):
  """Batches of a GAN: positives, and negatives whose slots from 5 on are empty."""
  rng = np.random.default_rng(0)

  def batch(num, negative):
    label = rng.integers(0, NUM_CLASSES, (steps, num, repeats)).astype(np.int32)
    weight = np.ones((steps, num, repeats), np.float32)
    if negative:
      label, weight[:, 5:] = label * 0 - 1, 0  # unequal over devices
    image = rng.normal(size=(steps, num, repeats, *shape)).astype(np.float32)
    return {'image': image / 2, 'label': label, 'weight': weight}

  items = {'positive': batch(positives, False)}
  return items | ({'negative': batch(negatives, True)} if negatives else {})


def same(images, keys=None):
  """The images as they are, for an augmentation or a normalisation."""
  return images


def noisy(scale):
  """An augmentation that adds a random number to all pixels of an image."""
  return lambda images, keys: images + scale * jax.vmap(jax.random.normal)(keys)[
      :, None, None, None]


def step_settings(shape, **settings):
  """What every trainer takes, with images that are neither changed nor normalised."""
  return dict(num_classes=NUM_CLASSES, image_shape=shape, augment=same,
              normalise=same) | settings


def gan_nets(shape, num_outputs, generator=None, num_classes=0, norm='weight'):
  """A generator (of its spec) and a discriminator, two dense networks."""
  spec = generator or {'name': 'mlp_generator', 'latent': 4, 'widths': (8,)}
  return {
      'generator': registry.build(
          models.GENERATORS, spec, what='generator', image_shape=shape,
          num_classes=num_classes),
      'discriminator': models.MLPDiscriminator(
          image_shape=shape, num_outputs=num_outputs, widths=(8,), norm=norm)}


def gan_settings(shape, loss='nat_gan', generator=None, norm='weight', **settings):
  """What the trainer of GANs takes: dense networks, Adam and SGD.

  Biases in front of BatchNorm have no gradient but rounding errors, which Adam with a
  small eps would make into updates that differ with the number of devices.
  """
  objective = losses.make_gan_objective({'name': loss}, NUM_CLASSES)
  num_classes = NUM_CLASSES if settings.get('labels') == 'predefined' else 0
  return step_settings(
      shape, objective=objective, gen_tx=optax.adam(1e-2, b1=0.5, eps=1e-2),
      disc_tx=optax.sgd(0.1),
      **gan_nets(shape, objective.num_outputs, generator, num_classes, norm)) | settings


def run_on_devices(trainer, num_devices, mode, items, source=(), seed=1, **settings):
  """(state, metrics) after an update for each of the items, and the state before."""
  one, mesh = (parallel.make_mesh(jax.devices()[:n]) for n in (1, num_devices))
  state = parallel.init_state(trainer.init, jax.random.key(seed), one)
  before, state = jax.device_get(state.nets), parallel.replicate(state, mesh)
  step = parallel.wrap_step(trainer.step, mesh, mode=mode, **settings)
  frozen, source = (parallel.replicate(x, mesh) for x in (trainer.frozen(), source))
  return *step(state, frozen, source, items), before


def assert_trees_close(one, other, **tolerance):
  """Asserts that two trees of one structure have leaves that are close."""
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(a, b, **tolerance)


def assert_descended(before, after, gradient, rate, **tolerance):
  """Asserts that `after` is before - rate * gradient; numpy, which compiles nothing."""
  before, gradient = jax.device_get((before, gradient))
  expected = jax.tree.map(lambda p, g: p - rate * g, before, gradient)
  assert_trees_close(after, expected, **tolerance)


def assert_figures_close(one, other, **tolerance):
  """Asserts that two dicts have the same keys, and close numbers of each."""
  assert one.keys() == other.keys()
  for key in one:
    np.testing.assert_allclose(one[key], other[key], err_msg=key, **tolerance)
