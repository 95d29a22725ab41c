"""Class weights: factors of losses, the gradient of replicated examples, errors."""

import functools

import jax
import numpy as np
import optax
import pytest
import toy

from nat_jax import data, losses, models, runs, schema
from nat_jax.schema import presets
from nat_jax.tasks import TASKS, classify

LABEL = np.array([0, 1, 0, 0, -1, 1, 0], np.int32)


def test_balanced_weights():
  """As scikit-learn's, and 1 for negatives; the sums of the classes are equal."""
  from sklearn.utils import class_weight
  found = data.class_weights('balanced', LABEL, 2)
  expected = class_weight.compute_class_weight(
      'balanced', classes=np.arange(2), y=LABEL[LABEL >= 0])
  np.testing.assert_allclose(found[LABEL >= 0], expected[LABEL[LABEL >= 0]])
  assert found[4] == 1 and found.dtype == np.float32
  assert found[LABEL == 0].sum() == found[LABEL == 1].sum() == 3
  assert data.class_weights('', LABEL, 2) is None
  given = data.class_weights([0.5, 2], LABEL, 2)
  assert given.tolist() == [0.5, 2, 0.5, 0.5, 1, 2, 0.5]


@functools.cache
def start():
  """(the step of a trainer, its first state)."""
  trainer = classify.supervised(**toy.step_settings(
      (4, 4, 1), model=models.MLP(2, width=5, depth=1), num_classes=2,
      objective=losses.cross_entropy_objective(2), tx=optax.sgd(1.0)))
  return jax.jit(trainer.step), jax.jit(trainer.init)(jax.random.key(0))


def gradient(batch, num=9):
  """The parameters after an update of plain gradient descent minus those before.

  Empty slots are added up to `num`, so that all batches share one program.
  """
  step, state = start()
  batch = {name: np.pad(x, [(0, num - len(x)), *[(0, 0)] * (x.ndim - 1)])
           for name, x in batch.items()}
  after, _ = step(state, {}, batch)
  return jax.tree.map(
      lambda one, other: np.asarray(one - other),
      after.nets['model'].params, state.nets['model'].params)


def test_the_gradient_is_that_of_replicated_examples():
  """Of 4 and 2 examples, the two of class 1 twice, and an empty slot."""
  image = np.random.default_rng(0).normal(size=(6, 4, 4, 1)).astype(np.float32)
  label = np.array([0, 0, 1, 0, 0, 1], np.int32)
  pool = data.Pool(image, label)
  rows = np.array([0, 1, 2, 3, 4, 5, -1], np.int32)
  twice = np.append(rows, [2, 5]).astype(np.int32)
  weighted = pool._replace(weight=data.class_weights('balanced', label, 2))
  one = gradient(data.gather(weighted, rows))
  other = gradient(data.gather(pool, twice))
  toy.assert_trees_close(one, other, atol=1e-6)
  assert max(np.abs(x).max() for x in jax.tree.leaves(one)) > 0.05
  plain = gradient(data.gather(pool, rows))
  assert max(np.abs(a - b).max() for a, b in zip(
      jax.tree.leaves(plain), jax.tree.leaves(one), strict=True)) > 0.01


def config(**settings):
  return presets.experiment(
      num_classes=3, loss={'name': 'cross_entropy'},
      data=dict(positives=toy.fake(num_classes=3), batch_size=8, **settings),
      evals={'test': {'source': toy.fake(1, num_classes=3), 'positive': True}})


def test_the_batches_of_a_config_have_the_weights():
  inputs = TASKS['classify'].load(runs.resolve(config(class_weights=[1, 2, 4])), 1)
  batch = data.gather(inputs.pool, inputs.stream.index(0))
  np.testing.assert_array_equal(batch['weight'], 2.0 ** batch['label'])
  inputs = TASKS['classify'].load(runs.resolve(config()), 1)
  assert inputs.pool.weight is None
  assert set(data.gather(inputs.pool, inputs.stream.index(0))['weight']) == {1}


@pytest.mark.parametrize('asked, message', [
    ([1, 2], 'data.class_weights must hold.*3 classes, got 2'),
    ('balance', r"data.class_weights must be one of '', 'balanced'.*got 'balance'"),
    ([1, 2, 0], 'data.class_weights must be'),
])
def test_mistakes(asked, message):
  with pytest.raises(ValueError, match=message):
    TASKS['classify'].load(runs.resolve(config(class_weights=asked)), 1)


def test_a_class_without_images_cannot_be_balanced():
  with pytest.raises(ValueError, match='balanced.*none of class 2'):
    data.class_weights('balanced', LABEL, 3)


def test_runs_without_the_key_have_no_weights():
  saved = schema.plain(config())
  del saved['data']['class_weights']
  assert schema.upgrade(saved)['data']['class_weights'] == ''
