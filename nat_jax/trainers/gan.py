"""A generator and a discriminator, the latter with external negatives if there are any.

    trainer = gan(generator=..., discriminator=..., objective=losses.nat_gan(10), ...)
    state = trainer.init(jax.random.key(0))
    state, metrics = trainer.step(state, {}, {'positive': ..., 'negative': ...})
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nat_jax import losses
from nat_jax.trainers import base, gan_metrics

LABELS = ('dynamic', 'predefined')


def gan(
    *,
    generator: nn.Module,
    discriminator: nn.Module,
    objective: losses.GanObjective,
    gen_tx: optax.GradientTransformation,
    disc_tx: optax.GradientTransformation,
    num_classes: int,
    image_shape: tuple[int, ...],
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    normalise: Callable[[jax.Array], jax.Array],
    ema_decay: float = 0.0,
    n_critic: int = 1,
    negatives_every: int = 1,
    joint: bool = True,
    negative_weight: float = 0.0,
    simultaneous: bool = False,
    labels: str = 'dynamic',
) -> base.Trainer:
  """Returns the trainer of a GAN (paper eqs 7-11, by the objective).

  One step makes `n_critic` updates of the discriminator and one of the generator. Real
  images pass through the discriminator apart from the others, as in AM-GAN.

  Args:
    generator: `apply({'params'}, z [n, latent], labels=) -> images`.
    discriminator: `apply(variables, images, keys=, mask=, train=) -> (outputs, aux)`.
    objective: see `losses.GanObjective`.
    gen_tx, disc_tx: the optimisers.
    num_classes: classes of the positives.
    image_shape: of one image (or point).
    augment, normalise: as in `supervised`; for real images and negatives.
    ema_decay: of the generator's moving average, which then makes the samples; 0: none.
    n_critic: updates of the discriminator in a step.
    negatives_every: external negatives take part in each so-manieth step.
    joint: generated images and negatives in one pass, so with the batch statistics of
      both (the authors' snippet); False: in two.
    negative_weight: 0: one mean over generated images and negatives; else mean over
      the former + this * mean over the latter.
    simultaneous: the generator learns from the discriminator as it was before the step.
    labels: of generated images: 'dynamic', the discriminator's own nearest class, or
      'predefined', drawn and given to the generator.

  Returns:
    A `Trainer` over a `GanState`; its head 'samples' takes {'z': [n, latent], 'label':
    [n]}; its head 'logits' gives the class logits of images, if there are classes.

  Raises:
    ValueError: settings that do not fit each other.
  """
  _check(labels, n_critic, negatives_every, simultaneous, objective)
  predefined = labels == 'predefined'

  def init(key: jax.Array) -> base.GanState:
    gen_key, disc_key, step_key = jax.random.split(key, 3)
    z, label = jnp.zeros((2, generator.latent)), jnp.zeros(2, jnp.int32)
    gen_params = generator.init(gen_key, z, labels=label)['params']
    variables = dict(discriminator.init(
        disc_key, jnp.zeros((2, *image_shape)), train=False))
    disc_params = variables.pop('params')
    return base.GanState(
        step=jnp.zeros((), jnp.int32),
        key=step_key,
        gen=base.Net(gen_params, {}, gen_tx.init(gen_params)),
        disc=base.Net(
            disc_params, variables.get('batch_stats', {}), disc_tx.init(disc_params)),
        ema=jax.tree.map(jnp.copy, gen_params) if ema_decay else None,
    )

  def generate(params, key, num, axis_name):
    """(images, labels fed to the generator or None) from one key an image."""
    keys = base.example_keys(jax.random.fold_in(key, 0), num, axis_name)
    label = None
    if predefined:
      label_keys = base.example_keys(jax.random.fold_in(key, 1), num, axis_name)
      label = jax.vmap(lambda k: jax.random.randint(k, (), 0, num_classes))(label_keys)
    z = jax.vmap(lambda k: jax.random.normal(k, (generator.latent,)))(keys)
    return generator.clone(axis_name=axis_name).apply(
        {'params': params}, z, labels=label), label

  def judge(params, stats, sets, key, axis_name, update=False):
    """(outputs of each set, batch_stats): one pass of the discriminator over `sets`."""
    images = jnp.concatenate([one['image'] for one in sets])
    mask = jnp.concatenate([one['weight'] for one in sets])
    keys = jnp.concatenate([
        base.example_keys(jax.random.fold_in(key, i), len(one['image']), axis_name)
        for i, one in enumerate(sets)])
    (outputs, _), changed = discriminator.clone(axis_name=axis_name).apply(
        {'params': params, 'batch_stats': stats}, images, keys=keys, mask=mask,
        train=True, mutable=['batch_stats'] if update else [])
    sizes = np.cumsum([len(one['image']) for one in sets])[:-1]
    return jnp.split(outputs, sizes), changed.get('batch_stats', stats)

  def targets(outputs, label, weight, total):
    """(labels, marginal) for the objective; labels that are None are dynamic."""
    if objective.class_logits is None:
      zeros = jnp.zeros(len(outputs), jnp.int32)
      return (zeros if label is None else label), None
    logits = jax.lax.stop_gradient(objective.class_logits(outputs))
    probs = jax.nn.softmax(logits) * weight[:, None]
    marginal = jax.vmap(total, 1)(probs) / jnp.maximum(total(weight), 1)
    return (logits.argmax(-1) if label is None else label), marginal

  def update_disc(disc, gen_params, real, negative, key, axis_name):
    """(net after one update, what there is to tell of it)."""
    total = base.cross_device_sum(axis_name)
    fake_key, *keys = jax.random.split(key, 4)
    fakes, label = generate(gen_params, fake_key, len(real['label']), axis_name)
    sets = {
        'real': real,
        'fake': {'image': fakes, 'label': label, 'weight': jnp.ones(len(fakes))},
    }
    if negative is not None:
      sets['negative'] = {**negative, 'label': None}
    coefficients = losses.disc_weights(
        {name: one['weight'] for name, one in sets.items()}, negative_weight, total)
    others = list(sets)[1:]

    def loss_fn(params):
      stats, outputs = disc.batch_stats, {}
      for names, key in zip(
          [['real'], *([others] if joint else [[name] for name in others])], keys,
          strict=False):
        found, stats = judge(
            params, stats, [sets[name] for name in names], key, axis_name,
            update=names == ['real'])
        outputs.update(zip(names, found, strict=True))
      terms = {
          name: getattr(objective, name)(
              outputs[name],
              *targets(outputs[name], one['label'], one['weight'], total))
          for name, one in sets.items()
      }
      loss = sum(jnp.sum(coefficients[name] * terms[name]) for name in terms)
      return loss, (stats, loss, outputs, terms)

    grads, (stats, loss, outputs, terms) = jax.grad(loss_fn, has_aux=True)(disc.params)
    grads = _summed(grads, axis_name)
    updates, opt_state = disc_tx.update(grads, disc.opt_state, disc.params)
    told = dict(loss_disc=total(loss), grad_norm_disc=optax.tree.norm(grads),
                outputs=outputs, terms=terms, sets=sets)
    return base.Net(optax.apply_updates(disc.params, updates), stats, opt_state), told

  def update_gen(gen, disc, num, key, axis_name):
    total = base.cross_device_sum(axis_name)
    fake_key, judge_key = jax.random.split(key)

    def loss_fn(params):
      images, label = generate(params, fake_key, num, axis_name)
      one = {'image': images, 'label': label, 'weight': jnp.ones(num)}
      (outputs,), _ = judge(disc.params, disc.batch_stats, [one], judge_key, axis_name)
      terms = objective.gen(outputs, *targets(outputs, label, one['weight'], total))
      loss = jnp.sum(terms / total(one['weight']))
      return loss, (loss, images, outputs)

    grads, (loss, images, outputs) = jax.grad(loss_fn, has_aux=True)(gen.params)
    grads = _summed(grads, axis_name)
    updates, opt_state = gen_tx.update(grads, gen.opt_state, gen.params)
    told = dict(loss_gen=total(loss), grad_norm_gen=optax.tree.norm(grads),
                samples=images, sample_outputs=outputs)
    return base.Net(optax.apply_updates(gen.params, updates), {}, opt_state), told

  def step(state, frozen, batch, *, axis_name: str | None = None):
    del frozen
    step_key = jax.random.fold_in(state.key, state.step)
    disc, num = state.disc, batch['positive']['label'].shape[0]
    takes_part = state.step % negatives_every == 0
    for j in range(n_critic):
      key = jax.random.fold_in(step_key, j)
      real = prepare(batch['positive'], j, jax.random.fold_in(key, 0), axis_name)
      other = None
      if 'negative' in batch:
        other = prepare(batch['negative'], j, jax.random.fold_in(key, 1), axis_name)
        other['weight'] *= takes_part
      disc, told = update_disc(
          disc, state.gen.params, real, other, jax.random.fold_in(key, 2), axis_name)
    gen, told_of_gen = update_gen(
        state.gen, state.disc if simultaneous else disc, num,
        jax.random.fold_in(step_key, n_critic), axis_name)
    ema = state.ema
    if ema_decay:
      ema = optax.incremental_update(gen.params, ema, 1.0 - ema_decay)
    collected = base.collect(
        gan_metrics.GanMetrics, axis_name,
        **gan_metrics.outputs(objective, told | told_of_gen, axis_name))
    return state.replace(step=state.step + 1, disc=disc, gen=gen, ema=ema), collected

  def prepare(batch, j, key, axis_name):
    """Batch j of a step, augmented and normalised."""
    batch = jax.tree.map(lambda x: x[:, j], batch)
    keys = base.example_keys(key, len(batch['label']), axis_name)
    return {**batch, 'image': normalise(augment(batch['image'], keys))}

  heads = {'samples': lambda state, noise: generator.apply(
      {'params': state.ema or state.gen.params}, noise['z'],
      labels=noise['label'] if predefined else None)}
  if objective.class_logits is not None:
    heads['logits'] = lambda state, images: objective.class_logits(discriminator.apply(
        {'params': state.disc.params, 'batch_stats': state.disc.batch_stats},
        normalise(images), train=False)[0])
  return base.Trainer(
      init=init, frozen=dict, step=step, heads=heads,
      figures=lambda metrics: {
          **base.figures(metrics), 'images': float(metrics.loss_real.count * n_critic)},
      line=gan_metrics.line,
      watch=('loss_disc', 'loss_gen', 'grad_norm_disc', 'grad_norm_gen'))


def _summed(grads, axis_name):
  return grads if axis_name is None else jax.lax.psum(grads, axis_name)


def _check(labels, n_critic, negatives_every, simultaneous, objective):
  if labels not in LABELS:
    raise ValueError(f'unknown trainer.labels {labels!r}; valid: {", ".join(LABELS)}')
  if n_critic < 1 or negatives_every < 1:
    raise ValueError(
        'trainer.n_critic and trainer.negatives_every must be 1 or more, got '
        f'{n_critic} and {negatives_every}')
  if simultaneous and n_critic > 1:
    raise ValueError('trainer.simultaneous goes with n_critic=1 alone')
  if labels == 'predefined' and not objective.class_logits:
    raise ValueError(
        "trainer.labels='predefined' needs a loss that knows classes: not gan, hinge")
