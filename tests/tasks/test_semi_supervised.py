"""Semi-supervised classifiers: losses, the choice of labels, a run from its config."""

import json
import shutil

import jax
import numpy as np
import optax
import pytest
import toy

from nat_jax import data, losses, runs, train
from nat_jax.commands import report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.schema import presets
from nat_jax.task import GLOBAL, Pass
from nat_jax.tasks import semi_supervised
from nat_jax.tasks.semi_supervised import step as step_lib

K, SHAPE = toy.NUM_CLASSES, (4, 4, 1)
FAKE = {'name': 'fake', 'num': 40, 'shape': SHAPE, 'num_classes': 4}
MATCHED = {'name': 'feature_matching', 'disc': 'implicit_gan'}
NAT = {'name': 'nat_gan_unlabelled', 'marginal': 0.5}


# Losses.


def log_softmax(outputs):
  outputs = np.asarray(outputs, np.float64)
  top = outputs - outputs.max(1, keepdims=True)
  return top - np.log(np.exp(top).sum(1, keepdims=True))


def passes_of(outputs, names=('real', 'fake', 'labelled')):
  """Passes of sets that have the outputs [n, K] and labels 0, 1, ..., or -1."""
  n = len(outputs)
  marginal = np.exp(log_softmax(outputs)).mean(0).astype(np.float32)
  return {name: Pass(outputs.astype(np.float32),
                     np.arange(n) % K if name == 'labelled' else np.full(n, -1),
                     np.ones(n, np.float32), marginal) for name in names}


def of_disc(objective, passes):
  return jax.jit(lambda passes: objective.disc(passes, GLOBAL))(passes)


def of_gen(objective, passes):
  return jax.jit(lambda passes: objective.gen(passes, GLOBAL))(passes)


@pytest.mark.parametrize('scale', [1, 40])
def test_the_implicit_logit_is_a_softmax_of_k_plus_1_with_a_logit_of_0(scale):
  outputs = scale * np.random.default_rng(0).normal(size=(7, K))
  log_p = log_softmax(np.pad(outputs, [(0, 0), (0, 1)]))
  fake = -log_p[:, -1]
  real = -np.log(np.exp(log_p[:, :-1]).sum(1))
  objective = losses.make_gan_objective({'name': 'implicit_gan'}, K)
  found = of_disc(objective, passes_of(outputs, ('real', 'fake', 'negative')))
  for name, expected in {'real': real, 'fake': fake, 'negative': fake}.items():
    np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(
      of_gen(objective, passes_of(outputs)), real, rtol=1e-4, atol=1e-6)
  like_am = losses.make_gan_objective({'name': 'implicit_gan', 'gen': 'class'}, K)
  fake = passes_of(outputs)['fake']._replace(labels=outputs.argmax(1))
  np.testing.assert_allclose(
      of_gen(like_am, {'fake': fake}), -log_p[:, :-1].max(1), rtol=1e-4, atol=1e-6)
  # The classes of a real example: p_k / (1 - p_{K + 1}).
  np.testing.assert_allclose(
      log_softmax(jax.jit(objective.class_logits)(outputs)),
      log_p[:, :-1] + real[:, None], rtol=1e-5, atol=1e-6)


def test_nat_without_labels_is_sure_of_real_examples_and_uniform_on_fakes():
  outputs = 2 * np.random.default_rng(1).normal(size=(7, K))
  log_p = log_softmax(outputs)
  p = np.exp(log_p)
  sure = -(p * log_p).sum(1) + 0.5 * (p * np.log(p.mean(0))).sum(1)
  objective = losses.make_gan_objective(NAT, K)
  passes = passes_of(outputs, ('real', 'fake'))
  found = of_disc(objective, passes)
  np.testing.assert_allclose(found['real'], sure, rtol=1e-5)
  np.testing.assert_allclose(found['fake'], -np.log(K) - log_p.mean(1), rtol=1e-5)
  np.testing.assert_allclose(of_gen(objective, passes), sure, rtol=1e-5)
  plain = losses.make_gan_objective({**NAT, 'marginal': 0.0}, K)
  np.testing.assert_allclose(
      of_disc(plain, passes)['real'], -(p * log_p).sum(1), rtol=1e-5)


