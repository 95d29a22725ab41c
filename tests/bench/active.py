"""Do images on which a classifier is unsure teach it? The tables of docs/active_gan.md.

    python tests/bench/active.py                         # five seeds
    python tests/bench/active.py --variants plain,active --seeds 0,1 --steps 500

GANs of configs/gan/active.py, which learn from 5 digits of each class; a seed chooses
them. First table: the samples of each variant. Entropy of the GAN's own classifier, and
of a fresh one that learned from the labelled digits alone, in nats; label fidelity, the
share of samples that a classifier of all training digits (configs/gan/classifier.py)
assigns to the class that the generator was given.

Second table: fresh classifiers, networks of one size and number of updates, of which
each batch holds the labelled digits and as many samples, which have

  label        the class that the generator was given
  uniform      the uniform target: they are negatives (NAT)
  none         no weight: the labelled digits alone
  label, half  their class, and are the half that the GAN's classifier is less sure of

Error on the test digits in per cent and its difference from that of the labelled digits
alone, PAR .8 (share of test digits with a maximum probability above .8), and NCR .8
(the same share of negatives) on kinds that no network was trained on. Each number is a
mean over seeds, ± the sample standard deviation. Runs of all seeds, and then all
classifiers, are trained side by side by a `vmap` of the trainer's step.
"""

import argparse
import contextlib
import functools
import io
import os
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from negatives import load
from scipy import special
from semi_supervised import cell, stack, table
from steps import machine

from nat_jax import data, registry, runs, train
from nat_jax.runtime import parallel
from nat_jax.schema import presets
from nat_jax.tasks import classify, gan
from nat_jax.tasks.gan import features

CHUNK = 100  # updates per call of the compiled program
UNSEEN = ('class_halves', 'patch_shuffle', 'photographs', 'blobs')
NUM_CLASSES, SHAPE = 10, (8, 8, 1)
TARGETS = ('label', 'uniform')


def advance(trainer, states, steps, batch_of):
  """`steps` updates of r stacked states; batch_of(step) -> stacked batches [r, ...]."""
  @jax.jit
  def chunk(states, batches):
    def one(states, batch):
      return jax.vmap(
          lambda state, batch: trainer.step(state, {}, batch)[0])(states, batch), ()

    return jax.lax.scan(one, states, batches)[0]

  for start in range(0, steps, CHUNK):
    states = chunk(states, stack(
        [batch_of(step) for step in range(start, min(start + CHUNK, steps))]))
  return states


def train_gans(configs):
  """(trainer, stacked states, the labelled digits of each run)."""
  loaded = [gan.TASK.load(config) for config in configs]
  trainer = gan.TASK.build(configs[0], SHAPE, None)
  keys = jnp.stack([jax.random.key(config['seed']) for config in configs])
  gather = jax.jit(data.gather)

  def batch_of(step):
    return stack([gather(one.pool, one.stream.index(step)) for one in loaded])

  states = advance(
      trainer, jax.jit(jax.vmap(trainer.init))(keys), configs[0]['steps'], batch_of)
  return trainer, states, [one.positives for one in loaded]


def samples_of(config, trainer, states, num):
  """(uint8 images [r, num, ...], classes [num], C's probabilities [r, num, K])."""
  size, settings = config['measures']['batch_size'], config['data']
  z = np.random.default_rng(0).standard_normal(
      (num, config['generator']['latent']), np.float32)
  label = np.arange(num, dtype=np.int32) % NUM_CLASSES
  draw, judge = (jax.jit(jax.vmap(trainer.heads[name], (0, axis)))
                 for name, axis in (('samples', None), ('classifier', 0)))
  made = np.concatenate([
      np.asarray(draw(states, {'z': z[rows], 'label': label[rows]}))
      for rows in (slice(start, start + size) for start in range(0, num, size))], 1)
  images = np.stack([data.quantise(
      one, settings['mean'], settings['std']) for one in made])
  return images, label, probabilities(judge(states, images))


def probabilities(logits):
  return special.softmax(np.asarray(logits, np.float64), axis=-1)


def classifiers(pools, steps):
  """The head 'logits' of fresh classifiers, stacked as the pools are, and its states.

  Args:
    pools: (labelled digits, sample images, sample labels, sample weight) of each.
    steps: number of updates.
  """
  config = presets.experiment(
      num_classes=NUM_CLASSES, steps=steps, loss={'name': 'nat'},
      model={'name': 'mlp', 'width': 128, 'depth': 2}, optimizer={'name': 'adam'},
      schedule={'name': 'constant', 'learning_rate': 1e-3},
      data=dict(positives={'name': 'digits'}, **presets.NORMALISATION['digits']),
      evals={'test': {'source': {'name': 'digits'}, 'positive': True}}).to_dict()
  trainer = classify.TASK.build(config, SHAPE, None)
  keys = jnp.stack([jax.random.key(i) for i, _ in enumerate(pools)])

  def batch_of(step):
    found = []
    for i, (real, image, label, weight) in enumerate(pools):
      n = len(real.label)
      rows = np.random.default_rng((i, step)).integers(len(label), size=n)
      found.append({
          'image': np.concatenate([real.image, image[rows]]),
          'label': np.concatenate([real.label, label[rows]]),
          'weight': np.repeat(np.array([1, weight], np.float32), n)})
    return stack(found)

  states = advance(trainer, jax.jit(jax.vmap(trainer.init))(keys), steps, batch_of)
  return jax.jit(jax.vmap(trainer.heads['logits'], (0, None))), states


