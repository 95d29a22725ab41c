"""Digits 0-5 against negatives that a GAN of these digits generates.

    python -m nat_jax.main --config configs/gan/digits.py:am --workdir runs/gan-digits \
      --config.data.positives.split='train[:80%]' --config.steps=3000
    python -m nat_jax.main --config configs/digits.py:baseline \
      --workdir runs/digits-baseline
    python -m nat_jax.main --config configs/generated.py --workdir runs/generated

The GAN is trained on the training positives of configs/digits.py alone: no real
negative is used anywhere. The evaluation sets are those of configs/digits.py, whose 6-7
are unseen here. Another GAN: --config.data.negatives.generated.source.workdir=DIR.

Variants:
  unsure  samples of which the plain classifier (runs/digits-baseline) is not sure, with
          a largest probability below .9; the default
  far     samples whose distance to the nearest positive is above the median distance of
          a positive to the nearest other one
  every   all samples

Measured: docs/negatives.md, "Negatives that a run generates".
"""

from nat_jax import names
from nat_jax.schema import presets, recipes

FILTERS = {  # variant -> arguments of the source 'run'
    'unsure': {'classifier': 'runs/digits-baseline', 'confidence': (0.0, 0.9)},
    'far': {'distance': (1.0, 1e9)},
    'every': {},
}


def get_config(variant='unsure'):
  if variant not in FILTERS:
    raise ValueError(names.unknown('variant', variant, FILTERS))
  positives, _, evals = recipes.digits()
  return presets.experiment(
      name='digits',
      variant=f'generated_{variant}',
      num_classes=6,
      steps=1000,
      model={'name': 'small_conv'},
      loss={'name': 'nat'},
      optimizer={'name': 'sgd', 'momentum': 0.9, 'weight_decay': 5e-4},
      schedule={'name': 'cosine', 'learning_rate': 0.1},
      data=dict(
          positives=positives,
          negatives={'generated': {'source': {
              'name': 'run', 'workdir': 'runs/gan-digits', 'num': 2000, 'seed': 0,
              **FILTERS[variant]}}},
          **presets.NORMALISATION['digits'],
          batch_size=128,
          negatives_per_batch=16,
      ),
      evals=evals,
      run=dict(log_every=50, eval_every=250, checkpoint_every=500),
  )
