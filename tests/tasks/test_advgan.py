"""AdvGAN: its losses, devices, and a run from its config to its report."""

import copy
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from nat_jax import data, models, runs, train
from nat_jax.commands import plan, report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.schema import presets
from nat_jax.task import Run, Trainer
from nat_jax.tasks import advgan
from nat_jax.tasks.advgan import report as advgan_report
from nat_jax.tasks.advgan import step as advgan_step

NUM_CLASSES, SHAPE = toy.NUM_CLASSES, (4, 4, 1)
BUDGET, RATE = 0.2, 0.1
WEIGHTS = dict(adversarial_weight=0.7, gan_weight=0.3, hinge_weight=0.2, hinge=0.5,
               kappa=0.1)


# The step.


def normalise(images):
  """To -1 for black and 1 for white; float32 images are normalised already."""
  return images if images.dtype == np.float32 else images / np.float32(127.5) - 1


def make_target():
  """A linear classifier of fixed weights, with a background output."""
  kernel = np.random.default_rng(5).normal(size=(16, NUM_CLASSES + 1))

  def logits(state, images):
    return images.reshape(len(images), -1) @ state

  return Run({}, SHAPE, (), Trainer(None, None, None, {'logits': logits}, None, None),
             jnp.asarray(kernel, jnp.float32), 1, None)


def settings(**changes):
  sgd = optax.sgd(RATE)
  return toy.step_settings(SHAPE, **{
      'generator': models.MLP(16, width=8, depth=1),
      'discriminator': models.MLPDiscriminator(
          image_shape=SHAPE, num_outputs=1, widths=(8,), noise=0.0, dropout=0.0),
      'target': make_target, 'gen_tx': sgd, 'disc_tx': sgd, 'student_tx': sgd,
      'normalise': normalise, 'budget': BUDGET, **WEIGHTS, **changes})


def make_batch(seed=0):
  batch = toy.make_batch(SHAPE, seed=seed, lowest=0)
  return batch | {'image': np.tanh(batch['image'])}


@pytest.fixture(scope='module')
def student():
  return models.SmallConv(NUM_CLASSES, widths=(4,))


@pytest.mark.slow
def test_devices_agree_and_every_network_learns(student):
  trainer = advgan.TRAINERS['advgan'](**settings(student=student))
  items = jax.tree.map(lambda *x: np.stack(x), make_batch(0), make_batch(1))
  (expected, metrics, before), (state, others, _) = (
      toy.run_on_devices(trainer, num_devices, mode, items)
      for num_devices, mode in ((1, 'jit'), (8, 'pmap')))
  assert set(expected.nets) == {'gen', 'disc', 'student'}
  for name, net in before.items():
    moved = [np.abs(a - b).max() for a, b in zip(
        jax.tree.leaves(net.params), jax.tree.leaves(expected.nets[name].params),
        strict=True)]
    assert max(moved) > 1e-4, name
  toy.assert_trees_close(expected.nets, state.nets, atol=1e-5)
  toy.assert_figures_close(metrics.compute(), others.compute(), rtol=1e-4, atol=1e-5)


def test_step_descends_the_losses_of_both_players():
  """Written out anew: one step of SGD of D and then of G, on the filled slots."""
  given = settings()
  setup = advgan_step.Setup(**given)
  trainer, batch = advgan.TRAINERS['advgan'](**given), make_batch()
  state = jax.jit(trainer.init)(jax.random.key(1))
  filled = batch['weight'] > 0
  x, y = jnp.asarray(batch['image'][filled]), batch['label'][filled]
  kernel, num = make_target().state, filled.sum()

  def changed(params):
    outputs, _ = setup.generator.apply({'params': params}, x, train=False)
    # The range is 2 long.
    return jnp.clip(x + 2 * BUDGET * jnp.tanh(outputs).reshape(x.shape), -1, 1)

  def disc(params, images):
    return setup.discriminator.apply({'params': params}, images, train=True)[0][:, 0]

  def disc_loss(params):
    fake = changed(state.nets['gen'].params)
    return jnp.mean(jnp.square(disc(params, x) - 1) + jnp.square(disc(params, fake)))

  @jax.jit
  def expect(gen_params, disc_params):
    loss, slope = jax.value_and_grad(disc_loss)(disc_params)
    after = jax.tree.map(lambda p, g: p - RATE * g, disc_params, slope)

    def gen_loss(params):
      images = changed(params)
      o = images.reshape(num, -1) @ kernel
      right = jnp.maximum(o[np.arange(num), y], o[:, NUM_CLASSES])
      others = jnp.where(
          np.arange(NUM_CLASSES) == y[:, None], -jnp.inf, o[:, :NUM_CLASSES]).max(1)
      length = jnp.sqrt(jnp.square(images - x).sum((1, 2, 3))) / (2 * BUDGET * 4)
      terms = (0.7 * jnp.maximum(right - others, -0.1)
               + 0.3 * jnp.square(disc(after, images) - 1)
               + 0.2 * jnp.maximum(length - 0.5, 0))
      return terms.mean(), jnp.mean(right < others)

    (value, success), slope = jax.value_and_grad(gen_loss, has_aux=True)(gen_params)
    return after, jax.tree.map(lambda p, g: p - RATE * g, gen_params, slope), (
        loss, value, success)

  disc_after, gen_after, (loss_disc, loss_gen, _) = expect(
      state.nets['gen'].params, state.nets['disc'].params)
  after, metrics = jax.jit(trainer.step)(state, trainer.frozen(), batch)
  toy.assert_trees_close(disc_after, after.nets['disc'].params, atol=2e-6)
  toy.assert_trees_close(gen_after, after.nets['gen'].params, atol=2e-6)
  found = metrics.compute()
  np.testing.assert_allclose(found['loss_disc'], loss_disc, rtol=1e-5)
  np.testing.assert_allclose(found['loss_gen'], loss_gen, rtol=1e-5)


