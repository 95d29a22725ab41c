"""Which source of negatives is best on kinds never seen? Scikit-learn's digits.

    python tests/bench/negatives.py --runs runs/negatives

trains all of them with ten seeds, and first the networks that generate negatives, whose
pictures it puts into files sources/*.npz of its folder, where three of the variants
look for them. Positives are the digits 0-5, as in configs/digits.py. Each source gives
200 pictures, `few_near` and `few_unlike` 21, and each batch has 16 of them on top of
128 positives.

Variants:
  none          the plain classifier
  noise         uniform noise
  shuffled      patch-shuffled positives
  halves        halves of two positives of different classes
  few_unlike    21 crops of a photograph
  many_unlike   200 crops of a photograph
  few_near      21 digits 6-7
  many_near     200 digits 6-7
  mixed         200 digits 6-7, each pasted into a positive, with soft targets (MixOE)
  mined         200 digits 6-7, the hardest quarter of 64 per batch
  pgd           positives that PGD changes during training, budget .15
  advgan        positives changed by an AdvGAN (configs/advgan.py)
  gan           samples of a GAN of the positives that `none` is not sure of
  made          100 shuffled positives and 100 halves: no picture is collected
  both          100 shuffled positives and 100 digits 6-7
  gaal          samples of the generators of MO-GAAL (configs/outliers.py) on the pixels

Evaluated on digits 6-7 (`near`), photographs (another one) and shuffled test positives,
which are kinds that some of the variants train on, and on digits 8-9, blobs and
positives with permuted pixels, which none does.

Measured: docs/negatives.md, "Which source is best".
"""

import os

from nat_jax import names
from nat_jax.schema import presets

NUM, FEW = 200, 21
GENERATED = ('advgan', 'gan', 'gaal')
MIXED = {'name': 'mix', 'mode': 'cutmix'}
MINED = {'name': 'mine', 'keep': 0.25}
PGD = {'name': 'adversarial', 'budget': 0.15, 'labels': 'negative', 'steps': 5}


def digits(split, *classes):
  return {'name': 'digits', 'split': split, 'classes': classes}


def synthetic(name, num=NUM, **settings):
  return {'name': name, 'num': num, **settings}


NEAR = digits('train[:78%]', 6, 7)
SOURCES = {
    'none': (),
    'noise': (synthetic('uniform_noise'),),
    'shuffled': (synthetic('patch_shuffle'),),
    'halves': (synthetic('class_halves'),),
    'few_unlike': (synthetic('photographs', FEW),),
    'many_unlike': (synthetic('photographs'),),
    'few_near': (digits('train[:9%]', 6, 7),),
    'many_near': (NEAR,),
    'mixed': (NEAR,),
    'mined': (NEAR,),
    'made': (synthetic('patch_shuffle', NUM // 2),
             synthetic('class_halves', NUM // 2)),
    'both': (synthetic('patch_shuffle', NUM // 2), digits('train[:41%]', 6, 7)),
    'pgd': (),
    **{name: ({'name': 'arrays', 'path': os.path.join('sources', f'{name}.npz'),
               'rows': 'all'},) for name in GENERATED},
}


def get_config(variant='many_near'):
  """Returns the config of a variant; raises ValueError for an unknown variant."""
  if variant not in SOURCES:
    raise ValueError(names.unknown('variant', variant, SOURCES))
  sources = {source['name']: {'source': source} for source in SOURCES[variant]}
  test = digits('test', *range(6))
  return presets.experiment(
      name='negatives',
      variant=variant,
      num_classes=6,
      steps=600,
      trainer=PGD if variant == 'pgd' else {'name': 'supervised'},
      model={'name': 'small_conv'},
      loss={'name': 'cross_entropy' if variant == 'none' else 'nat'},
      optimizer={'name': 'sgd', 'momentum': 0.9, 'weight_decay': 5e-4},
      schedule={'name': 'cosine', 'learning_rate': 0.1},
      data=dict(
          positives=digits('train', *range(6)),
          negatives=sources,
          **presets.NORMALISATION['digits'],
          batch_size=128,
          negatives_per_batch=(64 if variant == 'mined' else 16) if sources else 0,
          treatment={'mixed': MIXED, 'mined': MINED}.get(variant, {}),
      ),
      evals={
          'test': {'source': test, 'positive': True},
          'digits_6_7': {'source': digits('test', 6, 7)},
          'photographs': {'source': synthetic('photographs', 1000, split='test')},
          'shuffled': {'source': synthetic('patch_shuffle', 1000, seed=1)},
          'digits_8_9': {'source': digits('all', 8, 9)},
          'blobs': {'source': synthetic('blobs', 1000)},
          'permuted': {'source': synthetic('pixel_permute', 1000)},
      },
      run=dict(log_every=200, checkpoint_every=0, tensorboard=False),
  )
