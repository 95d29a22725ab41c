"""The classifier's step: parity over devices, empty slots, EMA, learning."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nat_jax import losses, models
from nat_jax.runtime import parallel
from nat_jax.tasks import classify

NUM_CLASSES = 3
SHAPE = (8, 8, 1)


def make_trainer(objective=None, num_classes=NUM_CLASSES, **kwargs):
  objective = objective or losses.nat(num_classes)
  return classify.supervised(
      model=models.SmallConv(objective.num_outputs, widths=(4, 8)),
      objective=objective,
      tx=optax.sgd(0.1, momentum=0.9),
      num_classes=num_classes,
      image_shape=SHAPE,
      augment=lambda images, keys: images + jax.vmap(jax.random.normal)(keys)[
          :, None, None, None],
      normalise=lambda images: images,
      **kwargs,
  )


def make_batch(n=16, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(-1, NUM_CLASSES, n).astype(np.int32)
  weight = np.ones(n, np.float32)
  weight[[1, 2, 7]] = 0  # unequal over devices
  return {
      'image': rng.normal(size=(n, *SHAPE)).astype(np.float32),
      'label': labels, 'weight': weight,
  }


def run(trainer, num_devices, mode, steps=3, scan=False):
  mesh = parallel.make_mesh(jax.devices()[:num_devices])
  state = parallel.init_state(trainer.init, jax.random.key(1), mesh)
  step = parallel.wrap_step(
      trainer.step, mesh, mode=mode, scan=scan,
      fetch=lambda pool, index: jax.tree.map(lambda x: x[index], pool))
  pool = parallel.replicate(make_batch(16 * steps), mesh)
  index = np.arange(16 * steps, dtype=np.int32).reshape(steps, 16)
  return step(state, trainer.frozen(), pool, index)


@functools.cache
def on_one_device(name):
  return run(make_trainer(OBJECTIVES[name], ema_decay=0.9), 1, 'jit')


OBJECTIVES = {
    name: losses.OBJECTIVES[name](NUM_CLASSES)
    for name in ('nat', 'outlier_exposure', 'background')
}


@pytest.mark.parametrize('name, num_devices, mode, scan', [
    ('nat', 8, 'jit', False), ('nat', 8, 'pmap', False), ('nat', 1, 'jit', True),
    ('nat', 8, 'pmap', True), ('outlier_exposure', 8, 'pmap', False),
    ('background', 8, 'jit', True)])
def test_devices_agree(name, num_devices, mode, scan):
  expected, expected_metrics = on_one_device(name)
  trainer = make_trainer(OBJECTIVES[name], ema_decay=0.9)
  state, metrics = run(trainer, num_devices, mode, scan=scan)
  assert int(state.step) == 3
  for part in ('nets', 'ema'):
    for a, b in zip(jax.tree.leaves(getattr(expected, part)),
                    jax.tree.leaves(getattr(state, part)), strict=True):
      np.testing.assert_allclose(a, b, atol=2e-6)
  a, b = expected_metrics.compute(), metrics.compute()
  assert set(a) == set(b)
  for key in a:
    np.testing.assert_allclose(a[key], b[key], rtol=1e-5, err_msg=key)


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
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-6),
               one.nets['model'].params, other.nets['model'].params)
  assert counts[0] < counts[1] == counts[-1]


def test_empty_slots_touch_nothing():
  trainer = make_trainer()
  state = trainer.init(jax.random.key(0))
  batch = make_batch()
  other = dict(batch, image=np.where(
      batch['weight'][:, None, None, None] > 0, batch['image'], 1e3
  ).astype(np.float32))
  other['label'] = np.where(batch['weight'] > 0, batch['label'], 2)
  one, metrics = jax.jit(trainer.step)(state, {}, batch)
  two, other_metrics = jax.jit(trainer.step)(state, {}, other)
  jax.tree.map(np.testing.assert_array_equal, one.nets['model'], two.nets['model'])
  jax.tree.map(np.testing.assert_array_equal, metrics, other_metrics)


def test_gradient_is_that_of_equation_4():
  """One step of plain SGD moves the parameters by the gradient of the whole J."""
  trainer = classify.supervised(
      model=models.MLP(NUM_CLASSES, width=5), objective=losses.nat(NUM_CLASSES),
      tx=optax.sgd(1.0), num_classes=NUM_CLASSES, image_shape=SHAPE,
      augment=lambda images, keys: images, normalise=lambda images: images)
  state = trainer.init(jax.random.key(0))
  batch = make_batch()
  batch['weight'][:] = 1

  def objective(params):
    logits, _ = models.MLP(NUM_CLASSES, width=5).apply(
        {'params': params}, batch['image'], train=True)
    log_p = nn.log_softmax(logits)
    pos = -log_p[jnp.arange(16), batch['label']]
    neg = -log_p.mean(-1) - jnp.log(NUM_CLASSES)
    return jnp.where(batch['label'] >= 0, pos, neg).mean()

  loss, grads = jax.value_and_grad(objective)(state.nets['model'].params)
  after, metrics = jax.jit(trainer.step)(state, {}, batch)
  jax.tree.map(
      lambda p, g, q: np.testing.assert_allclose(p - g, q, atol=1e-6),
      state.nets['model'].params, grads, after.nets['model'].params)
  np.testing.assert_allclose(metrics.compute()['loss'], loss, rtol=1e-5)


def test_metrics_are_of_positives_and_negatives():
  trainer = make_trainer(threshold=0.0)  # every negative is confident
  batch = make_batch()
  _, metrics = jax.jit(trainer.step)(trainer.init(jax.random.key(0)), {}, batch)
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
  state = trainer.init(jax.random.key(0))
  after, collected = jax.jit(trainer.step)(state, {}, batch)
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
  before = trainer.init(jax.random.key(0))
  after, _ = jax.jit(trainer.step)(before, {}, make_batch())
  jax.tree.map(
      lambda old, new, ema: np.testing.assert_allclose(
          0.75 * old + 0.25 * new, ema, atol=1e-6),
      before.nets['model'].params, after.nets['model'].params,
      after.ema['model']['params'])
  images = make_batch()['image']
  logits = trainer.heads['logits'](after, images)
  raw = trainer.heads['logits'](after.replace(ema={}), images)
  assert np.abs(logits - raw).max() > 1e-4


def test_steps_draw_different_noise():
  """The same batch twice: the key of a step depends on its number."""
  trainer = classify.supervised(
      model=models.MLP(NUM_CLASSES, width=5), objective=losses.nat(NUM_CLASSES),
      tx=optax.sgd(0.0), num_classes=NUM_CLASSES, image_shape=SHAPE,
      augment=lambda images, keys: images + jax.vmap(jax.random.normal)(keys)[
          :, None, None, None], normalise=lambda images: images)
  step = jax.jit(trainer.step)
  state, one = step(trainer.init(jax.random.key(0)), {}, make_batch())
  _, two = step(state, {}, make_batch())
  assert one.compute()['loss'] != two.compute()['loss']
