"""The GAN recipes that the configs of configs/gan/ share, full size and small.

    gan_recipes.dcgan('gan_mnist', 'nat3_small', positives=..., negatives=..., ...)

    >>> parse('nat3_small')
    ('nat', 3, 'small')

A variant is an objective of `OBJECTIVES` and the number of external negatives per
batch: 'nat3', 'catgan', 'am'. The full recipe is that of AM-GAN's code, which the NAT
paper builds on.
"""

import re
from collections.abc import Collection
from typing import Any

import ml_collections

from nat_jax import names
from nat_jax.schema import defaults, presets

OBJECTIVES: dict[str, dict[str, Any]] = {
    'gan': {'name': 'gan'},
    'hinge': {'name': 'hinge'},
    'labelgan': {'name': 'label_gan'},
    # Here the generator is not given classes (dynamic labels), unlike that of AC-GAN.
    'acgan': {'name': 'ac_gan'},
    'acganplus': {'name': 'ac_gan_plus'},
    'am': {'name': 'am_gan'},
    'catgan': {'name': 'cat_gan'},
    'springenberg': {'name': 'cat_gan_springenberg'},
    'nat': {'name': 'nat_gan', 'direction': 'uniform_first', 'marginal': 0.0},
    # Not in the paper: with a marginal-entropy term in G's loss, as in CatGAN.
    'natm': {'name': 'nat_gan', 'marginal': 1.0},
}
# Residual networks: what differs from SN-GAN's recipe. Conditional networks are told K
# by `resnet`, and `SIDES` has what depends on the size of the images.
RESNETS: dict[str, dict[str, Any]] = {
    'hinge_sn': {'loss': {'name': 'hinge'}},
    'sagan': {
        'loss': {'name': 'hinge'},
        'generator': {'norm': 'spectral', 'batch_norm': 'class'},
        'discriminator': {'wide': True},
        'conditional': True,
        'n_critic': 1,
        'optimizer': {'name': 'adam', 'b1': 0.0, 'b2': 0.999},
        'schedule': {'name': 'constant', 'learning_rate': 1e-4},
        'disc_schedule': {'name': 'constant', 'learning_rate': 4e-4},
    },
    'biggan': {
        'loss': {'name': 'hinge'},
        'generator': {'name': 'biggan_generator', 'width': 96},
        'discriminator': {'width': 96, 'wide': True, 'initializer': 'orthogonal'},
        'conditional': True,
    },
    'nat3': {'loss': OBJECTIVES['nat'], 'negatives_per_batch': 3},
}
# Side of the images -> recipe -> what it has at this size. 'attention' is the height of
# the features with self-attention in both networks, 'latent' the size of z.
SIDES: dict[int, dict[str, dict[str, Any]]] = {
    32: {
        'sagan': {'attention': 16},  # the authors have no network of this size
        'biggan': {  # PyTorch-StudioGAN's config for CIFAR-10
            'attention': 16, 'latent': 80,
            'optimizer': {'name': 'adam', 'b1': 0.5, 'b2': 0.999, 'orthogonal': 1e-4},
            'schedule': {'name': 'constant', 'learning_rate': 2e-4},
            'augment': [{'name': 'flip'}],
            'steps': 100_000,
        },
    },
    128: {
        'sagan': {'attention': 32},  # the authors' code
        # scripts/launch_BigGAN_bs256x8.sh of the code ajbrock/BigGAN-PyTorch.
        'biggan': {
            'attention': 64, 'latent': 120, 'n_critic': 1,
            'optimizer': {'name': 'adam', 'b1': 0.0, 'b2': 0.999, 'orthogonal': 1e-4},
            'schedule': {'name': 'constant', 'learning_rate': 1e-4},
            'disc_schedule': {'name': 'constant', 'learning_rate': 4e-4},
        },
    },
}
PAPER = ('am', 'catgan', 'nat0', 'nat1', 'nat3', 'nat10')  # the rows of its Table 4

FULL = dict(
    widths=(96, 64), updates_per_call=200, log_every=1000, eval_every=10_000,
    checkpoint_every=5000, num_samples=50_000)
