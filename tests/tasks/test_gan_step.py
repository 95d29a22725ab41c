"""The GAN's step: parity over devices, what each setting changes, learning."""

import functools

import jax
import numpy as np
import pytest
import toy

from nat_jax import losses, models, runs, task
from nat_jax.runtime import parallel
from nat_jax.schema import presets
from nat_jax.tasks import gan
from nat_jax.tasks.gan import step as gan_step

NUM_CLASSES, SHAPE = toy.NUM_CLASSES, (4, 4, 1)


def make_trainer(loss='nat_gan', **settings):
  return gan.gan(**toy.gan_settings(SHAPE, loss, **{
      'ema_decay': 0.9, 'augment': toy.noisy(0.1), **settings}))


def run(name, num_devices, mode, scan=False):
  """(trainer, state, metrics) after three updates with the settings of that name."""
  trainer = make_trainer(**SETTINGS[name])
  items = toy.make_items(SHAPE, 3, SETTINGS[name].get('n_critic', 1))
  if not scan:
    return trainer, *toy.run_on_devices(trainer, num_devices, mode, items)[:2]
  # As on GPUs and TPUs: the pixels lie on the device, only indices travel.
  index = {name: np.arange(one['label'].size).reshape(one['label'].shape)
           for name, one in items.items()}
  pool = {name: jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), one)
          for name, one in items.items()}
  return trainer, *toy.run_on_devices(
      trainer, num_devices, mode, index, pool, scan=True,
      fetch=lambda pool, index: {
          name: jax.tree.map(lambda x: x[rows], pool[name])  # noqa: B023
          for name, rows in index.items()})[:2]


def conditional(num_classes, norm='none'):
  return models.MLPDiscriminator(
      image_shape=SHAPE, num_outputs=1, widths=(8,), norm=norm, projection=num_classes)


SETTINGS = {
    'nat': dict(),
    'apart': dict(joint=False, negative_weight=0.5, negatives_every=2, n_critic=2,
                  loss='ac_gan', labels='predefined'),
    'projection': dict(
        loss='hinge', labels='predefined', discriminator=conditional(3, 'spectral'),
        penalties=[losses.PENALTIES['r1'](0.1)], generator={
            'name': 'mlp_generator', 'latent': 4, 'widths': (8,), 'norm': 'spectral',
            'batch_norm': 'class'}),
}


@functools.cache
def on_one_device(name):
  return run(name, 1, 'jit')


@pytest.mark.parametrize('name, num_devices, mode, scan', [
    ('nat', 8, 'jit', False),
    *(pytest.param(name, 8, 'pmap', name == 'nat', marks=pytest.mark.slow)
      for name in ('nat', 'projection', 'apart'))])
def test_devices_agree(name, num_devices, mode, scan):
  _, expected, expected_metrics = on_one_device(name)
  trainer, state, metrics = run(name, num_devices, mode, scan)
  assert int(state.step) == 3
  toy.assert_trees_close(
      (expected.nets, expected.ema), (state.nets, state.ema), atol=5e-5)
  toy.assert_figures_close(
      trainer.figures(expected_metrics), trainer.figures(metrics), atol=1e-4)


def changed(one, other):
  """Which networks differ after two runs."""
  return {part for part in ('gen', 'disc') if any(
      np.abs(a - b).max() > 1e-7 for a, b in zip(
          *(jax.tree.leaves(jax.device_get(state.nets[part].params))
            for state in (one, other)), strict=True))}


QUIET = models.MLPDiscriminator(
    image_shape=SHAPE, num_outputs=NUM_CLASSES, widths=(8,), norm='weight', noise=0.0,
    dropout=0.0)
APART = dict(negative_weight=0.3, negatives_every=2)


@functools.cache
def compiled(**settings):
  """(trainer, first state, step): compiled once for all tests of the same settings.

  Nothing is random but what is generated, which takes half the time to compile.
  """
  trainer = make_trainer(**{'discriminator': QUIET, 'augment': toy.same, **settings})
  return trainer, jax.jit(trainer.init)(jax.random.key(1)), jax.jit(trainer.step)


def after_one_step(items, **settings):
  _, state, step = compiled(**settings)
  return step(state, {}, jax.tree.map(lambda x: x[0], items))


def test_discriminator_of_several_updates_learns_to_the_end():
  """Its schedule goes by steps, though its optimiser counts n_critic updates each."""
  config = runs.resolve(presets.experiment(
      steps=6, num_classes=3, task='gan', trainer={'name': 'gan', 'n_critic': 2},
      generator={'name': 'mlp_generator', 'latent': 2, 'widths': [4]},
      discriminator={'name': 'mlp_discriminator', 'widths': [4], 'noise': 0.0,
                     'dropout': 0.0},
      optimizer={'name': 'adam'},
      schedule={'name': 'linear', 'learning_rate': 0.01}))
  trainer = runs.build_trainer(config, (2, 2, 1))
  assert float(trainer.learning_rate(6)) == 0 < float(trainer.learning_rate(5))
  batch = {'positive': {
      'image': np.zeros((4, 2, 2, 2, 1), np.uint8),
      'label': np.zeros((4, 2), np.int32), 'weight': np.ones((4, 2), np.float32)}}
  state, step = jax.jit(trainer.init)(jax.random.key(0)), jax.jit(trainer.step)
  for _ in range(6):
    before = state
    state, _ = step(state, {}, batch)
  assert changed(before, state) == {'gen', 'disc'}


