"""AdaptiveMix and mixup of GANs: losses, output layers, devices, what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from nat_jax import losses, models
from nat_jax.task import GLOBAL
from nat_jax.tasks import gan
from nat_jax.tasks.classify import treatments
from nat_jax.tasks.gan import adaptive_mix, players

SHAPE, RATE, WEIGHT, NOISE = (4, 4, 1), 0.5, 3.0, 0.2
QUIET = models.MLPDiscriminator(
    image_shape=SHAPE, num_outputs=4, widths=(8,), noise=0.0, dropout=0.0)


def settings(loss='nat_gan', **changes):
  return toy.gan_settings(SHAPE, loss, **changes)


def items():
  """One batch; slot 3 of the real images is empty."""
  found = toy.make_items(SHAPE, 1)
  found['positive']['weight'][:, 3] = 0
  found['positive']['image'][:, 3] = 7.0
  return found


FORMS = {'adaptive_mix': {'weight': WEIGHT, 'noise': NOISE}, 'mixup': {}}


@functools.cache
def one_step(name):
  """(settings, trainer, batch, state before and after a step, figures) of AC-GAN."""
  some = settings(
      'ac_gan', labels='predefined', simultaneous=True, discriminator=QUIET,
      gen_tx=optax.sgd(RATE), disc_tx=optax.sgd(RATE))
  trainer = gan.TRAINERS[name](**FORMS[name], **some)
  batch = jax.tree.map(lambda x: x[0], items())
  state = jax.jit(trainer.init)(jax.random.key(1))
  after, metrics = jax.jit(trainer.step)(state, {}, batch)
  return some, trainer, batch, state, after, trainer.figures(metrics)


def head(params, features):
  """The output layer written out, with weight norm."""
  layer = params['Dense_1']
  v = layer['v'] / jnp.linalg.norm(layer['v'], axis=0, keepdims=True)
  return features @ v * layer['g'][None] + layer['bias'][None]


def mixed_loss(name, params, one, on_outputs):
  """s l(o, y) + (1 - s) l(o, y_p) + weight (1 - cos(z', m + e)), [n].

  Of mixup the last term is left out, and o is D(x').
  """
  one = jax.tree.map(jnp.asarray, one)
  pairs = adaptive_mix.pairs_of(treatments.symmetric_beta(1.0), one, GLOBAL)
  s, other = pairs.share, pairs.other

  def features(images):
    return QUIET.apply({'params': params}, images, train=True)[1]['features']

  y = one['label']
  seen = features(s * one['image'] + (1 - s) * one['image'][other])
  if name == 'mixup':
    o = head(params, seen)
    return s * on_outputs(o, y) + (1 - s) * on_outputs(o, y[other])
  z = features(one['image'])
  mean = s * z + (1 - s) * z[other]
  o = (head(params, mean) + head(params, seen)) / 2
  keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.wrap_key_data(key), 2))(
      one['key'])
  target = jax.lax.stop_gradient(mean) + NOISE * jax.vmap(
      lambda key: jax.random.normal(key, (8,)))(keys)
  cosine = (seen * target).sum(1) / (
      jnp.linalg.norm(seen, axis=1) * jnp.linalg.norm(target, axis=1))
  return (s * on_outputs(o, y) + (1 - s) * on_outputs(o, y[other])
          + WEIGHT * (1 - cosine))


def class_loss(o, labels):
  return -jnp.take_along_axis(
      jax.nn.log_softmax(o[:, 1:]), labels[:, None], axis=1)[:, 0]


@pytest.mark.parametrize('name', [
    'adaptive_mix', pytest.param('mixup', marks=pytest.mark.slow)])
def test_step_descends_the_losses_of_mixed_images(name):
  """Written out anew: a step of SGD of both networks, with labels of all images."""
  some, _, batch, state, after, figures = one_step(name)
  generator, gen, disc = some['generator'], *(state.nets[x] for x in ('gen', 'disc'))

  @jax.jit
  def reference(gen_params, disc_params):
    step_key = jax.random.fold_in(state.key, state.step)
    update_key = jax.random.fold_in(step_key, 0)
    sets = players.prepare(batch, 0, update_key, GLOBAL, toy.same, toy.same)

    def drawn(key):
      return players.draw(generator, key, 16, GLOBAL, toy.NUM_CLASSES)

    def made(params, one):
      return {**one, 'image': generator.apply(
          {'params': params}, one['z'], labels=one['label'])}

    fake_key, *keys = jax.random.split(jax.random.fold_in(update_key, 2), 4)
    sets = players.with_keys(
        {'real': sets['real'], 'fake': drawn(fake_key), 'negative': sets['negative']},
        keys, GLOBAL, [['real'], ['fake', 'negative']])
    fake = made(gen_params, sets['fake'])
    filled = np.arange(16) != 3

    def disc_loss(params):
      real = mixed_loss(name, params, sets['real'], lambda o, y: (
          jax.nn.softplus(-o[:, 0]) + class_loss(o, y)))
      unreal = mixed_loss(name, params, fake, lambda o, y: (
          jax.nn.softplus(o[:, 0]) + class_loss(o, y)))
      outputs, _ = QUIET.apply(
          {'params': params}, sets['negative']['image'][:5], train=True)
      negative = jax.nn.softplus(outputs[:, 0])
      return jnp.where(filled, real, 0).sum() / 15 + (
          unreal.sum() + negative.sum()) / 21

    fake_key, *keys = jax.random.split(jax.random.fold_in(step_key, 1), 2)
    new = players.with_keys({'fake': drawn(fake_key)}, keys, GLOBAL, [['fake']])['fake']

    def gen_loss(params):
      return mixed_loss(name, disc_params, made(params, new), lambda o, y: (
          jax.nn.softplus(-o[:, 0]) + class_loss(o, y))).mean()

    return (jax.value_and_grad(disc_loss)(disc_params),
            jax.value_and_grad(gen_loss)(gen_params))

  for net, player, (loss, grads) in zip(
      (disc, gen), ('disc', 'gen'), reference(gen.params, disc.params), strict=True):
    np.testing.assert_allclose(figures[f'loss_{player}'], loss, rtol=1e-5)
    assert max(np.abs(x).max() for x in jax.tree.leaves(grads)) > 1e-3
    toy.assert_descended(
        net.params, after.nets[player].params, grads, RATE, atol=1e-5)


def test_partners_are_a_circle_of_the_filled_slots():
  weight = np.ones(8, np.float32)
  weight[3] = 0
  draw = jax.jit(lambda key: adaptive_mix.pairs_of(
      treatments.symmetric_beta(1.0), {
          'key': jax.random.key_data(jax.random.split(key, 8)),
          'weight': weight}, GLOBAL))
  for seed in range(3):
    share, other = draw(jax.random.key(seed))
    assert 0 < share < 1 and other[3] == 3
    place, seen = 0, set()
    for _ in range(7):
      place = int(other[place])
      seen.add(place)
    assert place == 0 and seen == {0, 1, 2, 4, 5, 6, 7}


@pytest.mark.slow
@pytest.mark.parametrize('name', FORMS)
def test_images_mixed_with_nothing_train_as_in_a_plain_gan(name, monkeypatch):
  """With s = 1; input noise and dropout of x and x' are equal."""
  monkeypatch.setattr(
      treatments, 'symmetric_beta', lambda alpha: lambda key: jnp.ones(()))
  batch = jax.tree.map(lambda x: x[0], items())
  changes = {'weight': 0.0} if name == 'adaptive_mix' else {}
  mixed = gan.TRAINERS[name](**changes, **settings())
  plain = gan.gan(**settings())
  state = jax.jit(plain.init)(jax.random.key(1))
  (one, figures), (other, others) = (
      jax.jit(trainer.step)(state, {}, batch) for trainer in (mixed, plain))
  toy.assert_trees_close(one.nets, other.nets, atol=2e-6)
  toy.assert_figures_close(mixed.figures(figures), plain.figures(others), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('name', FORMS)
def test_devices_agree(name):
  """Under pmap a partner may be on another device: image and outputs are gathered."""
  _, trainer, _, _, expected, figures = one_step(name)
  state, metrics, _ = toy.run_on_devices(trainer, 8, 'pmap', items())
  toy.assert_trees_close(expected.nets, state.nets, atol=3e-6)
  toy.assert_figures_close(figures, trainer.figures(metrics), rtol=2e-5)


DISCRIMINATORS = {  # name -> shape of images, size; a row for each of the table
    'dcgan_discriminator': ((28, 28, 1), {'width': 1}),
    'mlp_discriminator': (SHAPE, {'widths': (8,), 'norm': 'spectral'}),
    'resnet_discriminator': ((32, 32, 1), {'width': 1}),
    'toy_discriminator': ((2,), {'widths': (8,)}),
}


@pytest.mark.parametrize('name', models.DISCRIMINATORS)
def test_outputs_are_affine_in_the_features(name):
  """By least squares: so the outputs of mixed features are mixed outputs."""
  shape, size = DISCRIMINATORS[name]
  network = models.DISCRIMINATORS[name](image_shape=shape, num_outputs=3, **size)
  images = np.random.default_rng(0).normal(size=(24, *shape)).astype(np.float32)
  (outputs, aux), _ = jax.jit(functools.partial(network.init_with_output, train=True))(
      jax.random.key(1), images)
  rows = np.concatenate([aux['features'], np.ones((24, 1))], 1)
  found, *_ = np.linalg.lstsq(rows, np.asarray(outputs), rcond=None)
  assert np.std(outputs) > 1e-2
  np.testing.assert_allclose(rows @ found, outputs, atol=2e-5)


@pytest.mark.parametrize('changes, message', [
    (dict(micro_batches=2), 'data.micro_batches must be 1, got 2'),
    (dict(alpha=0.0), 'alpha.*above 0.*0'),
    (dict(weight=-1.0), 'trainer.weight.*-1'),
    (dict(noise=-1.0), 'trainer.noise.*-1'),
    (dict(discriminator=QUIET.clone(num_outputs=1, projection=3), labels='predefined',
          objective=losses.make_gan_objective({'name': 'hinge'}, 3)),
     'discriminator.projection=3.*two.*discriminator.projection=0'),
    (dict(discriminator=QUIET.clone(kernels=2)),
     'discriminator.kernels=2.*their mixes.*discriminator.kernels=0'),
])
def test_what_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    gan.TRAINERS['adaptive_mix'](**{**settings(), **changes})


@pytest.mark.parametrize('form, name', [
    ('mixup', 'mixup'), ('adaptivemix', 'adaptive_mix')])
def test_variant_of_the_digits(form, name):
  get_config = toy.config_file('gan/digits.py')
  mixed, plain = get_config(f'nat3_{form}'), get_config('nat3')
  assert (mixed.trainer.name, plain.trainer.name) == (name, 'gan')
  assert mixed.loss == plain.loss and mixed.data == plain.data
  with pytest.raises(ValueError, match='each also with _mixup, _adaptivemix'):
    get_config('nat3_mixdown')
  with pytest.raises(ValueError, match=f"_{form} goes with the objectives gan, .*'r1'"):
    get_config(f'r1_{form}')
