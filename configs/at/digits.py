"""Attention transfer on scikit-learn's digits: half a minute per run, no download.

    launch/attention_transfer.sh runs/at-digits 0 configs/at/digits.py

Positives: digits 0-5; the negatives of `teacher_nat`: digits 6-7. No student sees a
negative. Variants: `teacher_baseline` and `teacher_nat`; `student_baseline` and
`student_nat`, smaller networks taught by the first and the second of these teachers;
`student_alone`, without a teacher. Held-out sets are those of configs/digits.py.

Measured: docs/results.md, "Attention transfer, digits". On two CPU cores a run takes
half a minute.

This demonstrates the program rather than the method: maps of 4x4 and 2x2 positions hold
little information. beta is 62.5, so that a unit of distance between maps of the deepest
group has the weight of the full recipe: 1000 / (8 x 8 positions) = 62.5 / (2 x 2).
"""

from nat_jax import names
from nat_jax.schema import presets, recipes

VARIANTS = {  # -> (loss, widths of the network, teacher)
    'teacher_baseline': ('cross_entropy', (32, 64), ''),
    'teacher_nat': ('nat', (32, 64), ''),
    'student_baseline': ('cross_entropy', (16, 32), 'teacher_baseline'),
    'student_nat': ('cross_entropy', (16, 32), 'teacher_nat'),
    'student_alone': ('cross_entropy', (16, 32), ''),
}


def get_config(variant='teacher_nat'):
  if variant not in VARIANTS:
    raise ValueError(names.unknown('variant', variant, VARIANTS))
  loss, widths, teacher = VARIANTS[variant]
  positives, negatives, evals = recipes.digits()
  return presets.experiment(
      name='at_digits',
      variant=variant,
      trainer=(
          {'name': 'attention_transfer', 'teacher': f'runs/at-digits/{teacher}-0',
           'beta': 62.5, 'groups': ('group1', 'group2')}
          if teacher else {'name': 'supervised'}
      ),
      num_classes=6,
      steps=1500,
      model={'name': 'small_conv', 'widths': widths},
      loss={'name': loss},
      optimizer={'name': 'sgd', 'momentum': 0.9, 'weight_decay': 5e-4},
      schedule={'name': 'cosine', 'learning_rate': 0.05},
      data=dict(
          positives=positives,
          negatives=negatives,
          **presets.NORMALISATION['digits'],
          batch_size=64,
          negatives_per_batch=(8, 8),
      ),
      evals=evals,
      run=dict(log_every=250, checkpoint_every=0),
  )