def test_negatives_teach_the_discriminator_and_empty_slots_nothing():
  items = toy.make_items(SHAPE, 1)
  with_negatives, metrics = after_one_step(items)
  without, other = after_one_step({'positive': items['positive']})
  assert changed(with_negatives, without) == {'gen', 'disc'}
  figures = trainers_figures(metrics)
  assert figures['loss_negative'] > 0
  assert np.isnan(trainers_figures(other)['loss_negative'])
  # One mean over 16 samples and 5 negatives.
  np.testing.assert_allclose(
      figures['loss_disc'], figures['loss_real']
      + (16 * figures['loss_fake'] + 5 * figures['loss_negative']) / 21, rtol=1e-5)
  items['negative']['image'][:, 5:] = 7.0
  again, _ = after_one_step(items)
  assert changed(with_negatives, again) == set()


def trainers_figures(metrics):
  return make_trainer().figures(metrics)


def test_weight_of_the_negatives_is_beside_the_mean():
  _, metrics = after_one_step(toy.make_items(SHAPE, 1), **APART)
  figures = trainers_figures(metrics)
  np.testing.assert_allclose(
      figures['loss_disc'],
      figures['loss_real'] + figures['loss_fake'] + 0.3 * figures['loss_negative'],
      rtol=1e-5)


def test_negatives_every_other_step_only():
  items = toy.make_items(SHAPE, 1)
  trainer, state, step = compiled(**APART)
  state = state.replace(step=np.int32(1))
  batch = jax.tree.map(lambda x: x[0], items)
  one, metrics = step(state, {}, batch)
  assert np.isnan(trainer.figures(metrics)['loss_negative'])
  batch['negative']['image'] = batch['negative']['image'] + 1
  other, _ = step(state, {}, batch)
  assert changed(one, other) == set()


def test_order_of_the_two_updates():
  items = toy.make_items(SHAPE, 1)
  one, _ = after_one_step(items)
  other, _ = after_one_step(items, simultaneous=True)
  assert changed(one, other) == {'gen'}


def test_two_updates_of_the_discriminator_take_two_batches():
  items = toy.make_items(SHAPE, 1, repeats=2)
  one, metrics = after_one_step(items, n_critic=2)
  assert make_trainer(n_critic=2).figures(metrics)['images'] == 32
  items['positive']['image'][:, :, 1] *= 2
  other, _ = after_one_step(items, n_critic=2)
  assert 'disc' in changed(one, other)


def test_projection_reads_the_labels_of_real_images_and_spectral_norm_keeps_its_u():
  items = toy.make_items(SHAPE, 1)
  trainer = make_trainer(**SETTINGS['projection'])
  state, step = jax.jit(trainer.init)(jax.random.key(1)), jax.jit(trainer.step)
  batch = jax.tree.map(lambda x: x[0], items)
  one, _ = step(state, {}, batch)
  before, after = jax.device_get((state.nets, one.nets))
  moved = {name: [np.abs(a - b).max() for a, b in zip(
      jax.tree.leaves(before[name].batch_stats),
      jax.tree.leaves(after[name].batch_stats), strict=True)]
           for name in ('gen', 'disc')}
  assert min(min(x) for x in moved.values()) > 1e-6, moved
  batch['positive']['label'] = (batch['positive']['label'] + 1) % 3
  other, _ = step(state, {}, batch)
  assert changed(one, other) == {'gen', 'disc'}
  # What is generated depends on the class that is asked for.
  noise = {'z': np.ones((3, 4), np.float32), 'label': np.arange(3)}
  bias = np.asarray(one.nets['gen'].params['ClassBatchNorm_0']['bias'])
  assert np.abs(np.diff(bias, axis=0)).max() > 0
  assert jax.jit(trainer.heads['samples'])(one, noise).shape == (3, *SHAPE)


def test_moving_average_and_samples():
  trainer, state, _ = compiled()
  after, _ = after_one_step(toy.make_items(SHAPE, 1))
  jax.tree.map(
      lambda a, b, c: np.testing.assert_allclose(0.5 * a + 0.5 * b, c, atol=1e-6),
      *jax.device_get((
          state.nets['gen'].params, after.nets['gen'].params, after.ema['gen'])))
  noise = {'z': np.ones((4, 4), np.float32), 'label': np.zeros(4, np.int32)}
  images = np.asarray(jax.jit(trainer.heads['samples'])(after, noise))
  assert images.shape == (4, *SHAPE) and np.abs(images).max() <= 1
  plain = make_trainer(ema_decay=0.0)
  assert jax.eval_shape(plain.init, jax.random.key(1)).ema == {}
  logits = jax.jit(trainer.heads['logits'])(after, np.zeros((2, *SHAPE), np.float32))
  assert logits.shape == (2, NUM_CLASSES)
  assert 'logits' not in make_trainer('hinge').heads


