"""What fits the contracts without an `if` in a step: losses that compare whole sets,
penalties, stacked generators, a third network, weights that are differentiated."""

import functools
import types

import jax
import numpy as np
import optax
import pytest
import toy

from nat_jax import losses, models, registry
from nat_jax.task import GLOBAL, Pass
from nat_jax.tasks import classify, gaan, gan
from nat_jax.tasks.gan import evaluate

NUM_CLASSES, SHAPE = toy.NUM_CLASSES, (4, 4, 1)
STACKED = {'name': 'stacked', 'generator': {'name': 'mlp_generator', 'widths': (8,)},
           'num': 2, 'latent': 4}
NORMED = {'name': 'mlp_generator', 'widths': (8,), 'latent': 4, 'norm': 'spectral',
          'batch_norm': 'virtual'}


def make_trainer(loss='nat_gan', penalties=(), **settings):
  penalties = [registry.build(losses.PENALTIES, one) for one in penalties]
  return gan.gan(**toy.gan_settings(SHAPE, loss, penalties=penalties, **settings))


def make_gaan():
  adam = optax.adam(1e-2, eps=1e-2)
  return gaan.gaan(
      encoder=models.MLP(num_outputs=4, width=8, depth=1), **toy.gan_nets(SHAPE, 1),
      enc_tx=adam, gen_tx=adam, disc_tx=optax.sgd(0.1), image_shape=SHAPE,
      augment=toy.same, normalise=toy.same,
      penalties=[losses.PENALTIES['gradient'](0.1)])


TRAINERS = {
    'feature_matching': lambda: make_trainer('feature_matching'),
    'mmd': lambda: make_trainer('mmd'),
    'relativistic, minibatch discrimination': lambda: make_trainer(
        'relativistic', generator=NORMED, discriminator=models.MLPDiscriminator(
            image_shape=SHAPE, num_outputs=1, widths=(8,), kernels=3)),
    'children': lambda: gan.TRAINERS['egan'](
        diversity=0.1, fitness_samples=32,
        **toy.gan_settings(SHAPE, 'gan', generator=NORMED)),
    'penalties': lambda: make_trainer(
        'gan', penalties=[{'name': 'gradient', 'weight': 2.0}, {'name': 'r1'}]),
    'stacked': lambda: make_trainer(generator=STACKED),
    'reward': lambda: gan.TRAINERS['active'](
        classifier={'name': 'mlp', 'width': 8, 'depth': 1}, made_weight=0.5,
        **toy.gan_settings(SHAPE, 'ac_gan', labels='predefined')),
    'third network': make_gaan,
}


@functools.cache
def run(name, num_devices, mode):
  trainer = TRAINERS[name]()
  state, metrics, before = toy.run_on_devices(
      trainer, num_devices, mode, toy.make_items(SHAPE, steps=2))
  return before, state, trainer.figures(metrics)


# Under jit XLA itself sees to it that devices agree: one trainer, that of most sums.
@pytest.mark.slow
@pytest.mark.parametrize(
    'name, mode', [('third network', 'jit'), *((name, 'pmap') for name in TRAINERS)])
def test_devices_agree_and_every_network_learns(name, mode):
  start, expected, figures = run(name, 1, 'jit')
  _, state, others = run(name, 8, mode)
  for net in start:
    moved = [np.abs(a - b).max() for a, b in zip(
        jax.tree.leaves(start[net].params), jax.tree.leaves(state.nets[net].params),
        strict=True)]
    assert max(moved) > 1e-4, net
  toy.assert_trees_close(expected.nets, state.nets, atol=5e-5)
  toy.assert_figures_close(figures, others, atol=1e-4)


def as_pass(outputs, weight=None, features=None):
  n = len(outputs)
  return Pass(outputs, np.zeros(n, np.int32),
              np.asarray(np.ones(n) if weight is None else weight, np.float32),
              features={'features': outputs if features is None else features})


def compiled(objective):
  """The losses of both players as functions of the passes."""
  return (jax.jit(lambda passes, fn=fn: fn(passes, GLOBAL))
          for fn in (objective.disc, objective.gen))