@pytest.mark.parametrize('name', ['implicit_gan', 'label_gan', 'nat_gan'])
def test_three_sets_with_their_factors(name):
  """Unlabelled examples have the class of the largest logit for a label."""
  objective = losses.make_gan_objective({'name': name}, K)
  outputs = np.random.default_rng(2).normal(size=(5, objective.num_outputs))
  passes = passes_of(outputs)
  found = of_disc(step_lib.with_labelled(
      objective, losses.cross_entropy_objective(K), 0.5, 2.0), passes)
  given = {**passes, 'real': passes['real']._replace(
      labels=outputs[:, :K].argmax(1))}
  given.pop('labelled')
  alone = jax.device_get(of_disc(objective, given))
  np.testing.assert_allclose(found['real'], 0.5 * alone['real'], rtol=1e-6)
  np.testing.assert_allclose(found['fake'], 2.0 * alone['fake'], rtol=1e-6)
  log_p = log_softmax(outputs[:, :K])
  np.testing.assert_allclose(
      found['labelled'], -log_p[np.arange(5), np.arange(5) % K], rtol=1e-5)


# The step.


def make_trainer(**settings):
  objective = losses.make_gan_objective(MATCHED, K)
  return semi_supervised.semi_supervised(**toy.step_settings(
      SHAPE, **toy.gan_nets(SHAPE, K), objective=objective,
      supervised=losses.cross_entropy_objective(K), ema_decay=0.5,
      gen_tx=optax.adam(1e-2, eps=1e-2), disc_tx=optax.sgd(0.1)) | settings)


def make_items(seed=0, steps=2):
  """16 unlabelled examples per batch, and 8 labelled ones, which do not change."""
  def batch(rng, num, labels):
    label = rng.integers(0, K, (steps, num)) if labels else np.full((steps, num), -1)
    return {'image': rng.normal(size=(steps, num, *SHAPE)).astype(np.float32),
            'label': label.astype(np.int32),
            'weight': np.ones((steps, num), np.float32)}

  return {'labelled': batch(np.random.default_rng(9), 8, True),
          'unlabelled': batch(np.random.default_rng(seed), 16, False)}


@pytest.mark.slow
def test_devices_agree():
  trainer = make_trainer()
  state, metrics, start = toy.run_on_devices(trainer, 1, 'jit', make_items())
  other, others, _ = toy.run_on_devices(trainer, 8, 'pmap', make_items())
  for net in ('gen', 'disc'):
    moved = [np.abs(a - b).max() for a, b in zip(
        jax.tree.leaves(start[net].params), jax.tree.leaves(state.nets[net].params),
        strict=True)]
    assert max(moved) > 1e-4
  toy.assert_trees_close((state.nets, state.ema), (other.nets, other.ema), atol=5e-5)
  toy.assert_figures_close(trainer.figures(metrics), trainer.figures(others), atol=1e-4)
  assert trainer.figures(metrics)['images'] == 2 * (16 + 8)
  disc = start['disc'].params
  for average, first, last in zip(*map(jax.tree.leaves, (
      state.ema['disc'], disc, state.nets['disc'].params)), strict=True):
    assert np.isfinite(average).all() and average.shape == first.shape == last.shape


