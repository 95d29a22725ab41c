"""Plain values that configs are made of: data-set facts, recipes.

    from nat_jax.schema import presets

    def get_config(variant='nat'):
      return presets.experiment(name='digits', variant=variant, steps=600, ...)

A config names only what differs from the defaults of `nat_jax.schema`.
"""

import copy
import re
from collections.abc import Mapping
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


def hold_out(
    positives: Mapping[str, Any], negatives: Mapping[str, Mapping[str, Any]],
    evals: Mapping[str, Mapping[str, Any]], percent: int = 5,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
  """Takes evaluation sets to choose by out of what is trained on.

  Of the slice that a source names, the last `percent` become the set 'calibration' (for
  thresholds), those before them 'validation' (for checkpoints and recipes), and of the
  negatives 'calibration_NAME' and 'validation_NAME'. Percent are of the whole split, as
  in the slice: 'test[:50%]' is parted into [:40%], [40%:45%] and [45%:50%].

  Args:
    positives: source with a split such as 'train' or 'test[:50%]'.
    negatives: as in `data.negatives`; those without a split, made from the positives
      or from nothing, stay as they are.
    evals: the sets of the test. One that shows what is trained on shows what is left of
      it.
    percent: held out for each of the two.

  Returns:
    (positives, negatives, evals), as `data` and a config want them.
  """
  trained, held_out = _part(positives, percent)
  evals = dict(evals)
  for part, source in held_out.items():
    evals[part] = {'source': source, 'positive': True, 'part': part}
  left = {}
  for name, entry in negatives.items():
    left[name] = entry
    if 'split' not in entry['source']:
      continue
    source, held_out = _part(entry['source'], percent)
    left[name] = {**entry, 'source': source}
    for part, rows in held_out.items():
      evals[f'{part}_{name}'] = {'source': rows, 'part': part}
    for other, shown in evals.items():
      if shown['source'] == entry['source']:
        evals[other] = {**shown, 'source': source}
  return trained, left, evals


def _part(source, percent):
  """What is left of a source, and what is taken from its end: part -> source."""
  found = re.fullmatch(r'(\w+)(?:\[:(\d+)%\])?', source['split'])
  if not found:
    raise ValueError(
        "expected a split such as 'train' or 'test[:50%]' to hold out images of, got "
        f'{source["split"]!r}')
  name, last = found[1], int(found[2] or 100)
  first, middle = last - 2 * percent, last - percent
  end = '' if last == 100 else f'{last}%'
  return {**source, 'split': f'{name}[:{first}%]'}, {
      schema.VALIDATION: {**source, 'split': f'{name}[{first}%:{middle}%]'},
      schema.CALIBRATION: {**source, 'split': f'{name}[{middle}%:{end}]'}}


def steps(epochs: float, num_examples: int, batch_size: int) -> int:
  """The number of updates in `epochs` passes through the positives."""
  return round(epochs * num_examples / batch_size)


def experiment(**differences: Any) -> ml_collections.ConfigDict:
  """Returns the defaults of a task with an experiment's differences, as a config.

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