def test_feature_matching_is_the_distance_of_the_mean_features():
  rng = np.random.default_rng(0)
  real, fake = rng.normal(size=(2, 6, 5)).astype(np.float32)
  weight = np.array([1, 1, 1, 1, 0, 0], np.float32)
  objective = losses.make_gan_objective({'name': 'feature_matching'}, 4)
  _, gen = compiled(objective)
  found = gen({'real': as_pass(real, weight), 'fake': as_pass(fake)})
  expected = np.square(real[:4].mean(0) - fake.mean(0)).mean()
  np.testing.assert_allclose(found, np.full(6, expected), rtol=1e-5)
  with pytest.raises(ValueError, match="'x'.*features"):
    losses.make_gan_objective({'name': 'feature_matching', 'layer': 'x'}, 4).gen(
        {'real': as_pass(real), 'fake': as_pass(fake)}, GLOBAL)
  with pytest.raises(ValueError, match="disc.*'x'.*ac_gan, .*am_gan"):
    losses.make_gan_objective({'name': 'feature_matching', 'disc': 'x'}, 4)


def test_mmd_against_sums_over_pairs():
  rng = np.random.default_rng(1)
  x, g, n = (rng.normal(size=(k, 3)).astype(np.float32) for k in (5, 5, 3))
  objective = losses.make_gan_objective({'name': 'mmd', 'num_outputs': 3}, 1)

  def k(a, b, low=0.0, high=np.inf):
    return np.exp(-np.clip(np.square(a - b).sum(), low, high) / 2)

  def mean(one, others, i, **bounds):
    return np.mean([k(one[i], b, **bounds) for b in others
                    if not np.array_equal(b, one[i])])

  passes = {'real': as_pass(x), 'fake': as_pass(g),
            'negative': as_pass(np.concatenate([n, n[:1]]), [1, 1, 1, 0])}
  disc, gen = compiled(objective)
  found = disc(passes)
  unreal = np.concatenate([g, n])
  np.testing.assert_allclose(
      found['real'], [mean(x, x, i, high=4) for i in range(5)], rtol=1e-5)
  np.testing.assert_allclose(
      found['fake'], [-mean(g, unreal, i, low=0.25) for i in range(5)], rtol=1e-5)
  np.testing.assert_allclose(
      found['negative'][:3], [-mean(n, unreal, i, low=0.25) for i in range(3)],
      rtol=1e-5)
  square = (np.mean([mean(x, x, i) for i in range(5)])
            + np.mean([mean(g, g, i) for i in range(5)])
            - 2 * np.mean([k(a, b) for a in x for b in g]))
  np.testing.assert_allclose(np.mean(gen(passes)), square, rtol=1e-4)


def test_relativistic_average_against_means_by_hand():
  rng = np.random.default_rng(2)
  x, g, n = (rng.normal(size=(k, 1)).astype(np.float32) for k in (4, 4, 3))
  objective = losses.make_gan_objective({'name': 'relativistic'}, 1)
  passes = {'real': as_pass(x, [1, 1, 1, 0]), 'fake': as_pass(g),
            'negative': as_pass(n, [1, 0, 1])}

  def h(a):  # -log sigmoid(a)
    return np.log1p(np.exp(-a))

  r, f = x[:3].mean(), np.concatenate([g[:, 0], n[[0, 2], 0]]).mean()
  disc, gen = compiled(objective)
  found = disc(passes)
  for name, expected in (
      ('real', h(x - f)), ('fake', h(r - g)), ('negative', h(r - n))):
    np.testing.assert_allclose(found[name], expected[:, 0], rtol=1e-5)
  expected = h(g.mean() - x[:3]).mean() + h(g - r)
  np.testing.assert_allclose(gen(passes), expected[:, 0], rtol=1e-5)
  # At equal scores neither player has anything to tell apart.
  same = {name: as_pass(np.ones((4, 1), np.float32)) for name in ('real', 'fake')}
  np.testing.assert_allclose(gen(same), 2 * np.log(2), rtol=1e-6)


def test_penalties_of_a_linear_score():
  """s(x) = 3 x_0 + 4 x_1 has a gradient of length 5 everywhere."""
  images = np.zeros((2, 2), np.float32)
  passes = {name: as_pass(np.zeros((2, 1), np.float32))._replace(images=images)
            for name in ('real', 'fake')}

  def score(x):
    return x @ np.array([3, 4], np.float32)

  for spec, expected in (({'name': 'gradient', 'weight': 0.5}, 0.5 * 16),
                         ({'name': 'r1', 'weight': 2.0}, 25)):
    penalty = registry.build(losses.PENALTIES, spec, what='penalty')
    found = jax.jit(lambda key, penalty=penalty: penalty(
        score, passes, jax.random.split(key, 2)))(jax.random.key(0))
    np.testing.assert_allclose(found, [expected] * 2, rtol=1e-5)


