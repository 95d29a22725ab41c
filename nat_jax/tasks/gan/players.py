"""The parts of a GAN's training step: sets, samples, passes, penalties.

    sets = prepare(batch, 0, key, axis, augment, normalise)
    drawn = draw(generator, key, num, axis)
    sets['fake'], stats = made(generator, gen.variables, drawn, axis)
    sets = with_keys(sets, keys, axis, together)
    passes, stats = see(
        discriminator, class_logits, disc.variables, sets, axis, together=together)

A set is {'image': [n, ...], 'label': int32 [n] or None (dynamic labels), 'weight':
float32 [n] (0: an empty slot)}. Random numbers belong to the examples, by their
position in the global batch, so that a batch can be split into micro-batches.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nat_jax.task import Axis, Pass

Set = dict[str, Any]
SOURCES = {'real': 'positive', 'negative': 'negative'}  # set -> part of a batch


def prepare(
    batch: Mapping[str, Any], j: int, key: jax.Array, axis: Axis,
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    normalise: Callable[[jax.Array], jax.Array],
    with_negatives: bool | jax.Array = True,
) -> dict[str, Set]:
  """Returns augmented, normalised sets of real images and negatives from a batch.

  Args:
    batch: with the parts 'positive' and, optionally, 'negative', as gathered by
      `data.gather` for a stream of `data.apart`; each leaf is [n, repeats, ...].
    j: index of the repeat to take, 0..repeats-1.
    key: for the augmentation.
    axis: the devices that share the batch.
    augment: (images [n, ...], keys [n]) -> images.
    normalise: images of any dtype -> float32 images.
    with_negatives: False sets the weights of the negatives to 0.

  Returns:
    {'real': set, 'negative': set}, the latter if the batch has negatives; its labels
    are None (dynamic).
  """
  sets = {}
  for i, (name, source) in enumerate(SOURCES.items()):
    if source not in batch:
      continue
    one = jax.tree.map(lambda x: x[:, j], batch[source])
    keys = axis.keys(jax.random.fold_in(key, i), len(one['label']))
    sets[name] = {**one, 'image': normalise(augment(one['image'], keys))}
  if 'negative' in sets:
    weight = sets['negative']['weight'] * with_negatives
    sets['negative'] |= {'weight': weight, 'label': None}
  return sets


def draw(
    generator: nn.Module, key: jax.Array, num: int, axis: Axis, num_classes: int = 0
) -> Set:
  """Draws what a generator makes `num` examples from, with one key per example.

  Args:
    generator: the network.
    key: for noise and labels.
    num: number of examples per device.
    axis: the devices that share the batch.
    num_classes: above 0: a class is drawn for each example; 0: labels are None.

  Returns:
    A set without images, with 'z', the normal noise float32 [num, latent].
  """
  noise_key, label_key = (jax.random.fold_in(key, i) for i in range(2))
  label = None
  if num_classes:
    label = jax.vmap(lambda k: jax.random.randint(k, (), 0, num_classes))(
        axis.keys(label_key, num))
  z = jax.vmap(lambda k: jax.random.normal(k, (generator.latent,)))(
      axis.keys(noise_key, num))
  return {'label': label, 'weight': jnp.ones(num), 'z': z}


def made(
    generator: nn.Module, variables: Mapping[str, Any], drawn: Set, axis: Axis,
    updating: bool = False,
) -> tuple[Set, Any]:
  """Makes the images of a set from `draw`.

  Args:
    generator: the network.
    variables: its 'params' and 'batch_stats'.
    drawn: the set, with 'z'.
    axis: the devices that share the batch.
    updating: whether this pass updates `batch_stats` (spectral norm's u).

  Returns:
    (the set with 'image', batch_stats).
  """
  images, changed = generator.clone(axis_name=axis.name).apply(
      variables, drawn['z'], labels=drawn['label'],
      mutable=['batch_stats'] if updating else [])
  stats = changed.get('batch_stats', variables['batch_stats'])
  return {**drawn, 'image': images}, stats


def with_keys(
    sets: Mapping[str, Set], keys: Sequence[jax.Array], axis: Axis,
    together: Sequence[Sequence[str]],
) -> dict[str, Set]:
  """Returns the sets with 'key', the data of keys [n] for noise and dropout in `see`.

  Args:
    sets: name -> set.
    keys: one key per group of `together`.
    axis: the devices that share the batch.
    together: groups of names, see `see`.
  """
  found = {}
  for names, key in zip(together, keys, strict=False):
    for i, name in enumerate(names):
      found[name] = jax.random.key_data(
          axis.keys(jax.random.fold_in(key, i), len(sets[name]['weight'])))
  return {name: {**one, 'key': found[name]} for name, one in sets.items()}


def see(
    discriminator: nn.Module,
    class_logits: Callable[[jax.Array], jax.Array] | None,
    variables: Mapping[str, Any],
    sets: Mapping[str, Set],
    axis: Axis,
    *,
    together: Sequence[Sequence[str]],
    updating: str = '',
) -> tuple[dict[str, Pass], Any]:
  """Applies the discriminator to sets of examples, in training mode.

  Args:
    discriminator: the network.
    class_logits: outputs [n, num_outputs] -> class logits [n, K], for dynamic labels
      and the marginal; None: the discriminator has no class outputs.
    variables: 'params' and 'batch_stats' of the discriminator.
    sets: name -> set, from `with_keys`.
    axis: the devices that share the batch.
    together: groups of names; the sets of a group share one forward pass and its batch
      statistics.
    updating: name of the set whose pass updates `batch_stats` (spectral norm's u); '':
      no pass updates them.

  Returns:
    ({name: Pass}, batch_stats).
  """
  passes, stats = {}, variables['batch_stats']
  model = discriminator.clone(axis_name=axis.name)
  for names in together:
    group = [sets[name] for name in names]
    sizes = [len(one['image']) for one in group]
    (outputs, features), changed = model.apply(
        {'params': variables['params'], 'batch_stats': stats},
        jnp.concatenate([one['image'] for one in group]),
        keys=jax.random.wrap_key_data(
            jnp.concatenate([one['key'] for one in group])),
        mask=jnp.concatenate([one['weight'] for one in group]), train=True,
        **given_labels(discriminator, [one['label'] for one in group], sizes),
        mutable=['batch_stats'] if updating in names else [])
    stats = changed.get('batch_stats', stats)
    parts = _split((outputs, features), sizes)
    for name, one, part in zip(names, group, parts, strict=True):
      passes[name] = as_pass(one, *part, class_logits, axis)
  return {name: passes[name] for name in sets}, stats


def as_pass(
    examples: Set, outputs: jax.Array, features: dict[str, jax.Array],
    class_logits: Callable[[jax.Array], jax.Array] | None, axis: Axis,
) -> Pass:
  """Returns the `Pass` of a set, with dynamic labels if the set has no labels.

  Args:
    examples: the set.
    outputs: of the discriminator, [n, num_outputs].
    features: of the discriminator, by name.
    class_logits: see `see`.
    axis: the devices that share the batch.
  """
  label, marginal = examples['label'], None
  if class_logits is None:
    label = jnp.zeros(len(outputs), jnp.int32) if label is None else label
  else:
    logits = jax.lax.stop_gradient(class_logits(outputs))
    label = logits.argmax(-1) if label is None else label
    filled = (examples['weight'] > 0).astype(jnp.float32)
    probs = jax.nn.softmax(logits) * filled[:, None]
    marginal = axis.sums(probs) / jnp.maximum(axis.sum(filled), 1)
  return Pass(
      outputs, label, examples['weight'], marginal, examples['image'], features)


def given_labels(
    discriminator: nn.Module, labels: Sequence[jax.Array | None], sizes: Sequence[int]
) -> dict[str, jax.Array]:
  """The argument `labels` of a discriminator that is conditional by projection.

  Args:
    discriminator: the network.
    labels: of sets, int32 [n]; None: examples without a class, which get -1.
    sizes: number of examples of each set.

  Returns:
    {'labels': int32 [sum of sizes]}; {} for other discriminators.
  """
  if not getattr(discriminator, 'projection', 0):
    return {}
  return {'labels': jnp.concatenate([
      jnp.full(size, -1) if one is None else one
      for one, size in zip(labels, sizes, strict=True)])}


def penalty_sum(
    penalties: Sequence[Callable[..., jax.Array]],
    score: Callable[[jax.Array], jax.Array] | None, discriminator: nn.Module,
    variables: Mapping[str, Any], passes: Mapping[str, Pass],
    keys: Sequence[jax.Array], axis: Axis,
) -> jax.Array:
  """Returns the sum of the penalties over the real examples of this device, a scalar.

  Each example is multiplied by its weight.

  Args:
    penalties: see `losses.penalties`; they apply D without noise and dropout, and with
      the labels of the real examples where D is conditional by projection.
    score: of D's outputs, whose gradient is penalised; see `losses.GanObjective`.
    discriminator, variables: D.
    passes: {set: Pass} of all sets.
    keys: from `penalty_keys`.
    axis: the devices that share the batch.

  Raises:
    ValueError: penalties without a score.
  """
  check_score(penalties, score)
  real, total = passes['real'], jnp.zeros(())
  given = given_labels(discriminator, [real.labels], [len(real.labels)])

  def scores(images):
    outputs, _ = discriminator.clone(axis_name=axis.name).apply(
        variables, images, **given)
    return score(outputs.astype(jnp.float32))

  for penalty, one in zip(penalties, keys, strict=True):
    values = penalty(scores, passes, jax.random.wrap_key_data(one))
    total += jnp.sum(real.weight * values)
  return total


def check_score(penalties: Sequence[Any], score: Callable[..., Any] | None) -> None:
  """Raises ValueError if there are penalties, but no score of D's outputs."""
  if penalties and score is None:
    raise ValueError(
        'penalties need a loss by which D has a score for each example, such as gan, '
        'am_gan or nat_gan; this one (mmd, or one of your own without `score`) has '
        'none; choose another loss, or penalties=[]')


def penalty_keys(
    penalties: Sequence[Any], key: jax.Array, num: int, axis: Axis
) -> list[jax.Array]:
  """Returns the data of keys [num] for each penalty, one per real example."""
  return [jax.random.key_data(axis.keys(jax.random.fold_in(key, 2 + i), num))
          for i in range(len(penalties))]


def _split(tree, sizes):
  """Splits the arrays of a pytree along the first axis into parts of these sizes."""
  leaves, structure = jax.tree.flatten(tree)
  parts = zip(*(jnp.split(x, np.cumsum(sizes)[:-1]) for x in leaves), strict=True)
  return [jax.tree.unflatten(structure, part) for part in parts]
