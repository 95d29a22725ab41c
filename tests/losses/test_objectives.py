"""Objectives: how positives and negatives share a batch, on one device and eight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nat_jax import losses, registry
from nat_jax.task import Axis

NUM_CLASSES = 4
LABELS = np.array([0, 3, -1, 1, -1, 2, 1, -1])
NUM_POS, NUM_NEG = 5, 3


@functools.cache  # An objective is a static argument: each has its programs.
def _objective(name, **kwargs):
  spec = {'name': name, **kwargs}
  return registry.build(losses.OBJECTIVES, spec, num_classes=NUM_CLASSES)


def _logits(objective, b=8):
  shape = b, objective.num_outputs
  return np.random.default_rng(1).normal(scale=2, size=shape).astype(np.float32)


def _eager_loss(objective, logits, labels, weight=None):
  weight = jnp.ones(labels.shape) if weight is None else weight
  coeff = losses.example_weights(labels, weight, objective)
  return jnp.sum(coeff * objective.per_example(logits, labels))


# Compiled as a whole: faster than op by op.
_batch_loss = jax.jit(_eager_loss, static_argnums=0)
_example_weights = jax.jit(losses.example_weights, static_argnums=2)
_per_example = jax.jit(
    lambda objective, *args: objective.per_example(*args), static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def _compiled_value_and_grad(objective, *args):
  return jax.value_and_grad(_eager_loss, argnums=1)(objective, *args)


def _value_and_grad(*args):
  return jax.device_get(_compiled_value_and_grad(*args))


def _log_softmax(logits):
  o = np.asarray(logits, np.float64)
  return o - np.log(np.exp(o).sum(axis=1, keepdims=True))


@pytest.mark.parametrize('name', sorted(losses.OBJECTIVES))
def test_batch_loss_against_float64(name):
  objective = _objective(name)
  logits = _logits(objective)
  log_p, pos = _log_softmax(logits), LABELS >= 0
  ce = -log_p[pos, LABELS[pos]]
  kl = -log_p[~pos].mean(axis=1) - np.log(objective.num_outputs)
  e = -np.log(np.exp(np.asarray(logits, np.float64)).sum(axis=1))
  hinges = np.mean((e[pos] + 23) ** 2) + np.mean(np.maximum(-5 - e[~pos], 0) ** 2)
  expected = {
      'cross_entropy': ce.mean(),
      'nat': (ce.sum() + kl.sum()) / 8,
      'outlier_exposure': ce.mean() + 0.5 * kl.mean(),
      'energy': ce.mean() + 0.1 * hinges,
      'background': (ce.sum() - log_p[~pos, -1].sum()) / 8,
  }[name]
  np.testing.assert_allclose(
      _batch_loss(objective, logits, LABELS), expected, rtol=1e-5
  )


def test_widths_and_flags():
  table = {name: _objective(name) for name in losses.OBJECTIVES}
  assert {n: o.num_outputs for n, o in table.items()} == {
      'cross_entropy': 4, 'nat': 4, 'outlier_exposure': 4, 'background': 5, 'energy': 4
  }
  assert [n for n, o in table.items() if not o.uses_negatives] == ['cross_entropy']
  assert _objective('outlier_exposure', weight=0.2).negative_weight == 0.2
  second = _objective('nat', direction='uniform_second')
  np.testing.assert_array_equal(
      _per_example(second, _logits(second), LABELS),
      jax.jit(losses.nat_loss, static_argnums=2)(
          _logits(second), LABELS, 'uniform_second'))


def test_outlier_exposure_is_nat_with_lambda_and_learning_rate_rescaled():
  n = NUM_POS + NUM_NEG
  nat = _objective('nat')
  oe = _objective('outlier_exposure', weight=NUM_NEG / NUM_POS)
  logits = _logits(nat)
  nat_value, nat_grad = _value_and_grad(nat, logits, LABELS)
  oe_value, oe_grad = _value_and_grad(oe, logits, LABELS)
  np.testing.assert_allclose(nat_value, NUM_POS / n * oe_value, rtol=1e-6)
  np.testing.assert_allclose(nat_grad, NUM_POS / n * oe_grad, atol=1e-7)


def test_outlier_exposure_has_the_gradient_of_its_reference_formula():
  oe = _objective('outlier_exposure')
  pos = LABELS >= 0

  def reference(logits):
    ce = -jax.nn.log_softmax(logits)[np.flatnonzero(pos), LABELS[pos]].mean()
    neg = logits[~pos]
    return ce + 0.5 * (jax.nn.logsumexp(neg, axis=1) - neg.mean(axis=1)).mean()

  logits = _logits(oe)
  expected, expected_grad = jax.device_get(
      jax.jit(jax.value_and_grad(reference))(logits))
  value, grad = _value_and_grad(oe, logits, LABELS)
  np.testing.assert_allclose(grad, expected_grad, atol=1e-7)
  constant = expected - value
  np.testing.assert_allclose(constant, 0.5 * np.log(NUM_CLASSES), rtol=1e-5)


def test_energy_literal():
  objective = _objective('energy')  # margins -23 and -5, weight 0.1
  level = np.log(4)  # logits all c: the energy is -(c + log 4)
  logits = np.float32(
      [[-level] * 4, [25 - level] * 4, [7 - level] * 4, [3 - level] * 4])
  labels = np.array([2, 2, -1, -1])  # energies 0, -25, -7, -3
  np.testing.assert_allclose(
      _per_example(objective, logits, labels), [level + 52.9, level, 4, 0], rtol=1e-5)
  np.testing.assert_allclose(
      _batch_loss(objective, logits, labels), level + 52.9 / 2 + 0.1 * 4 / 2, rtol=1e-5)
  ours = _objective('energy', weight=0.5, m_in=-2.0, m_out=-1.0)
  np.testing.assert_allclose(
      _per_example(ours, logits, labels), [level + 2, level, 36, 4], rtol=1e-5)
  assert ours.negative_weight == 0.5


def test_logit_norm_against_float64():
  """Every objective of z / (tau |z|): only the direction of the logits counts."""
  rng = np.random.default_rng(0)
  for name in losses.OBJECTIVES:
    plain = losses.make_objective({'name': name}, NUM_CLASSES)
    objective = losses.make_objective(
        {'name': name, 'logit_norm': 0.25}, NUM_CLASSES)
    assert objective._replace(per_example=plain.per_example) == plain
    logits = 3 * rng.normal(size=(8, plain.num_outputs))
    scaled = logits / np.sqrt((logits**2).sum(1, keepdims=True)) / 0.25
    expected = _per_example(plain, np.float32(scaled), LABELS)
    for factor in (1.0, 100.0):
      found = _per_example(objective, np.float32(factor * logits), LABELS)
      np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  ce = losses.make_objective({'name': 'cross_entropy', 'logit_norm': 0.04}, 2)
  found = _per_example(ce, np.float32([[0.06, 0.08]]), np.array([0]))
  np.testing.assert_allclose(found, np.log1p(np.exp(5)), rtol=1e-3)  # (.8 - .6) / .04


def test_logit_norm_has_bounded_gradients():
  objective = losses.make_objective({'name': 'nat', 'logit_norm': 0.04}, NUM_CLASSES)

  @jax.jit
  def gradient(logits):
    return jax.grad(lambda x: objective.per_example(x, LABELS).sum())(logits)

  logits = _logits(objective)
  at_zero = gradient(0 * logits)  # (p - q) / (tau eps), with p = 1/4
  q = np.where(LABELS[:, None] >= 0, np.eye(4)[LABELS], 0.25)
  np.testing.assert_allclose(at_zero, (0.25 - q) / (0.04 * 1e-3), rtol=1e-4, atol=1e-2)
  # Along the logits there is none.
  along = (np.asarray(gradient(logits)) * logits).sum(1)
  np.testing.assert_allclose(along, 0, atol=1e-4)
  for temperature in (0, -1.0):
    with pytest.raises(ValueError, match=f'logit_norm.*above 0.*{temperature}'):
      losses.make_objective({'name': 'nat', 'logit_norm': temperature}, NUM_CLASSES)


def test_example_weights_literal():
  labels, weight = np.array([0, -1, 2, -1, -1]), np.float32([1, 1, 1, 0, 1])
  for name, expected in {
      'nat': [1 / 4, 1 / 4, 1 / 4, 0, 1 / 4],
      'background': [1 / 4, 1 / 4, 1 / 4, 0, 1 / 4],
      'outlier_exposure': [1 / 2, 1 / 4, 1 / 2, 0, 1 / 4],
      'cross_entropy': [1 / 2, 0, 1 / 2, 0, 0],
  }.items():
    coeff = _example_weights(labels, weight, _objective(name))
    assert coeff.dtype == jnp.float32
    np.testing.assert_allclose(coeff, expected, rtol=1e-6, err_msg=name)


def test_a_weight_multiplies_its_example_and_changes_no_count():
  labels, weight = np.array([0, -1, 2, -1]), np.float32([0.5, 3, 1, 0])
  np.testing.assert_allclose(
      _example_weights(labels, weight, _objective('nat')),
      [0.5 / 3, 1, 1 / 3, 0], rtol=1e-6)
  np.testing.assert_allclose(
      _example_weights(labels, weight, _objective('outlier_exposure')),
      [0.5 / 2, 0.5 * 3, 1 / 2, 0], rtol=1e-6)


@pytest.mark.parametrize('name', sorted(losses.OBJECTIVES))
@pytest.mark.parametrize('labels', [[0, 1, 2], [-1, -1, -1]])
@pytest.mark.parametrize('slots', [1.0, 0.0])
def test_one_sided_and_empty_batches_are_finite(name, labels, slots):
  objective, labels = _objective(name), np.array(labels)
  logits, weight = _logits(objective, 3), np.full(3, slots, np.float32)
  value, grad = _value_and_grad(objective, logits, labels, weight)
  assert np.isfinite(value) and np.isfinite(grad).all()
  counts = slots and (labels[0] >= 0 or objective.uses_negatives)
  if name != 'energy' or labels[0] >= 0:  # its hinge is at rest on small logits
    assert bool(np.abs(grad).sum() > 1e-3) == bool(counts)
  if counts:
    factors = {'outlier_exposure': 0.5, 'energy': 0.1} if labels[0] < 0 else {}
    factor = factors.get(name, 1.0)
    mean = np.asarray(_per_example(objective, logits, labels)).mean()
    np.testing.assert_allclose(value, factor * mean, rtol=1e-6)


@pytest.mark.parametrize('name', sorted(losses.OBJECTIVES))
def test_empty_slots_change_nothing(name):
  objective = _objective(name)
  logits = _logits(objective)
  junk = np.random.default_rng(2).normal(size=(3, objective.num_outputs), scale=1e4)
  padded = np.concatenate([logits, np.float32(junk)])
  labels = np.concatenate([LABELS, [-1, 1, -1]])
  weight = np.float32([1] * 8 + [0] * 3)
  value, grad = _value_and_grad(objective, logits, LABELS)
  padded_value, padded_grad = _value_and_grad(objective, padded, labels, weight)
  np.testing.assert_allclose(padded_value, value, rtol=1e-6)
  np.testing.assert_allclose(padded_grad[:8], grad, atol=1e-7)
  assert not padded_grad[8:].any()


@pytest.mark.parametrize('name', sorted(losses.OBJECTIVES))
def test_negatives_beyond_those_weighted_do_not_dilute_cross_entropy(name):
  objective = _objective(name)
  logits = 10 * _logits(objective)  # on small ones the hinges of 'energy' are at rest
  pos = LABELS >= 0
  alone = _batch_loss(objective, logits[pos], LABELS[pos])
  mixed = _batch_loss(objective, logits, LABELS)
  assert np.isclose(alone, mixed, rtol=1e-5) == (name == 'cross_entropy')


@pytest.mark.parametrize('name', sorted(losses.OBJECTIVES))
def test_eight_devices_equal_one(name):
  objective = _objective(name)
  # One negative in five, unevenly over the devices, and some slots empty.
  labels = np.where(np.arange(24) % 5 == 0, -1, np.arange(24) % NUM_CLASSES)
  weight = np.float32(np.arange(24) % 7 != 3)
  logits = _logits(objective, 24)

  def shard(logits, labels, weight):
    axis = Axis('data')
    coeff = losses.example_weights(labels, weight, objective, axis)
    return coeff, axis.sum(coeff * objective.per_example(logits, labels))

  split = lambda x: x.reshape(8, 3, *x.shape[1:])  # noqa: E731
  coeff, loss = jax.pmap(shard, axis_name='data', out_axes=(0, None))(
      split(logits), split(labels), split(weight)
  )
  expected = _example_weights(labels, weight, objective)
  np.testing.assert_allclose(np.ravel(coeff), expected, rtol=1e-6)
  single = _batch_loss(objective, logits, labels, weight)
  np.testing.assert_allclose(loss, single, rtol=1e-6)


def test_jit_equals_eager():
  for name in losses.OBJECTIVES:
    objective = _objective(name)
    args = objective, *jax.device_put((_logits(objective), LABELS))
    np.testing.assert_allclose(_batch_loss(*args), _eager_loss(*args), rtol=1e-6)


def test_bad_arguments_say_what_is_wrong():
  for name in losses.OBJECTIVES:
    with pytest.raises(ValueError, match=r'\b2\b.*\b1$'):
      losses.OBJECTIVES[name](num_classes=1)
  with pytest.raises(ValueError, match='weight.*0.*-0.5'):
    _objective('outlier_exposure', weight=-0.5)
  with pytest.raises(ValueError, match="'reverse'.*uniform_first, uniform_second"):
    _objective('nat', direction='reverse')
  with pytest.raises(ValueError, match='weight.*0.*-1'):
    _objective('energy', weight=-1.0)
  with pytest.raises(ValueError, match='m_in=-5.*m_out=-23'):
    _objective('energy', m_in=-5, m_out=-23)
  with pytest.raises(ValueError, match="'focal'.*background, cross_entropy, energy, n"):
    _objective('focal')
