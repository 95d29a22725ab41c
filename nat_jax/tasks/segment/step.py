"""The training step of a segmenter with pictures that are made of pasted masks.

    trainer = segment(segmenter=..., generator=..., discriminator=..., ...)
    state, metrics = trainer.step(state, {}, {'real': batch, ...})

The last channel of a batch's images is the mask. Masks with a region of a rare class
pasted in become pictures by a generator, or by pasting the pixels of the region too.

Reference: Liu et al., arXiv:1811.00174 (synthetic pairs of pasted masks); Isola, Zhu,
Zhou, Efros, "Image-to-Image Translation with Conditional Adversarial Networks", CVPR
2017 (the losses of the generator and the discriminator).
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from clu import metrics as clu_metrics

from nat_jax import data, losses, registry, task
from nat_jax.task import GLOBAL, Axis, Net, State
from nat_jax.tasks import updates

Average = clu_metrics.Average
PLAYERS = ('segmenter', 'generator', 'discriminator')


class Setup(NamedTuple):
  """The networks, the losses and the settings.

  Attributes:
    segmenter: pictures [n, h, w, c] -> logits [n, h, w, num_classes].
    generator: classes of pixels, one-hot with the void as one more class, and noise,
      [n, h, w, num_classes + 2] -> pictures before tanh; None: pixels are pasted.
    discriminator: such classes and pictures -> outputs of patches; None: there is none.
    objective: the loss of a pixel, for which the void is a negative.
    tx, gan_tx: the optimisers, of the segmenter and of the other networks.
    num_classes: number of classes.
    image_shape: (height, width, channels) of a picture.
    class_weights: factor of the loss of the pixels of each class.
    adversarial_weight, l1_weight: of the terms of the generator's loss.
    synthetic_from: the update from which on the segmenter sees synthetic pairs.
  """

  segmenter: nn.Module
  objective: losses.Objective
  tx: optax.GradientTransformation
  gan_tx: optax.GradientTransformation
  num_classes: int
  image_shape: tuple[int, ...]
  class_weights: Sequence[float]
  generator: nn.Module | None = None
  discriminator: nn.Module | None = None
  adversarial_weight: float = 1.0
  l1_weight: float = 10.0
  synthetic_from: int = 0


class Batch(NamedTuple):
  """Pairs as networks take them.

  Attributes:
    image: float32 [n, h, w, c] in [-1, 1].
    label: int32 [n, h, w], -1: void.
    weight: float32 [n], 0: an empty slot.
  """

  image: jax.Array
  label: jax.Array
  weight: jax.Array


@flax.struct.dataclass
class SegmentMetrics(clu_metrics.Collection):
  """Averages over updates and pictures; 0 for networks that the run does not have."""

  loss: Average.from_output('loss')
  # Share of the pixels of a real picture with a class. clu counts in int32, which the
  # pixels of some hundred large batches exceed.
  accuracy: Average.from_fun(
      lambda **outputs: dict(values=outputs['right'], mask=outputs['filled']))
  loss_gen: Average.from_output('loss_gen')
  loss_disc: Average.from_output('loss_disc')
  grad_norm: Average.from_output('grad_norm')
  images: Average.from_fun(lambda **outputs: dict(
      values=outputs['weight'], mask=outputs['weight'] > 0))


@registry.arguments(Setup)
def segment(**settings: Any) -> task.Trainer:
  """Returns the trainer of a segmenter S, a generator G and a discriminator D.

  A step updates D and G on real pairs (x, m), among which those with rare classes are
  frequent, and S on real and on synthetic pairs:
  D: mean softplus(-D(m, x)) + softplus(D(m, G(m))), over patches.
  G: adversarial_weight mean softplus(-D(m, G(m))) + l1_weight mean |x - G(m)|.
  S: the objective of all pixels of (x, m) and, from update `synthetic_from` on, of
     (G(m'), m'), m' a mask of the training with a region of a rare class pasted in.

  Args:
    **settings: the attributes of `Setup`.

  Returns:
    A `Trainer` over a `State` of 'segmenter' and, if there are, 'generator' and
    'discriminator'. Its head 'pixels' maps uint8 pictures to float32 [n, h, w, 2], the
    predicted class and its probability; 'synthetic' maps {'base', 'region': batches}
    to the pairs made of them, uint8 [n, h, w, c + 1].
  """
  setup = Setup(**settings)
  return task.Trainer(
      init=functools.partial(init, setup),
      frozen=dict,
      step=functools.partial(step, setup),
      heads={
          'logits': lambda state, images: setup.segmenter.apply(
              state.nets['segmenter'].variables, scaled(images)),
          'pixels': functools.partial(pixels, setup),
          'synthetic': functools.partial(synthetic_pairs, setup)},
      figures=lambda metrics: {
          **task.figures(metrics), 'images': float(metrics.images.count)},
      line=lambda record: (
          f'loss {record["loss"]:.3f}  pixel accuracy {record["accuracy"]:.3f}'
          + f'  G {record["loss_gen"]:.2f}  D {record["loss_disc"]:.2f}' * (
              setup.generator is not None)),
      watch=('loss', 'grad_norm', 'loss_gen', 'loss_disc'))


def init(setup: Setup, key: jax.Array) -> State:
  """Returns the initial `State` of the networks that the setup has."""
  *keys, step_key = jax.random.split(key, 4)
  h, w, c = setup.image_shape
  channels = {'segmenter': c, 'generator': setup.num_classes + 2,
              'discriminator': setup.num_classes + 1 + c}
  nets = {}
  for name, one in zip(PLAYERS, keys, strict=True):
    if getattr(setup, name) is None:
      continue
    params = getattr(setup, name).init(
        one, jnp.zeros((1, h, w, channels[name])))['params']
    tx = setup.tx if name == 'segmenter' else setup.gan_tx
    nets[name] = Net(params, {}, tx.init(params))
  return State(step=jnp.zeros((), jnp.int32), key=step_key, nets=nets, ema={})


def step(setup, state, frozen, batch, *, axis: Axis = GLOBAL):
  """Updates the discriminator, the generator and the segmenter once.

  Args:
    setup: a `Setup`.
    state: a `State` of the networks that the setup has.
    frozen: not used.
    batch: {'real': batch} and, for synthetic pairs, 'base' and 'region': the masks that
      regions are pasted into, and the regions (`data.regions`); for a generator also
      'drawn', real pairs among which those with rare classes are frequent.
    axis: the devices that share the batch.

  Returns:
    (state, `SegmentMetrics`).
  """
  del frozen
  disc_key, gen_key, made_key = step_keys(state)
  nets, real, seen = dict(state.nets), as_batch(batch['real']), []
  loss_disc = loss_gen = jnp.zeros(())
  if 'discriminator' in nets:
    nets['discriminator'], loss_disc = update_disc(
        setup, nets, as_batch(batch['drawn']), disc_key, axis)
  if 'generator' in nets:
    nets['generator'], loss_gen = update_gen(
        setup, nets, as_batch(batch['drawn']), gen_key, axis)
  if 'region' in batch:
    made = synthetic(setup, nets, batch, made_key, axis)
    seen.append(made._replace(
        weight=made.weight * (state.step >= setup.synthetic_from)))
  nets['segmenter'], loss, norm, right = update_segmenter(
      setup, nets['segmenter'], [real, *seen], axis)
  known = (real.label >= 0).sum((1, 2))
  right = right[:real.label.size].reshape(real.label.shape).sum((1, 2))
  metrics = task.collect(
      SegmentMetrics, axis, loss=loss, loss_gen=loss_gen, loss_disc=loss_disc,
      grad_norm=norm, right=right / jnp.maximum(known, 1),
      filled=(known > 0) & (real.weight > 0), weight=real.weight)
  return state.replace(step=state.step + 1, nets=nets), metrics


def update_segmenter(setup, segmenter, seen, axis):
  """Updates the segmenter on the pixels of several `Batch`es together.

  Returns:
    (its `Net`, the loss, the norm of the gradient, whether the prediction of each pixel
    is right, [all pixels]).
  """
  images = jnp.concatenate([one.image for one in seen])
  labels = jnp.concatenate([one.label for one in seen]).ravel()
  weight = jnp.concatenate([one.weight for one in seen])
  weight = jnp.repeat(weight, labels.size // len(weight))
  # The void, label -1, takes the last factor.
  factors = jnp.asarray([*setup.class_weights, 1.0], jnp.float32)[labels]
  share = losses.example_weights(labels, weight, setup.objective, axis) * factors

  def loss_fn(params, batch_stats, _):
    logits = setup.segmenter.apply({'params': params}, images)
    logits = logits.reshape(-1, setup.num_classes)
    terms = share * setup.objective.per_example(logits, labels)
    return terms, batch_stats, logits.argmax(-1) == labels

  segmenter, (loss, right), norm = updates.descend(
      segmenter, setup.tx, loss_fn, axis)
  return segmenter, loss, norm, right


def update_disc(setup, nets, real, key, axis):
  """Updates the discriminator; returns (its `Net`, the loss)."""
  condition = one_hot(setup, real.label)
  fake = generated(setup, nets['generator'].params, real.label, key, axis)
  share = real.weight / jnp.maximum(axis.sum(real.weight > 0), 1)

  def loss_fn(params, batch_stats, _):
    of_real, of_fake = (
        setup.discriminator.apply(
            {'params': params}, jnp.concatenate([condition, images], -1))
        for images in (real.image, fake))
    terms = jax.nn.softplus(-of_real) + jax.nn.softplus(of_fake)
    return share * terms.mean((1, 2, 3)), batch_stats, ()

  net, (loss, _), _ = updates.descend(
      nets['discriminator'], setup.gan_tx, loss_fn, axis)
  return net, loss


def update_gen(setup, nets, real, key, axis):
  """Updates the generator; returns (its `Net`, the loss)."""
  condition = one_hot(setup, real.label)
  share = real.weight / jnp.maximum(axis.sum(real.weight > 0), 1)

  def loss_fn(params, batch_stats, _):
    fake = generated(setup, params, real.label, key, axis)
    terms = setup.l1_weight * jnp.abs(real.image - fake).mean((1, 2, 3))
    if setup.discriminator is not None:
      found = setup.discriminator.apply(
          nets['discriminator'].variables, jnp.concatenate([condition, fake], -1))
      terms += setup.adversarial_weight * jax.nn.softplus(-found).mean((1, 2, 3))
    return share * terms, batch_stats, ()

  net, (loss, _), _ = updates.descend(nets['generator'], setup.gan_tx, loss_fn, axis)
  return net, loss


def synthetic(setup, nets, batch, key, axis) -> Batch:
  """Pairs with a region pasted in, whose pictures the generator makes if there is one.
  """
  paste_key, noise_key = jax.random.split(key)
  made = as_batch(pasted(batch, paste_key, axis))
  if 'generator' not in nets:
    return made
  return made._replace(image=generated(
      setup, nets['generator'].params, made.label, noise_key, axis))


def one_hot(setup: Setup, labels: jax.Array) -> jax.Array:
  """Labels [n, h, w], -1: void, to float32 [n, h, w, num_classes + 1]."""
  return jax.nn.one_hot(jnp.where(labels < 0, setup.num_classes, labels),
                        setup.num_classes + 1)


def generated(
    setup: Setup, params: Any, labels: jax.Array, key: jax.Array, axis: Axis
) -> jax.Array:
  """Pictures in [-1, 1] that the generator makes of labels [n, h, w] and noise."""
  noise = jax.vmap(lambda key: jax.random.normal(key, (*labels.shape[1:], 1)))(
      axis.keys(key, len(labels)))
  return jnp.tanh(setup.generator.apply(
      {'params': params}, jnp.concatenate([one_hot(setup, labels), noise], -1)))


def pasted(batch: dict[str, Any], key: jax.Array, axis: Axis) -> dict[str, jax.Array]:
  """Pastes a region into each pair, mirrored with probability 1/2 and anywhere in it.

  The random numbers of a pair depend on its position in the global batch.

  Args:
    batch: with 'base' and 'region'; the last channel of the images is the mask.
    key: typed key, equal on all devices.
    axis: the devices that share the batch.

  Returns:
    The batch 'base' with the pixels and the classes of the regions pasted in.
  """
  def one(base, region, key):
    mirror_key, *place_keys = jax.random.split(key, 3)
    region = jnp.where(jax.random.bernoulli(mirror_key), region[:, ::-1], region)
    for dim, place_key in enumerate(place_keys):
      inside = (region[..., -1] != data.VOID).any(1 - dim)
      first = inside.argmax()
      room = first + inside[::-1].argmax() + 1  # places of a region of this length
      place = (jax.random.uniform(place_key) * room).astype(int)
      region = jnp.roll(region, place - first, dim)
    return jnp.where(region[..., -1:] != data.VOID, region, base)

  base, region = batch['base'], batch['region']
  image = jax.vmap(one)(
      base['image'], region['image'], axis.keys(key, len(base['image'])))
  return {**base, 'image': image, 'weight': base['weight'] * region['weight']}


def scaled(images: jax.Array) -> jax.Array:
  """uint8 pictures to [-1, 1]."""
  return images.astype(jnp.float32) / 127.5 - 1


def as_batch(batch: dict[str, jax.Array]) -> Batch:
  """A `Batch` of a batch whose images have the mask as their last channel."""
  mask = batch['image'][..., -1].astype(jnp.int32)
  return Batch(scaled(batch['image'][..., :-1]),
               jnp.where(mask == data.VOID, -1, mask), batch['weight'])


def pixels(setup: Setup, state: State, images: jax.Array) -> jax.Array:
  """The predicted class and its probability, [n, h, w, 2]; see `segment`."""
  logits = setup.segmenter.apply(state.nets['segmenter'].variables, scaled(images))
  p = jax.nn.softmax(logits)
  return jnp.stack([p.argmax(-1).astype(p.dtype), p.max(-1)], -1)


def synthetic_pairs(setup: Setup, state: State, batch: dict[str, Any]) -> jax.Array:
  """The pairs that the next step of this state makes of a batch; see `segment`."""
  made = synthetic(setup, state.nets, batch, step_keys(state)[-1], GLOBAL)
  image = jnp.round((made.image + 1) * 127.5).astype(jnp.uint8)
  mask = jnp.where(made.label < 0, data.VOID, made.label).astype(jnp.uint8)
  return jnp.concatenate([image, mask[..., None]], -1)


def step_keys(state: State) -> jax.Array:
  """The keys of the discriminator, the generator and the synthetic pairs of a step."""
  return jax.random.split(jax.random.fold_in(state.key, state.step), 3)
