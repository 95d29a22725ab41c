"""AdaptiveMix: who is mixed with whom, the loss, the frozen output layer, devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from scipy import special

from nat_jax import losses, models
from nat_jax.models import heads
from nat_jax.task import GLOBAL
from nat_jax.tasks import classify
from nat_jax.tasks.classify import adaptive_mix, treatments

NUM_CLASSES, SHAPE, RATE = toy.NUM_CLASSES, (4, 4, 1), 0.5
MLP = models.MLP(NUM_CLASSES, width=8, depth=1)


def make_trainer(**settings):
  return classify.TRAINERS['adaptive_mix'](**toy.step_settings(SHAPE, **{
      'model': MLP, 'objective': losses.nat(NUM_CLASSES), 'tx': optax.sgd(RATE),
      'weight': 3.0, 'scale': 5.0, 'noise': 0.2, **settings}))


def make_batch(seed=0):
  return toy.make_batch(SHAPE, seed=seed)


@pytest.mark.slow
def test_devices_agree():
  """Under pmap a partner may be on another device: its features are gathered."""
  trainer = make_trainer(
      model=models.SmallConv(NUM_CLASSES, widths=(4,)), ema_decay=0.9,
      treat=classify.TREATMENTS['mix']())
  items = jax.tree.map(lambda *x: np.stack(x), make_batch(0), make_batch(1))
  (expected, expected_metrics), (state, metrics) = (
      toy.run_on_devices(trainer, num_devices, mode, items)[:2]
      for num_devices, mode in ((1, 'jit'), (8, 'pmap')))
  toy.assert_trees_close(
      (expected.nets, expected.ema), (state.nets, state.ema), atol=5e-6)
  toy.assert_figures_close(expected_metrics.compute(), metrics.compute(), rtol=2e-5)


@functools.cache
def compiled(share, treat=None):
  """(batch, seed) -> the batch paired, with this share of the example itself."""
  return jax.jit(lambda batch, seed: adaptive_mix.pair(
      treat, lambda key: share, batch, jax.random.key(seed), None, GLOBAL))


@jax.jit
def first_pairs(state, batch):
  """The batch as the first step of a trainer pairs it."""
  key = treatments.purpose_key(jax.random.fold_in(state.key, state.step))
  return adaptive_mix.pair(
      None, treatments.symmetric_beta(1.0), batch, key, None, GLOBAL)


def test_positives_form_one_circle():
  batch = make_batch()
  positive = (batch['weight'] > 0) & (batch['label'] >= 0)
  seen = set()
  for seed in range(4):
    found = {name: np.asarray(x) for name, x in compiled(0.7)(batch, seed).items()
             if name != 'key'}
    other = found['other']
    np.testing.assert_array_equal(other[~positive], np.flatnonzero(~positive))
    place = first = np.flatnonzero(positive)[0]
    for _ in range(positive.sum()):
      place = other[place]
      seen.add((int(first), int(place)))
      assert positive[place]
    assert place == first and len(set(other)) == 16
    own = np.where(positive, np.float32(0.7), 1)
    np.testing.assert_array_equal(found['own'], own)
    np.testing.assert_allclose(found['share'], 1 - own, rtol=1e-6)
    np.testing.assert_array_equal(
        found['partner'], np.where(positive, batch['label'][other], batch['label']))
    part = own[:, None, None, None]
    np.testing.assert_allclose(
        found['mixed'], part * batch['image'] + (1 - part) * batch['image'][other],
        atol=1e-6)
    np.testing.assert_array_equal(found['image'], batch['image'])


def test_shares_of_mixed_negatives_stay():
  batch, mix = make_batch(), classify.TREATMENTS['mix']()
  mixed = jax.jit(lambda batch: mix(batch, jax.random.key(0), None, GLOBAL))(batch)
  both = compiled(0.7, mix)(batch, 0)
  negative = batch['label'] < 0
  assert np.asarray(mixed['share'])[negative].max() > 0
  for name in ('share', 'partner', 'image'):
    np.testing.assert_array_equal(
        np.asarray(both[name])[negative], np.asarray(mixed[name])[negative])


def test_mixup_trains_on_the_mixed_positives():
  """The loss of x' with mixed targets, and that of negatives as they are."""
  batch, model = make_batch(), models.MLP(NUM_CLASSES, width=8, depth=1)
  trainer = classify.TRAINERS['mixup'](**toy.step_settings(
      SHAPE, model=model, objective=losses.nat(NUM_CLASSES), tx=optax.sgd(RATE)))
  state = jax.jit(trainer.init)(jax.random.key(1))
  mixed = first_pairs(state, batch)
  logits, _ = jax.jit(functools.partial(model.apply, train=False))(
      state.nets['model'].variables, mixed['mixed'])
  log_p = special.log_softmax(logits, axis=1)
  rows, own, labels = np.arange(16), np.asarray(mixed['own']), batch['label']
  ce = -own * log_p[rows, labels] - (1 - own) * log_p[
      rows, labels[np.asarray(mixed['other'])]]
  expected = np.where(labels >= 0, ce, -log_p.mean(1) - np.log(NUM_CLASSES))
  _, metrics = jax.jit(trainer.step)(state, {}, batch)
  np.testing.assert_allclose(
      metrics.compute()['loss'], expected[batch['weight'] > 0].mean(), rtol=1e-5)