def all_data_classifier(folder):
  """images [n, ...] -> classes, by configs/gan/classifier.py:digits10."""
  config = load('gan/classifier', 'digits10')
  config['run'] |= {'tensorboard': False}
  workdir = os.path.join(folder, 'classifier')
  with contextlib.redirect_stdout(io.StringIO()):
    accuracy = train.train(config, workdir)['evals']['test']['accuracy']
  print(f'classifier of all training digits: accuracy {accuracy:.3f}', flush=True)
  found = registry.build(
      features.FEATURES, {'name': 'checkpoint', 'workdir': workdir},
      mesh=parallel.make_mesh(), image_shape=SHAPE, others=runs.OTHERS)
  return lambda images: found.apply(images)['probs'].argmax(-1)


def entropy(probs):
  return special.entr(probs).sum(-1)


def pools_of(variant, reals, images, label, probs):
  """{row: (pool of each seed)} of the samples of a variant."""
  rows = {f'{variant}, {target}': [
      (real, image, label if target == 'label' else np.full_like(label, -1), 1.0)
      for real, image in zip(reals, images, strict=True)] for target in TARGETS}
  unsure = [np.argsort(-entropy(one))[:len(label) // 2] for one in probs]
  return rows | {f'{variant}, label, half': [
      (real, image[some], label[some], 1.0)
      for real, image, some in zip(reals, images, unsure, strict=True)]}


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--seeds', default='0,1,2,3,4')
  parser.add_argument(
      '--variants', default='plain,active,strong,excessive,learned,acgan,acgan_plain')
  parser.add_argument('--given', default='plain,active,strong,excessive,acgan_plain',
                      help='variants whose samples are given to classifiers')
  parser.add_argument('--reward', type=float, help="in place of each variant's own")
  parser.add_argument('--samples', type=int, default=1000, help='of each GAN')
  parser.add_argument('--steps', type=int, default=0, help='of the GANs')
  parser.add_argument('--updates', type=int, default=1000, help='of the classifiers')
  args = parser.parse_args()
  seeds = [int(x) for x in args.seeds.split(',')]
  print(f'{machine()}; {len(seeds)} seeds', flush=True)
  with tempfile.TemporaryDirectory() as folder:
    true_class = all_data_classifier(folder)
  pools, made = {}, {}
  for variant in args.variants.split(','):
    before, configs = time.perf_counter(), []
    for seed in seeds:
      config = load('gan/active', variant) | {'seed': seed}
      config['data']['positives']['seed'] = seed
      if args.reward is not None:
        config['trainer']['reward'] = args.reward
      configs.append(config | ({'steps': args.steps} if args.steps else {}))
    trainer, states, reals = train_gans(configs)
    images, label, probs = samples_of(configs[0], trainer, states, args.samples)
    made[variant] = images, probs, [
        float((true_class(one) == label).mean()) for one in images]
    if variant in args.given.split(','):
      pools |= pools_of(variant, reals, images, label, probs)
    print(f'{variant}: {len(seeds)} GANs in {time.perf_counter() - before:.0f} s',
          flush=True)
  first = next(iter(pools.values()))
  pools = {'labelled digits alone': [(*one[:3], 0.0) for one in first], **pools}
  head, states = classifiers(sum(pools.values(), []), args.updates)

  def outputs(images):
    """Row -> probabilities [seeds, n, K]."""
    found = probabilities(head(states, images))
    return dict(zip(pools, found.reshape(
        len(pools), len(seeds), *found.shape[1:]), strict=True))

  fresh = {}
  for variant, (images, _, _) in made.items():
    fresh[variant] = [outputs(one)['labelled digits alone'][i]
                      for i, one in enumerate(images)]
  table('samples', {variant: {
      'entropy, own classifier': cell([entropy(one).mean() for one in probs], 3),
      'entropy, fresh': cell([entropy(one).mean() for one in fresh[variant]], 3),
      'label fidelity': cell(right, 3)}
      for variant, (_, probs, right) in made.items()})

  test = data.digits('test')
  kinds = {kind: outputs(data.load({'name': kind, 'num': 1000}, like=test).image)
           for kind in UNSEEN}
  tested = outputs(test.image)
  errors = {row: 100 * (probs.argmax(-1) != test.label).mean(-1)
            for row, probs in tested.items()}
  share = functools.partial(np.mean, axis=-1)
  table('trained on', {row: {
      'error, %': cell(errors[row], 1),
      'difference': cell(errors[row] - errors['labelled digits alone'], 1),
      'PAR .8': cell(share(tested[row].max(-1) > 0.8), 3),
      **{f'NCR .8, {kind}': cell(share(found[row].max(-1) > 0.8), 3)
         for kind, found in kinds.items()}} for row in pools})


if __name__ == '__main__':
  main()
