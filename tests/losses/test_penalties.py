"""Penalties: the score of each objective, against gradients by hand in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nat_jax import losses
from nat_jax.losses import gan_terms
from nat_jax.task import Pass
from nat_jax.tasks.gan import players

K, N = 3, 4
SCORED = sorted(set(losses.GAN_OBJECTIVES) - {'mmd'})
SOFTMAX = ('label_gan', 'am_gan', 'feature_matching', 'nat_gan', 'nat_gan_unlabelled',
           'cat_gan', 'cat_gan_springenberg')
PENALTIES = {'r1': losses.PENALTIES['r1'](3.0),
             'gradient': losses.PENALTIES['gradient'](2.0, 0.5)}
RNG = np.random.default_rng(0)
REAL, FAKE = RNG.normal(size=(2, N, 5)).astype(np.float32)
INNER = RNG.normal(size=(5, 6)).astype(np.float32)
OUTER = RNG.normal(size=(6, K + 1)).astype(np.float32)


def make(name):
  return losses.make_gan_objective({'name': name}, K)


def keys():
  return jax.random.split(jax.random.key(7), N)


def weights(num_outputs):
  """Of the output layer: with several outputs, their sum is the same at all inputs."""
  found = OUTER[:, :num_outputs]
  return found if num_outputs == 1 else found - found.mean(1, keepdims=True)


def penalties_of(objective, shift=lambda x: 0.0):
  """Both penalties of D = `weights` tanh(`INNER` x) + shift, {penalty: [n]}."""
  passes = {name: Pass(None, None, None, images=images)
            for name, images in (('real', REAL), ('fake', FAKE))}

  def score(x):
    return objective.score(
        jnp.tanh(x @ INNER) @ weights(objective.num_outputs) + shift(x))

  return {name: penalty(score, passes, keys()) for name, penalty in PENALTIES.items()}


def softmax(o):
  return np.exp(o) / np.exp(o).sum(1, keepdims=True)


def score_slopes(name, o):
  """The gradient of the score at the outputs o, [n, num_outputs]."""
  if name in ('label_gan', 'am_gan', 'feature_matching'):
    return np.hstack([softmax(o[:, :-1]), -np.ones((len(o), 1))])
  if name == 'implicit_gan':
    return softmax(o)
  if name.startswith(('nat', 'cat')):
    return softmax(o) - 1 / K
  return np.eye(o.shape[1])[np.zeros(len(o), int)]


def lengths(name, x):
  """The length of the gradient of the score at inputs x, [n]."""
  outer = weights(make(name).num_outputs)
  h = np.tanh(x @ INNER)
  return np.linalg.norm(
      (score_slopes(name, h @ outer) @ outer.T * (1 - h**2)) @ INNER.T, axis=1)


def test_penalties_against_gradients_by_hand():
  found = jax.device_get(jax.jit(
      lambda: {name: penalties_of(make(name)) for name in SCORED})())
  share = np.array([jax.random.uniform(key) for key in keys()])[:, None]
  for name in SCORED:
    of_real = lengths(name, REAL)
    between = lengths(name, share * REAL + (1 - share) * FAKE)
    assert of_real.min() > 0.01 and np.ptp(between) > 0.01, name
    for penalty, expected in (
        ('r1', 1.5 * of_real**2), ('gradient', 2 * (between - 0.5)**2)):
      np.testing.assert_allclose(
          found[name][penalty], expected, rtol=2e-4, atol=1e-6, err_msg=name)


def test_what_the_losses_do_not_read_changes_no_penalty():
  """c(x) is added to all logits of a softmax, and to the class logits of AC-GAN."""
  def level(x):
    return 5 * jnp.sin(x.sum(1, keepdims=True)) * jnp.ones((1, K))

  shifts = dict.fromkeys((*SOFTMAX, 'implicit_gan'), lambda x: level(x)[:, :1])
  shifts |= dict.fromkeys(('ac_gan', 'ac_gan_plus'), lambda x: jnp.pad(
      level(x), ((0, 0), (1, 0))))
  plain, shifted = jax.device_get(jax.jit(lambda: [
      {name: penalties_of(make(name), **given) for name, given in each.items()}
      for each in (dict.fromkeys(shifts, {}),
                   {name: {'shift': shift} for name, shift in shifts.items()})])())
  # The logit of the fake class is 0 there, so that the level of the others is read.
  for a, b in zip(plain['implicit_gan'].values(),
                  shifted.pop('implicit_gan').values(), strict=True):
    assert np.abs(a - b).max() > 0.1
  for name, values in shifted.items():
    for penalty in PENALTIES:
      np.testing.assert_allclose(
          values[penalty], plain[name][penalty], rtol=1e-3, atol=1e-5, err_msg=name)


def test_scores_by_hand():
  o = np.log(np.float32([[1, 2, 5], [2, 2, 2]]))
  cases = {
      'gan': [0, np.log(2)], 'label_gan': np.log([3 / 5, 2]),
      'am_gan': np.log([3 / 5, 2]), 'ac_gan': [0, np.log(2)],
      'implicit_gan': np.log([8, 6]), **dict.fromkeys(
          ('nat_gan', 'cat_gan', 'cat_gan_springenberg', 'nat_gan_unlabelled'),
          [np.log(8) - np.log(10) / 3 - np.log(3), 0])}
  for name, expected in cases.items():
    np.testing.assert_allclose(
        make(name).score(o), expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_without_a_score_there_are_no_penalties():
  assert {name for name in losses.GAN_OBJECTIVES if make(name).score is None} == {'mmd'}
  several = gan_terms.per_set(3, None, real=None, fake=None, gen=None)
  assert several.score is None and np.isnan(several.realness(np.zeros((2, 3)))).all()
  with pytest.raises(ValueError, match=r'need a loss.*a score.*penalties=\[\]'):
    players.penalty_sum(PENALTIES.values(), None, None, {}, {}, [], None)
