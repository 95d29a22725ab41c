"""E-GAN: the mutations, the fitness, and what travels with the child that is chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from nat_jax import losses
from nat_jax.task import GLOBAL
from nat_jax.tasks import gan
from nat_jax.tasks.gan import evolution, players
from nat_jax.tasks.gan import step as gan_step

SHAPE = (3, 3, 1)


def settings(**changes):
  return toy.gan_settings(SHAPE, 'gan', gen_tx=optax.adam(1e-2)) | changes


@pytest.fixture(scope='module')
def first():
  """(setup, state, sets of a batch) before the first update."""
  setup = gan_step.Setup(**settings())
  state = jax.jit(lambda key: gan_step.init(setup, key))(jax.random.key(0))
  batch = jax.tree.map(lambda x: x[0], toy.make_items(SHAPE, 1, negatives=0))
  sets = jax.jit(lambda batch, key: players.prepare(
      batch, 0, key, GLOBAL, toy.same, toy.same))(batch, jax.random.key(1))
  return setup, state, sets


def test_mutations_are_the_losses_of_the_paper():
  x = np.array([-3.0, 0.0, 2.0])
  d = 1 / (1 + np.exp(-x))
  for name, expected in (('minimax', np.log(1 - d)), ('heuristic', -np.log(d)),
                         ('least_squares', (d - 1) ** 2)):
    found = jax.jit(evolution.MUTATIONS[name])(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert len(evolution.MUTATIONS) == 3


def test_a_child_that_has_diverged_is_not_kept(first, monkeypatch):
  setup, state, sets = first
  values = iter([0.5, np.nan, 0.25])
  monkeypatch.setattr(evolution, 'fitness', lambda *args: jnp.asarray(next(values)))
  monkeypatch.setattr(
      gan_step, 'update_gen', lambda setup, gen, *args: (jnp.asarray(next(names)), ()))
  names = iter([1.0, 2.0, 3.0])
  kept, _ = evolution.evolve(
      setup, state.nets['gen'], state.nets['disc'], sets, jax.random.key(0), GLOBAL,
      0.5)
  assert kept == 1.0


@pytest.mark.slow
@pytest.mark.parametrize('num, drawn', [(0, 16), (40, 40)])
def test_fitness_against_its_definition(first, num, drawn):
  """D without noise and dropout, so that the definition can be written down."""
  setup, state, sets = first
  quiet = setup.discriminator.clone(noise=0.0, dropout=0.0)
  setup = setup._replace(discriminator=quiet)
  gen, disc = (state.nets[x] for x in ('gen', 'disc'))

  @jax.jit
  def found(gen, disc):
    return evolution.fitness(
        setup, gen, disc, sets, jax.random.key(5), GLOBAL, 0.7, num)

  @jax.jit
  def make(variables):
    fake_key = jax.random.split(jax.random.key(5), 3)[0]
    noise = players.draw(setup.generator, fake_key, drawn, GLOBAL)['z']
    return setup.generator.apply(variables, noise)

  fake = make(gen.variables)

  @jax.jit
  def probability(params, images):
    return jax.nn.sigmoid(quiet.apply(
        disc.variables | {'params': params}, images, train=True)[0][:, 0])

  def loss(params):
    return -(jnp.log(probability(params, sets['real']['image'])).mean()
             + jnp.log(1 - probability(params, fake)).mean())

  slope = jax.device_get(jax.jit(jax.grad(loss))(disc.params))
  square = sum(np.square(x).sum() for x in jax.tree.leaves(slope))
  expected = np.mean(probability(disc.params, fake)) - 0.7 * np.log(square)
  np.testing.assert_allclose(found(gen, disc), expected, rtol=1e-4)


def test_the_fittest_child_stays_with_the_state_of_its_optimiser(first):
  setup, state, sets = first
  gen, disc = (state.nets[x] for x in ('gen', 'disc'))

  @jax.jit
  def everything(diversity):
    update_key, fitness_key = jax.random.split(jax.random.key(2))
    children = [gan_step.update_gen(
        setup._replace(objective=setup.objective._replace(
            gen=lambda passes, axis, loss=loss: loss(passes['fake'].outputs[:, 0]))),
        gen, disc, sets, jax.random.clone(update_key), GLOBAL)[0]
        for loss in evolution.MUTATIONS.values()]
    fitness = jnp.stack([
        evolution.fitness(
            setup, child, disc, sets, jax.random.clone(fitness_key), GLOBAL, diversity)
        for child in children])
    chosen, made = evolution.evolve(
        setup, gen, disc, sets, jax.random.key(2), GLOBAL, diversity)
    return children, fitness, chosen, made.loss

  winners = set()
  for diversity in (0.0, 100.0):
    children, fitness, chosen, _ = jax.device_get(everything(diversity))
    best = int(np.argmax(fitness))
    winners.add(best)
    toy.assert_trees_close(children[best], chosen, atol=1e-6)
    for i, child in enumerate(children):  # each has moments of its own
      moments = [np.abs(a - b).max() for a, b in zip(
          jax.tree.leaves(child.opt_state), jax.tree.leaves(chosen.opt_state),
          strict=True)]
      assert (max(moments) > 1e-7) == (i != best)
  assert len(winners) == 2, winners  # the weight of the second term decides


@pytest.mark.parametrize('given, expected', [({}, 16), ({'fitness_samples': 40}, 40)])
def test_number_of_samples_of_the_fitness(first, given, expected, monkeypatch):
  nums, draw = [], players.draw

  def counted(generator, key, num, *others):
    nums.append(num)
    return draw(generator, key, num, *others)

  monkeypatch.setattr(players, 'draw', counted)
  trainer = gan.TRAINERS['egan'](**settings(**given))
  batch = jax.tree.map(lambda x: x[0], toy.make_items(SHAPE, 1, negatives=0))
  jax.eval_shape(trainer.step, first[1], {}, batch)
  assert nums == [16, *[16] * 3, *[expected] * 3]  # of D, of children, of their fitness


def test_devices_share_the_samples_of_the_fitness_equally():
  trainer = gan.TRAINERS['egan'](**settings(fitness_samples=20))
  with pytest.raises(ValueError, match='fitness_samples.*multiple of 8.*20'):
    toy.run_on_devices(trainer, 8, 'pmap', toy.make_items(SHAPE, 1, negatives=0))


@pytest.mark.parametrize('changes, message', [
    (dict(diversity=-1.0), 'diversity.*-1'),
    (dict(fitness_samples=-1), 'fitness_samples.*0.*-1'),
    (dict(objective=losses.make_gan_objective({'name': 'mmd'}, 1)), 'one logit'),
    (dict(objective=losses.make_gan_objective({'name': 'am_gan'}, 3)), 'one logit'),
])
def test_mistakes(changes, message):
  with pytest.raises(ValueError, match=message):
    gan.TRAINERS['egan'](**settings(**changes))
