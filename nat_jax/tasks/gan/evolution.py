"""E-GAN: each step makes a child of the generator by each mutation; the fittest stays.

    trainer = egan(diversity=1.0, generator=..., discriminator=..., objective=..., ...)
    state, metrics = trainer.step(state, {}, batch)

Reference: Wang, Xu, Yao, Tao, "Evolutionary Generative Adversarial Networks", IEEE
Transactions on Evolutionary Computation, 2019.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nat_jax import losses, registry, task
from nat_jax.losses.gan_terms import check_weight
from nat_jax.tasks.gan import players
from nat_jax.tasks.gan import step as gan_step

# Name -> a child's loss per example as a function of D's logits x, D_r = sigmoid(x).
MUTATIONS = {
    'minimax': lambda x: -jax.nn.softplus(x),  # log(1 - D_r)
    'heuristic': lambda x: jax.nn.softplus(-x),  # -log D_r
    'least_squares': lambda x: jnp.square(jax.nn.sigmoid(x) - 1),  # (D_r - 1)^2
}


@registry.arguments(gan_step.Setup)
def egan(
    *, diversity: float = 0.002, fitness_samples: int = 0, **settings: Any
) -> task.Trainer:
  """Returns the trainer of an E-GAN with one survivor.

  A step updates D `n_critic` times. Then a copy of G is updated by the loss of each of
  `MUTATIONS`, with its own copy of the optimiser's state, and the copy with the largest
  fitness F replaces G, with its optimiser's state:
  F = mean D_r(G(z)) - diversity log |gradient of L_D|^2.
  L_D is the mean loss of D on real + that on generated examples, without penalties; the
  gradient is by D's parameters. All copies have the same noise z.

  Args:
    diversity: weight of the second term; 0.002 on CIFAR-10 and 1 on points in the
      authors' code.
    fitness_samples: number of generated examples in F, of all devices together, 256 in
      the authors' code; 0: as many as there are real ones, those of the batch.
    **settings: the attributes of `gan_step.Setup`. Only the part of the objective that
      is D's loss is used.

  Raises:
    ValueError: see `gan_step.gan`; a diversity or a number of samples that is negative,
      or an objective without a single logit. In a step: devices that cannot share the
      samples equally.
  """
  check_weight('trainer.diversity', diversity)
  if fitness_samples < 0:
    raise ValueError(
        'trainer.fitness_samples must be 0 (as many as real examples) or more, got '
        f'{fitness_samples}')
  setup = gan_step.Setup(**settings)
  objective = setup.objective
  if objective.class_logits or objective.num_outputs != 1 or objective.whole_batch or (
      not objective.bounded):
    raise ValueError(
        "trainer 'egan' needs a loss with one logit per example, whose sigmoid its "
        "mutations use, such as loss={'name': 'gan'}; got another one")
  trainer = gan_step.gan(**settings)
  return trainer._replace(step=functools.partial(
      gan_step.step, setup, update=functools.partial(
          evolve, diversity=diversity, num_samples=fitness_samples)))


def evolve(setup, gen, disc, sets, key, axis, diversity, num_samples=0):
  """Makes the children of the generator and chooses the fittest.

  Args:
    setup, gen, disc, sets, key, axis: see `gan_step.update_gen`.
    diversity: see `egan`.
    num_samples: `fitness_samples` of `egan`.

  Returns:
    (the `Net` of the fittest child, its `Made` for the metrics).
  """
  update_key, fitness_key = jax.random.split(key)
  children = [
      gan_step.update_gen(
          setup._replace(objective=_mutated(setup.objective, loss)), gen, disc, sets,
          jax.random.clone(update_key), axis)
      for loss in MUTATIONS.values()]
  fitnesses = jnp.stack([
      fitness(setup, child, disc, sets, jax.random.clone(fitness_key), axis, diversity,
              num_samples)
      for child, _ in children])
  # A child that has diverged is the least fit.
  best = jnp.where(jnp.isnan(fitnesses), -jnp.inf, fitnesses).argmax()
  return jax.tree.map(lambda *x: jnp.stack(x)[best], *children)


def fitness(
    setup, gen, disc, sets, key, axis, diversity, num_samples=0
) -> jax.Array:
  """Returns the fitness F of a generator, a scalar; the formula stands in `egan`.

  Args:
    setup, gen, disc, sets, key, axis, diversity, num_samples: see `evolve`.
  """
  fake_key, *keys = jax.random.split(key, 3)
  num = _on_device(num_samples, setup, axis) or len(sets['real']['label'])
  drawn = players.draw(setup.generator, fake_key, num, axis, setup.given_classes)
  fake, _ = players.made(setup.generator, gen.variables, drawn, axis)
  sets = {'real': sets['real'], 'fake': fake}
  together = [[name] for name in sets]
  sets = players.with_keys(sets, keys, axis, together)
  coefficients = losses.disc_weights(
      {name: one['weight'] for name, one in sets.items()}, axis=axis)

  def loss_fn(params):
    passes, _ = players.see(
        setup.discriminator, None, disc.variables | {'params': params}, sets, axis,
        together=together)
    terms = setup.objective.disc(passes, axis)
    loss = sum(jnp.sum(coefficients[name] * terms[name]) for name in terms)
    return loss, jnp.sum(
        coefficients['fake'] * jax.nn.sigmoid(passes['fake'].outputs[:, 0]))

  grads, quality = jax.grad(loss_fn, has_aux=True)(disc.params)
  square = jnp.square(optax.tree.norm(axis.all(grads)))
  # The smallest normal number keeps F finite where D has no gradient at all.
  spread = -jnp.log(jnp.maximum(square, jnp.finfo(jnp.float32).tiny))
  return axis.all(quality) + diversity * spread


def _on_device(num_samples, setup, axis):
  """The samples per device; ValueError if devices or generators share unequally."""
  devices = 1 if axis.name is None else jax.lax.axis_size(axis.name)
  shares = devices * getattr(setup.generator, 'num', 1)
  if num_samples % shares:
    raise ValueError(
        f'trainer.fitness_samples must be a multiple of {shares}, the number of '
        f'devices times that of stacked generators, got {num_samples}')
  return num_samples // devices


def _mutated(objective, loss):
  return objective._replace(gen=lambda passes, axis: loss(
      passes['fake'].outputs[:, 0].astype(jnp.float32)))
