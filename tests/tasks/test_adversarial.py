"""Adversarial pictures of the positives in each step: the loss, devices, mistakes."""

import jax
import numpy as np
import optax
import pytest
import toy

from nat_jax import losses, models, schema
from nat_jax.schema import presets
from nat_jax.tasks import attacks, classify
from nat_jax.tasks.classify import adversarial
from nat_jax.tasks.classify import step as supervised

NUM_CLASSES, SHAPE, RATE = toy.NUM_CLASSES, (4, 4, 1), 0.5
BUDGET, STEPS = 0.2, 2


def normalise(images):
  """To -1 for black and 1 for white; float32 images are normalised already."""
  return images if images.dtype == np.float32 else images / np.float32(127.5) - 1


def settings(**changes):
  return toy.step_settings(SHAPE, **{
      'model': models.SmallConv(NUM_CLASSES, widths=(4,)), 'tx': optax.sgd(RATE),
      'objective': losses.nat(NUM_CLASSES), 'normalise': normalise, **changes})


def make_trainer(**changes):
  return classify.TRAINERS['adversarial'](**{
      'budget': BUDGET, 'steps': STEPS, 'weight': 2.0, **settings(**changes)})


def make_batch(seed=0):
  batch = toy.make_batch(SHAPE, seed=seed)
  return batch | {'image': np.tanh(batch['image'])}


@pytest.mark.slow
def test_devices_and_micro_batches_agree():
  """An MLP, whose results do not depend on the statistics of a part of the batch."""
  model = models.MLP(NUM_CLASSES, width=8, depth=1)
  one, parts = (make_trainer(model=model, micro_batches=num) for num in (1, 2))
  items = jax.tree.map(lambda *x: np.stack(x), make_batch(0), make_batch(1))
  (expected, metrics), *others = (
      toy.run_on_devices(trainer, num_devices, mode, items)[:2]
      for trainer, num_devices, mode in ((one, 1, 'jit'), (parts, 8, 'pmap')))
  for state, found in others:
    toy.assert_trees_close(expected.nets, state.nets, atol=3e-6)
    toy.assert_figures_close(metrics.compute(), found.compute(), rtol=2e-5)


@pytest.mark.parametrize('labels', adversarial.LABELS)
def test_step_descends_the_loss_with_that_of_changed_positives(labels):
  """Written out anew: one step of SGD on the filled slots and changed positives."""
  model = models.SmallConv(NUM_CLASSES, widths=(4,))
  trainer, batch = make_trainer(labels=labels), make_batch()
  state = jax.jit(trainer.init)(jax.random.key(1))
  setup = supervised.Setup(**settings(attack=lambda logits, images, own, keys: (
      attacks.pgd(attacks.make_limits(BUDGET, normalise, SHAPE),
                  lambda x: losses.cross_entropy(logits(x), own), images, keys,
                  STEPS))))
  changed = jax.jit(lambda net, key: supervised.attacked(
      setup, net, batch, key, supervised.GLOBAL))(
          state.nets['model'], jax.random.fold_in(state.key, 0))
  moved = np.abs(np.asarray(changed) - batch['image'])
  assert 2 * BUDGET - 1e-4 < moved.max() < 2 * BUDGET + 1e-6  # of the range -1 to 1
  filled = batch['weight'] > 0
  images, own = batch['image'][filled], batch['label'][filled]
  attacked, num = np.asarray(changed)[filled][own >= 0], filled.sum()
  target = own[own >= 0] if labels == 'own' else np.full((own >= 0).sum(), -1)

  def objective(params):
    (logits, _), _ = model.apply(
        state.nets['model'].variables | {'params': params},
        np.concatenate([images, attacked]), train=True, mutable=['batch_stats'])
    extra = 2.0 * losses.nat_loss(logits[num:], target).mean()
    return losses.nat_loss(logits[:num], own).mean() + extra, extra

  (loss, extra), grads = jax.jit(
      jax.value_and_grad(objective, has_aux=True))(state.nets['model'].params)
  after, metrics = jax.jit(trainer.step)(state, {}, batch)
  toy.assert_descended(
      state.nets['model'].params, after.nets['model'].params, grads, RATE, atol=2e-6)
  metrics = metrics.compute()
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
  np.testing.assert_allclose(metrics['loss_adversarial'], extra, rtol=1e-5)


def test_the_attack_raises_the_loss_of_the_current_network():
  setup = supervised.Setup(**settings(
      model=models.MLP(NUM_CLASSES, width=8, depth=1),
      attack=lambda *given: adversarial.mislead(
          attacks.make_limits(BUDGET, normalise, SHAPE), 5, *given)))
  net = jax.jit(lambda key: supervised.init(setup, key))(
      jax.random.key(0)).nets['model']
  batch = make_batch()
  changed = jax.jit(lambda key: supervised.attacked(
      setup, net, batch, key, supervised.GLOBAL))(jax.random.key(2))

  @jax.jit
  def loss(images):
    logits, _ = setup.model.apply(net.variables, images, train=False)
    return losses.cross_entropy(logits, batch['label'])

  before, after = (np.asarray(loss(images)) for images in (batch['image'], changed))
  positive = batch['label'] >= 0
  assert (after > before)[positive].all()
  assert not after[~positive].any()


@pytest.mark.parametrize('changes, message', [
    (dict(labels='uniform'), "trainer.labels 'uniform'.*valid: negative, own"),
    (dict(objective=losses.cross_entropy_objective(NUM_CLASSES)),
     "labels='negative' needs a loss that uses negatives.*'nat'"),
    (dict(budget=0.001), 'trainer.budget.*1/255.*0.001'),
    (dict(image_shape=(7,)), r'vectors.*\(7,\)')])
def test_what_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    make_trainer(**changes)


@pytest.mark.parametrize('labels', [{}, {'labels': 'negative'}, {'labels': 'own'}])
def test_negatives_that_are_made_may_be_the_only_ones(labels):
  config = presets.experiment(
      num_classes=4, loss={'name': 'nat'}, trainer={'name': 'adversarial', **labels},
      data=dict(positives={'name': 'fake', 'num': 8}, batch_size=4))
  if labels == {'labels': 'own'}:
    with pytest.raises(ValueError, match='needs negatives'):
      classify.TASK.load(schema.plain(config))
  else:
    assert classify.TASK.load(schema.plain(config)).stream.num_slots == 4
