"""scikit-learn's digits: 1,797 real 8x8 images, no download, two CPU cores.

Positives: digits 0-5. Training negatives: digits 6-7. Tested on held-out 0-5
(accuracy), held-out 6-7 (seen negatives), all of 8-9 (unseen negatives) and noise.

    python -m nat_jax.main --config configs/digits.py --workdir runs/digits

Variants: `nat` (the default; trains `baseline` too and prints both side by side),
`baseline` (the plain classifier), `oe` (Outlier Exposure weighting), `background`
(negatives as a seventh class).
"""

from nat_jax import presets

LOSSES = {
    'nat': {'name': 'nat'},
    'baseline': {'name': 'cross_entropy'},
    'oe': {'name': 'outlier_exposure', 'weight': 0.5},
    'background': {'name': 'background'},
}


def digits(split, classes):
  return {'name': 'digits', 'split': split, 'classes': classes}


def get_config(variant='nat'):
  if variant not in LOSSES:
    raise ValueError(f'unknown variant {variant!r}; valid: {", ".join(LOSSES)}')
  zero_to_five = tuple(range(6))
  return presets.experiment(
      name='digits',
      variant=variant,
      compare_with='baseline' if variant == 'nat' else '',
      num_classes=6,
      steps=2000,
      model={'name': 'small_conv'},
      loss=LOSSES[variant],
      optimizer={'name': 'sgd', 'momentum': 0.9, 'weight_decay': 5e-4},
      schedule={'name': 'cosine', 'learning_rate': 0.05},
      data=dict(
          positives=digits('train', zero_to_five),
          negatives={'digits_6_7': {'source': digits('train', (6, 7)), 'weight': 1.0}},
          **presets.NORMALISATION['digits'],
          batch_size=64,
          negatives_per_batch=(8, 8),
      ),
      evals={
          'test': {'source': digits('test', zero_to_five), 'positive': True},
          'digits_6_7': {'source': digits('test', (6, 7))},
          'digits_8_9': {'source': digits('all', (8, 9))},
          'noise': {'source': {'name': 'normal_noise', 'num': 1000}},
      },
      run=dict(log_every=100, eval_every=500, checkpoint_every=1000),
  )