def test_stacked_generators_take_turns():
  four = {**STACKED, 'num': 4}
  generator = toy.gan_nets(SHAPE, 1, four)['generator']
  z = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
  params = jax.device_get(jax.jit(generator.init)(jax.random.key(1), z)['params'])
  images = np.asarray(jax.jit(generator.apply)({'params': params}, z))
  one = models.MLPGenerator(latent=4, image_shape=SHAPE, widths=(8,))
  inner, = params.values()
  assert {x.shape[0] for x in jax.tree.leaves(inner)} == {4}
  for copy in range(4):
    expected = jax.jit(one.apply)(
        {'params': jax.tree.map(lambda x: x[copy], inner)}, z[copy::4])  # noqa: B023
    np.testing.assert_allclose(images[copy::4], expected, atol=1e-6)
  with pytest.raises(ValueError, match=r'\b4\b.*\b5\b'):
    generator.apply({'params': params}, z[:5])
  state = jax.eval_shape(make_trainer(generator=four).init, jax.random.key(0))
  assert {x.shape[0] for x in jax.tree.leaves(state.nets['gen'].params)} == {4}
  for devices, size in ((1, 100), (2, 104), (8, 128)):
    mesh = types.SimpleNamespace(devices=np.zeros(devices))
    config = {'generator': four, 'measures': {'batch_size': 100}}
    assert evaluate.sampling_batch(config, mesh) == size


@pytest.mark.parametrize(
    'kind', ['classifier', pytest.param('gan', marks=pytest.mark.slow)])
def test_a_training_is_differentiable_in_the_weights_of_its_examples(kind):
  """The influence of every example, against central differences; BatchNorm is off the
  path, since a weight only masks it."""
  rng = np.random.default_rng(0)
  if kind == 'gan':
    # Without dynamic labels, which jump. Adam's square root has no derivative where a
    # gradient has always been 0.
    trainer = make_trainer('gan', gen_tx=optax.sgd(0.1, momentum=0.9))
    batch = jax.tree.map(lambda x: x[0], toy.make_items(SHAPE, 1))

    def metric(state):
      return state.nets['gen'].params['Dense_1']['bias'].sum()
  else:
    trainer = classify.supervised(
        **toy.step_settings(SHAPE),
        model=models.SmallConv(num_outputs=NUM_CLASSES, widths=(4,)),
        objective=losses.make_objective({'name': 'nat'}, NUM_CLASSES),
        tx=optax.sgd(0.1, momentum=0.9))
    batch = {'image': rng.normal(size=(8, *SHAPE)).astype(np.float32),
             'label': np.array([0, 1, 2, -1, -1, 0, 1, -1]),
             'weight': np.array([1.0] * 7 + [0.0], np.float32)}

    def metric(state):
      return trainer.heads['logits'](state, batch['image'][:3])[:, 0].sum()

  state = jax.jit(trainer.init)(jax.random.key(0))
  numbers = {'positive': batch['positive']['weight'],
             'negative': batch['negative']['weight']} if kind == 'gan' else {
                 'all': batch['weight']}

  @jax.jit
  def after(weights):
    given = {**batch, 'weight': weights['all']} if kind == 'classifier' else {
        name: {**batch[name], 'weight': weights[name]} for name in weights}
    found, _ = jax.lax.scan(
        lambda found, _: (trainer.step(found, {}, given)[0], None), state, length=3)
    return metric(found)

  influence = jax.jit(jax.grad(after))(numbers)
  for name, weights in numbers.items():
    filled = np.flatnonzero(weights > 0)
    shift = 1e-3 * np.eye(weights.size, dtype=np.float32).reshape(-1, *weights.shape)
    ends = np.array([[after({**numbers, name: weights + sign * shift[i]})
                      for sign in (1, -1)] for i in filled])
    slopes = (ends[:, 0] - ends[:, 1]) / 2e-3
    found = np.asarray(influence[name]).ravel()[filled]
    assert np.abs(found).max() > 1e-3
    # A gradient jumps where a leaky ReLU bends: there a difference says nothing.
    near = np.isclose(found, slopes, rtol=0.03, atol=0.02 * np.abs(found).max())
    assert near.mean() >= 0.75, (name, found, slopes)