def test_with_factors_of_0_the_classifier_learns_from_labelled_examples_alone():
  trainer = make_trainer(unlabelled_weight=0.0, fake_weight=0.0)
  step = jax.jit(trainer.step)
  state = jax.jit(trainer.init)(jax.random.key(0))
  batches = [jax.tree.map(lambda x: x[0], make_items(seed)) for seed in (0, 1)]
  one, other = (step(state, {}, batch)[0] for batch in batches)
  toy.assert_trees_close(one.nets['disc'], other.nets['disc'], rtol=0)
  logits = jax.eval_shape(
      trainer.heads['logits'], one, batches[0]['unlabelled']['image'])
  assert logits.shape == (16, K)
  half = jax.tree.map(lambda a, b: (a + b) / 2, *jax.device_get(
      (state.nets['disc'].params, one.nets['disc'].params)))
  toy.assert_trees_close(one.ema['disc'], half, atol=1e-6)


def test_the_average_of_a_short_run_is_not_that_of_the_initial_parameters():
  trainer = make_trainer(ema_decay=0.9999)
  step = jax.jit(trainer.step)
  state = jax.jit(trainer.init)(jax.random.key(0))
  batch = jax.tree.map(lambda x: x[0], make_items())
  params = [state.nets['disc'].params]
  for _ in range(3):
    state, _ = step(state, {}, batch)
    params.append(state.nets['disc'].params)
  # Decays of 1/2: the initial parameters have a weight of 1/8, and not of .9997.
  expected = jax.tree.map(
      lambda *each: sum(w * x for w, x in zip((1, 1, 2, 4), each, strict=True)) / 8,
      *jax.device_get(params))
  toy.assert_trees_close(state.ema['disc'], expected, atol=1e-6)
  plain = make_trainer(ema_decay=0.0)
  assert jax.eval_shape(plain.init, jax.random.key(0)).ema == {}


# Inputs.


def test_labels_are_chosen_by_the_seed_and_nested():
  label = np.random.default_rng(0).integers(0, 4, 200)
  two, five = (semi_supervised.choose(label, n, 4, seed=3) for n in (2, 5))
  np.testing.assert_array_equal(np.bincount(label[two]), [2] * 4)
  np.testing.assert_array_equal(np.bincount(label[five]), [5] * 4)
  assert set(two) < set(five)
  assert set(two) != set(semi_supervised.choose(label, 2, 4, seed=4))


def test_pool_and_batches_hold_labelled_and_unlabelled_examples():
  config = make_config().to_dict()
  loaded = semi_supervised.TASK.load(config)
  positives = data.load(FAKE)
  chosen = semi_supervised.choose(positives.label, 2, 4, seed=config['seed'])
  np.testing.assert_array_equal(loaded.pool.label[:8], positives.label[chosen])
  assert (loaded.pool.label[8:] == -1).all() and len(loaded.pool.label) == 40
  np.testing.assert_array_equal(loaded.pool.image[:8], positives.image[chosen])
  rows = [loaded.stream.index(step) for step in range(4)]
  assert sum(map(len, rows[0].values())) == loaded.stream.num_slots
  # Each example occurs once in an epoch: 4 batches of 8 are the 32 unlabelled ones.
  np.testing.assert_array_equal(
      np.sort(np.concatenate([one['unlabelled'] for one in rows])), np.arange(8, 40))
  np.testing.assert_array_equal(
      np.sort(np.concatenate([one['labelled'] for one in rows])),
      np.repeat(np.arange(8), 4))


# Runs.


def make_config(**changes):
  return presets.experiment(**dict(
      task='semi_supervised', name='toy', steps=6, num_classes=4, ema_decay=0.5,
      generator={'name': 'mlp_generator', 'latent': 3, 'widths': [4]},
      discriminator={'name': 'mlp_discriminator', 'widths': [4]}, gan_loss=NAT,
      data=dict(positives=FAKE, labels_per_class=2, batch_size=8, labelled_per_batch=8),
      evals={'test': {'source': {**FAKE, 'seed': 1}, 'positive': True},
             'blobs': {'source': {'name': 'blobs', 'num': 20}}},
      run=dict(log_every=3, checkpoint_every=3, updates_per_call=3,
               tensorboard=False)) | changes)


