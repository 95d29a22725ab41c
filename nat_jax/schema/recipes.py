"""The training recipes that the configs of configs/nat/ share, full size and small.

    recipes.classifier('svhn', 'nat_small', num_examples=73_257, ...)

`VARIANTS` are the ways to use negatives; each config adds its data sets.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import ml_collections

from nat_jax.schema import presets

NAT = {'name': 'nat'}
VARIANTS: dict[str, dict[str, Any]] = {
    # The paper's.
    'baseline': dict(loss={'name': 'cross_entropy'}),
    'nat': dict(loss=NAT, count=(5, 25)),
    'nat8': dict(loss=NAT, count=8),
    'nat32': dict(loss=NAT, count=32),
    'nat64': dict(loss=NAT, count=64),
    'background': dict(loss={'name': 'background'}, count=(5, 25)),
    # The rivals, with the batches of their papers: 256 to 128, MixOE 128 to 128.
    'oe': dict(loss={'name': 'outlier_exposure', 'weight': 0.5}, count=256),
    'energy': dict(loss={'name': 'energy'}, count=256),
    'mixoe': dict(loss={'name': 'outlier_exposure', 'weight': 1.0}, count=128,
                  treatment={'name': 'mix', 'mode': 'cutmix'}),
    # Negatives that generalise: NAT with a treatment of the negatives.
    'nat_mix': dict(loss=NAT, count=16,
                    treatment={'name': 'mix', 'mode': 'cutmix', 'portion': 0.5}),
    'nat_general': dict(loss=NAT, count=16, shuffled=True,
                        treatment={'name': 'mix', 'mode': 'cutmix', 'portion': 0.5}),
    'nat_mine': dict(loss=NAT, count=64, treatment={'name': 'mine', 'keep': 0.25}),
    'shuffled': dict(loss=NAT, count=16, shuffled=True),  # and no other negatives
}
SHUFFLED = {'source': {'name': 'patch_shuffle', 'num': 10_000}}  # positives, cut up

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
# Few epochs do not need many views: crops by four pixels of zeros cost three points of
# accuracy in short runs (docs/results.md).
SMALL_CROP = {'name': 'crop', 'pad': 2, 'mode': 'reflect'}
SMALL01 = dict(  # the small form of version 0.1: 64 channels at half the resolution
    model={'name': 'resnet', 'blocks': [0, 1, 1], 'width': 64, 'stem_stride': 2},
    optimizer={'name': 'sgd', 'momentum': 0.9, 'nesterov': True, 'weight_decay': 5e-4},
    schedule={'name': 'cosine', 'learning_rate': 0.1, 'warmup': 200},
    run=dict(updates_per_call=10, log_every=50, checkpoint_every=400),
)
SIZES = {'': FULL, '_small': SMALL, '_small01': SMALL01}
EPOCHS = (200, 6)  # full, small
HELD_OUT = 5  # percent for validation, and as many for calibration


class Form(NamedTuple):
  """A variant and the form of it.

  Attributes:
    base: the variant.
    size: of `SIZES`; '' for the full one.
    paper: whether it has the paper's split.
  """

  base: str
  size: str
  paper: bool

  @property
  def small(self) -> bool:
    return self.size != ''

  def name(self, experiment: str) -> str:
    """The experiment's name in this form, so that reports keep forms apart."""
    return f'{experiment}{self.size}{"_paper" * self.paper}'


def parse(
    variant: str, valid: Iterable[str], sizes: Iterable[str] = ('_small',)
) -> Form:
  """'nat_small_paper' -> ('nat', '_small', True); the order of the two does not matter.

  Args:
    variant: with its ends.
    valid: what it may be without them.
    sizes: the sizes it may have besides the full one.

  Raises:
    ValueError: a variant that is not in `valid` (which is listed).
  """
  valid, sizes = dict.fromkeys(valid), tuple(sizes)
  ends = '|'.join(sorted(sizes, key=len, reverse=True))  # _small01 before _small
  base, size, paper, size_after = re.fullmatch(
      f'(.*?)({ends})?(_paper)?({ends})?', variant).groups()
  if base not in valid or (size and size_after):
    forms = *sizes, '_paper', *(f'{size}_paper' for size in sizes)
    raise ValueError(
        f'unknown variant {variant!r}; valid: {", ".join(valid)}; each also with '
        + ', '.join(forms))
  return Form(base, size or size_after or '', bool(paper))


def num_trained(num_examples: int, holdout: bool = True) -> int:
  """How many of `num` examples are trained on."""
  return round(num_examples * (1 - 2 * HELD_OUT / 100)) if holdout else num_examples


def digits() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
  """scikit-learn's digits, 0 to 5 as positives and 6 and 7 as negatives, in four parts.

  Returns:
    (positives, negatives, evals) of `presets.hold_out`; tested on 8, 9 and noise, too.
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
) -> ml_collections.ConfigDict:
  """The config of a ten-class classifier trained with negatives.

  A twentieth of positives and negatives each is held out for validation and for
  calibration. The paper's form trains on all of them; nothing can be chosen in it.

  Args:
    name: of the experiment; the ends of `variant` are added to it.
    variant: of `VARIANTS` or of `negatives`, with or without an end of `SIZES` and
      `_paper`.
    num_examples: of `positives`.
    positives: source of the training images, before anything is held out.
    negatives: variant -> its training negatives, likewise; 'nat' stands for those not
      named.
    evals: the sets of the test, as in a config.
    normalisation: `{'mean': ..., 'std': ...}`.
    augment: specs of augmentations; a crop is `SMALL_CROP` in the small form.
    epochs: of the full and of the small form.
    holdout: False: the paper's form, which `_paper` asks for too.

  Raises:
    ValueError: an unknown variant (the valid ones are listed).
  """
  form = parse(variant, [*VARIANTS, *negatives], filter(None, SIZES))
  form = form._replace(paper=form.paper or not holdout)
  base, small, holdout = form.base, form.small, not form.paper
  settings = VARIANTS.get(base, VARIANTS['nat'])
  negatives = negatives.get(base, negatives['nat'])
  if holdout:
    positives, negatives, evals = presets.hold_out(
        positives, negatives, evals, HELD_OUT)
  if form.size == '_small':
    augment = [SMALL_CROP if spec['name'] == 'crop' else spec for spec in augment]
  if base == 'shuffled':
    negatives = {}
  if settings.get('shuffled'):
    negatives = {**negatives, 'shuffled': SHUFFLED}
  return presets.experiment(
      name=form.name(name),
      variant=base,
      num_classes=10,
      steps=presets.steps(epochs[small], num_trained(num_examples, holdout), 128),
      loss=settings['loss'],
      data=dict(
          positives=positives,
          negatives=negatives,
          negatives_per_batch=settings.get('count', 0),
          treatment=settings.get('treatment', {}),
          batch_size=128,
          augment=augment,
          **normalisation,
      ),
      evals=evals,
      **SIZES[form.size],
  )
