"""A GAN with an encoder: forms of its losses; a run from its config to its report."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from scipy import special

from nat_jax import models, runs, train
from nat_jax.commands import report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.schema import presets
from nat_jax.task import GLOBAL, State
from nat_jax.tasks import gaan
from nat_jax.tasks.gan import players

FAKE = {'name': 'fake', 'num': 40, 'shape': (4, 4, 1)}


def make_config(**changes):
  return presets.experiment(**dict(
      task='gaan', name='toy', steps=6, num_classes=4, ema_decay=0.5,
      generator={'name': 'mlp_generator', 'latent': 3, 'widths': [4]},
      discriminator={'name': 'mlp_discriminator', 'widths': [4]},
      encoder={'name': 'mlp', 'width': 4, 'depth': 1},
      penalties=[{'name': 'gradient', 'weight': 0.1}],
      data=dict(positives=FAKE, batch_size=8, negatives_per_batch=2, negatives={
          'more': {'source': {**FAKE, 'seed': 1}}}),
      measures=dict(num_samples=20, batch_size=8, neighbours=2),
      run=dict(log_every=3, checkpoint_every=3, updates_per_call=3,
               tensorboard=False)) | changes)


@pytest.mark.slow
def test_trained_resumed_evaluated_and_reported(tmp_path):
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  evaluation = train.train(make_config(), str(whole))
  assert evaluation['step'] == 6 and np.isfinite(evaluation['evals']['samples']['fid'])
  shutil.copytree(whole, cut)
  (cut / 'eval.json').unlink()
  shutil.rmtree(cut / 'checkpoints' / '6')
  train.train(make_config(), str(cut))  # from update 3 on
  states = [runs.restore(str(workdir)).state for workdir in (whole, cut)]
  assert set(states[0].nets) == {'enc', 'gen', 'disc'}
  for a, b in zip(*(jax.tree.leaves((state.nets, state.ema)) for state in states),
                  strict=True):
    np.testing.assert_array_equal(a, b)
  written = (whole / 'eval.json').read_text()
  evaluate_run(str(whole))
  assert json.loads((whole / 'eval.json').read_text()) == json.loads(written)
  assert 'FID' in report.tables([str(whole), str(cut)])


@pytest.mark.parametrize('changes, named', [
    (dict(loss={'name': 'gan'}), ['loss']),
    (dict(encoder={'name': 'small_conv', 'widths': [4]}), ['encoder', 'small_conv']),
    (dict(encoder={'name': 'nought'}), ['encoder', 'nought', 'mlp']),
    (dict(trainer={'name': 'gaan', 'recon_weight': 2.0}),
     ['trainer.recon_weight', '2.0']),
    (dict(trainer={'name': 'gaan', 'reconstruction': 'x'}),
     ['trainer.reconstruction', "'x'", 'real, fake']),
    (dict(trainer={'name': 'gaan', 'space': 'x'}),
     ['trainer.space', "'x'", 'features, data']),
    (dict(trainer={'name': 'gaan', 'form': 'x'}),
     ['trainer.form', "'x'", 'log, hinge']),
    (dict(trainer={'name': 'gaan', 'prior': 'x'}),
     ['trainer.prior', "'x'", 'normal, uniform']),
    (dict(trainer={'name': 'gaan', 'fade': (0.5, 0.5)}),
     ['trainer.fade', '[0.5, 0.5]']),
    (dict(trainer={'name': 'gaan', 'fade': 0.5}),
     ['trainer.fade', '0.5', 'list of 0 to 2']),
    (dict(trainer={'name': 'gaan', 'joint': True}), ['joint', 'recon_weight']),
    (dict(data=dict(positives=FAKE, batch_size=8, negatives_per_batch=2)),
     ['data.negatives_per_batch', 'data.negatives'])])
def test_mistakes(changes, named, tmp_path):
  with pytest.raises((ValueError, TypeError)) as error:
    train.train(make_config(**changes), str(tmp_path / 'run'))
  assert all(text in str(error.value) for text in named)
  assert not (tmp_path / 'run').exists()


POINTS, RATE, SHARE = (2,), 0.5, 0.3
OFFICIAL = gaan.Setup(
    encoder=models.MLP(num_outputs=3, width=8, depth=1),
    generator=models.ToyGenerator(latent=3, image_shape=POINTS, widths=(8,)),
    discriminator=models.ToyDiscriminator(image_shape=POINTS, widths=(8,)),
    enc_tx=optax.sgd(RATE), gen_tx=optax.sgd(RATE), disc_tx=optax.sgd(RATE),
    image_shape=POINTS, augment=toy.same, normalise=toy.same, recon_weight=SHARE,
    distance_weight=0.4, reconstruction='fake', updates_generator=True, space='data')


@pytest.fixture(scope='module')
def official():
  """(setup, nets, real points) with the losses of the authors' code for points."""
  setup = OFFICIAL
  nets = jax.jit(lambda key: gaan.init(setup, key))(jax.random.key(0)).nets
  x = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
  real = {'image': x, 'label': np.zeros(16, np.int32),
          'weight': np.ones(16, np.float32)}
  return setup, nets, real