@pytest.mark.parametrize('step, decay', [
    (0, 0.5), (7, 0.5), (90, 0.91), (10_000, 0.99)])
def test_the_moving_average_begins_with_a_lower_decay(step, decay):
  net = task.Net({'w': np.float32(3)}, {}, ())
  found = gan_step.average(0.99, {'gen': {'w': np.float32(1)}}, net, np.int32(step))
  assert float(found['gen']['w']) == pytest.approx(3 - 2 * decay, rel=1e-5)


def test_collapse_is_told():
  trainer, state, step = compiled()
  batch = jax.tree.map(lambda x: x[0], toy.make_items(SHAPE, 1))
  gen = state.nets['gen']
  gen = gen.replace(params=jax.tree.map(
      lambda x: np.zeros(x.shape, x.dtype), gen.params))
  still = state.replace(nets=state.nets | {'gen': gen})
  for given, collapsed in ((state, False), (still, True)):
    _, metrics = step(given, {}, batch)
    assert ('COLLAPSED' in trainer.line(trainer.figures(metrics))) == collapsed


@pytest.mark.parametrize('settings, message', [
    (dict(labels='random'), "trainer.labels.*'random'.*dynamic, predefined"),
    (dict(n_critic=0), r'trainer.n_critic.*\b1\b.*\b0\b'),
    (dict(n_critic=2, simultaneous=True), r'trainer.simultaneous.*n_critic.*\b1\b'),
    (dict(loss='hinge', labels='predefined'),
     "trainer.labels='predefined'.*loss.*hinge.*discriminator.projection"),
    (dict(loss='hinge', discriminator=conditional(3)),
     "discriminator.projection.*trainer.labels='predefined'.*'dynamic'"),
    (dict(loss='am_gan', labels='predefined', discriminator=conditional(3)),
     'discriminator.projection.*without class logits'),
    (dict(loss='mmd', labels='predefined', discriminator=conditional(3)),
     r'discriminator.projection.*one output.*\b16\b'),
    (dict(loss='relativistic', micro_batches=2), r'micro_batches=2.*whole batch'),
    (dict(loss='hinge', labels='predefined', discriminator=conditional(5)),
     r'discriminator.projection.*\b3\b.*\b5\b'),
    *((dict(loss='wgan', discriminator=models.MLPDiscriminator(
        image_shape=SHAPE, num_outputs=1, norm=norm, batch_norm=batch_norm)),
       "'wgan'.*gradient.*discriminator.norm='spectral' and discr.*batch_norm=False")
      for norm, batch_norm in (('weight', False), ('spectral', True))),
    *((dict(loss='gan', penalties=[losses.PENALTIES['r1']()],
            discriminator=models.MLPDiscriminator(
                image_shape=SHAPE, num_outputs=1, **{key: value})),
       f'penalties.*mixes.*set discriminator.{key}=(False|0), or penalties')
      for key, value in (('batch_norm', True), ('kernels', 2))),
    (dict(loss='mmd', penalties=[losses.PENALTIES['gradient']()]),
     r"penalties.*gan, am_gan or nat_gan.*mmd.*penalties=\[\]"),
])
def test_settings_that_do_not_fit(settings, message):
  with pytest.raises(ValueError, match=message):
    make_trainer(**settings)


def test_a_penalty_is_of_the_score_that_the_objective_names():
  """Of a score that is constant it is 0, whatever the outputs are."""
  items = toy.make_items(SHAPE, 1)
  penalties = (losses.PENALTIES['r1'](100.0),)
  plain = losses.make_gan_objective({'name': 'nat_gan'}, NUM_CLASSES)
  found = [after_one_step(items, **settings)[0] for settings in (
      {}, dict(penalties=penalties),
      dict(penalties=penalties, objective=plain._replace(
          score=lambda outputs: 0 * outputs[:, 0])))]
  assert changed(found[0], found[1]) == {'gen', 'disc'}
  assert not changed(found[0], found[2])


def test_it_learns_where_the_images_are():
  """Real images are bright: after some steps so are the samples."""
  trainer = make_trainer(
      'gan', ema_decay=0.0, augment=toy.same,
      discriminator=QUIET.clone(num_outputs=1))
  mesh = parallel.make_mesh(jax.devices()[:1])
  state = parallel.init_state(trainer.init, jax.random.key(0), mesh)
  step = parallel.wrap_step(trainer.step, mesh, scan=True)
  items = toy.make_items(SHAPE, 300, negatives=0)
  items['positive']['image'] = 0.1 * items['positive']['image'] + np.float32(0.7)
  noise = {'z': np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32),
           'label': np.zeros(16, np.int32)}
  samples = jax.jit(trainer.heads['samples'])
  before = np.asarray(samples(state, noise)).mean()
  state, _ = step(state, {}, (), items)
  after = np.asarray(samples(state, noise)).mean()
  assert abs(before) < 0.3 and after > 0.5