@pytest.mark.slow
def test_trained_resumed_evaluated_and_reported(tmp_path):
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  evaluation = train.train(make_config(), str(whole))
  assert evaluation['step'] == 6
  assert 0 <= evaluation['evals']['test']['accuracy'] <= 1
  assert not evaluation['evals']['blobs']['seen_in_training']
  shutil.copytree(whole, cut)
  (cut / 'eval.json').unlink()
  shutil.rmtree(cut / 'checkpoints' / '6')
  train.train(make_config(), str(cut))  # from update 3 on
  states = [runs.restore(str(workdir)).state for workdir in (whole, cut)]
  for a, b in zip(*(jax.tree.leaves((state.nets, state.ema)) for state in states),
                  strict=True):
    np.testing.assert_array_equal(a, b)
  written = (whole / 'eval.json').read_text()
  assert toy.records(whole, 'start')[0]['examples'] == {
      'positives': 8, 'negatives': {}, 'unlabelled': 32}
  evaluate_run(str(whole))
  assert json.loads((whole / 'eval.json').read_text()) == json.loads(written)
  assert 'accuracy' in report.tables([str(whole), str(cut)])


def with_data(**changes):
  return dict(data=make_config().to_dict()['data'] | changes)


@pytest.mark.parametrize('changes, named', [
    (with_data(labels_per_class=0), ['data.labels_per_class', '0']),
    (with_data(labels_per_class=11), ['data.labels_per_class', '11', 'class', '10']),
    (with_data(labels_per_class=10), ['data.labels_per_class', 'none', '40']),
    (with_data(labelled_per_batch=0), ['data.labelled_per_batch', '0']),
    (with_data(labelled_per_batch=12), ['data.labelled_per_batch', '12', '8 devices']),
    (with_data(positives={'name': 'breast_cancer'}), ['breast_cancer', 'vectors']),
    (dict(num_classes=3), ['0..2', 'num_classes']),
    (dict(gan_loss={'name': 'gan'}), ['gan_loss', 'class logits', 'implicit_gan']),
    (dict(gan_loss={'name': 'nought'}), ['nought']),
    (dict(gan_loss={'name': 'nat_gan_unlabelled', 'marginal': -1.0}),
     ['gan_loss.marginal', '-1']),
    (dict(gan_loss={'name': 'cat_gan_springenberg', 'labelled': 0.5}),
     ['gan_loss.labelled', '0.5', 'leave it out']),
    (with_data(std=(0.25,)), ['[-1, 1]', '2.00', 'data.std']),
    (dict(loss={'name': 'nat'}), ['loss', 'negatives', 'cross_entropy']),
    (dict(discriminator={'name': 'mlp_discriminator', 'batch_norm': True}),
     ['other examples', 'set discriminator.batch_norm=False']),
    (dict(discriminator={'name': 'mlp_discriminator', 'projection': 4}),
     ['given it', 'set discriminator.projection=0']),
    (dict(discriminator={'name': 'mlp_discriminator', 'kernels': 2}),
     ['other examples', 'set discriminator.kernels=0']),
    (dict(trainer={'name': 'semi_supervised', 'fake_weight': -1.0}),
     ['trainer.fake_weight', '-1'])])
def test_mistakes(changes, named, tmp_path, eight_devices):
  with pytest.raises((ValueError, TypeError)) as error:
    train.train(make_config(**changes), str(tmp_path / 'run'))
  assert all(text in str(error.value) for text in named), error.value
  assert not (tmp_path / 'run').exists()


def test_config_has_the_same_labels_for_all_variants():
  get_config = toy.config_file('semi_supervised.py')
  for form in ('', '_5_open'):
    found = [semi_supervised.TASK.load(get_config(f'{name}{form}').to_dict()).pool.label
             for name in ('supervised', 'nat')]
    np.testing.assert_array_equal(*found)
    assert (found[0] >= 0).sum() == (30 if form else 20)
  with pytest.raises(ValueError, match="'natt'.*nat.*_5.*_open"):
    get_config('natt')