def test_autoencoder_of_points_learns_the_distance_in_the_data(official):
  setup, nets, real = official

  def update(nets, setup=setup):
    return gaan.update_enc(
        setup, nets['enc'], nets['gen'], nets['disc'], real, jax.random.key(7),
        GLOBAL)

  def loss(params):
    z = players.draw(
        setup.generator, jax.random.split(jax.random.key(7))[0], 16, GLOBAL)['z']
    codes, _ = setup.encoder.apply({'params': params['enc']}, real['image'], False)
    made, again = (setup.generator.apply({'params': params['gen']}, one)
                   for one in (z, codes))
    distance = (again - made).mean() - (3 / 2) ** 0.5 * (codes - z).mean()
    return jnp.square(real['image'] - again).mean() + 0.4 * jnp.square(distance)

  enc, gen = jax.jit(update)(nets)
  before = {name: nets[name].params for name in ('enc', 'gen')}
  toy.assert_descended(
      before, {'enc': enc.params, 'gen': gen.params}, jax.jit(jax.grad(loss))(before),
      RATE, atol=1e-5)

  def leaves_the_generator(nets):
    enc = nets['enc'].replace(opt_state=setup.enc_tx.init(nets['enc'].params))
    _, gen = update(nets | {'enc': enc}, setup._replace(updates_generator=False))
    assert gen is nets['gen']

  jax.eval_shape(leaves_the_generator, nets)


@pytest.mark.parametrize('label', ['real', 'fake'])
def test_discriminator_takes_reconstructions_for_their_label(official, label):
  setup, nets, real = official
  disc, _ = jax.jit(lambda nets: gaan.update_disc(
      setup._replace(reconstruction=label), nets['disc'], nets['enc'], nets['gen'],
      {'real': real}, jax.random.key(8), GLOBAL))(nets)

  def loss(params):
    drawn = gaan.draw(setup, jax.random.split(jax.random.key(8))[0], 16, GLOBAL)
    fake, _ = players.made(setup.generator, nets['gen'].variables, drawn, GLOBAL)
    codes, _ = setup.encoder.apply(
        {'params': nets['enc'].params}, real['image'], train=False)
    again = setup.generator.apply(nets['gen'].variables, codes)
    on_real, on_fake, on_again = (
        jax.nn.sigmoid(setup.discriminator.apply({'params': params}, one)[0][:, 0])
        for one in (real['image'], fake['image'], again))
    right = on_again if label == 'real' else 1 - on_again
    return -((1 - SHARE) * jnp.log(on_real).mean() + SHARE * jnp.log(right).mean()
             + jnp.log(1 - on_fake).mean())

  toy.assert_descended(
      nets['disc'].params, disc.params, jax.jit(jax.grad(loss))(nets['disc'].params),
      RATE, atol=1e-5)


