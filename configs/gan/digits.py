"""GANs of scikit-learn's digits: no download, two CPU cores.

    python -m nat_jax.main --config configs/gan/digits.py --workdir runs/gan-digits

Positives: digits 0-5; external negatives: 6-9. The evaluation classifier
(configs/gan/classifier.py:digits) is trained first.

Variants: nat3 (the default), am, catgan, nat0, nat10, natm0, natm3 and any other
objective of nat_jax/schema/gan_recipes.py, with any number of negatives per
batch of 100; each also with _mixup (D sees mixed images) or _adaptivemix (and its
features of them are to be those of both images, mixed), as in nat3_adaptivemix.

Trained on the training part of 0-5; the test part is held out, to count samples that
repeat training images. Measured, ten seeds, after 2,000 updates: docs/results.md, where
the tables of _mixup, _adaptivemix and of 5,000 updates are of an earlier version that
trained on all images. A run takes a minute on two CPU cores.
"""

from nat_jax.schema import gan_recipes, presets

TRAINERS = {'': 'gan', 'mixup': 'mixup', 'adaptivemix': 'adaptive_mix'}  # by form


def digits(classes, split='all'):
  return {'name': 'digits', 'split': split, 'classes': classes}


def get_config(variant='nat3'):
  objective, count, form = gan_recipes.parse(variant, tuple(TRAINERS)[1:])
  return presets.experiment(
      task='gan',
      name='gan_digits',
      variant=variant,
      num_classes=6,
      steps=5000,
      generator={'name': 'mlp_generator', 'latent': 32, 'widths': (128, 128)},
      discriminator={'name': 'mlp_discriminator', 'widths': (128, 128)},
      loss=gan_recipes.OBJECTIVES[objective],
      trainer={'name': TRAINERS[form]},
      data=dict(
          positives=digits(tuple(range(6)), 'train'),
          negatives={'digits_6_9': {'source': digits((6, 7, 8, 9))}} if count else {},
          negatives_per_batch=count,
      ),
      measures=dict(
          num_samples=2000,
          features={
              'name': 'checkpoint', 'config': 'configs/gan/classifier.py:digits',
              'workdir': 'runs/classifiers/digits'},
          held_out=digits(tuple(range(6)), 'test'),
      ),
      run=dict(log_every=250, checkpoint_every=1000, eval_every=1000),
  )
