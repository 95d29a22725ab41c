"""Treatments of negatives: what they make, what they leave, and that devices agree."""

import functools

import jax
import numpy as np
import optax
import pytest
import toy
from scipy import special, stats

from nat_jax import losses, models, runs
from nat_jax.schema import presets
from nat_jax.task import GLOBAL
from nat_jax.tasks import classify
from nat_jax.tasks.classify import treatments as negatives

NUM_CLASSES = toy.NUM_CLASSES
N = 16
SHAPE = (4, 4, 1)
SPECS = {
    'mix': negatives.mix(alpha=0.7, portion=0.75),
    'cutmix': negatives.mix(mode='cutmix'),
    'mine': negatives.mine(0.4),
}


def make_batch(seed=0):
  return toy.make_batch(SHAPE, N, seed)


def flat_batch():
  """Positives 0..9 whose pixels are all their number, then 30 negatives of 100."""
  value = np.where(np.arange(40) < 10, np.arange(40), 100).astype(np.float32)
  label = np.where(np.arange(40) < 10, np.arange(40) % NUM_CLASSES, -1)
  weight = np.ones(40, np.float32)
  weight[[3, 20, 21]] = 0
  image = np.broadcast_to(value[:, None, None, None], (40, 8, 8, 1))
  return {'image': image, 'label': label.astype(np.int32), 'weight': weight}


def apply(treat, batch, seed=0, confidence=None):
  return jax.device_get(compiled(treat, confidence)(batch, jax.random.key(seed)))


@functools.cache
def compiled(treat, confidence):
  return jax.jit(lambda batch, key: treat(batch, key, confidence, GLOBAL))


def filled_negatives(batch):
  return np.flatnonzero((batch['label'] < 0) & (batch['weight'] > 0))


@pytest.mark.parametrize('alpha', [1.0, 0.3])
def test_linear_mix_is_of_a_positive_and_its_label(alpha):
  batch = flat_batch()
  mixed = apply(negatives.mix(alpha=alpha), batch)
  rows = filled_negatives(batch)
  share = np.asarray(mixed['share'][rows], np.float64)
  value = np.asarray(mixed['image'][rows, 0, 0, 0], np.float64)
  positive = (value - 100 * (1 - share))[share > 0.01] / share[share > 0.01]
  number = np.round(positive).astype(int)
  np.testing.assert_allclose(positive, number, atol=5e-3)
  assert set(number) <= set(range(10)) - {3}  # 3 is an empty slot
  assert len(set(number)) > 4
  partner = np.asarray(mixed['partner'][rows])[share > 0.01]
  np.testing.assert_array_equal(partner, number % NUM_CLASSES)
  assert 0 <= share.min() < 0.2 and 0.8 < share.max() <= 1
  others = np.setdiff1d(np.arange(40), rows)
  np.testing.assert_array_equal(mixed['image'][others], batch['image'][others])
  np.testing.assert_array_equal(mixed['share'][others], 0)
  np.testing.assert_array_equal(mixed['partner'][others], batch['label'][others])
  for name in ('label', 'weight'):
    np.testing.assert_array_equal(mixed[name], batch[name])


def test_cutmix_shares_the_area_of_one_box():
  batch = flat_batch()
  mixed = apply(negatives.mix(mode='cutmix'), batch, seed=3)
  for row in filled_negatives(batch):
    inside = np.asarray(mixed['image'][row, :, :, 0]) == 100
    np.testing.assert_allclose(mixed['share'][row], 1 - inside.mean(), atol=1e-6)
    box = inside[np.ix_(inside.any(1), inside.any(0))]
    assert box.all()  # all of it, in one piece
    assert len(set(np.asarray(mixed['image'][row])[~inside].ravel())) <= 1


@pytest.mark.parametrize('alpha', [0.3, 1.0, 2.0])
def test_shares_are_beta_distributed(alpha):
  treat = negatives.mix(alpha=alpha, portion=1.0)
  n = 4000
  batch = {'image': np.zeros((n, 1, 1, 1), np.float32),
           'weight': np.ones(n, np.float32),
           'label': np.where(np.arange(n) == 0, 0, -1)}
  share = apply(treat, batch)['share'][1:]
  assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_portion_is_the_share_of_negatives_changed():
  batch, treat = flat_batch(), negatives.mix(portion=0.25)
  changed = [
      np.mean(np.any(apply(treat, batch, seed)['image'] != batch['image'], (1, 2, 3)))
      for seed in range(20)]
  # 560 draws among 28 of 40 slots: 4 standard deviations.
  assert abs(np.mean(changed) * 40 / 28 - 0.25) < 0.075


def test_a_batch_without_positives_stays():
  batch = flat_batch()
  batch['weight'][:10] = 0
  treated = apply(negatives.mix(), batch)
  np.testing.assert_array_equal(treated['image'], batch['image'])
  assert not np.any(treated['share'])


@pytest.mark.parametrize('keep, kept', [
    (3, {12, 30, 39}), (0.1, {12, 30, 39}), (3 / 28, {12, 30, 39}),
    (0.11, {11, 12, 30, 39}), (50, None),
    (1.0, None)])
def test_mining_keeps_the_hardest(keep, kept):
  batch = flat_batch()
  score = np.full(40, 0.5, np.float32)
  score[[30, 12, 39]] = 0.9, 0.8, 0.7  # 28 negatives are filled; then a tie: 11, not 13
  score[[11, 13]] = 0.6
  score[[0, 20, 21]] = 1.0  # a positive and two empty slots
  treated = apply(negatives.mine(keep), batch, confidence=lambda images: score)
  rows = filled_negatives(batch)
  kept = set(rows) if kept is None else kept
  assert set(filled_negatives(treated)) == kept
  np.testing.assert_array_equal(treated['weight'][:10], batch['weight'][:10])
  np.testing.assert_array_equal(treated['image'], batch['image'])