def test_encoder_matches_the_means_of_features_and_of_codes():
  """|f(x) - f(x_r)|^2 and 0.4 (mean [f(x_r) - f(G(z))] - w mean [E(x) - z])^2."""
  rng = np.random.default_rng(1)
  f = {name: rng.normal(mean, 1, (16, 12)) for name, mean in (
      ('real', 0.2), ('recon', 0.5), ('fake', -0.4))}
  codes, z = rng.normal(0.7, 1, (16, 3)), rng.normal(0, 1, (16, 3))
  distance = (f['recon'] - f['fake']).mean() - (3 / 12) ** 0.5 * (codes - z).mean()
  assert abs(distance) > 0.1
  expected = np.square(f['real'] - f['recon']).mean() + 0.4 * distance**2
  found = jax.jit(lambda f, codes, z: gaan.encoder_loss(f, codes, z, 0.4, GLOBAL))(
      f, codes, z)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_encoder_learns_the_distance_in_the_features_of_the_discriminator(official):
  """The default; G does not learn from it."""
  setup, nets, real = official
  setup = setup._replace(space='features', updates_generator=False)
  enc = nets['enc'].replace(opt_state=setup.enc_tx.init(nets['enc'].params))
  after, gen = jax.jit(lambda nets: gaan.update_enc(
      setup, enc, nets['gen'], nets['disc'], real, jax.random.key(7), GLOBAL))(nets)
  toy.assert_trees_close(gen, nets['gen'], rtol=0)

  def loss(params):
    z = players.draw(
        setup.generator, jax.random.split(jax.random.key(7))[0], 16, GLOBAL)['z']
    codes, _ = setup.encoder.apply({'params': params}, real['image'], train=False)
    made, again = (setup.generator.apply(nets['gen'].variables, one)
                   for one in (z, codes))
    f, of_made, of_again = (
        setup.discriminator.apply(nets['disc'].variables, one)[1]['features']
        for one in (real['image'], made, again))
    assert f.shape == (16, 8)
    distance = (of_again - of_made).mean() - (3 / 8) ** 0.5 * (codes - z).mean()
    return jnp.square(f - of_again).mean() + 0.4 * jnp.square(distance)

  toy.assert_descended(
      enc.params, after.params, jax.jit(jax.grad(loss))(enc.params), RATE, atol=1e-5)


def logits(setup, disc, images):
  return jax.jit(setup.discriminator.apply)(disc.variables, images)[0][:, 0]


def sigmoid(x):
  return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def test_generator_matches_the_mean_of_the_discriminator(official):
  """|mean D(x) - mean D(G(z))|: its value, and the direction of the update."""
  setup, nets, real = official
  gen, made = jax.jit(lambda nets: gaan.update_gen(
      setup, nets['gen'], nets['disc'], real, jax.random.key(9), GLOBAL))(nets)

  def difference(params):
    z = players.draw(
        setup.generator, jax.random.split(jax.random.key(9))[0], 16, GLOBAL)['z']
    images = setup.generator.apply({'params': params}, z)
    on_real, on_fake = (
        jax.nn.sigmoid(setup.discriminator.apply(nets['disc'].variables, one)[0])
        for one in (real['image'], images))
    return on_real.mean() - on_fake.mean(), images

  (gap, images), slope = jax.jit(jax.value_and_grad(difference, has_aux=True))(
      nets['gen'].params)
  scores = [sigmoid(logits(setup, nets['disc'], one))
            for one in (real['image'], images)]
  expected = scores[0].mean() - scores[1].mean()
  assert abs(expected) > 1e-3
  np.testing.assert_allclose(made.loss, abs(expected), rtol=1e-4)
  toy.assert_descended(
      nets['gen'].params, gen.params, jax.tree.map(lambda g: np.sign(gap) * g, slope),
      RATE, atol=1e-5)


LOSSES = {  # of D: for an example that it should take for real, or for generated
    'log': (lambda x: -np.log(sigmoid(x)), lambda x: -np.log(1 - sigmoid(x))),
    'hinge': (lambda x: np.maximum(0, 1 - x), lambda x: np.maximum(0, 1 + x))}


@functools.cache
def update_disc(negative_weight, form='log'):
  setup = OFFICIAL._replace(
      negative_weight=negative_weight, form=form, reconstruction='real')
  return jax.jit(lambda nets, sets: gaan.update_disc(
      setup, nets['disc'], nets['enc'], nets['gen'], sets, jax.random.key(8),
      GLOBAL))


def negatives(weight, image=None):
  """A set of four negatives, of which `image` replaces the last one."""
  x = np.random.default_rng(3).normal(1, 2, (4, 2)).astype(np.float32)
  if image is not None:
    x[-1] = image
  return {'image': x, 'label': None, 'weight': np.asarray(weight, np.float32)}


