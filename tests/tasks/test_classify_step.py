"""The classifier's step: parity over devices, empty slots, EMA, learning."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from nat_jax import losses, models
from nat_jax.runtime import parallel
from nat_jax.tasks import classify

NUM_CLASSES = toy.NUM_CLASSES
SHAPE = (8, 8, 1)


def make_trainer(objective=None, num_classes=NUM_CLASSES, **settings):
  objective = objective or losses.nat(num_classes)
  return classify.supervised(**toy.step_settings(SHAPE, **{
      'model': models.SmallConv(objective.num_outputs, widths=(4, 8)),
      'objective': objective, 'tx': optax.sgd(0.1, momentum=0.9),
      'num_classes': num_classes, 'augment': toy.noisy(1.0), **settings}))


def start(trainer):
  """(first state, jitted step)."""
  return jax.jit(trainer.init)(jax.random.key(0)), jax.jit(trainer.step)


def make_batch(n=16):
  return toy.make_batch(SHAPE, n)


def run(name, num_devices, mode, scan=False):
  """(state, metrics) after three updates with the objective of that name."""
  return toy.run_on_devices(
      make_trainer(OBJECTIVES[name], ema_decay=0.9), num_devices, mode,
      np.arange(48, dtype=np.int32).reshape(3, 16), make_batch(48), scan=scan,
      fetch=lambda pool, index: jax.tree.map(lambda x: x[index], pool))[:2]


@functools.cache
def on_one_device(name):
  return run(name, 1, 'jit')


OBJECTIVES = {
    name: losses.OBJECTIVES[name](NUM_CLASSES)
    for name in ('nat', 'outlier_exposure', 'background')
}


@pytest.mark.parametrize('name, num_devices, mode, scan', [
    ('nat', 8, 'jit', False), ('nat', 8, 'pmap', False), ('nat', 1, 'jit', True),
    *(pytest.param(*some, marks=pytest.mark.slow) for some in (
        ('nat', 8, 'pmap', True), ('outlier_exposure', 8, 'pmap', False),
        ('background', 8, 'jit', True)))])
def test_devices_agree(name, num_devices, mode, scan):
  expected, expected_metrics = on_one_device(name)
  state, metrics = run(name, num_devices, mode, scan)
  assert int(state.step) == 3
  toy.assert_trees_close(
      (expected.nets, expected.ema), (state.nets, state.ema), atol=2e-6)
  toy.assert_figures_close(expected_metrics.compute(), metrics.compute(), rtol=1e-5)


@pytest.mark.parametrize('mode', parallel.MODES)
def test_step_is_traced_twice(mode):
  """To try it (and for the shapes of its metrics) and to compile it; `init` once."""
  trainer, traced = make_trainer(ema_decay=0.9), []

  def step(*args, **kwargs):
    traced.append('step')
    return trainer.step(*args, **kwargs)

  def init(key):
    traced.append('init')
    return trainer.init(key)

  once = parallel.traced_once(trainer._replace(step=step, init=init))
  mesh, key = parallel.make_mesh(jax.devices()[:1]), jax.random.key(1)
  parallel.abstract_state(once.init, mesh)
  jax.eval_shape(
      lambda key, batch: once.step(once.init(key), {}, batch), key, make_batch())
  items = jax.tree.map(lambda x: x.reshape(2, 16, *x.shape[1:]), make_batch(32))
  state, metrics = parallel.wrap_step(once.step, mesh, mode=mode)(
      parallel.init_state(once.init, key, mesh), {}, (), items)
  assert sorted(traced) == ['init', 'step', 'step']
  other, other_metrics = parallel.wrap_step(trainer.step, mesh, mode=mode)(
      parallel.init_state(trainer.init, key, mesh), {}, (), items)
  jax.tree.map(np.testing.assert_array_equal, (state.nets, state.ema, metrics),
               (other.nets, other.ema, other_metrics))


@pytest.mark.parametrize('mode', parallel.MODES)
def test_calls_of_any_length_take_two_programs(mode):
  """A scanned call that is not full goes update by update; nothing is traced anew."""
  trainer, traced = make_trainer(), []

  def step(*args, **kwargs):
    traced.append(args)
    return trainer.step(*args, **kwargs)

  mesh = parallel.make_mesh(jax.devices()[:1])
  run_scanned = parallel.wrap_step(step, mesh, mode=mode, scan=True)
  run_single = parallel.wrap_step(trainer.step, mesh, mode=mode, scan=False)
  items = jax.tree.map(lambda x: x.reshape(4, 16, *x.shape[1:]), make_batch(64))
  one, other = (
      parallel.init_state(trainer.init, jax.random.key(1), mesh) for _ in range(2))
  counts = []
  for num in (4, 1, 3, 4, 2, None):
    one, metrics = run_scanned(one, {}, (), items, num)
    other, other_metrics = run_single(other, {}, (), items, num)
    np.testing.assert_allclose(
        metrics.compute()['loss'], other_metrics.compute()['loss'], rtol=1e-5)
    counts.append(len(traced))
  assert int(one.step) == 18
  toy.assert_trees_close(
      one.nets['model'].params, other.nets['model'].params, atol=2e-6)
  assert counts[0] < counts[1] == counts[-1]


def test_empty_slots_touch_nothing():
  state, step = start(make_trainer())
  batch = make_batch()
  other = dict(batch, image=np.where(
      batch['weight'][:, None, None, None] > 0, batch['image'], 1e3
  ).astype(np.float32))
  other['label'] = np.where(batch['weight'] > 0, batch['label'], 2)
  one, metrics = step(state, {}, batch)
  two, other_metrics = step(state, {}, other)
  jax.tree.map(np.testing.assert_array_equal, one.nets['model'], two.nets['model'])
  jax.tree.map(np.testing.assert_array_equal, metrics, other_metrics)


def test_gradient_is_that_of_equation_4():
  """One step of plain SGD moves the parameters by the gradient of the whole J."""
  trainer = make_trainer(
      model=models.MLP(NUM_CLASSES, width=5), tx=optax.sgd(1.0), augment=toy.same)
  state, step = start(trainer)
  batch = make_batch()
  batch['weight'][:] = 1

  def objective(params):
    logits, _ = models.MLP(NUM_CLASSES, width=5).apply(
        {'params': params}, batch['image'], train=True)
    log_p = nn.log_softmax(logits)
    pos = -log_p[jnp.arange(16), batch['label']]
    neg = -log_p.mean(-1) - jnp.log(NUM_CLASSES)
    return jnp.where(batch['label'] >= 0, pos, neg).mean()

  loss, grads = jax.jit(jax.value_and_grad(objective))(state.nets['model'].params)
  after, metrics = step(state, {}, batch)
  toy.assert_descended(
      state.nets['model'].params, after.nets['model'].params, grads, 1, atol=1e-6)
  np.testing.assert_allclose(metrics.compute()['loss'], loss, rtol=1e-5)


def test_metrics_are_of_positives_and_negatives():
  batch = make_batch()
  state, step = start(make_trainer(threshold=0.0))  # every negative is confident
  _, metrics = step(state, {}, batch)
  filled = batch['weight'] > 0
  assert metrics.loss_positive.count == (filled & (batch['label'] >= 0)).sum()
  assert metrics.loss_negative.count == (filled & (batch['label'] < 0)).sum()
  assert metrics.compute()['ncr'] == 1


@pytest.mark.parametrize('objective, threshold', [
    ('nat', 0.6), ('background', 0.4)])
def test_progress_shows_an_ncr_that_can_move(objective, threshold):
  """Of two classes NCR_0.4 is 1 whatever happens, but with a background class."""
  trainer = make_trainer(losses.OBJECTIVES[objective](2), num_classes=2)
  batch = make_batch()
  batch['label'] = np.minimum(batch['label'], 1)
  state, step = start(trainer)
  after, collected = step(state, {}, batch)
  found = trainer.figures(collected)
  assert found['ncr'] < 1
  assert f'NCR_{threshold} {found["ncr"]:.3f}' in trainer.line(found)
  other, collected = jax.jit(make_trainer(
      losses.OBJECTIVES[objective](2), num_classes=2, threshold=0.0).step)(
          state, {}, batch)
  assert collected.compute()['ncr'] == 1
  jax.tree.map(np.testing.assert_array_equal, after.nets, other.nets)  # bit for bit


def test_ema_is_the_average_and_is_what_the_head_uses():
  trainer = make_trainer(ema_decay=0.75)
  before, step = start(trainer)
  after, _ = step(before, {}, make_batch())
  jax.tree.map(
      lambda old, new, ema: np.testing.assert_allclose(
          0.75 * old + 0.25 * new, ema, atol=1e-6),
      *jax.device_get((before.nets['model'].params, after.nets['model'].params,
                       after.ema['model']['params'])))
  images, head = make_batch()['image'], jax.jit(trainer.heads['logits'])
  logits, raw = (np.asarray(head(state, images))
                 for state in (after, after.replace(ema={})))
  assert np.abs(logits - raw).max() > 1e-4


def test_steps_draw_different_noise():
  """The same batch twice: the key of a step depends on its number."""
  trainer = make_trainer(model=models.MLP(NUM_CLASSES, width=5), tx=optax.sgd(0.0))
  state, step = start(trainer)
  state, one = step(state, {}, make_batch())
  _, two = step(state, {}, make_batch())
  assert one.compute()['loss'] != two.compute()['loss']
