"""AdaptiveMix of GANs: D's features of a mix of two images are those of both, mixed.

    trainer = adaptive_mix(generator=..., discriminator=..., objective=..., ...)
    state, metrics = trainer.step(state, {}, batch)

Reference: Liu et al., "AdaptiveMix: Improving GAN Training via Feature Space
Shrinkage", CVPR 2023, and the code of its GANs.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nat_jax import losses, registry, task
from nat_jax.losses.gan_terms import check_weight
from nat_jax.task import Axis, Pass
from nat_jax.tasks.classify import treatments
from nat_jax.tasks.classify.adaptive_mix import circle
from nat_jax.tasks.gan import players
from nat_jax.tasks.gan import step as gan_step

MIXED = ('real', 'fake')  # sets whose examples are mixed with each other


@registry.arguments(gan_step.Setup)
def adaptive_mix(
    *,
    objective: losses.GanObjective,
    weight: float = 1.0,
    alpha: float = 1.0,
    noise: float = 0.05,
    **settings: Any,
) -> task.Trainer:
  """Returns the trainer `gan` with feature-space shrinkage of both sets of images.

  x' = s x + (1 - s) x_p,  m = s f(x) + (1 - s) f(x_p),  s ~ Beta(alpha, alpha),
  o = (g(m) + g(f(x'))) / 2,
  loss = s l(o, y) + (1 - s) l(o, y_p) + weight (1 - cos(f(x'), m + e)),
  e ~ N(0, noise^2),

  for real images in D's loss and for generated images in the losses of D and of G,
  where l is the loss of the objective, f are the features and g is the output layer of
  D, x_p is another image of the set, and m + e has no gradient. There is one s per set
  and update, and the images of a set are partners of each other in a random circle.
  x' has the input noise and the dropout of x. A dynamic label y is the class that o
  predicts, and y_p is y. External negatives are neither mixed nor shrunk.

  The output layer is affine, so that g(m) = s g(f(x)) + (1 - s) g(f(x_p)). Penalties,
  and objectives that compare features, see the unmixed images. Accuracy and confidence
  in the training metrics are those of o.

  The reference trains with the sum g(m) + g(f(x')) and evaluates with g alone, which
  halves the outputs; their mean has one scale in both.

  Args:
    objective: the losses of D and G.
    weight: of the last term.
    alpha: of the Beta distribution.
    noise: standard deviation of e, in each dimension.
    **settings: further attributes of `gan_step.Setup`.

  Raises:
    ValueError: see `gan_step.gan`; a number out of range, micro-batches, or a
      discriminator whose outputs are not an affine function of each image's features.
  """
  check_weight('trainer.weight', weight)
  check_weight('trainer.noise', noise)
  check('adaptive_mix', settings)
  return gan_step.gan(
      objective=with_partners(objective, weight),
      see=functools.partial(see, treatments.symmetric_beta(alpha), noise), **settings)


class Pairs(NamedTuple):
  """How the examples of a set are mixed.

  Attributes:
    share: s, scalar.
    other: position of x_p in the global batch, int32 [n].
  """

  share: jax.Array
  other: jax.Array

  def mean(self, x: jax.Array, axis: Axis) -> jax.Array:
    """Returns s x + (1 - s) x_p, of x [n, ...]."""
    return self.share * x + (1 - self.share) * axis.gather(x)[self.other]


def pairs_of(
    draw: Callable[[jax.Array], jax.Array], examples: players.Set, axis: Axis
) -> Pairs:
  """Draws the share and the partners of a set, by the key of its first example.

  Args:
    draw: key -> share.
    examples: a set from `players.with_keys`.
    axis: the devices that share the batch.
  """
  first = jax.random.wrap_key_data(axis.gather(examples['key'])[0])
  share_key, order_key = (jax.random.fold_in(first, i) for i in range(2))
  num = len(examples['weight'])
  other = circle(axis.gather(examples['weight']) > 0, order_key)
  return Pairs(draw(share_key), jax.lax.dynamic_slice_in_dim(
      other, axis.first(num), num))


def see(
    draw, noise, discriminator, class_logits, variables, sets, axis, *, together,
    updating='',
):
  """`players.see`, with mixed images in the passes of the images they are made of.

  Args:
    draw: key -> share.
    noise: standard deviation of e.
    discriminator, class_logits, variables, sets, axis, together, updating: see
      `players.see`.

  Returns:
    ({name: Pass}, batch_stats). The outputs of mixed sets are o; their features are
    those of the unmixed images, and 'share' (s), 'partner' (y_p) and 'gap' (1 - cos),
    each [n].
  """
  pairs = {name: pairs_of(draw, sets[name], axis) for name in MIXED if name in sets}
  mixed = {
      f'mixed {name}': {**sets[name], 'image': one.mean(sets[name]['image'], axis)}
      for name, one in pairs.items()}
  passes, stats = players.see(
      discriminator, class_logits, variables, {**sets, **mixed}, axis, together=[
          [*names, *(f'mixed {name}' for name in names if name in pairs)]
          for names in together], updating=updating)
  joined = {
      name: _join(
          one, noise, sets[name], passes[name], passes[f'mixed {name}'], class_logits,
          axis)
      for name, one in pairs.items()}
  return {name: joined.get(name, passes[name]) for name in sets}, stats


def _join(pairs, noise, examples, plain, mixed, class_logits, axis) -> Pass:
  """The pass of a set from those of its images and of the mixed images."""
  mean = pairs.mean(plain.features['features'], axis)
  keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.wrap_key_data(key), 2))(
      examples['key'])
  error = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
  target = jax.lax.stop_gradient(mean) + noise * error
  seen = players.as_pass(
      examples, (pairs.mean(plain.outputs, axis) + mixed.outputs) / 2, {
          **plain.features,
          'share': jnp.broadcast_to(pairs.share, len(mean)),
          'gap': optax.losses.cosine_distance(
              mixed.features['features'], target, epsilon=1e-6),
      }, class_logits, axis)
  return with_labels(pairs, examples, seen, axis)


def with_labels(pairs: Pairs, examples: players.Set, seen: Pass, axis: Axis) -> Pass:
  """The pass with y_p as the feature 'partner': a dynamic label is its own partner."""
  partner = (seen.labels if examples['label'] is None
             else axis.gather(seen.labels)[pairs.other])
  return seen._replace(features={**seen.features, 'partner': partner})


def with_partners(
    objective: losses.GanObjective, weight: float
) -> losses.GanObjective:
  """Returns the objective of mixed labels, with the shrinkage of features.

  Args:
    objective: of unmixed labels.
    weight: of the shrinkage.
  """

  def join(seen, own, other):
    share, gap = seen.features['share'], seen.features['gap']
    return share * own + (1 - share) * other + weight * gap

  def partners(passes):
    return {**passes, **{
        name: passes[name]._replace(labels=passes[name].features['partner'])
        for name in MIXED if name in passes}}

  def disc(passes, axis):
    own = objective.disc(passes, axis)
    other = objective.disc(partners(passes), axis)
    return {**own, **{
        name: join(passes[name], own[name], other[name]) for name in MIXED}}

  def gen(passes, axis):
    return join(
        passes['fake'], objective.gen(passes, axis),
        objective.gen(partners(passes), axis))

  return objective._replace(disc=disc, gen=gen)


def check(name: str, settings: Mapping[str, Any]) -> None:
  """Raises ValueError where the images of a set cannot be mixed.

  Args:
    name: of the trainer.
    settings: attributes of `gan_step.Setup`.
  """
  if settings.get('micro_batches', 1) != 1:
    raise ValueError(
        f'the trainer {name} mixes the images of a batch: data.micro_batches must be '
        f'1, got {settings["micro_batches"]}')
  discriminator = settings['discriminator']
  for key, why in (
      ('projection', 'its output depends on one class, and mixed images have two'),
      ('kernels', 'minibatch discrimination would compare images with their mixes')):
    value = getattr(discriminator, key, 0)
    if value:
      raise ValueError(
          f'the trainer {name} does not go with discriminator.{key}={value}: {why}; '
          f"set discriminator.{key}=0, or trainer.name='gan'")
