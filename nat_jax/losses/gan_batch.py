"""GAN objectives whose losses compare whole sets: feature matching, MMD, relativistic.

    objective = make_gan_objective({'name': 'mmd'}, num_classes=10)
    objective.gen_sees                                       # ('fake', 'real')
    objective.gen({'fake': Pass(...), 'real': Pass(...)}, axis)           # [n]

Sums are taken over the global batch, of which each device holds a shard.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from nat_jax import names
from nat_jax.losses import gan
from nat_jax.losses import gan_terms as terms
from nat_jax.losses.gan_terms import GanObjective, Passes
from nat_jax.task import Axis, Pass


def feature_matching(
    num_classes: int, disc: str = 'label_gan', layer: str = 'features'
) -> GanObjective:
  """Feature matching: G matches D's mean features of real examples.

  G: 1/d sum_j (mean_real f_j - mean_fake f_j)^2, f the features [n, d] of D; every
  generated example has this loss. Feature maps are flattened. D's loss is that of the
  objective `disc`.

  Args:
    num_classes: K.
    disc: name in `PER_SET` of the objective that D minimises.
    layer: name in D's aux of the features that are matched.

  Raises:
    ValueError: an unknown `disc`, or a `layer` that D does not have.

  Reference: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016,
  section 3.1.
  """
  if disc not in gan.PER_SET:
    raise ValueError(names.unknown('disc', disc, sorted(gan.PER_SET)))
  objective = gan.PER_SET[disc](num_classes)

  def mean(seen: Pass, axis: Axis) -> jax.Array:
    if layer not in seen.features:
      raise ValueError(
          f'the discriminator has no features {layer!r}; it has: '
          f'{", ".join(seen.features)}')
    features = seen.features[layer].astype(jnp.float32).reshape(len(seen.outputs), -1)
    filled = (seen.weight > 0).astype(jnp.float32)
    return axis.sums(features * filled[:, None]) / jnp.maximum(axis.sum(filled), 1)

  def gen(passes: Passes, axis: Axis) -> jax.Array:
    real = jax.lax.stop_gradient(mean(passes['real'], axis))
    distance = jnp.square(real - mean(passes['fake'], axis)).mean()
    return jnp.full(len(passes['fake'].outputs), distance)

  return objective._replace(gen=gen, gen_sees=('fake', 'real'), whole_batch=True)


def mmd(
    num_classes: int, num_outputs: int = 16, sigma: float = 1.0,
    bounds: Sequence[float] = (0.25, 4.0),
) -> GanObjective:
  """The unconditional MMD-GAN with the repulsive loss and a bounded Gaussian kernel.

  k(a, b) = exp(-d^2 / (2 sigma^2)), d^2 = |a - b|^2 of D's outputs.
  D: mean k(real, real') - mean k(fake, fake'), with d^2 at most bounds[1] among real
  and at least bounds[0] among fake examples. D pulls fakes together, real ones apart.
  G: MMD^2 = mean k(real, real') + mean k(fake, fake') - 2 mean k(real, fake).

  Means leave out the pair of an example with itself. External negatives count as fakes
  in D's loss.

  Args:
    num_classes: not used.
    num_outputs: width of D's output.
    sigma: width of the kernel.
    bounds: (low, high), the bounds on d^2 in D's loss.

  Raises:
    ValueError: bounds that do not rise from 0 or more.

  Reference: Wang, Sun, Halgamuge, "Improving MMD-GAN Training with Repulsive Loss
  Function", ICLR 2019.
  """
  del num_classes
  low, high = bounds
  if not 0 <= low < high:
    raise ValueError(
        'loss.bounds must be two numbers (low, high) with 0 <= low < high, got '
        f'{bounds}')

  def kernel(one: Pass, others: Sequence[Pass], axis: Axis, clip) -> jax.Array:
    """mean_j k(one_i, others_j), [n]: i on this device, j in the global batch."""
    a = one.outputs.astype(jnp.float32)
    b = jnp.concatenate([axis.gather(x.outputs) for x in others]).astype(jnp.float32)
    filled = jnp.concatenate([axis.gather(x.weight) for x in others]) > 0
    square = jnp.square(a[:, None] - b[None]).sum(-1)
    # Where `one` is among `others`, its examples are not paired with themselves.
    place, before = -jnp.ones(len(a), int), 0
    for x in others:
      if x is one:
        place = before + axis.first(len(a)) + jnp.arange(len(a))
      before += len(axis.gather(x.weight))
    pairs = filled[None] & (place[:, None] != jnp.arange(len(b))[None])
    k = jnp.exp(-clip(square) / (2 * sigma**2))
    return jnp.where(pairs, k, 0).sum(1) / jnp.maximum(pairs.sum(1), 1)

  def disc(passes: Passes, axis: Axis) -> dict[str, jax.Array]:
    unreal = {name: x for name, x in passes.items() if name != 'real'}
    pulled = {
        name: -kernel(x, list(unreal.values()), axis, lambda d: jnp.maximum(d, low))
        for name, x in unreal.items()}
    real = passes['real']
    apart = kernel(real, [real], axis, lambda d: jnp.minimum(d, high))
    return {'real': apart, **pulled}

  def gen(passes: Passes, axis: Axis) -> jax.Array:
    real, fake = passes['real'], passes['fake']
    among_real = kernel(real, [real], axis, lambda d: d)
    filled = real.weight > 0
    level = axis.sum(among_real * filled) / jnp.maximum(axis.sum(filled), 1)
    return (level + kernel(fake, [fake], axis, lambda d: d)
            - 2 * kernel(fake, [real], axis, lambda d: d))

  return GanObjective(
      # D's outputs are features: only distances between them have a meaning, so that
      # there is neither a score nor a realness of one example.
      num_outputs, None, disc, gen, ('fake', 'real'), whole_batch=True)


def relativistic(num_classes: int) -> GanObjective:
  """The unconditional relativistic average GAN; one score l.

  With the means r of l over real and f over unreal examples (fakes; in D's loss also
  negatives), and H(x) = -log sigmoid(x):
  D: H(l - f) (real), H(r - l) (fake, negative). G: mean over real of H(f - l) +
  H(l - r), which makes fakes more real than real examples are on average.

  Reference: Jolicoeur-Martineau, "The relativistic discriminator: a key element missing
  from standard GAN", ICLR 2019.
  """
  del num_classes

  def score(seen: Pass) -> jax.Array:
    return seen.outputs[:, 0].astype(jnp.float32)

  def mean(sets: Sequence[tuple[jax.Array, jax.Array]], axis: Axis) -> jax.Array:
    """The mean over the filled slots of (values [n], weights [n]) of several sets."""
    total = sum(axis.sum(jnp.where(weight > 0, x, 0)) for x, weight in sets)
    count = sum(axis.sum(weight > 0) for _, weight in sets)
    return total / jnp.maximum(count, 1)

  def disc(passes: Passes, axis: Axis) -> dict[str, jax.Array]:
    real = passes['real']
    unreal = {name: seen for name, seen in passes.items() if name != 'real'}
    r = mean([(score(real), real.weight)], axis)
    f = mean([(score(seen), seen.weight) for seen in unreal.values()], axis)
    return {'real': jax.nn.softplus(f - score(real)),
            **{name: jax.nn.softplus(score(seen) - r)
               for name, seen in unreal.items()}}

  def gen(passes: Passes, axis: Axis) -> jax.Array:
    real, fake = passes['real'], passes['fake']
    r = mean([(score(real), real.weight)], axis)
    f = mean([(score(fake), fake.weight)], axis)
    among_real = jax.nn.softplus(score(real) - f)
    return mean([(among_real, real.weight)], axis) + jax.nn.softplus(r - score(fake))

  return GanObjective(
      # Only differences of l have a meaning: it is a score, but no realness.
      1, None, disc, gen, ('fake', 'real'), whole_batch=True, score=terms.first)


BATCH = {
    'feature_matching': feature_matching, 'mmd': mmd, 'relativistic': relativistic}
