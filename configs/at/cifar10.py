"""Attention transfer on CIFAR-10: does a student inherit what its teacher rejects?

    launch/attention_transfer.sh runs/at-cifar10 '0 1 2' configs/at/cifar10.py
    launch/attention_transfer.sh runs/at-small '0 1 2' configs/at/cifar10.py:small

Variants: `teacher_baseline` (the plain classifier) and `teacher_nat` (5 to 25 negatives
of CIFAR-100 train per batch); `student_baseline` and `student_nat`, taught by the first
and the second of these teachers; `student_alone`, without a teacher. No student sees a
negative.

Full recipe: teachers WRN-40-1, students WRN-16-1, 200 epochs, batch 128, SGD 0.1 times
0.2 at epochs 60, 120 and 160, weight decay 5e-4 on all parameters, beta 1000 on the
three groups; as the attention-transfer code, except that BatchNorm scales start at 1.
Expected: accuracy near 93.4 (teacher) and 91.2 to 91.8 (students); on CIFAR-100 test
the paper's draft has NCR .4/.6/.8/.9 of .974/.837/.657/.538 for a student of the plain
teacher and .230/.151/.097/.062 for one of the negative-aware teacher. Not
measured; after 50 epochs (--config.steps=17600, one seed, docs/results.md) accuracy is
91.6 and 91.7 (teachers) and 90.2 (students), NCR_0.4 .954 and .392 for the teachers and
.907 and .853 for their students. 7 minutes per teacher and 2 per student, on an H200
that other trainings shared.

With `_small` after the variant: three convolutions that each halve the image, teachers
of 64, 128, 256 channels and 6 epochs, students of half the channels and 10 epochs; 2 to
7 minutes per run on one CPU core. Expected: accuracy .69 (teachers) and .70 (students);
NCR_0.4 on CIFAR-100 test .68 for teacher_baseline and .48 for teacher_nat, .70 and .68
for their students (docs/results.md). Maps are 16, 8 and 4 wide, so that beta is 250: a
unit of squared distance between maps then has the weight of the full recipe.

A tenth of the training images is held out, as in configs/nat/cifar10.py; with `_paper`
nothing is held out (docs/results.md has results of `_small_paper`).
"""

from nat_jax.schema import presets, recipes

VARIANTS = {  # -> (loss, teacher)
    'teacher_baseline': ('cross_entropy', ''),
    'teacher_nat': ('nat', ''),
    'student_baseline': ('cross_entropy', 'teacher_baseline'),
    'student_nat': ('cross_entropy', 'teacher_nat'),
    'student_alone': ('cross_entropy', ''),
}
GROUPS = ('group1', 'group2', 'group3')
NORMALISATION = {  # of the attention-transfer code
    'mean': tuple(x / 255 for x in (125.3, 123.0, 113.9)),
    'std': tuple(x / 255 for x in (63.0, 62.1, 66.7)),
}


def get_config(variant='teacher_nat'):
  form = recipes.parse(variant, VARIANTS)
  base, small = form.base, form.small
  loss, teacher = VARIANTS[base]
  is_teacher = base.startswith('teacher')
  if small:
    widths = (64, 128, 256) if is_teacher else (32, 64, 128)
    model = {'name': 'small_conv', 'widths': widths}
    epochs = 6 if is_teacher else 10
    schedule = {'name': 'cosine', 'learning_rate': 0.1, 'warmup': 200}
  else:
    model = {'name': 'wide_resnet', 'depth': 40 if is_teacher else 16, 'widen': 1}
    epochs = 200
    schedule = {'name': 'step', 'learning_rate': 0.1, 'factor': 0.2,
                'at': (0.3, 0.6, 0.8)}
  trainer = {'name': 'supervised'}
  if teacher:
    folder = 'runs/at-small' if small else 'runs/at-cifar10'
    folder += '-paper' * form.paper
    trainer = {
        'name': 'attention_transfer', 'teacher': f'{folder}/{teacher}-0',
        'beta': 250.0 if small else 1000.0, 'groups': GROUPS,
    }
  positives = presets.tfds('cifar10', 'train')
  negatives = {'cifar100': presets.negative('cifar100', 'train')}
  evals = {
      'test': presets.positive('cifar10', 'test'),
      **presets.NEGATIVES_32,
      'svhn': presets.negative('svhn_cropped', 'test'),
  }
  if not form.paper:
    positives, negatives, evals = presets.hold_out(
        positives, negatives, evals, recipes.HELD_OUT)
  num_trained = recipes.num_trained(50_000, holdout=not form.paper)
  return presets.experiment(
      name=form.name('at'),
      variant=base,
      trainer=trainer,
      num_classes=10,
      steps=presets.steps(
          epochs, num_trained, 128,
          multiple=1 if small else recipes.FULL['run']['updates_per_call']),
      model=model,
      loss={'name': loss},
      optimizer={'name': 'sgd', 'momentum': 0.9, 'nesterov': False,
                 'weight_decay': 5e-4, 'decay': 'all'},
      schedule=schedule,
      data=dict(
          positives=positives,
          negatives=negatives,
          **NORMALISATION,
          batch_size=128,
          negatives_per_batch=(5, 25),
          augment=[{'name': 'crop', 'pad': 4, 'mode': 'reflect'}, {'name': 'flip'}],
      ),
      evals=evals,
      run=(recipes.SMALL if small else recipes.FULL)['run'],
  )
