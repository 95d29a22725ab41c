"""Batches in parts: the update of the whole batch, the memory of a part, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from nat_jax import data, losses, models, runs
from nat_jax.runtime import parallel
from nat_jax.schema import presets
from nat_jax.task import GLOBAL
from nat_jax.tasks import classify, gan, updates
from nat_jax.tasks.classify import treatments
from nat_jax.tasks.classify.attention_transfer import Metrics

NUM_CLASSES, SHAPE, NUM = toy.NUM_CLASSES, (8, 8, 1), 4


@functools.cache
def parts_of(n, num=NUM):
  """Which micro-batch each of n examples is in."""
  def number(part, examples):
    return part + 1, jnp.full(len(examples), part)

  return np.asarray(jax.jit(
      lambda: updates.in_parts(number, 0, jnp.arange(n), num, GLOBAL)[1])())


def test_each_part_has_its_share_of_positives_and_negatives():
  """144 slots, every ninth a negative: a stride of 3 would put all in one part."""
  for num in (2, 3, 4, 6):
    parts = parts_of(144, num)
    assert (np.sort(parts.reshape(-1, num), axis=1) == np.arange(num)).all()
    counts = np.bincount(parts[4::9], minlength=num)
    assert counts.min() >= 1 and counts.max() <= 2 * 16 / num
  np.testing.assert_array_equal(parts_of(144)[:64], parts_of(64))  # empty slots added
  assert (parts_of(144)[:36] != parts_of(144)[36:72]).any()


def test_results_are_in_the_order_of_the_examples():
  x = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
  total, doubled = jax.jit(lambda x: updates.in_parts(
      lambda total, x: (total + x.sum(), 2 * x), 0.0, x, 3, GLOBAL))(x)
  np.testing.assert_array_equal(doubled, 2 * x)
  np.testing.assert_allclose(total, x.sum(), rtol=1e-5)


# Equality with the whole batch, of networks without BatchNorm.


def pixels(frozen, batch, aux):
  """An extra loss that differs between examples."""
  return jnp.square(aux['features']).mean(-1) + batch['image'].mean((1, 2, 3))


CLASSIFIERS = {
    'nat': dict(objective=losses.nat(NUM_CLASSES)),
    'mix': dict(
        objective=losses.outlier_exposure(NUM_CLASSES, 0.7), treat=treatments.mix()),
    'mine': dict(objective=losses.nat(NUM_CLASSES), treat=treatments.mine(0.4),
                 extra_loss=pixels, metrics=Metrics),
}


def make_classifier(name, num):
  return classify.supervised(**toy.step_settings(SHAPE, **{
      'model': models.MLP(NUM_CLASSES, width=16), 'tx': optax.sgd(0.1, momentum=0.9),
      'augment': toy.noisy(1.0), 'ema_decay': 0.9, 'micro_batches': num,
      **CLASSIFIERS[name]}))


POINT = (6,)
GANS = {
    'joint': dict(loss='nat_gan'),
    'apart': dict(loss='ac_gan', labels='predefined', joint=False, n_critic=2,
                  negative_weight=0.5, negatives_every=2,
                  penalties=[losses.PENALTIES['gradient'](2.0),
                             losses.PENALTIES['r1'](1.0)]),
    'spectral': dict(loss='hinge', generator=models.MLPGenerator(
        latent=4, image_shape=POINT, widths=(8,), norm='spectral', batch_norm='none')),
}


def make_gan(name, num):
  settings = dict(GANS[name])
  objective = losses.make_gan_objective({'name': settings.pop('loss')}, NUM_CLASSES)
  return gan.gan(**toy.step_settings(POINT, **{
      'objective': objective, 'gen_tx': optax.sgd(0.1), 'disc_tx': optax.sgd(0.1),
      'generator': models.ToyGenerator(
          4, POINT, NUM_CLASSES if 'labels' in settings else 0),
      'discriminator': models.MLPDiscriminator(
          POINT, objective.num_outputs, (8,), norm='spectral'),
      'ema_decay': 0.9, 'micro_batches': num, **settings}))


@functools.cache
def run(kind, name, num, num_devices, mode):
  """(trainer, state, metrics) after two updates."""
  if kind == 'classifier':
    trainer, batch = make_classifier(name, num), toy.make_batch(SHAPE, 128)
    items = jax.tree.map(lambda x: x.reshape(2, 64, *x.shape[1:]), batch)
  else:
    trainer = make_gan(name, num)
    items = toy.make_items(
        POINT, 2, GANS[name].get('n_critic', 1), negatives=32, positives=64)
  return trainer, *toy.run_on_devices(trainer, num_devices, mode, items)[:2]


@pytest.mark.parametrize('kind, name, num, num_devices, mode', [
    ('classifier', 'nat', NUM, 1, 'jit'),
    *(pytest.param(*some, marks=pytest.mark.slow) for some in (
        ('classifier', 'mix', NUM, 8, 'pmap'), ('classifier', 'mine', NUM, 8, 'jit'),
        ('gan', 'joint', NUM, 8, 'pmap'), ('gan', 'apart', 2, 1, 'jit'),
        ('gan', 'spectral', NUM, 1, 'jit'),
        ('gan', 'apart', NUM, 8, 'jit')))])
def test_updates_are_those_of_the_whole_batch(kind, name, num, num_devices, mode):
  trainer, expected, expected_metrics = run(kind, name, 1, 1, 'jit')
  _, state, metrics = run(kind, name, num, num_devices, mode)
  toy.assert_trees_close(
      (expected.nets, expected.ema), (state.nets, state.ema), atol=3e-6)
  toy.assert_figures_close(
      trainer.figures(expected_metrics), trainer.figures(metrics), rtol=2e-4, atol=1e-5)


# BatchNorm.


def make_small(num, **settings):
  return classify.supervised(**toy.step_settings(SHAPE, **{
      'model': models.SmallConv(NUM_CLASSES, widths=(4, 8)), 'tx': optax.sgd(0.5),
      'objective': losses.outlier_exposure(NUM_CLASSES), 'micro_batches': num,
      **settings}))


@pytest.mark.parametrize('num_devices, mode', [
    (1, 'jit'), pytest.param(8, 'pmap', marks=pytest.mark.slow)])
def test_parts_have_statistics_of_their_own(num_devices, mode):
  """Against a loop over the parts: sums of gradients, running statistics in turn."""
  batch = toy.make_batch(SHAPE, 64)
  items = jax.tree.map(lambda x: x[None], batch)
  state, metrics, before = toy.run_on_devices(
      make_small(NUM), num_devices, mode, items)
  model, net = models.SmallConv(NUM_CLASSES, widths=(4, 8)), before['model']
  filled = batch['weight'] > 0
  counts = [(filled & (batch['label'] < 0)).sum(),
            (filled & (batch['label'] >= 0)).sum()]

  @jax.jit
  def one(params, stats, batch):
    def loss(params):
      (logits, _), changed = model.apply(
          {'params': params, 'batch_stats': stats}, batch['image'], train=True,
          mask=batch['weight'], mutable=['batch_stats'])
      log_p = jax.nn.log_softmax(logits)
      own = -log_p[jnp.arange(len(logits)), batch['label']] / counts[1]
      uniform = -0.5 * (log_p.mean(-1) + np.log(NUM_CLASSES)) / counts[0]
      terms = batch['weight'] * jnp.where(batch['label'] >= 0, own, uniform)
      return terms.sum(), changed['batch_stats']
    return jax.value_and_grad(loss, has_aux=True)(params)

  stats, loss, parts = net.batch_stats, 0.0, parts_of(64)
  params = net.params
  for part in range(NUM):
    some = jax.tree.map(lambda x: x[parts == part], batch)  # noqa: B023
    (more, stats), grads = jax.device_get(one(net.params, stats, some))
    loss += more
    params = jax.tree.map(lambda p, g: p - 0.5 * g, params, grads)
  after = state.nets['model']
  toy.assert_trees_close((after.params, after.batch_stats), (params, stats), atol=3e-6)
  np.testing.assert_allclose(metrics.compute()['loss'], loss, rtol=1e-5)


@pytest.mark.parametrize(
    'num_devices', [1, pytest.param(8, marks=pytest.mark.slow)])
def test_only_the_activations_of_a_part_take_memory(num_devices):
  shape = (32, 32, 3)
  mesh = parallel.make_mesh(jax.devices()[:num_devices])
  batch = toy.make_batch(shape, 256)

  def temporary(num):
    trainer = make_small(
        num, image_shape=shape, model=models.SmallConv(NUM_CLASSES, widths=(32,)))
    step = jax.jit(trainer.step)
    state = parallel.abstract_state(trainer.init, mesh)
    parts = jax.tree.map(lambda x: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=jax.sharding.NamedSharding(
            mesh, jax.sharding.PartitionSpec('data'))), batch)
    compiled = step.lower(state, {}, parts).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporary(4) < 0.5 * temporary(1)


# Configs.


FAKE = {'name': 'fake', 'num': 64, 'shape': (6, 6, 1), 'num_classes': NUM_CLASSES}
GAN = dict(generator={'name': 'mlp_generator', 'latent': 4, 'widths': (4,)},
           discriminator={'name': 'mlp_discriminator', 'widths': (4,)})


def make_config(data=(), **settings):
  return presets.experiment(
      num_classes=NUM_CLASSES, **settings, data=dict(
          positives=FAKE, batch_size=16, micro_batches=4,
          negatives={'one': {'source': FAKE}}, negatives_per_batch=5) | dict(data))


@pytest.mark.parametrize('settings', [{}, {'task': 'gan', **GAN}])
def test_a_config_splits_its_batches(settings, monkeypatch):
  """Positives in equal parts, and all slots, filled up by empty ones."""
  config = runs.resolve(make_config(**settings))
  task, seen = runs.TASKS[config['task']], []
  inputs = task.load(config, 2)
  index = inputs.stream.index(0)
  for rows in jax.tree.leaves(index):
    assert len(rows) % 8 == 0
  assert sum((rows >= 0).sum() for rows in jax.tree.leaves(index)) == 16 + 5
  monkeypatch.setattr(updates, 'in_parts', lambda fn, carry, examples, num, axis: (
      seen.append(num), fn(carry, examples))[1])
  trainer = runs.build_trainer(config, inputs.shape)
  jax.eval_shape(
      lambda key, batch: trainer.step(trainer.init(key), {}, batch),
      jax.random.key(0), data.gather(inputs.pool, index))
  assert set(seen) == {4}
  with pytest.raises(ValueError, match=(
      r'data.batch_size 16\b.*data.micro_batches=4\b.*\b3 devices.*multiple of 12\b')):
    task.load(config, 3)


@pytest.mark.parametrize('settings, message', [
    (dict(loss={'name': 'cat_gan'}), "micro_batches=4.*loss 'cat_gan'.*whole batch"),
    (dict(discriminator={'name': 'mlp_discriminator', 'kernels': 2}),
     "micro_batches=4.*discriminator 'mlp_discriminator'.*whole batch"),
    (dict(loss={'name': 'cat_gan_springenberg'}), "loss 'cat_gan_springenberg'"),
    (dict(loss={'name': 'nat_gan', 'marginal': 0.5}), "loss 'nat_gan'"),
    (dict(loss={'name': 'mmd'}), "loss 'mmd'"),
    (dict(loss={'name': 'feature_matching'}), "loss 'feature_matching'"),
    (dict(generator={'name': 'stacked', 'num': 2, 'latent': 4,
                     'generator': {'name': 'mlp_generator'}}), "generator 'stacked'"),
    (dict(data={'micro_batches': 0}), 'data.micro_batches.*whole number.*got 0'),
])
def test_what_cannot_be_split_is_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    runs.resolve(make_config(task='gan', **GAN | settings))
  if 'data' not in settings:
    runs.resolve(make_config(
        task='gan', **GAN | settings, data={'micro_batches': 1}))


def test_losses_of_means_over_the_batch_have_no_parts():
  with pytest.raises(ValueError, match="data.*'micro_batches'"):
    make_config(task='gaan', trainer={'name': 'gaan'}, **GAN)
