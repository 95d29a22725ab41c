"""Classifiers of scikit-learn's digits of which few are labelled: no download, CPU.

    python -m nat_jax.main --config configs/semi_supervised.py --workdir runs/few-labels

Positives: the digits 0-9, of which `data.labels_per_class` of each class have labels.
Of the training split 7 % are held out for validation and 8 % for calibration. Tested on
other digits (error = 1 - accuracy) and on three kinds of negatives that no variant is
trained on.

Variants, which differ in the use of unlabelled digits and of a generator's samples; all
have the same network, and with the same seed the same labels:
  supervised      none: the labelled digits alone
  entropy         the entropy of predictions on unlabelled digits is minimised
  implicit        K + 1 classes with an implicit logit for samples of the generator,
                  which matches features of D (Salimans et al., 2016)
  implicit_ns     as implicit; G has the non-saturating loss
  implicit_am     as implicit; G has the loss of AM-GAN
  cat             CatGAN: low entropy on unlabelled digits, high on samples
  nat             NAT: low entropy on unlabelled digits, uniform predictions on samples
                  of a generator that matches features of D; the default
  nat_marginal    NAT with balanced classes, by marginal entropies, and the generator
                  that CatGAN has

An ending chooses the number of labels per class and the data: nat_5 has 5 labels of
each class instead of 2. With `open`, as in nat_5_open, the classes are 0-5, and
negatives are the digits 6-9. With `small`, as in nat_10_small, the data set is MNIST.

Measured: docs/semi_supervised.md. A run takes less than a minute on two CPU cores.
"""

import re

from nat_jax import names
from nat_jax.schema import presets

IMPLICIT = {'name': 'implicit_gan'}
MATCHED = {'name': 'feature_matching'}
NAT = {'name': 'nat_gan_unlabelled'}
VARIANTS = {  # -> gan_loss, factors on unlabelled and on generated digits
    'supervised': (NAT, 0.0, 0.0),
    'entropy': (NAT, 1.0, 0.0),
    'implicit': ({**MATCHED, 'disc': 'implicit_gan'}, 0.5, 0.5),
    'implicit_ns': (IMPLICIT, 0.5, 0.5),
    'implicit_am': ({**IMPLICIT, 'gen': 'class'}, 0.5, 0.5),
    'cat': ({'name': 'cat_gan_springenberg'}, 1.0, 1.0),
    'nat': ({**MATCHED, 'disc': 'nat_gan_unlabelled'}, 1.0, 1.0),
    'nat_marginal': ({**NAT, 'marginal': 1.0}, 1.0, 1.0),
}


def digits(split, classes):
  return {'name': 'digits', 'split': split, 'classes': classes}


def sources(form):
  """(number of classes, source of positives, evaluation sets) of '', open, small."""
  num = 6 if form == 'open' else 10

  def source(split):
    if form == 'small':
      return presets.tfds('mnist', split)
    return digits(split, tuple(range(num)))

  evals = {'test': {'source': source('test'), 'positive': True}}
  for part, split in (('validation', 'train[85%:92%]'), ('calibration', 'train[92%:]')):
    evals[part] = {'source': source(split), 'positive': True, 'part': part}
  if form == 'small':
    evals['fashion_mnist'] = presets.negative('fashion_mnist', 'test')
  if form == 'open':
    evals['digits_6_9'] = {'source': digits('all', (6, 7, 8, 9))}
  for kind in ('patch_shuffle', 'blobs', 'normal_noise'):
    evals[kind] = {'source': {'name': kind, 'num': 1000}}
  return num, source('train[:85%]'), evals


def parse(variant):
  """(base, labels per class, form) of a variant such as 'nat_5_open'."""
  found = re.fullmatch(r'([a-z_]+?)(?:_(\d+))?(?:_(open|small))?', variant)
  if not found or found[1] not in VARIANTS:
    raise ValueError(names.unknown('variant', variant, VARIANTS)
                     + '; each also with _5, _open, _10_small')
  return found[1], int(found[2] or 2), found[3] or ''


def get_config(variant='nat'):
  """Returns the config of a variant; raises ValueError for an unknown variant."""
  base, labels, form = parse(variant)
  num_classes, positives, evals = sources(form)
  gan_loss, unlabelled, fake = VARIANTS[base]
  large = form == 'small'
  widths = (1000, 500, 250) if large else (128, 128, 64)
  return presets.experiment(
      task='semi_supervised',
      name='_'.join(filter(None, ['few_labels', str(labels), form])),
      variant=base,
      num_classes=num_classes,
      steps=20_000 if large else 3000,
      trainer={'name': 'semi_supervised', 'unlabelled_weight': unlabelled,
               'fake_weight': fake},
      generator={'name': 'mlp_generator', 'latent': 100 if large else 32,
                 'widths': (500, 500) if large else (128, 128)},
      discriminator={'name': 'mlp_discriminator', 'widths': widths,
                     'noise': 0.3 if large else 0.1},
      gan_loss=gan_loss,
      data=dict(positives=positives, labels_per_class=labels,
                labelled_per_batch=100 if large else 50),
      evals=evals,
      run=dict(log_every=500, checkpoint_every=0, eval_every=1000),
  )