@pytest.mark.parametrize('negative_weight, form', [
    (None, 'log'), (0.5, 'log'), (None, 'hinge')])
def test_external_negatives_join_the_loss_of_generated_examples(
    negative_weight, form, official):
  setup, nets, real = official
  weight = np.array([1, 1, 0.5, 0])  # three filled slots
  _, seen = update_disc(negative_weight, form)(
      nets, {'real': real, 'negative': negatives(weight)})
  right, wrong = LOSSES[form]
  x = {name: np.asarray(logits(setup, nets['disc'], one.images), np.float64)
       for name, one in seen.passes.items()}
  on_real = (1 - SHARE) * right(x['real']).mean() + SHARE * right(x['recon']).mean()
  on_fake, on_negative = wrong(x['fake']).sum(), (weight * wrong(x['negative'])).sum()
  unreal = ((on_fake + on_negative) / 19 if negative_weight is None
            else on_fake / 16 + negative_weight * on_negative / 3)
  np.testing.assert_allclose(seen.loss, on_real + unreal, rtol=1e-4)
  for name, label in (('real', right), ('recon', right), ('fake', wrong),
                      ('negative', wrong)):
    np.testing.assert_allclose(seen.terms[name], label(x[name]), rtol=1e-4, atol=1e-5)


def test_empty_slots_and_negatives_of_weight_0_change_nothing(official):
  _, nets, real = official
  alone, seen = update_disc(None)(nets, {'real': real})
  for negative_weight, weight in ((None, [0] * 4), (0.5, [0] * 4), (0.0, [1] * 4)):
    disc, found = update_disc(negative_weight)(
        nets, {'real': real, 'negative': negatives(weight)})
    np.testing.assert_allclose(found.loss, seen.loss, rtol=1e-6)
    toy.assert_trees_close(disc.params, alone.params, atol=1e-6)
  one, other = (update_disc(None)(
      nets, {'real': real, 'negative': negatives([1, 1, 1, 0], image)})[0].params
                for image in ([0, 0], [50, -50]))
  toy.assert_trees_close(one, other, rtol=0)
  moved = [np.abs(a - b).max() for a, b in zip(
      jax.tree.leaves(one), jax.tree.leaves(alone.params), strict=True)]
  assert max(moved) > 1e-3


def test_reconstructions_fade():
  setup = OFFICIAL._replace(fade=(0.5, 0.75), steps=200, recon_weight=0.05)
  found = [float(gaan.recon_weight(setup, step)) for step in (0, 100, 120, 150, 199)]
  np.testing.assert_allclose(found, [0.05, 0.05, 0.03, 0, 0], atol=1e-7)
  assert gaan.recon_weight(setup._replace(fade=()), 199) == 0.05


def test_after_the_fade_the_label_of_reconstructions_does_not_matter(official):
  setup, nets, real = official
  batch = {'positive': jax.tree.map(lambda x: x[:, None], real)}

  def after(step, label):
    trainer = gaan.gaan(**setup._replace(
        fade=(0.5, 0.75), steps=8, reconstruction=label)._asdict())
    state = State(np.int32(step), jax.random.key(0), nets, {})
    return jax.jit(trainer.step)(state, {}, batch)[0].nets['disc'].params

  toy.assert_trees_close(after(6, 'real'), after(6, 'fake'), rtol=0)
  assert np.abs(after(5, 'real')['Dense_0']['kernel']
                - after(5, 'fake')['Dense_0']['kernel']).max() > 1e-4


def test_uniform_prior(official):
  setup, nets, _ = official
  setup = setup._replace(prior='uniform')
  normal = players.draw(setup.generator, jax.random.key(1), 50, GLOBAL)['z']
  expected = 2 * special.ndtr(np.asarray(normal, np.float64)) - 1
  z = gaan.draw(setup, jax.random.key(1), 50, GLOBAL)['z']
  np.testing.assert_allclose(z, expected, atol=1e-6)
  assert -1 <= z.min() < -0.8 and 0.8 < z.max() <= 1
  samples = gaan.gaan(**setup._asdict()).heads['samples']
  state = State(0, jax.random.key(0), nets, {})
  np.testing.assert_allclose(
      jax.jit(samples)(state, {'z': normal}),
      jax.jit(setup.generator.apply)(nets['gen'].variables, z), atol=1e-6)