def test_a_batch_without_positives_is_not_mixed():
  batch = make_batch() | {'label': np.full(16, -1, np.int32)}
  trainer = make_trainer()
  state = jax.jit(trainer.init)(jax.random.key(0))
  after, metrics = jax.jit(trainer.step)(state, {}, batch)
  assert np.isfinite(metrics.compute()['loss'])
  assert all(np.isfinite(x).all() for x in toy.leaves(after))


def test_step_descends_the_loss_of_both_terms():
  """Written out anew: one step of SGD, given the partners, the share and the noise."""
  trainer, batch = make_trainer(), make_batch()
  state = jax.jit(trainer.init)(jax.random.key(1))
  mixed = first_pairs(state, batch)
  own, other = np.asarray(mixed['own'])[:, None], np.asarray(mixed['other'])
  noise = jax.vmap(lambda key: jax.random.normal(key, (8,)))(mixed['key'])
  kernel = state.nets['model'].batch_stats['orthogonal']
  filled, labels = batch['weight'] > 0, batch['label']
  pos = filled & (labels >= 0)

  def embed(params, images):
    _, aux = MLP.apply({'params': params}, images, train=True)
    f = aux['features']
    return f / jnp.linalg.norm(f, axis=1, keepdims=True)

  target = None  # of the shrinkage: a constant, of the parameters before the step

  def objective(params):
    plain, seen = embed(params, batch['image']), embed(params, mixed['mixed'])
    mean = own * plain + (1 - own) * plain[other]
    logits = 5.0 * (jnp.abs(mean @ kernel) + jnp.abs(seen @ kernel)) / 2
    log_p = jax.nn.log_softmax(logits)
    rows, share = np.arange(16), own[:, 0]
    ce = -share * log_p[rows, labels] - (1 - share) * log_p[rows, labels[other]]
    kl = -log_p.mean(1) - np.log(NUM_CLASSES)
    gap = seen - (mean if target is None else target) - 0.2 * noise
    extra = 3.0 * jnp.square(gap).mean(1)[pos].mean()
    loss = jnp.where(labels >= 0, ce, kl)[filled].mean() + extra
    return loss, (extra, mean)

  params = state.nets['model'].params
  loss, (extra, target) = jax.jit(objective)(params)
  grads, _ = jax.jit(jax.grad(objective, has_aux=True))(params)
  after, metrics = jax.jit(trainer.step)(state, {}, batch)
  toy.assert_descended(
      params, after.nets['model'].params, grads, RATE, atol=3e-6)
  metrics = metrics.compute()
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
  np.testing.assert_allclose(metrics['loss_shrinkage'], extra, rtol=1e-5)


def test_the_output_layer_is_orthogonal_frozen_and_bounded():
  """Also by weight decay on every parameter; evaluation has the logits of training."""
  trainer = make_trainer(
      tx=optax.chain(optax.add_decayed_weights(0.5), optax.sgd(RATE)))
  state, step = jax.jit(trainer.init)(jax.random.key(1)), jax.jit(trainer.step)
  before = np.asarray(state.nets['model'].batch_stats['orthogonal'])
  np.testing.assert_allclose(before.T @ before, np.eye(NUM_CLASSES), atol=1e-6)
  other = jax.jit(trainer.init)(jax.random.key(2))
  assert np.abs(before - other.nets['model'].batch_stats['orthogonal']).max() > 0.1
  after, _ = step(state, {}, make_batch())
  np.testing.assert_array_equal(
      before, after.nets['model'].batch_stats['orthogonal'])
  images = make_batch()['image']
  logits, features = (np.asarray(jax.jit(trainer.heads[name])(after, images))
                      for name in ('logits', 'features'))
  z = features / np.linalg.norm(features, axis=1, keepdims=True)
  np.testing.assert_allclose(logits, 5 * np.abs(z @ before), atol=1e-5)
  assert logits.max() <= 5 + 1e-5
  # Negatives are not mixed: the step sees the logits of evaluation.
  model = heads.Orthogonal(MLP, NUM_CLASSES, 5.0)
  network = functools.partial(model.apply, after.nets['model'].variables)
  batch = compiled(0.5)(make_batch(), 0)
  (seen, _), _ = jax.jit(lambda batch: adaptive_mix.see(network, batch, GLOBAL))(batch)
  negative = np.asarray(batch['label']) < 0
  np.testing.assert_allclose(
      np.asarray(seen)[negative], logits[negative], atol=1e-5)


def test_features_of_length_0_have_a_gradient():
  model = heads.Orthogonal(models.MLP(3, depth=0), 3, 5.0)
  variables = jax.jit(functools.partial(model.init, train=False))(
      jax.random.key(0), np.ones((1, 4), np.float32))
  grad = jax.jit(jax.grad(lambda x: model.apply(variables, x, train=False)[0].sum()))(
      np.zeros((2, 4), np.float32))
  assert np.isfinite(grad).all()


def test_what_is_refused():
  with pytest.raises(ValueError, match='data.micro_batches must be 1, got 2'):
    make_trainer(micro_batches=2)
  with pytest.raises(ValueError, match='alpha.*above 0.*0'):
    make_trainer(alpha=0.0)
  trainer = make_trainer(model=models.MLP(NUM_CLASSES, width=2))
  with pytest.raises(ValueError, match='orthogonal.* 3 outputs.*got 2'):
    jax.eval_shape(trainer.init, jax.random.key(0))