SMALL = dict(  # two CPU cores
    widths=(24, 16), updates_per_call=10, log_every=50, eval_every=200,
    checkpoint_every=200, num_samples=5000)
RUN_KEYS = ('updates_per_call', 'log_every', 'eval_every', 'checkpoint_every')


def parse(
    variant: str, forms: tuple[str, ...] = ('small',),
    objectives: Collection[str] = tuple(OBJECTIVES),
) -> tuple[str, int, str]:
  """Parses a variant into (objective, negatives per batch, its form or '').

  Args:
    variant: an objective, optionally a number of negatives (default 0) and '_' with a
      form.
    forms: that each variant also has.
    objectives: their names, none of which is another one with digits after it.

  Raises:
    ValueError: an unknown variant.
  """
  found = re.fullmatch(
      rf'({"|".join(objectives)})(\d*)(?:_({"|".join(forms)}))?', variant)
  if not found:
    raise ValueError(
        f'unknown variant {variant!r}{names.hint(variant, [*PAPER, *objectives])}; '
        f'expected one of {", ".join(objectives)}, '
        f'followed by any number of negatives; valid: {", ".join(PAPER)}, '
        f'each also with _{", _".join(forms)}')
  return found[1], int(found[2] or 0), found[3] or ''


def dcgan(
    name: str,
    variant: str,
    *,
    steps: int,
    small_steps: int,
    positives: dict[str, Any],
    negatives: dict[str, Any],
    classifier: str,
    independent: str = '',
    held_out: dict[str, Any] | None = None,
    num_classes: int = 10,
) -> ml_collections.ConfigDict:
  """Makes the config of a DCGAN as in AM-GAN: Adam 4e-4 decaying to 0, batches of 100.

  Args:
    name: of the experiment; `_small` is added to it for the small form.
    variant: see `parse`.
    steps: updates of the full form.
    small_steps: updates of the small form, whose networks are a quarter as wide.
    positives: source of the real images.
    negatives: external negatives, as in `data.negatives`.
    classifier: config (FILE:VARIANT) of the evaluation classifier; it is trained first,
      in runs/classifiers.
    independent: config of a classifier of other labels, for a second Inception Score;
      '': none. It is trained first, too.
    held_out: source of positives that are not trained on, to count samples that repeat
      training images; None: they are not counted.
    num_classes: of the positives.
  """
  objective, count, small = parse(variant)
  size = SMALL if small else FULL
  gen_width, disc_width = size['widths']
  return presets.experiment(
      task='gan',
      name=f'{name}_small' if small else name,
      variant=variant.removesuffix('_small'),
      num_classes=num_classes,
      steps=small_steps if small else steps,
      generator={'name': 'dcgan_generator', 'latent': 100, 'width': gen_width},
      discriminator={'name': 'dcgan_discriminator', 'width': disc_width},
      loss=OBJECTIVES[objective],
      data=dict(
          positives=positives,
          negatives=negatives if count else {},
          negatives_per_batch=count,
      ),
      **_evaluated(size, classifier, independent, held_out),
  )


