"""Rotation prediction: how images are turned, the loss, devices, what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from nat_jax import losses, models, registry
from nat_jax.models import heads, weights
from nat_jax.task import GLOBAL
from nat_jax.tasks import classify
from nat_jax.tasks.classify import rotation

NUM_CLASSES, SHAPE, RATE = toy.NUM_CLASSES, (8, 8, 1), 0.5


def make_trainer(shape=SHAPE, **settings):
  return classify.TRAINERS['rotation'](**toy.step_settings(shape, **{
      'model': models.SmallConv(NUM_CLASSES, widths=(4,)), 'weight': 2.0,
      'objective': losses.nat(NUM_CLASSES), 'tx': optax.sgd(RATE), **settings}))


def make_batch(seed=0):
  return toy.make_batch(SHAPE, seed=seed)


@pytest.mark.slow
def test_devices_agree():
  """Random turns and mixed negatives, by one program for one device and by pmap."""
  trainer = make_trainer(views=1, treat=classify.TREATMENTS['mix']())
  items = jax.tree.map(lambda *x: np.stack(x), make_batch(0), make_batch(1))
  (expected, expected_metrics), (state, metrics) = (
      toy.run_on_devices(trainer, num_devices, mode, items)[:2]
      for num_devices, mode in ((1, 'jit'), (8, 'pmap')))
  toy.assert_trees_close(expected.nets, state.nets, atol=3e-6)
  toy.assert_figures_close(expected_metrics.compute(), metrics.compute(), rtol=2e-5)


def corners(images, train, mask, mutable):
  """A network that sees which corner is bright, and what is masked."""
  x = images[..., 0]
  seen = jnp.stack([x[:, 0, 0], x[:, -1, 0], x[:, -1, -1], x[:, 0, -1]], 1)
  return (seen[:, :3], {'rotation': 9 * seen, 'masked': jnp.zeros(len(x)) + mask}), {}


@pytest.mark.parametrize('views', [1, 4])
def test_a_turn_is_the_label_of_its_view(views):
  """A bright corner goes around once in four quarter turns, counter-clockwise."""
  image = np.zeros((6, 4, 4, 1), np.float32)
  image[:, 0, 0] = 1
  batch = {'image': image, 'label': np.array([0, 1, 2, 0, -1, 1]),
           'weight': np.array([1, 1, 1, 1, 1, 0], np.float32),
           'turn': np.array([0, 1, 2, 3, 1, 2])}

  @jax.jit
  def see(batch):
    seen = []

    def network(images, **kwargs):
      seen.append((images, kwargs['mask']))
      return corners(images, **kwargs)

    (logits, aux), _ = rotation.see(views, network, batch, None)
    return seen, logits, rotation.rotation_loss(2.0, views, {}, batch, aux)

  ((images, mask),), logits, found = see(batch)
  np.testing.assert_array_equal(logits, np.tile([1.0, 0.0, 0.0], (6, 1)))  # as they are
  np.testing.assert_allclose(found, 2 * np.log1p(3 * np.exp(-9.0)), rtol=1e-3)
  copies = 1 if views == 1 else 3
  assert len(images) == 6 * (1 + copies)
  np.testing.assert_array_equal(mask, [1, 1, 1, 1, 1, 0] + [1, 1, 1, 1, 0, 0] * copies)


def test_random_turns_are_all_of_them_and_change():
  batch = make_batch() | {'label': np.zeros(16, np.int32)}

  @jax.jit
  def turns(seed):
    return rotation.turn(None, batch, jax.random.key(seed), None, GLOBAL)['turn']

  found = [np.asarray(turns(seed)) for seed in range(8)]
  assert np.bincount(np.concatenate(found), minlength=4).min() > 15  # of 128
  assert len({one.tobytes() for one in found}) == 8


def test_step_descends_the_loss_with_that_of_the_rotations():
  """Written out anew: one step of SGD on the filled slots and turned positives."""
  model = heads.WithRotation(models.SmallConv(NUM_CLASSES, widths=(4,)))
  trainer, batch = make_trainer(), make_batch()
  state = jax.jit(trainer.init)(jax.random.key(1))
  filled = batch['weight'] > 0
  images, labels = batch['image'][filled], batch['label'][filled]
  turned = [np.rot90(images[labels >= 0], k, axes=(1, 2)) for k in (1, 2, 3)]
  num, pos = len(images), (labels >= 0).sum()

  def objective(params):
    (logits, aux), _ = model.apply(
        state.nets['model'].variables | {'params': params},
        np.concatenate([images, *turned]), train=True, mutable=['batch_stats'])
    log_r = jax.nn.log_softmax(aux['rotation'])
    right = [log_r[:num][labels >= 0, 0].sum(), *(
        log_r[num + (k - 1) * pos:num + k * pos, k].sum() for k in (1, 2, 3))]
    extra = -2.0 * sum(right) / (4 * pos)
    return losses.nat_loss(logits[:num], labels).mean() + extra, extra

  (loss, extra), grads = jax.jit(
      jax.value_and_grad(objective, has_aux=True))(state.nets['model'].params)
  after, metrics = jax.jit(trainer.step)(state, {}, batch)
  toy.assert_descended(
      state.nets['model'].params, after.nets['model'].params, grads, RATE, atol=2e-6)
  metrics = metrics.compute()
  np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
  np.testing.assert_allclose(metrics['loss_rotation'], extra, rtol=1e-5)


def test_the_network_keeps_its_names():
  """Pretrained weights and learning rates by stage find what they look for."""
  model = models.SmallConv(NUM_CLASSES, widths=(4,))
  plain, turned = (jax.eval_shape(functools.partial(one.init, train=False),
                                  jax.random.key(0), np.zeros((1, *SHAPE), np.float32))
                   for one in (model, heads.WithRotation(model)))
  extra = turned['params'].pop('rotation')
  assert turned == plain and extra['kernel'].shape == (4, 4)
  for name, stages in weights.STAGES.items():
    assert weights.stage(name, 'rotation/kernel') == stages - 1


def test_what_is_refused():
  for shape in ((8, 6, 1), (5,)):
    with pytest.raises(ValueError, match=rf'square.*\({shape[0]}.*supervised'):
      make_trainer(shape)
  with pytest.raises(TypeError, match="'wieght'.*did you mean 'weight'.*views"):
    registry.build(classify.TRAINERS, {'name': 'rotation', 'wieght': 1.0}, **(
        toy.step_settings(SHAPE, model=None, objective=None, tx=None)))
  with pytest.raises(ValueError, match='views must be 4.*or 1.*got 2'):
    make_trainer(views=2)