def test_the_student_descends_the_cross_entropy_with_the_target(student):
  """Probabilities of the target without its background output, for x and x'."""
  given = settings(student=student)
  setup = advgan_step.Setup(**given)
  trainer, batch = advgan.TRAINERS['advgan'](**given), make_batch()
  state = jax.jit(trainer.init)(jax.random.key(1))
  filled = batch['weight'] > 0
  x, net = jnp.asarray(batch['image'][filled]), state.nets['student']

  @jax.jit
  def expect(params):
    fake, _ = advgan_step.perturb(
        setup, setup.limits, state.nets['gen'].params, x, advgan_step.GLOBAL)
    both = jnp.concatenate([x, fake])
    wanted = jax.nn.softmax(
        (both.reshape(len(both), -1) @ make_target().state)[:, :NUM_CLASSES])

    def loss(params):
      (logits, _), _ = student.apply(
          {'params': params, 'batch_stats': net.batch_stats}, both, train=True,
          mutable=['batch_stats'])
      return -(wanted * jax.nn.log_softmax(logits)).sum(1).mean()

    value, slope = jax.value_and_grad(loss)(params)
    return jax.tree.map(lambda p, g: p - RATE * g, params, slope), value

  params, value = expect(net.params)
  after, metrics = jax.jit(trainer.step)(state, trainer.frozen(), batch)
  toy.assert_trees_close(params, after.nets['student'].params, atol=2e-6)
  np.testing.assert_allclose(metrics.compute()['loss_student'], value, rtol=1e-5)


# A run.


def classifier():
  """A small classifier of digits, with a checkpoint of half of its training."""
  def source(split):
    return {'name': 'digits', 'split': split, 'classes': (0, 1, 2, 3, 4, 5)}

  return presets.experiment(
      name='toy', variant='baseline', steps=60, num_classes=6,
      model={'name': 'mlp', 'width': 16, 'depth': 1}, loss={'name': 'cross_entropy'},
      data=dict(positives=source('train'), batch_size=32, **(
          presets.NORMALISATION['digits'])),
      evals={'test': {'source': source('test'), 'positive': True}},
      run=dict(checkpoint_every=30, tensorboard=False))


