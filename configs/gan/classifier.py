"""Evaluation classifiers of generated images, trained with plain cross-entropy.

    python -m nat_jax.main --config configs/gan/classifier.py:mnist \
      --workdir runs/classifiers/mnist

A GAN's config names its evaluation classifier, which is trained first if it is missing.
Scores by our own classifiers are not comparable with published ones. They train on the
whole training split, since no checkpoint or recipe is chosen by their test.

Variants: mnist, cifar10, cifar100 (for an Inception Score with other labels than the
GAN's own), svhn and tiny_imagenet are small networks, which take minutes on two CPU
cores; docs/results.md has the accuracy of mnist. digits is for scikit-learn's 0-5,
digits10 for 0-9. For a classifier with 95 % accuracy on CIFAR-10 train
configs/nat/cifar10.py:baseline (on a GPU) and set measures.features.workdir to its
workdir.
"""

from nat_jax import names
from nat_jax.schema import presets, recipes

SETS = {  # -> data set, classes, examples, epochs, augmentation
    'mnist': ('mnist', 10, 60_000, 2, []),
    'cifar10': ('cifar10', 10, 50_000, 10, presets.CROP_FLIP),
    'cifar100': ('cifar100', 100, 50_000, 10, presets.CROP_FLIP),
    'svhn': ('svhn_cropped', 10, 73_257, 4, [{'name': 'crop', 'pad': 4}]),
    'tiny_imagenet': ('tiny_imagenet32', 100, 50_000, 20, presets.CROP_FLIP),
}
DIGITS = {'digits': 6, 'digits10': 10}  # -> number of classes


def get_config(variant='digits'):
  if variant in DIGITS:
    return digits(variant, DIGITS[variant])
  if variant not in SETS:
    raise ValueError(names.unknown('variant', variant, [*DIGITS, *SETS]))
  dataset, num_classes, num_examples, epochs, augment = SETS[variant]
  kwargs = {'classes': tuple(range(100))} if variant == 'tiny_imagenet' else {}
  test = 'validation' if variant == 'tiny_imagenet' else 'test'
  return presets.experiment(
      name='classifier',
      variant=variant,
      num_classes=num_classes,
      steps=presets.steps(epochs, num_examples, 128),
      model={'name': 'small_conv', 'widths': (32, 64, 128)},
      loss={'name': 'cross_entropy'},
      optimizer=recipes.SMALL01['optimizer'],
      schedule=recipes.SMALL01['schedule'],
      data=dict(
          positives=presets.tfds(dataset, 'train', **kwargs),
          negatives_per_batch=0,
          augment=augment,
      ),
      evals={'test': presets.positive(dataset, test, **kwargs)},
  )


def digits(variant, num_classes):
  def split(name):
    return {'name': 'digits', 'split': name, 'classes': tuple(range(num_classes))}

  return presets.experiment(
      name='classifier',
      variant=variant,
      num_classes=num_classes,
      steps=1000,
      loss={'name': 'cross_entropy'},
      optimizer=recipes.SMALL01['optimizer'],
      data=dict(
          positives=split('train'), negatives_per_batch=0,
          **presets.NORMALISATION['digits']),
      evals={'test': {'source': split('test'), 'positive': True}},
  )
