"""Plain values that configs are made of: data-set facts, recipes.

    from nat_jax import presets

    def get_config(variant='nat'):
      return presets.experiment(name='digits', variant=variant, steps=600, ...)

A config names only what differs from the defaults of `nat_jax.schema`.
"""

import copy
from typing import Any

import ml_collections

from nat_jax import schema

NORMALISATION = {  # data set -> mean and std of pixels in [0, 1], per channel
    'cifar10': dict(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    # The std that pytorch-cifar made common is the mean of per-image stds; the one
    # above is over all pixels.
    'cifar10_pytorch': dict(
        mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
    'svhn_cropped': dict(mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970)),
    'mnist': dict(mean=(0.1307,), std=(0.3081,)),
    'digits': dict(mean=(0.3053,), std=(0.3760,)),  # of scikit-learn's digits / 16
}


def tfds(dataset: str, split: str, **kwargs: Any) -> dict[str, Any]:
  """Spec of a split of a tfds data set."""
  return {'name': 'tfds', 'dataset': dataset, 'split': split, **kwargs}


def negative(dataset: str, split: str, **kwargs: Any) -> dict[str, Any]:
  """An entry of `data.negatives` or a negative entry of `evals`."""
  return {'source': tfds(dataset, split, **kwargs)}


def positive(dataset: str, split: str, **kwargs: Any) -> dict[str, Any]:
  """A positive entry of `evals`."""
  return {'source': tfds(dataset, split, **kwargs), 'positive': True}


NOISE = {'source': {'name': 'normal_noise', 'num': 10_000}}  # in normalised space

# What the paper tests CIFAR-10 and SVHN classifiers on (CIFAR-100, ILSVRC, noise), and
# Tiny-ImageNet besides. The last two sets are not in the tfds catalogue: bring them as
# prepared builders of these names or write them into the array cache.
NEGATIVES_32 = {
    'cifar100_train': negative('cifar100', 'train'),
    'cifar100_test': negative('cifar100', 'test'),
    'tiny_imagenet': negative('tiny_imagenet_val32', 'test'),
    'ilsvrc': negative('ilsvrc_samples32', 'test'),
    'noise': NOISE,
}

POINTS = dict(  # networks and batches of GANs of points
    batch_size=64,
    negatives_per_batch=64,
    noise={'name': 'normal'},
    generator={
        'name': 'toy_generator', 'latent': 2, 'widths': (32, 32),
        'activation': 'relu'},
    discriminator={'name': 'toy_discriminator', 'widths': (32, 32)},
)

CROP_FLIP = [{'name': 'crop', 'pad': 4}, {'name': 'flip'}]


def steps(epochs: float, num_examples: int, batch_size: int) -> int:
  """Updates that make so many passes through the positives."""
  return round(epochs * num_examples / batch_size)


def experiment(**differences: Any) -> ml_collections.ConfigDict:
  """Returns the base of the trainer with an experiment's differences, as a config.

  Groups (`data`, `run`, `measures`) are merged key by key; everything else is replaced
  whole.

  Raises:
    ValueError: a key that the base does not have (see `nat_jax.schema`).
  """
  base = schema.base_of(differences)
  config = copy.deepcopy(base)
  for key, value in differences.items():
    schema.check_keys({key: value}, base)
    if key in schema.groups(base):
      schema.check_keys(value, base[key], f'{key}.')
      config[key].update(value)
    else:
      config[key] = value
  return ml_collections.ConfigDict(config)