def attack(folder, variant='black', **changes):
  """configs/advgan.py with small networks and few updates, against a run in a folder.

  The classifier that pictures transfer to is an earlier checkpoint of the target.
  """
  config = toy.config_file('advgan.py')(variant)
  for spec, step in ((config.target, None), (
      config.evals.transfer_nat.classifier, 30)):
    spec.update(workdir=str(folder / 'target'), config='', step=step)
  small = {'width': 32, 'depth': 1}
  config.perturber.update(small)
  config.discriminator.widths = (8,)
  if config.student:
    config.student = {'name': 'mlp', **small}
  config.evals.train = {'source': config.data.positives}
  config.schedule = {'name': 'constant', 'learning_rate': 5e-3}
  config.steps, config.eval_batch_size, config.measures.attack_steps = 150, 256, 2
  config.run.update(checkpoint_every=75, log_every=75, tensorboard=False)
  return toy.change(config, **changes)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A target and the run of an attack on it."""
  folder = tmp_path_factory.mktemp('advgan')
  train.train(classifier(), str(folder / 'target'))
  train.train(attack(folder), str(folder / 'run'))
  return folder


@pytest.fixture(scope='module')
def evaluation(folder):
  return json.loads((folder / 'run' / 'eval.json').read_text())


@pytest.mark.slow
def test_figures_are_those_of_the_pictures_in_the_file(folder, evaluation):
  """adversarial.npz: the source `arrays` reads it, and the target errs on it."""
  config = attack(folder).to_dict()
  positives, path = data.load(config['data']['positives']), folder / 'run'
  written = toy.arrays(path / 'adversarial.npz')
  changed = written['image']
  np.testing.assert_array_equal(written['label'], positives.label)
  read = data.load({'name': 'arrays', 'path': str(path / 'adversarial.npz')})
  assert read.names == positives.names
  assert sorted(zip(map(bytes, read.image), read.label, strict=True)) == sorted(
      zip(map(bytes, changed), positives.label, strict=True))  # it sorts by class
  moved = np.abs(changed.astype(int) - positives.image)
  assert 0 < moved.max() <= 38  # .15 * 255
  target = runs.restore(str(folder / 'target'))

  def classify(images):
    logits = np.asarray(target.trainer.heads['logits'](target.state, images))
    p = np.exp(logits - logits.max(1, keepdims=True)).astype(float)
    return logits.argmax(1), p.max(1) / p.sum(1)

  (before, confidence), (after, p) = map(classify, (positives.image, changed))
  right, wrong = before == positives.label, after != positives.label
  found = evaluation['evals']['train']
  assert found['attacked'] == right.sum() and found['n'] == len(right)
  assert found['accuracy'] == pytest.approx(right.mean())
  assert found['success']['advgan'] == pytest.approx(wrong[right].mean())
  assert found['confident_errors']['advgan'] == pytest.approx(
      (wrong & (p > 0.8))[right].mean(), abs=0.003)
  keeps = np.sort(confidence)[int(0.05 * len(p))]  # 30 of 601 are below it
  assert found['accepted_errors']['advgan'] == pytest.approx(
      (wrong & (p >= keeps))[right].mean(), abs=0.003)
  assert found['change']['advgan'] == pytest.approx(moved[right].mean() / 255)


@pytest.mark.slow
def test_attacks_are_ordered_as_their_knowledge(evaluation):
  success = evaluation['evals']['test']['success']
  assert list(success) == list(advgan.evaluate.TITLES)
  assert success['noise'] + 0.2 < success['advgan'] < success['pgd']
  assert success['pgd_student'] <= success['pgd']
  errors = evaluation['evals']['test']['confident_errors']
  assert all(errors[name] <= success[name] for name in success)
  assert errors['pgd_confident'] >= errors['noise']
  transfer = evaluation['evals']['transfer_nat']
  assert transfer['success']['noise'] < transfer['success']['pgd'] < success['pgd']


def test_the_headline_is_of_the_first_set_with_figures():
  rates = {'advgan': 0.5, 'pgd': 0.75}
  figures = {'success': rates, 'confident_errors': rates}
  none = {'success': {}, 'confident_errors': {}}
  for evals, headline in (
      ({'a': none, 'b': figures}, 'on 50 % of b, PGD on 75 %'),
      ({'a': figures, 'b': none}, 'on 50 % of a'),
      ({'a': none}, 'no picture is classified correctly'),
      ({}, 'no evaluation')):
    [(found, sentences)] = advgan_report.verdict({'run': [{'evals': evals}]})
    assert headline in found and len(sentences) == len(evals) + 1


@pytest.mark.slow
def test_evaluation_repeats_and_is_reported(folder, evaluation, tmp_path):
  workdir = shutil.copytree(folder / 'run', tmp_path / 'run')
  (workdir / 'eval.json').unlink()
  before = toy.arrays(workdir / 'adversarial.npz')
  evaluate_run(str(workdir))
  assert json.loads((workdir / 'eval.json').read_text()) == evaluation
  after = toy.arrays(workdir / 'adversarial.npz')
  np.testing.assert_array_equal(before['image'], after['image'])
  text = report.tables([str(workdir)])
  percent = 100 * evaluation['evals']['test']['success']['advgan']
  assert 'do not make it robust' in text and 'PGD on the student' in text
  assert re.search(rf'AdvGAN misleads the classifier on {percent:.1f}', text)
  page = report.write([str(workdir)])
  assert (workdir / 'figures' / 'adversarial.png').stat().st_size > 1000
  assert 'semi-white' not in open(page).read()


@pytest.mark.slow
def test_the_config_holds_the_checkpoints_of_both_classifiers(folder):
  config = json.loads((folder / 'run' / 'config.json').read_text())
  for spec, step in ((config['target'], 60), (
      config['evals']['transfer_nat']['classifier'], 30)):
    about = runs.about(str(folder / 'target'), step)
    assert (spec['step'], spec['crc32']) == (step, about['crc32'])
  state = runs.restore(str(folder / 'run')).state
  assert set(state.nets) == {'gen', 'disc', 'student'}


@pytest.mark.slow
def test_every_config_builds(folder):
  for variant in ('white', 'black'):
    config = toy.config_file('advgan.py')(variant)
    assert config.target.config and config.target.workdir
    config.target = {'name': 'checkpoint', 'workdir': str(folder / 'target')}
    config.evals = {'test': config.evals.test}
    config = runs.resolve(config)
    trainer = runs.build_trainer(config, (8, 8, 1))
  state = jax.eval_shape(trainer.init, jax.random.key(0))
  shapes = jax.ShapeDtypeStruct
  batch = {'image': shapes((128, 8, 8, 1), np.uint8),
           'label': shapes((128,), np.int32), 'weight': shapes((128,), np.float32)}
  after, _ = jax.eval_shape(trainer.step, state, trainer.frozen(), batch)
  assert jax.tree.structure(after) == jax.tree.structure(state)


def test_a_target_that_is_still_to_be_trained_waits_for_its_config(tmp_path):
  """--mode=train trains it first, after all configs were checked."""
  config = toy.config_file('advgan.py')('white')
  config.target.workdir = str(tmp_path / 'missing')
  config.evals.transfer_nat.classifier.workdir = str(tmp_path / 'other')
  assert 'crc32' not in runs.resolve(config)['target']
  needed, planned = plan.plan(config, 'configs/advgan.py', 'white', {}, 'run')
  assert {one.variant: workdir for one, workdir in needed} == {
      'baseline': str(tmp_path / 'missing'), 'nat': str(tmp_path / 'other')}
  assert [workdir for _, workdir in planned] == ['run']
  config.evals = {'test': config.evals.test}
  config.target.config = ''
  with pytest.raises(ValueError, match='no checkpoints in .*missing'):
    runs.resolve(config)


@pytest.mark.slow
@pytest.mark.parametrize('changes, named', [
    (dict(trainer__budget=0), ['trainer.budget', '(0, 1]', '0']),
    (dict(trainer__budget=1.5), ['trainer.budget', '(0, 1]', '1.5']),
    (dict(trainer__budget=0.001), ['trainer.budget', '1/255', '0.001']),
    (dict(target__workdir=''), ['target', '--config.target.workdir=DIR']),
    (dict(target__workdir='nowhere'), ['no checkpoints in nowhere']),
    (dict(data__mean=(0.5,)), ['data.mean', '0.3053', '0.5']),
    (dict(data__positives__classes=(0, 1, 2, 3, 4, 7)),
     ['target', '0, 1, 2, 3, 4, 5', '0, 1, 2, 3, 4, 7']),
    (dict(data__positives={'name': 'digits', 'classes': (0, 1, 2)}, num_classes=3),
     ['6 classes', 'num_classes=3']),
    (dict(data__positives={'name': 'fake', 'num': 48, 'shape': (6, 6, 1)}),
     ['target', '(8, 8, 1)', '(6, 6, 1)', 'image_size']),
    (dict(evals__test__source={'name': 'fake', 'num': 48, 'shape': (6, 6, 1)}),
     ["'test'", '(6, 6, 1)', '(8, 8, 1)']),
    (dict(evals__test__source={'name': 'digits', 'classes': (6, 7, 8, 9, 0, 1, 2)}),
     ["'test'", '6 classes']),
    (dict(evals__test__classifier={'name': 'checkpoint'}),
     ['evals.test.classifier', 'workdir']),
    (dict(evals__test__positive=True), ["evals.test.'positive'", 'classifier']),
    (dict(perturber={'name': 'small_conv', 'widths': (4,)}),
     ['perturber', 'batch statistics', 'small_conv']),
    (dict(data__negatives_per_batch=3),
     ["data.'negatives_per_batch'", 'data.positives'])])
def test_mistakes(changes, named, folder, tmp_path):
  config = attack(folder, 'white').to_dict()
  with pytest.raises((ValueError, TypeError)) as error:
    train.train(toy.change(config, **changes), str(tmp_path / 'run'))
  assert all(text in str(error.value) for text in named), error.value
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_a_target_that_is_not_what_it_was(folder, tmp_path):
  """Not finished, of another task, or with another checkpoint than at the start."""
  cut = shutil.copytree(folder / 'target', tmp_path / 'cut')
  shutil.rmtree(cut / 'checkpoints' / '60')
  config = attack(folder, 'white').to_dict()
  for name, message in ((str(cut), 'stopped at step 30 of 60.*target.step=30'),
                        (str(folder / 'run'), 'expected classifiers')):
    with pytest.raises(ValueError, match=message):
      train.train(toy.change(copy.deepcopy(config), target__workdir=name),
                  str(tmp_path / 'run'))
  started = json.loads((folder / 'run' / 'config.json').read_text())
  started.pop('format')
  started['target']['crc32'] ^= 1
  trainer = advgan.build.build(started, (8, 8, 1), runs.OTHERS)
  with pytest.raises(ValueError, match='has changed since this run was started'):
    trainer.frozen()
