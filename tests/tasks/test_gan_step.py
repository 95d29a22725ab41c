"""The GAN's step: parity over devices, what each setting changes, learning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nat_jax import losses, models, runs
from nat_jax.runtime import parallel
from nat_jax.schema import presets
from nat_jax.tasks import gan

pytestmark = pytest.mark.usefixtures('quick_compilation')

NUM_CLASSES = 3
SHAPE = (8, 8, 1)


def make_trainer(loss='nat_gan', *, ema_decay=0.9, norm='weight', **kwargs):
  # Biases in front of BatchNorm have no gradient but rounding errors, which Adam with a
  # small eps would make into steps that differ with the number of devices.
  objective = losses.make_gan_objective({'name': loss}, NUM_CLASSES)
  predefined = kwargs.get('labels') == 'predefined'
  return gan.gan(
      generator=models.MLPGenerator(
          latent=4, image_shape=SHAPE, widths=(8,),
          num_classes=NUM_CLASSES if predefined else 0),
      discriminator=models.MLPDiscriminator(
          image_shape=SHAPE, num_outputs=objective.num_outputs, widths=(8, 8),
          norm=norm),
      objective=objective, gen_tx=optax.adam(1e-2, b1=0.5, eps=1e-2),
      disc_tx=optax.sgd(0.1),
      num_classes=NUM_CLASSES, image_shape=SHAPE, ema_decay=ema_decay,
      augment=lambda images, keys: images + 0.1 * jax.vmap(jax.random.normal)(keys)[
          :, None, None, None],
      normalise=lambda images: images, **kwargs)


def make_items(steps, repeats=1, negatives=8, seed=0):
  rng = np.random.default_rng(seed)

  def batch(num, negative):
    label = rng.integers(0, NUM_CLASSES, (steps, num, repeats)).astype(np.int32)
    weight = np.ones((steps, num, repeats), np.float32)
    if negative:
      label, weight[:, 5:] = label * 0 - 1, 0  # empty slots, unequal over devices
    image = rng.normal(size=(steps, num, repeats, *SHAPE)).astype(np.float32)
    return {'image': image / 2, 'label': label, 'weight': weight}

  items = {'positive': batch(16, False)}
  return items | ({'negative': batch(negatives, True)} if negatives else {})


def run(trainer, num_devices, mode, steps=3, scan=False, **kwargs):
  mesh = parallel.make_mesh(jax.devices()[:num_devices])
  state = parallel.init_state(trainer.init, jax.random.key(1), mesh)
  items = make_items(steps, **kwargs)
  if not scan:
    return parallel.wrap_step(trainer.step, mesh, mode=mode)(state, {}, (), items)
  # As on GPUs and TPUs: the pixels lie on the device, only indices travel.
  lead = {name: one['label'].shape for name, one in items.items()}
  pool = {name: jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), one)
          for name, one in items.items()}
  index = {name: np.arange(np.prod(shape)).reshape(shape)
           for name, shape in lead.items()}
  step = parallel.wrap_step(
      trainer.step, mesh, mode=mode, scan=True,
      fetch=lambda pool, index: {
          name: jax.tree.map(lambda x: x[rows], pool[name])  # noqa: B023
          for name, rows in index.items()})
  return step(state, {}, parallel.replicate(pool, mesh), index)


SETTINGS = {
    'nat': dict(),
    'apart': dict(joint=False, negative_weight=0.5, negatives_every=2, n_critic=2,
                  loss='ac_gan', labels='predefined'),
    'spectral': dict(loss='hinge', norm='spectral'),
}


@functools.cache
def on_one_device(name):
  settings = SETTINGS[name]
  return run(make_trainer(**settings), 1, 'jit', repeats=settings.get('n_critic', 1))


@pytest.mark.parametrize('name, num_devices, mode, scan', [
    ('nat', 8, 'jit', False), ('nat', 8, 'pmap', True), ('apart', 8, 'pmap', False),
    ('spectral', 8, 'pmap', False)])
def test_devices_agree(name, num_devices, mode, scan):
  expected, expected_metrics = on_one_device(name)
  settings = SETTINGS[name]
  trainer = make_trainer(**settings)
  state, metrics = run(
      trainer, num_devices, mode, scan=scan, repeats=settings.get('n_critic', 1))
  assert int(state.step) == 3
  for a, b in zip(jax.tree.leaves((expected.nets, expected.ema)),
                  jax.tree.leaves((state.nets, state.ema)), strict=True):
    np.testing.assert_allclose(a, b, atol=5e-5)
  a, b = trainer.figures(expected_metrics), trainer.figures(metrics)
  assert a.keys() == b.keys()
  for key in a:
    np.testing.assert_allclose(a[key], b[key], atol=1e-4, err_msg=key)


def changed(one, other):
  """Which networks differ after two runs."""
  return {part for part in ('gen', 'disc') if any(
      np.abs(a - b).max() > 1e-7 for a, b in zip(
          jax.tree.leaves(one.nets[part].params),
          jax.tree.leaves(other.nets[part].params), strict=True))}


@functools.cache
def compiled(**settings):
  """(trainer, its step): compiled once for all tests of the same settings."""
  trainer = make_trainer(**settings)
  return trainer, jax.jit(trainer.step)


def after_one_step(items, **settings):
  trainer, step = compiled(**settings)
  batch = jax.tree.map(lambda x: x[0], items)
  return step(trainer.init(jax.random.key(1)), {}, batch)


def test_discriminator_of_several_updates_learns_to_the_end():
  """Its schedule goes by steps, though its optimiser counts n_critic updates each."""
  config = runs.resolve(presets.experiment(
      steps=6, num_classes=3, task='gan', trainer={'name': 'gan', 'n_critic': 3},
      generator={'name': 'mlp_generator', 'latent': 2, 'widths': [4]},
      discriminator={'name': 'mlp_discriminator', 'widths': [4]},
      optimizer={'name': 'adam'},
      schedule={'name': 'linear', 'learning_rate': 0.01}))
  trainer = runs.build_trainer(config, (2, 2, 1))
  assert float(trainer.learning_rate(6)) == 0 < float(trainer.learning_rate(5))
  batch = {'positive': {
      'image': np.zeros((4, 3, 2, 2, 1), np.uint8),
      'label': np.zeros((4, 3), np.int32), 'weight': np.ones((4, 3), np.float32)}}
  state, step = trainer.init(jax.random.key(0)), jax.jit(trainer.step)
  for _ in range(6):
    before = state
    state, _ = step(state, {}, batch)
  assert changed(before, state) == {'gen', 'disc'}


def test_negatives_teach_the_discriminator_and_empty_slots_nothing():
  items = make_items(1)
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
  _, metrics = after_one_step(make_items(1), negative_weight=0.3)
  figures = trainers_figures(metrics)
  np.testing.assert_allclose(
      figures['loss_disc'],
      figures['loss_real'] + figures['loss_fake'] + 0.3 * figures['loss_negative'],
      rtol=1e-5)


def test_negatives_every_other_step_only():
  items = make_items(1)
  trainer, step = compiled(negatives_every=2)
  state = trainer.init(jax.random.key(1)).replace(step=jnp.ones((), jnp.int32))
  batch = jax.tree.map(lambda x: x[0], items)
  one, metrics = step(state, {}, batch)
  assert np.isnan(trainer.figures(metrics)['loss_negative'])
  batch['negative']['image'] = batch['negative']['image'] + 1
  other, _ = step(state, {}, batch)
  assert changed(one, other) == set()


def test_order_of_the_two_updates():
  items = make_items(1)
  one, _ = after_one_step(items)
  other, _ = after_one_step(items, simultaneous=True)
  assert changed(one, other) == {'gen'}


def test_two_updates_of_the_discriminator_take_two_batches():
  items = make_items(1, repeats=2)
  one, metrics = after_one_step(items, n_critic=2)
  assert make_trainer(n_critic=2).figures(metrics)['images'] == 32
  items['positive']['image'][:, :, 1] *= 2
  other, _ = after_one_step(items, n_critic=2)
  assert 'disc' in changed(one, other)


def test_moving_average_and_samples():
  trainer, _ = compiled()
  state = trainer.init(jax.random.key(1))
  after, _ = after_one_step(make_items(1))
  jax.tree.map(
      lambda a, b, c: np.testing.assert_allclose(0.9 * a + 0.1 * b, c, atol=1e-6),
      state.nets['gen'].params, after.nets['gen'].params, after.ema['gen'])
  noise = {'z': np.ones((4, 4), np.float32), 'label': np.zeros(4, np.int32)}
  images = trainer.heads['samples'](after, noise)
  assert images.shape == (4, *SHAPE) and np.abs(images).max() <= 1
  plain = make_trainer(ema_decay=0.0)
  assert plain.init(jax.random.key(1)).ema == {}
  logits = trainer.heads['logits'](after, jnp.zeros((2, *SHAPE)))
  assert logits.shape == (2, NUM_CLASSES)
  assert 'logits' not in make_trainer('hinge').heads


def test_collapse_is_told():
  trainer, step = compiled()
  state = trainer.init(jax.random.key(1))
  batch = jax.tree.map(lambda x: x[0], make_items(1))
  gen = state.nets['gen']
  gen = gen.replace(params=jax.tree.map(jnp.zeros_like, gen.params))
  still = state.replace(nets=state.nets | {'gen': gen})
  for given, collapsed in ((state, False), (still, True)):
    _, metrics = step(given, {}, batch)
    assert ('COLLAPSED' in trainer.line(trainer.figures(metrics))) == collapsed


@pytest.mark.parametrize('settings, message', [
    (dict(labels='random'), 'valid: dynamic, predefined'),
    (dict(n_critic=0), 'must be 1 or more'),
    (dict(n_critic=2, simultaneous=True), 'n_critic=1 alone'),
    (dict(loss='hinge', labels='predefined'), 'knows classes'),
])
def test_settings_that_do_not_fit(settings, message):
  with pytest.raises(ValueError, match=message):
    make_trainer(**settings)


def test_it_learns_where_the_images_are():
  """Real images are bright: after some steps so are the samples."""
  trainer = make_trainer('gan', ema_decay=0.0)
  mesh = parallel.make_mesh(jax.devices()[:1])
  state = parallel.init_state(trainer.init, jax.random.key(0), mesh)
  step = parallel.wrap_step(trainer.step, mesh, scan=True)
  items = make_items(300, negatives=0)
  items['positive']['image'] = 0.1 * items['positive']['image'] + np.float32(0.7)
  noise = {'z': np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32),
           'label': np.zeros(16, np.int32)}
  before = float(trainer.heads['samples'](state, noise).mean())
  state, _ = step(state, {}, (), items)
  after = float(trainer.heads['samples'](state, noise).mean())
  assert abs(before) < 0.3 and after > 0.5
