"""ActiveGAN: the reward, the update of the classifier, a run from config to report."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from scipy import special

from nat_jax import losses, models, train
from nat_jax.commands import report
from nat_jax.schema import presets
from nat_jax.task import GLOBAL
from nat_jax.tasks import gan, updates
from nat_jax.tasks.gan import active, evaluate, players
from nat_jax.tasks.gan import step as gan_step

SHAPE, RATE, REWARD, MADE = (4, 4, 1), 0.5, 3.0, 0.7
MLP = {'name': 'mlp', 'width': 8, 'depth': 1}
QUIET = models.MLPDiscriminator(
    image_shape=SHAPE, num_outputs=4, widths=(8,), noise=0.0, dropout=0.0)


def settings(**changes):
  return toy.gan_settings(
      SHAPE, 'ac_gan', labels='predefined', discriminator=QUIET,
      gen_tx=optax.sgd(RATE), disc_tx=optax.sgd(RATE)) | changes


def make_trainer(**changes):
  return gan.TRAINERS['active'](**{
      'classifier': MLP, 'reward': REWARD, 'made_weight': MADE, **settings(**changes)})


@pytest.fixture(scope='module')
def one_step():
  """(setup, batch, states before and after a step, figures); three slots are empty."""
  trainer = make_trainer()
  batch = jax.tree.map(lambda x: x[0], toy.make_items(SHAPE, 1, negatives=0))
  batch['positive']['weight'][:3] = 0
  batch['positive']['image'][:3] = 9.0
  state = jax.jit(trainer.init)(jax.random.key(1))
  after, metrics = jax.jit(trainer.step)(state, {}, batch)
  pair = gan_step.Setup(**settings())
  made = updates.stateless(MLP, 'classifier', pair.num_classes, pair.image_shape)
  setup = active.Setup(pair, made, REWARD, MADE)
  return setup, batch, state, after, trainer.figures(metrics)


def assert_descended(before, after, loss):
  """Asserts that a network took one step of gradient descent on a loss."""
  gradient = jax.jit(jax.grad(loss))(before.params)
  toy.assert_descended(before.params, after.params, gradient, RATE, atol=1e-5)


def test_uncertainty_against_its_definition():
  logits = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  first, second = np.sort(p, 1)[:, -1], np.sort(p, 1)[:, -2]
  uncertainty = jax.jit(active.uncertainty)
  np.testing.assert_allclose(
      uncertainty(logits), -(p * np.log(p)).sum(1) + 1 - (first - second), rtol=1e-5)
  np.testing.assert_allclose(
      uncertainty(np.array([[0, 0, 0, 0], [99, 0, 0, 0]], np.float32)),
      [np.log(4) + 1, 0], atol=1e-5)


def test_generator_is_rewarded_for_the_classifier_of_before_the_step(one_step):
  setup, _, state, after, figures = one_step
  pair, c = setup.pair, state.nets['classifier'].params
  gen, disc = state.nets['gen'], after.nets['disc']

  @jax.jit
  def draw(key):
    update_key = jax.random.fold_in(jax.random.fold_in(key, 0), 1)
    return players.draw(
        pair.generator, jax.random.split(update_key, 2)[0], 16, GLOBAL, 3)

  drawn = draw(state.key)

  def loss(params, reward=REWARD):
    images = pair.generator.apply(
        gen.variables | {'params': params}, drawn['z'], labels=drawn['label'])
    outputs, _ = QUIET.apply(disc.variables, images, train=True)
    p = jax.nn.softmax(setup.classifier.apply({'params': c}, images, train=False)[0])
    ordered = jnp.sort(p, 1)
    unsure = -(p * jnp.log(p)).sum(1) + 1 - ordered[:, -1] + ordered[:, -2]
    chosen = jnp.take_along_axis(
        jax.nn.log_softmax(outputs[:, 1:]), drawn['label'][:, None], 1)[:, 0]
    return (jax.nn.softplus(-outputs[:, 0]) - chosen - reward * unsure).mean()

  assert_descended(gen, after.nets['gen'], loss)
  with_reward, without = (jax.jit(loss)(gen.params, reward) for reward in (REWARD, 0.0))
  np.testing.assert_allclose(figures['loss_gen'], with_reward, rtol=1e-5)
  assert abs(without - figures['loss_gen']) > 1


def test_classifier_learns_from_real_and_from_accepted_images(one_step):
  setup, batch, state, after, figures = one_step
  pair, before = setup.pair, state.nets['classifier']

  @jax.jit
  def draw(key):
    update_key = jax.random.fold_in(jax.random.fold_in(key, 0), 2)
    _, fake_key = jax.random.split(jax.random.fold_in(update_key, 0))
    return players.draw(pair.generator, fake_key, 16, GLOBAL, 3)

  drawn = draw(state.key)

  @jax.jit
  def make(nets):
    images = pair.generator.apply(
        nets['gen'].variables, drawn['z'], labels=drawn['label'])
    outputs, _ = QUIET.apply(nets['disc'].variables, images)
    return images, outputs[:, 1:].argmax(1) == drawn['label']

  images, accepted = map(np.asarray, make(after.nets))
  assert 0 < accepted.sum() < 16
  real = jax.tree.map(lambda x: x[3:, 0], batch['positive'])

  @jax.jit
  def logits(params, images):
    return setup.classifier.apply({'params': params}, images, train=False)[0]

  def cross_entropy(params, images, labels):
    return -jnp.take_along_axis(
        jax.nn.log_softmax(logits(params, images)), labels[:, None], 1)[:, 0]

  def loss(params):
    made = cross_entropy(params, images, drawn['label'])
    return (cross_entropy(params, real['image'], real['label']).mean()
            + MADE * (made * accepted).sum() / accepted.sum())

  assert_descended(before, after.nets['classifier'], loss)
  np.testing.assert_allclose(
      figures['loss_classifier'], jax.jit(loss)(before.params), rtol=1e-5)
  np.testing.assert_allclose(figures['accepted'], accepted.mean(), rtol=1e-5)
  np.testing.assert_allclose(
      figures['accuracy_classifier'],
      (logits(before.params, real['image']).argmax(1) == real['label']).mean())
  head = jax.jit(make_trainer().heads['classifier'])(state, images)
  np.testing.assert_allclose(head, logits(before.params, images), atol=1e-5)
  p = special.softmax(head, axis=1)
  np.testing.assert_allclose(
      figures['entropy'], -(p * np.log(p)).sum(1).mean(), rtol=1e-5)


def test_without_weight_generated_images_do_not_matter_to_the_classifier(one_step):
  _, batch, state, _, _ = one_step
  step = jax.jit(make_trainer(made_weight=0.0).step)
  other = state.replace(nets=state.nets | {'gen': state.nets['gen'].replace(
      params=jax.tree.map(
          lambda x: x + 1, jax.device_get(state.nets['gen'].params)))})
  one, two = (step(some, {}, batch)[0].nets for some in (state, other))
  toy.assert_trees_close(one['classifier'], two['classifier'], rtol=0)


def test_label_fidelity_is_the_share_of_samples_of_their_class():
  config = {'num_classes': 3, 'trainer': {'labels': 'predefined'},
            'generator': {'name': 'mlp_generator'}}
  probs = np.eye(3)[[0, 1, 2, 0, 2]]  # the classes in turn are 0 1 2 0 1
  figures, said = evaluate._label_fidelity(config, {'probs': probs})
  assert figures == {'label_fidelity': 0.8} and figures.keys() == said.keys()
  for other in ({**config, 'num_classes': 4}, {**config, 'trainer': {}}):
    assert evaluate._label_fidelity(other, {'probs': probs}) == ({}, {})
  assert evaluate._label_fidelity(config, {'features': probs}) == ({}, {})


FAKE = {'name': 'fake', 'num': 40, 'shape': SHAPE}


def make_config(**changes):
  return presets.experiment(**toy.change(dict(
      task='gan', name='toy', steps=6, num_classes=4,
      trainer={'name': 'active', 'labels': 'predefined', 'classifier': dict(MLP)},
      loss={'name': 'ac_gan'},
      generator={'name': 'mlp_generator', 'latent': 3, 'widths': [4]},
      discriminator={'name': 'mlp_discriminator', 'widths': [4]},
      data=dict(positives=FAKE, batch_size=8),
      measures=dict(num_samples=20, batch_size=8, neighbours=2),
      run=dict(log_every=3, checkpoint_every=3, updates_per_call=3,
               tensorboard=False)), **changes))


@pytest.mark.slow
def test_trained_resumed_and_reported(tmp_path):
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  evaluation = train.train(make_config(), str(whole))
  assert evaluation['step'] == 6 and np.isfinite(evaluation['evals']['samples']['fid'])
  logged = toy.records(whole)[-1]
  assert 0 < logged['entropy'] <= np.log(4) and 0 <= logged['accepted'] <= 1
  shutil.copytree(whole, cut)
  (cut / 'eval.json').unlink()
  shutil.rmtree(cut / 'checkpoints' / '6')
  train.train(make_config(), str(cut))  # from update 3 on
  for a, b in zip(*map(toy.final_state, (whole, cut)), strict=True):
    np.testing.assert_array_equal(a, b)
  assert (cut / 'eval.json').read_bytes() == (whole / 'eval.json').read_bytes()
  assert 'FID' in report.tables([str(whole), str(cut)])


@pytest.mark.parametrize('changes, named', [
    (dict(trainer__labels='dynamic'), ["trainer.labels='predefined'", "'dynamic'"]),
    (dict(loss={'name': 'hinge'}), ['class logits', 'ac_gan']),
    (dict(trainer__classifier={'name': 'small_conv', 'widths': [4]}),
     ['trainer.classifier', 'small_conv', 'batch statistics']),
    (dict(trainer__classifier={'name': 'nought'}), ['classifier', 'nought', 'mlp']),
    (dict(trainer__reward=-1.0), ['trainer.reward', '-1']),
    (dict(trainer__made_weight=-1.0), ['trainer.made_weight', '-1']),
    (dict(trainer__rewards=1.0), ['rewards', 'reward'])])
def test_mistakes(changes, named, tmp_path):
  with pytest.raises((ValueError, TypeError)) as error:
    train.train(make_config(**changes), str(tmp_path / 'run'))
  assert all(text in str(error.value) for text in named), error.value
  assert not (tmp_path / 'run').exists()


def test_the_weights_of_the_config_can_be_set_by_flags():
  get_config = toy.config_file('gan/active.py')
  for variant, weight in (('active', 0.0), ('learned', 1.0)):
    assert get_config(variant).trainer.made_weight == weight


def test_the_baseline_of_the_config_is_the_original_ac_gan_without_a_reward():
  get_config = toy.config_file('gan/active.py')
  baseline, rewarded, star = (
      get_config(name).to_dict() for name in ('acgan_plain', 'acgan', 'plain'))
  assert baseline['loss'] == rewarded['loss'] == {
      'name': 'ac_gan', 'fakes_labelled': True}
  assert baseline['trainer'] == star['trainer'] and star['trainer']['reward'] == 0


def test_weights_are_checked_in_python_too():
  for name in ('reward', 'made_weight'):
    with pytest.raises(ValueError, match=f'trainer.{name}.*-1'):
      make_trainer(**{name: -1.0})
  objective = losses.make_gan_objective({'name': 'nat_gan'}, 3)
  with pytest.raises(ValueError, match='predefined'):
    make_trainer(objective=objective, labels='dynamic')