def test_loss_of_a_mix_is_cross_entropy_with_the_mixed_target():
  logits = np.array([[2.0, 0.0, -1.0]] * 4, np.float32)
  batch = {'label': np.array([-1, -1, -1, 1]), 'partner': np.array([0, 0, -1, 1]),
           'share': np.array([0.25, 1.0, 0.0, 0.0], np.float32)}
  log_p = special.log_softmax(logits[0].astype(np.float64))
  target = 0.25 * np.array([1, 0, 0]) + 0.75 / 3
  expected = [-(target * log_p).sum() - 0.75 * np.log(3), -log_p[0],
              -log_p.mean() - np.log(3), -log_p[1]]
  loss = jax.jit(functools.partial(
      negatives.per_example, losses.nat(NUM_CLASSES)))(logits, batch)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def make_trainer(name):
  model = models.MLP(NUM_CLASSES, width=5)
  if name in ('mine', 'plain'):  # what it leaves out must not reach BatchNorm
    model = models.SmallConv(NUM_CLASSES, widths=(4,))
  return classify.supervised(**toy.step_settings(
      SHAPE, model=model, objective=losses.nat(NUM_CLASSES), tx=optax.sgd(0.1),
      treat=SPECS.get(name)))


@functools.cache
def run(name, num_devices, mode):
  batches = [make_batch(seed) for seed in range(3)]
  items = jax.tree.map(lambda *x: np.stack(x), *batches)
  return toy.run_on_devices(make_trainer(name), num_devices, mode, items)[:2]


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['jit', 'pmap'])
@pytest.mark.parametrize('name', ['mix', 'mine'])
def test_devices_agree(name, mode):
  expected, expected_metrics = run(name, 1, 'jit')
  state, metrics = run(name, 8, mode)
  toy.assert_trees_close(expected.nets, state.nets, atol=2e-6)
  toy.assert_figures_close(expected_metrics.compute(), metrics.compute(), rtol=1e-5)


@pytest.mark.parametrize('name', ['cutmix', 'mine'])
def test_empty_slots_touch_nothing(name):
  trainer = make_trainer(name)
  state = jax.jit(trainer.init)(jax.random.key(0))
  batch = make_batch()
  empty = batch['weight'] == 0
  other = dict(
      batch, image=np.where(
          empty[:, None, None, None], np.float32(1e3), batch['image']),
      label=np.where(empty, np.int32(2), batch['label']))
  step = jax.jit(trainer.step)
  one, metrics = step(state, {}, batch)
  two, other_metrics = step(state, {}, other)
  jax.tree.map(np.testing.assert_array_equal, one.nets['model'], two.nets['model'])
  jax.tree.map(np.testing.assert_array_equal, metrics, other_metrics)


def test_mining_in_the_step_is_a_step_on_what_it_keeps():
  """The same update and metrics as without the negatives that the network is sure of
  least, BatchNorm included."""
  trainer, plain = make_trainer('mine'), make_trainer('plain')
  state = jax.jit(trainer.init)(jax.random.key(0))
  batch = make_batch()
  score = np.asarray(jax.jit(lambda state, images: losses.max_probability(
      trainer.heads['logits'](state, images), NUM_CLASSES))(state, batch['image']))
  rows = filled_negatives(batch)
  hardest = rows[np.argsort(-score[rows])][:int(np.ceil(0.4 * len(rows)))]
  assert 0 < len(hardest) < len(rows)
  mined = dict(batch, weight=np.where(
      np.isin(np.arange(N), np.setdiff1d(rows, hardest)), 0, batch['weight']))
  one, metrics = jax.jit(trainer.step)(state, {}, batch)
  two, plain_metrics = jax.jit(plain.step)(state, {}, mined)
  toy.assert_trees_close(one.nets, two.nets, atol=1e-6)
  assert metrics.loss_negative.count == metrics.ncr.count == len(hardest)
  toy.assert_figures_close(plain_metrics.compute(), metrics.compute(), rtol=1e-5)


def test_the_config_selects_a_treatment_where_negatives_count():
  def build(treatment, loss='nat'):
    config = presets.experiment(
        num_classes=NUM_CLASSES, loss={'name': loss}, data={'treatment': treatment})
    return runs.build_trainer(runs.resolve(config), (8, 8, 1))

  mine = {'name': 'mine', 'keep': 1}
  batch = make_batch()
  batch['image'] = np.repeat(np.repeat(batch['image'], 2, 1), 2, 2)
  counts = []
  for trainer in (build(mine), build({}), build(mine, 'cross_entropy')):
    state = jax.eval_shape(trainer.init, jax.random.key(0))
    text = str(jax.make_jaxpr(trainer.step)(state, {}, batch))
    counts.append(text.count('conv_general_dilated'))
  assert counts[0] > counts[1] == counts[2]  # mining looks at the candidates first
  with pytest.raises(ValueError, match="'mined'.*mine, mix"):
    build({'name': 'mined'})


def test_bad_arguments_say_what_is_wrong():
  for call, match in (
      (lambda: negatives.mix(alpha=0), 'alpha.*0.*0'),
      (lambda: negatives.mix(mode='mixup'), "'mixup'.*linear, cutmix"),
      (lambda: negatives.mix(portion=1.5), 'portion.*1.*1.5'),
      (lambda: negatives.mine(0), r'keep.*1\.0.*\b0$'),
      (lambda: negatives.mine(1.5), r'keep.*1\.0.*1\.5')):
    with pytest.raises(ValueError, match=match):
      call()
