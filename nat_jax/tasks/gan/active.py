"""ActiveGAN: the generator is rewarded for images that a classifier is not sure of.

    trainer = active(classifier={'name': 'mlp'}, reward=0.5, objective=..., ...)
    state, metrics = trainer.step(state, {}, batch)
    logits = trainer.heads['classifier'](state, images)

Reference: Kong et al., "Active Generative Adversarial Network for Image
Classification", AAAI 2019. There the reward is a policy gradient with a model of the
density of generated images; here the classifier's uncertainty is differentiated.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from clu import metrics as clu_metrics

from nat_jax import losses, registry, task
from nat_jax.losses import gan_terms
from nat_jax.task import GLOBAL, Axis, Net, State
from nat_jax.tasks import updates
from nat_jax.tasks.gan import metrics as gan_metrics
from nat_jax.tasks.gan import players
from nat_jax.tasks.gan import step as gan_step


@flax.struct.dataclass
class ClassifierMetrics(clu_metrics.Collection):
  """What C makes of the images, averaged over updates and examples."""

  loss_classifier: clu_metrics.Average.from_output('loss_classifier')
  accuracy_classifier: updates.mean_of('accuracy_classifier')  # on real images
  entropy: updates.mean_of('entropy')  # of C on generated images, in nats
  uncertainty: updates.mean_of('uncertainty')  # of C on generated images
  accepted: updates.mean_of('accepted')  # share of generated images
  grad_norm_classifier: clu_metrics.Average.from_output('grad_norm_classifier')


# A collection reads the annotations of its own class, not those of a base class.
Metrics = clu_metrics.Collection.create(
    **gan_metrics.GanMetrics.__annotations__, **ClassifierMetrics.__annotations__)


class Setup(NamedTuple):
  """The networks and the settings of an ActiveGAN.

  Attributes:
    pair: generator and discriminator.
    classifier: C, `apply({'params'}, images, train=) -> (logits [n, K], aux)`.
    reward: weight of C's uncertainty in G's loss.
    made_weight: weight of accepted generated images in C's loss.
  """

  pair: gan_step.Setup
  classifier: nn.Module
  reward: float
  made_weight: float


@registry.arguments(gan_step.Setup)
def active(
    *, classifier: Mapping[str, Any], reward: float = 0.5, made_weight: float = 0.0,
    **settings: Any,
) -> task.Trainer:
  """Returns the trainer `gan` with a classifier C whose uncertainty is G's reward.

  loss of G = that of the objective - reward mean r(C(G(z, y))),
  r(p) = H(p) + 1 - (p_(1) - p_(2)),
  loss of C = mean H(e_y, C(x)) + made_weight mean H(e_y, C(G(z, y))),

  where p_(1) and p_(2) are the two largest probabilities. C's second mean is over the
  accepted images: those whose class y is the most probable one of D's class head. A
  step updates D, G and C, in this order; C as often as D, and with its optimiser.

  C is trained in the same step, so that the boundary that G is rewarded for
  approaching is that of the classifier of now and not of an earlier run.

  Args:
    classifier: C, a spec of `models.MODELS`.
    reward: weight of r; 0: G has no reward.
    made_weight: weight of accepted generated images in C's loss; 0: C learns from real
      images alone. Above 0 C becomes sure of what is generated, and the reward small.
    **settings: attributes of `gan_step.Setup`.

  Returns:
    A `Trainer` over a `State` of 'gen', 'disc' and 'classifier', with the heads of the
    trainer `gan` and 'classifier', which maps images to C's logits [n, num_classes].

  Raises:
    ValueError: see `gan_step.gan`; a weight that is negative, labels that are not
      predefined, a loss without class logits, or a classifier with batch statistics.
  """
  gan_terms.check_weight('trainer.reward', reward)
  gan_terms.check_weight('trainer.made_weight', made_weight)
  pair = gan_step.Setup(**settings)
  if not pair.given_classes or pair.objective.class_logits is None:
    raise ValueError(
        "the trainer 'active' needs the classes of generated images, and a loss with "
        "class logits that accepts them; set trainer.labels='predefined' and "
        f"loss={{'name': 'ac_gan'}}, got trainer.labels={pair.labels!r} and a loss "
        f'{"without" if pair.objective.class_logits is None else "with"} class logits')
  trainer = gan_step.gan(**settings)
  made = updates.stateless(
      classifier, 'trainer.classifier', pair.num_classes, pair.image_shape)
  setup = Setup(pair, made, reward, made_weight)

  def logits(state, images):
    return _apply(setup, state.nets['classifier'].params, pair.normalise(images))

  return trainer._replace(
      init=functools.partial(init, setup), step=functools.partial(step, setup),
      heads={**trainer.heads, 'classifier': logits}, line=line,
      watch=(*trainer.watch, 'loss_classifier', 'grad_norm_classifier'))


def uncertainty(logits: jax.Array) -> jax.Array:
  """H(p) + 1 - (p_(1) - p_(2)) of p = softmax(logits), [n, K] -> [n]; from 0 on."""
  top, _ = jax.lax.top_k(jax.nn.softmax(logits), 2)
  return gan_terms.entropy(logits) + 1 - (top[:, 0] - top[:, 1])


def init(setup: Setup, key: jax.Array) -> State:
  """Returns the initial `State` of the networks 'gen', 'disc' and 'classifier'."""
  state = gan_step.init(setup.pair, key)
  params = setup.classifier.init(
      jax.random.fold_in(key, 3), jnp.zeros((2, *setup.pair.image_shape)), train=False)[
          'params']
  return state.replace(nets=state.nets | {
      'classifier': Net(params, {}, setup.pair.disc_tx.init(params))})


def step(setup, state, frozen, batch, *, axis: Axis = GLOBAL):
  """Updates the discriminator, the generator and the classifier.

  Args:
    setup: a `Setup`.
    state: a `State` of 'gen', 'disc' and 'classifier'.
    frozen: not used.
    batch: see `gan_step.step`.
    axis: the devices that share the batch.

  Returns:
    (state, `Metrics`).
  """
  classifier = state.nets['classifier']
  pair = setup.pair._replace(objective=rewarded(setup, classifier.params))
  key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), pair.n_critic + 1)
  state, seen = gan_step.step(pair, state, frozen, batch, axis=axis)
  gen, disc = state.nets['gen'], state.nets['disc']
  for j in range(pair.n_critic):
    real_key, fake_key = jax.random.split(jax.random.fold_in(key, j))
    real = players.prepare(
        batch, j, real_key, axis, pair.augment, pair.normalise)['real']
    classifier, found = update_classifier(
        setup, classifier, gen, disc, real, fake_key, axis)
  found = task.collect(ClassifierMetrics, axis, **found)
  return state.replace(nets=state.nets | {'classifier': classifier}), Metrics(
      **{**vars(found), **vars(seen)})


def rewarded(setup: Setup, params: Any) -> losses.GanObjective:
  """Returns the objective whose loss of G has the reward of C with these parameters."""
  objective = setup.pair.objective
  if not setup.reward:
    return objective

  def gen(passes, axis):
    reward = uncertainty(_apply(setup, params, passes['fake'].images))
    return objective.gen(passes, axis) - setup.reward * reward

  return objective._replace(gen=gen)


def update_classifier(setup, classifier, gen, disc, real, key, axis):
  """Updates C on a set of real images and on as many newly generated ones.

  Returns:
    (the `Net` of C, the outputs that `ClassifierMetrics` takes).
  """
  pair = setup.pair
  drawn = players.draw(
      pair.generator, key, len(real['label']), axis, pair.given_classes)
  fake, _ = players.made(pair.generator, gen.variables, drawn, axis)
  outputs, _ = pair.discriminator.clone(axis_name=axis.name).apply(
      disc.variables, fake['image'], train=False)
  accepted = (pair.objective.class_logits(outputs).argmax(-1) == fake['label']).astype(
      jnp.float32)
  examples = {
      'image': jnp.concatenate([real['image'], fake['image']]),
      'label': jnp.concatenate([real['label'], fake['label']]),
      'weight': jnp.concatenate([
          real['weight'] / jnp.maximum(axis.sum(real['weight'] > 0), 1),
          setup.made_weight * accepted / jnp.maximum(axis.sum(accepted), 1)])}

  def loss_fn(params, batch_stats, examples):
    logits = _apply(setup, params, examples['image'], train=True)
    terms = losses.cross_entropy(logits, examples['label'])
    return examples['weight'] * terms, batch_stats, logits

  classifier, (loss, logits), norm = updates.descend(
      classifier, pair.disc_tx, loss_fn, axis, examples, pair.micro_batches)
  of_real, of_fake = jnp.split(logits, [len(real['label'])])
  there = {f'{name}_weight': fake['weight']
           for name in ('entropy', 'uncertainty', 'accepted')}
  return classifier, {
      **there, 'loss_classifier': loss, 'grad_norm_classifier': norm,
      'accuracy_classifier': of_real.argmax(-1) == real['label'],
      'accuracy_classifier_weight': real['weight'],
      'entropy': gan_terms.entropy(of_fake), 'uncertainty': uncertainty(of_fake),
      'accepted': accepted}


def line(record: dict[str, float]) -> str:
  """Returns the text of the progress line: of the GAN, and C's entropy."""
  return f'{gan_metrics.line(record)}  entropy {record["entropy"]:.3f}'


def _apply(setup, params, images, train=False):
  return setup.classifier.apply({'params': params}, images, train=train)[0]
