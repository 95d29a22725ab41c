"""A GAN with an encoder: forms of its losses; a run from its config to its report."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from nat_jax import models, runs, train
from nat_jax.commands import report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.schema import presets
from nat_jax.task import GLOBAL
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
      data=dict(positives=FAKE, batch_size=8),
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
    (dict(trainer={'name': 'gaan', 'joint': True}), ['joint', 'recon_weight']),
    (dict(data=dict(positives=FAKE, batch_size=8, negatives_per_batch=2, negatives={
        'more': {'source': FAKE}})), ['data.negatives', 'more'])])
def test_mistakes(changes, named, tmp_path):
  with pytest.raises((ValueError, TypeError)) as error:
    train.train(make_config(**changes), str(tmp_path / 'run'))
  assert all(text in str(error.value) for text in named)
  assert not (tmp_path / 'run').exists()


POINTS, RATE, SHARE = (2,), 0.5, 0.3


@pytest.fixture(scope='module')
def official():
  """(setup, nets, real points) with the losses of the authors' code for points."""
  setup = gaan.Setup(
      encoder=models.MLP(num_outputs=3, width=8, depth=1),
      generator=models.ToyGenerator(latent=3, image_shape=POINTS, widths=(8,)),
      discriminator=models.ToyDiscriminator(image_shape=POINTS, widths=(8,)),
      enc_tx=optax.sgd(RATE), gen_tx=optax.sgd(RATE), disc_tx=optax.sgd(RATE),
      image_shape=POINTS, augment=toy.same, normalise=toy.same, recon_weight=SHARE,
      distance_weight=0.4, reconstruction='fake', updates_generator=True, space='data')
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
      real, jax.random.key(8), GLOBAL))(nets)

  def loss(params):
    fake = players.generate(
        setup.generator, nets['gen'].variables,
        jax.random.split(jax.random.key(8))[0], 16, GLOBAL)
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
