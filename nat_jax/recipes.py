"""The training recipes that the configs of configs/nat/ share, full size and small.

    recipes.classifier('svhn', 'nat_small', num_examples=73_257, ...)

`VARIANTS` are the ways to use negatives; each config adds its data sets.
"""

from typing import Any

import ml_collections

from nat_jax import presets

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
SMALL = dict(  # two CPU cores: 64 channels at half the resolution from the start
    model={'name': 'resnet', 'blocks': [0, 1, 1], 'width': 64, 'stem_stride': 2},
    optimizer={'name': 'sgd', 'momentum': 0.9, 'nesterov': True, 'weight_decay': 5e-4},
    schedule={'name': 'cosine', 'learning_rate': 0.1, 'warmup': 200},
    run=dict(updates_per_call=10, log_every=50, checkpoint_every=400),
)
EPOCHS = (200, 6)  # full, small


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
) -> ml_collections.ConfigDict:
  """The config of a ten-class classifier trained with negatives.

  Args:
    name: of the experiment; `_small` is added to it for the small form.
    variant: of `VARIANTS` or of `negatives`, with or without `_small`.
    num_examples: positives in an epoch.
    positives: source of the training images.
    negatives: variant -> its training negatives; 'nat' stands for those not named.
    evals: as in a config.
    normalisation: `{'mean': ..., 'std': ...}`.
    augment: specs of augmentations.
    epochs: of the full and of the small form.

  Raises:
    ValueError: an unknown variant (the valid ones are listed).
  """
  small = variant.endswith('_small')
  base = variant.removesuffix('_small')
  if base not in VARIANTS and base not in negatives:
    valid = ', '.join(dict.fromkeys([*VARIANTS, *negatives]))
    raise ValueError(
        f'unknown variant {variant!r}; valid: {valid}; each also with _small')
  settings = VARIANTS.get(base, VARIANTS['nat'])
  negatives = negatives.get(base, negatives['nat']) if base != 'shuffled' else {}
  if settings.get('shuffled'):
    negatives = {**negatives, 'shuffled': SHUFFLED}
  return presets.experiment(
      name=f'{name}_small' if small else name,
      variant=base,
      num_classes=10,
      steps=presets.steps(epochs[small], num_examples, 128),
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
      **(SMALL if small else FULL),
  )
