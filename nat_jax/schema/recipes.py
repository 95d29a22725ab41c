"""The training recipes that the configs of configs/nat/ share, full size and small.

    recipes.classifier('svhn', 'nat_small', num_examples=73_257, ...)

`VARIANTS` are the ways to use negatives; each config adds its data sets.

    >>> parse('nat_small_paper', VARIANTS)
    Form(base='nat', size='_small', paper=True)
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import ml_collections

from nat_jax import names
from nat_jax.schema import presets

NAT = {'name': 'nat'}
PLAIN = {'name': 'cross_entropy'}
# Recipes that need no negatives, and what each of them sets.
LOGIT_NORM = {'logit_norm': 0.04}  # as in the reference on CIFAR-10
SUPERVISED = {'name': 'supervised'}
TRAINERS = {
    'rotation': {'name': 'rotation', 'weight': 0.5, 'views': 4},
    'adaptivemix': {'name': 'adaptive_mix', 'scale': 20.0},
    'mixup': {'name': 'mixup', 'alpha': 1.0},
}
PIXMIX = {'name': 'pixmix', 'rounds': 4, 'beta': 3.0}
VARIANTS: dict[str, dict[str, Any]] = {
    # Methods of the NAT paper.
    'baseline': dict(loss=PLAIN),
    'nat': dict(loss=NAT, count=(5, 25)),
    'nat8': dict(loss=NAT, count=8),
    'nat32': dict(loss=NAT, count=32),
    'nat64': dict(loss=NAT, count=64),
    'background': dict(loss={'name': 'background'}, count=(5, 25)),
    # Other methods, with the negatives per batch of 128 positives of their papers.
    'oe': dict(loss={'name': 'outlier_exposure', 'weight': 0.5}, count=256),
    'energy': dict(loss={'name': 'energy'}, count=256),
    'mixoe': dict(loss={'name': 'outlier_exposure', 'weight': 1.0}, count=128,
                  treatment={'name': 'mix', 'mode': 'cutmix'}),
    # NAT with negative transforms or synthetic negatives.
    'nat_mix': dict(loss=NAT, count=16,
                    treatment={'name': 'mix', 'mode': 'cutmix', 'portion': 0.5}),
    'nat_general': dict(loss=NAT, count=16, made='shuffled',
                        treatment={'name': 'mix', 'mode': 'cutmix', 'portion': 0.5}),
    'nat128_shuffled': dict(loss=NAT, count=128, made='shuffled'),
    'nat_mine': dict(loss=NAT, count=64, treatment={'name': 'mine', 'keep': 0.25}),
    # NAT with negatives that are made, and no other ones.
    'noise': dict(loss=NAT, count=16, made='noise', collected=False),
    'shuffled': dict(loss=NAT, count=16, made='shuffled', collected=False),
    'halves': dict(loss=NAT, count=16, made='halves', collected=False),
    # Recipes that need no negatives, alone and with those of 'nat'.
    'logitnorm': dict(loss={**PLAIN, **LOGIT_NORM}),
    'nat_logitnorm': dict(loss={**NAT, **LOGIT_NORM}, count=(5, 25)),
    'rotation': dict(loss=PLAIN, trainer=TRAINERS['rotation']),
    'nat_rotation': dict(loss=NAT, count=(5, 25), trainer=TRAINERS['rotation']),
    'pixmix': dict(loss=PLAIN, augment=[PIXMIX]),
    'nat_pixmix': dict(loss=NAT, count=(5, 25), augment=[PIXMIX]),
    'adaptivemix': dict(loss=PLAIN, trainer=TRAINERS['adaptivemix']),
    'nat_adaptivemix': dict(loss=NAT, count=(5, 25), trainer=TRAINERS['adaptivemix']),
    'mixup': dict(loss=PLAIN, trainer=TRAINERS['mixup']),
    'nat_mixup': dict(loss=NAT, count=(5, 25), trainer=TRAINERS['mixup']),
}
SHUFFLED = {'source': {'name': 'patch_shuffle', 'num': 10_000}}  # of the positives
MADE = {  # negatives that need no pictures but the positives
    'noise': {'source': {'name': 'uniform_noise', 'num': 10_000}},
    'shuffled': SHUFFLED,
    'halves': {'source': {'name': 'class_halves', 'num': 10_000}},
}

FULL = dict(  # pytorch-cifar's ResNet-18 recipe; weight decay on every parameter
    model={'name': 'resnet18', 'dtype': 'bfloat16'},
    optimizer={'name': 'sgd', 'momentum': 0.9, 'nesterov': False, 'weight_decay': 5e-4,
               'decay': 'all'},
    schedule={'name': 'cosine', 'learning_rate': 0.1},
    run=dict(updates_per_call=100, log_every=400, checkpoint_every=4000),
)
SMALL = dict(  # one CPU core: chosen by its accuracy after as many minutes there
    model={'name': 'fast'},
    optimizer={'name': 'muon', 'momentum': 0.9, 'weight_decay': 0.05, 'ratio': 0.3},
    schedule={'name': 'linear', 'learning_rate': 0.05, 'warmup': 200},
    run=dict(updates_per_call=10, log_every=50, checkpoint_every=400),
)
# Few epochs need fewer views of an image than 200 do, and no black borders.
SMALL_CROP = {'name': 'crop', 'pad': 2, 'mode': 'reflect'}
SMALL01 = dict(  # the small form of version 0.1: 64 channels at half the resolution
    model={'name': 'resnet', 'blocks': [0, 1, 1], 'width': 64, 'stem_stride': 2},
    optimizer={'name': 'sgd', 'momentum': 0.9, 'nesterov': True, 'weight_decay': 5e-4},
    schedule={'name': 'cosine', 'learning_rate': 0.1, 'warmup': 200},
    run=dict(updates_per_call=10, log_every=50, checkpoint_every=400),
)
SIZES = {'': FULL, '_small': SMALL, '_small01': SMALL01}
EPOCHS = (200, 6)  # full, small
HELD_OUT = 5  # percent held out for validation, and another 5 for calibration


class Form(NamedTuple):
  """A variant and its form.

  Attributes:
    base: name of the variant, without form.
    size: a key of `SIZES`; '' is the full form.
    paper: whether all of the training split is trained on, as in the paper.
  """

  base: str
  size: str
  paper: bool

  @property
  def small(self) -> bool:
    return self.size != ''

  def name(self, experiment: str) -> str:
    """The name of the experiment in this form; reports do not mix forms."""
    return f'{experiment}{self.size}{"_paper" * self.paper}'


def parse(
    variant: str, valid: Iterable[str], sizes: Iterable[str] = ('_small',)
) -> Form:
  """Parses a variant with the optional endings of a size and _paper, in any order.

  Args:
    variant: such as 'nat_small_paper'.
    valid: names of variants without endings.
    sizes: endings of the sizes besides the full form.

  Raises:
    ValueError: a variant that is not in `valid` (the valid ones are listed).
  """
  valid, sizes = dict.fromkeys(valid), tuple(sizes)
  ends = '|'.join(sorted(sizes, key=len, reverse=True))  # _small01 before _small
  base, size, paper, size_after = re.fullmatch(
      f'(.*?)({ends})?(_paper)?({ends})?', variant).groups()
  if base not in valid or (size and size_after):
    forms = *sizes, '_paper', *(f'{size}_paper' for size in sizes)
    raise ValueError(
        names.unknown('variant', variant, valid) + '; each also with '
        + ', '.join(forms))
  return Form(base, size or size_after or '', bool(paper))


def num_trained(num_examples: int, holdout: bool = True) -> int:
  """The number of examples that are trained on, of `num_examples`."""
  return round(num_examples * (1 - 2 * HELD_OUT / 100)) if holdout else num_examples


def digits() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
  """Sources of scikit-learn's digits: 0-5 are positives, 6-7 training negatives.

  Returns:
    (positives, negatives, evals) from `presets.hold_out`. The test sets are 0-5, 6-7,
    8-9 and noise.
  """
  def source(split, classes):
    return {'name': 'digits', 'split': split, 'classes': classes}

  zero_to_five = tuple(range(6))
  return presets.hold_out(
      source('train', zero_to_five),
      {'digits_6_7': {'source': source('train', (6, 7))}},
      {
          'test': {'source': source('test', zero_to_five), 'positive': True},
          'digits_6_7': {'source': source('test', (6, 7))},
          'digits_8_9': {'source': source('all', (8, 9))},
          'noise': {'source': {'name': 'normal_noise', 'num': 1000}},
      },
      percent=10)


def classifier(
    name: str,
    variant: str,
    *,
    num_examples: int,
    positives: dict[str, Any],
    negatives: dict[str, dict[str, Any]],
    evals: dict[str, Any],
    normalisation: dict[str, Any],
    augment: list[dict[str, Any]],
    epochs: tuple[float, float] = EPOCHS,
    holdout: bool = True,
    best: str = '',
) -> ml_collections.ConfigDict:
  """Makes the config of a ten-class classifier trained with negatives.

  5 % of the positives and of the negatives are held out for validation, and 5 % for
  calibration. The paper's form trains on all of them, and has no validation.

  Args:
    name: of the experiment; the endings of `variant` are added to it.
    variant: of `VARIANTS` or of `negatives`, optionally with an ending of `SIZES`
      and `_paper`.
    num_examples: number of `positives`.
    positives: source of the training positives, before sets are held out.
    negatives: variant -> training negatives, before sets are held out; variants that
      are not in it use those of 'nat'.
    evals: the test sets, as in a config.
    normalisation: `{'mean': ..., 'std': ...}`.
    augment: specs of augmentations; `_small` replaces a crop by `SMALL_CROP`.
    epochs: (of the full form, of the small forms).
    holdout: False: the paper's form, as with `_paper`.
    best: of `VARIANTS`, that the variant 'best' stands for; '': there is none.

  Raises:
    ValueError: an unknown variant (the valid ones are listed).
  """
  variants = {**VARIANTS, **({'best': VARIANTS[best]} if best else {})}
  form = parse(variant, [*variants, *negatives], filter(None, SIZES))
  form = form._replace(paper=form.paper or not holdout)
  base, small, holdout = form.base, form.small, not form.paper
  settings = variants.get(base, variants['nat'])
  negatives = negatives.get(base, negatives['nat'])
  if holdout:
    positives, negatives, evals = presets.hold_out(
        positives, negatives, evals, HELD_OUT)
  if form.size == '_small':
    augment = [SMALL_CROP if spec['name'] == 'crop' else spec for spec in augment]
  made = settings.get('made')
  if made:
    collected = negatives if settings.get('collected', True) else {}
    negatives = {**collected, made: MADE[made]}
  return presets.experiment(
      name=form.name(name),
      variant=base,
      num_classes=10,
      steps=presets.steps(
          epochs[small], num_trained(num_examples, holdout), 128,
          multiple=1 if small else FULL['run']['updates_per_call']),
      trainer=settings.get('trainer', SUPERVISED),
      loss=settings['loss'],
      data=dict(
          positives=positives,
          negatives=negatives,
          negatives_per_batch=settings.get('count', 0),
          treatment=settings.get('treatment', {}),
          batch_size=128,
          augment=augment + settings.get('augment', []),
          **normalisation,
      ),
      evals=evals,
      **SIZES[form.size],
  )
