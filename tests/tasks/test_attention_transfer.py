"""The student's step against the formula, its frozen teacher, and what is refused."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from nat_jax import losses, models
from nat_jax.tasks import classify

NUM_CLASSES = toy.NUM_CLASSES
SHAPE = (8, 8, 1)
GROUPS = ('group1', 'group2')
BETA, RATE = 10.0, 0.5


def settings(model, **kwargs):
  return toy.step_settings(
      SHAPE, model=model, objective=losses.cross_entropy_objective(NUM_CLASSES),
      tx=optax.sgd(RATE, momentum=0.9), **kwargs)


@functools.cache
def restored_teacher(ema=False):
  """As `runs.restore` gives it; statistics that differ from a batch's."""
  model = models.SmallConv(NUM_CLASSES, widths=(5, 6))
  trainer = classify.supervised(**settings(model, ema_decay=0.9 if ema else 0.0))
  state = jax.jit(trainer.init)(jax.random.key(7))
  stats = jax.tree.map(
      lambda x: x + np.float32(0.1), jax.device_get(state.nets['model'].batch_stats))
  state = state.replace(
      nets={'model': state.nets['model'].replace(batch_stats=stats)})
  return SimpleNamespace(trainer=trainer, state=state, shape=SHAPE)


def make_trainer(teacher=restored_teacher, model=None, **kwargs):
  model = model or models.SmallConv(NUM_CLASSES, widths=(3, 4))
  kwargs = {'beta': BETA, 'groups': GROUPS, **kwargs}
  return classify.attention_transfer(teacher=teacher, **settings(model), **kwargs)


def make_batch(seed=0):
  return toy.make_batch(SHAPE, seed=seed, lowest=0)


@functools.cache
def on_one_device():
  """(jitted step, initial state, teacher, state after two batches, their metrics)."""
  trainer = make_trainer()
  step, frozen = jax.jit(trainer.step), trainer.frozen()
  start = jax.jit(trainer.init)(jax.random.key(1))
  state, metrics = step(start, frozen, make_batch(seed=0))
  state, more = step(state, frozen, make_batch(seed=1))
  return step, start, frozen, state, metrics.merge(more)


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['jit', 'pmap'])
def test_devices_agree(mode):
  *_, expected, expected_metrics = on_one_device()
  batches = [make_batch(i) for i in range(2)]
  items = jax.tree.map(lambda *x: np.stack(x), *batches)
  state, metrics, _ = toy.run_on_devices(make_trainer(), 8, mode, items)
  toy.assert_trees_close(expected.nets, state.nets, atol=3e-6)
  toy.assert_figures_close(expected_metrics.compute(), metrics.compute(), rtol=2e-5)


def test_step_descends_cross_entropy_plus_beta_attention():
  """Written out anew: the filled slots, two maps, the first step of SGD."""
  student = models.SmallConv(NUM_CLASSES, widths=(3, 4))
  step, state, frozen, *_ = on_one_device()
  batch, teacher = make_batch(), restored_teacher()
  filled = batch['weight'] > 0
  images, labels = batch['image'][filled], batch['label'][filled]
  net = teacher.state.nets['model']

  def attention(x):
    strength = (x**2).mean(-1).reshape(len(images), -1)
    return strength / jnp.linalg.norm(strength, axis=-1, keepdims=True)

  def objective(params):
    _, seen = models.SmallConv(NUM_CLASSES, widths=(5, 6)).apply(
        {'params': net.params, 'batch_stats': net.batch_stats}, images, train=False)
    (logits, aux), _ = student.apply(
        state.nets['model'].variables | {'params': params}, images, train=True,
        mutable=['batch_stats'])
    extra = BETA * sum(
        ((attention(aux[g]) - attention(seen[g])) ** 2).mean() for g in GROUPS)
    log_p = jax.nn.log_softmax(logits)
    return extra - log_p[jnp.arange(len(labels)), labels].mean(), extra

  (loss, attention_loss), grads = jax.jit(
      jax.value_and_grad(objective, has_aux=True))(state.nets['model'].params)
  after, metrics = step(state, frozen, batch)
  toy.assert_descended(
      state.nets['model'].params, after.nets['model'].params, grads, RATE, atol=2e-6)
  metrics = metrics.compute()
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
  np.testing.assert_allclose(metrics['loss_attention'], attention_loss, rtol=1e-5)
  assert attention_loss > 0.01


def test_empty_slots_touch_nothing():
  step, state, frozen, *_ = on_one_device()
  batch = make_batch()
  empty = batch['weight'][:, None, None, None] == 0
  other = dict(batch, image=np.where(empty, np.float32(100), batch['image']))
  one, metrics = step(state, frozen, batch)
  two, other_metrics = step(state, frozen, other)
  jax.tree.map(np.testing.assert_array_equal, one.nets['model'], two.nets['model'])
  jax.tree.map(np.testing.assert_array_equal, metrics, other_metrics)


def test_teacher_is_called_once_and_only_when_needed():
  calls = []

  def teacher():
    calls.append(1)
    return restored_teacher()

  trainer = make_trainer(teacher)
  state = jax.eval_shape(trainer.init, jax.random.key(0))
  jax.eval_shape(trainer.heads['logits'], state, make_batch()['image'])
  assert not calls
  frozen = trainer.frozen()
  jax.eval_shape(trainer.step, state, frozen, make_batch())
  assert len(calls) == 1


def test_teacher_is_no_part_of_the_state():
  """Nothing of it is saved, and its optimiser is not carried along."""
  trainer = make_trainer()
  alone = classify.supervised(**settings(models.SmallConv(NUM_CLASSES, widths=(3, 4))))
  shapes = [jax.eval_shape(t.init, jax.random.key(0)) for t in (trainer, alone)]
  assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])
  assert not jax.tree.leaves(trainer.frozen().nets['model'].opt_state)


def test_teachers_moving_average_is_used():
  """It is what a state with an average answers with (see test_classify_step)."""
  found = restored_teacher(ema=True)
  frozen = make_trainer(lambda: found).frozen()
  jax.tree.map(np.testing.assert_array_equal, frozen.ema, found.state.ema)


@pytest.mark.parametrize('student, groups, match', [
    (models.SmallConv(NUM_CLASSES, widths=(3,)), GROUPS,
     "student.*'group2'.*group1.*trainer.groups"),
    (models.MLP(NUM_CLASSES), GROUPS, "student.*'group1'.*trainer.groups"),
    (models.SmallConv(NUM_CLASSES, widths=(3, 4, 5)), (*GROUPS, 'group3'),
     "teacher.*'group3'.*group1, group2.*trainer.groups"),
    (models.WideResNet(NUM_CLASSES, 1), ('group1',),
     r"'group1'.*\(8, 8\).*student.*\(4, 4\).*teacher"),
    (None, (), 'groups'),
])
def test_networks_that_do_not_fit(student, groups, match):
  with pytest.raises(ValueError, match=match):
    make_trainer(model=student, groups=groups).frozen()


def test_another_image_shape():
  other = SimpleNamespace(**{**vars(restored_teacher()), 'shape': (16, 16, 1)})
  with pytest.raises(ValueError, match=r'\(16, 16, 1\).*student.*\(8, 8, 1\)'):
    make_trainer(lambda: other).frozen()