def resnet(
    name: str,
    variant: str,
    *,
    steps: int,
    small_steps: int,
    positives: dict[str, Any],
    negatives: dict[str, Any],
    classifier: str,
    independent: str = '',
    held_out: dict[str, Any] | None = None,
    num_classes: int = 10,
    side: int = 32,
) -> ml_collections.ConfigDict:
  """Makes the config of a GAN of residual networks, by default SN-GAN's recipe.

  That is Adam 2e-4 decaying to 0 with b1 = 0 and b2 = 0.9, batches of 64 and five
  updates of the discriminator per update of the generator; `RESNETS` and `SIDES` have
  what differs.
  Samples are those of a moving average of the generator, which SN-GAN and SAGAN do
  not have.

  Args:
    name: of the experiment; `_small` is added to it for the small form.
    variant: a key of `RESNETS`, optionally with '_small'.
    steps: updates of the full form, where `SIDES` has no others.
    small_steps: updates of the small form, whose networks have width 8.
    positives, negatives, classifier, independent, held_out, num_classes: as of
      `dcgan`.
    side: height and width of the images, a key of `SIDES`.

  Raises:
    ValueError: an unknown variant, or images of another size.
  """
  base = variant.removesuffix('_small')
  if base not in RESNETS:
    raise ValueError(
        names.unknown('variant', variant, RESNETS) + ', each also with _small')
  if side not in SIDES:
    raise ValueError(
        f'side must be {" or ".join(map(str, SIDES))}, the sizes of images that the '
        f'residual GAN networks exist for, got {side}')
  small, recipe = base != variant, {**RESNETS[base], **SIDES[side].get(base, {})}
  size = SMALL if small else FULL
  of_both = {**({'attention': recipe['attention']} if 'attention' in recipe else {}),
             **({'width': 8} if small else {})}
  count = recipe.get('negatives_per_batch', 0)
  given = recipe.get('conditional', False)
  return presets.experiment(
      task='gan',
      name=f'{name}_small' if small else name,
      variant=base,
      num_classes=num_classes,
      steps=small_steps if small else recipe.get('steps', steps),
      trainer={
          **defaults.GAN['trainer'], 'n_critic': recipe.get('n_critic', 5),
          'labels': 'predefined' if given else 'dynamic'},
      generator={
          'name': 'resnet_generator', 'latent': recipe.get('latent', 128), 'width': 64,
          **recipe.get('generator', {}), **of_both},
      discriminator={
          'name': 'resnet_discriminator', 'width': 64,
          **({'projection': num_classes} if given else {}),
          **recipe.get('discriminator', {}), **of_both},
      loss=recipe['loss'],
      optimizer=recipe.get('optimizer', {'name': 'adam', 'b1': 0.0, 'b2': 0.9}),
      schedule=recipe.get(
          'schedule', {'name': 'linear', 'learning_rate': 2e-4, 'over': 0}),
      disc_schedule=recipe.get('disc_schedule', {}),
      ema_decay=0.9999,
      data=dict(
          positives=positives,
          batch_size=64,
          augment=recipe.get('augment', []),
          negatives=negatives if count else {},
          negatives_per_batch=count,
      ),
      **_evaluated(size, classifier, independent, held_out, batch_size=64),
  )


def digits(count: int, **data: Any) -> dict[str, Any]:
  """Returns the keys that GANs of scikit-learn's digits 0-5 share, small networks too.

  The training part is trained on, the test part is held out, and the digits 6-9 are
  the external negatives.

  Args:
    count: external negatives per batch.
    **data: more keys of `data`.
  """
  def source(split, classes=tuple(range(6))):
    return {'name': 'digits', 'split': split, 'classes': classes}

  negatives = {'digits_6_9': {'source': source('all', (6, 7, 8, 9))}}
  return dict(
      num_classes=6,
      steps=5000,
      generator={'name': 'mlp_generator', 'latent': 32, 'widths': (128, 128)},
      discriminator={'name': 'mlp_discriminator', 'widths': (128, 128)},
      data=dict(
          positives=source('train'),
          negatives=negatives if count else {},
          negatives_per_batch=count,
          **data,
      ),
      measures=dict(
          num_samples=2000,
          batch_size=data.get('batch_size', 100),
          features=_checkpoint('configs/gan/classifier.py:digits'),
          held_out=source('test'),
      ),
      run=dict(log_every=250, checkpoint_every=1000, eval_every=1000),
  )


def _evaluated(size, classifier, independent, held_out, **measures):
  """The keys `evals`, `measures` and `run` of a form, `FULL` or `SMALL`."""
  return dict(
      evals={'samples': {'type': 'samples', 'every': 0}, 'quick': {'type': 'quick'}},
      measures=dict(
          num_samples=size['num_samples'],
          features=_checkpoint(classifier),
          independent=_checkpoint(independent) if independent else {},
          held_out=held_out or {},
          **measures,
      ),
      run={key: size[key] for key in RUN_KEYS},
  )


def _checkpoint(classifier):
  """The spec of an evaluation classifier with this config."""
  workdir = f'runs/classifiers/{classifier.rpartition(":")[2]}'
  return {'name': 'checkpoint', 'config': classifier, 'workdir': workdir}
