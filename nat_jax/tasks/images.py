"""The input pipeline that tasks on images share: from `config['data']` to batches.

    positives, negatives = load_sets(config, uses_negatives=True)
    inputs = make_inputs(config, positives, negatives, num_devices=1)
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nat_jax import data, names, registry
from nat_jax.task import Inputs, Others
from nat_jax.tasks import generated, subsets


def load_source(
    config: Mapping[str, Any], spec: Mapping[str, Any],
    like: data.Arrays | None = None, others: Others | None = None,
) -> data.Arrays:
  """Loads a source; vectors are standardised by `data.mean` and `data.std`.

  Args:
    config: of the run.
    spec: of the source.
    like: the positives, which synthetic negatives imitate; from this function.
    others: opens the runs that sources of `generated.FROM_RUNS` draw from.
  """
  if spec['name'] in generated.FROM_RUNS:
    return registry.build(
        generated.FROM_RUNS, spec, what='data source', like=like,
        settings=config['data'], others=others)
  arrays = data.load(spec, like=like)
  # Synthetic negatives imitate what is standardised already.
  if spec['name'] in data.SYNTHETIC or not data.is_vectors(arrays.image.shape[1:]):
    return arrays
  settings = config['data']
  return arrays._replace(image=data.standardise(
      arrays.image, settings['mean'], settings['std']))


def load_sets(
    config: Mapping[str, Any], uses_negatives: bool, others: Others | None = None
) -> tuple[data.Arrays, dict[str, data.Arrays]]:
  """Loads the positives, and the training negatives {name: Arrays} if they are used.

  Examples that `data.drop` and `data.keep` exclude are left out. See `load_source` for
  `others`.
  """
  positives = load_source(config, config['data']['positives'])
  negatives = load_negatives(config, positives, others) if uses_negatives else {}
  # Synthetic negatives imitate all positives, so that their rows are always the same.
  sets = subsets.apply(config['data'], {subsets.POSITIVES: positives, **negatives})
  return sets.pop(subsets.POSITIVES), sets


def load_negatives(
    config: Mapping[str, Any], positives: data.Arrays, others: Others | None = None
) -> dict[str, data.Arrays]:
  """Loads the training negatives of a config, {name: Arrays}."""
  return {
      name: load_source(config, spec['source'], positives, others)
      for name, spec in config['data']['negatives'].items()
  }


def make_inputs(
    config: Mapping[str, Any], positives: data.Arrays,
    negatives: Mapping[str, data.Arrays], num_devices: int,
) -> Inputs:
  """Joins all sets in one pool and makes the stream of batches.

  Args:
    config: of the run.
    positives: the training positives.
    negatives: name -> training negatives; may be empty.
    num_devices: batches are laid out for this number of devices.

  Raises:
    ValueError: data or batch sizes that are not valid.
  """
  settings = config['data']
  check_devices(settings, num_devices)
  pool = data.make_pool(
      positives, negatives, config['num_classes'], settings['mean'], settings['std'])
  _check_normalisation(settings, pool.image.shape[-1])
  if data.is_vectors(pool.image.shape[1:]) and settings['augment']:
    raise ValueError(
        'data.augment changes pictures, and the positives are vectors: set it to [], '
        f'got {settings["augment"]}')
  pool = pool._replace(weight=data.class_weights(
      settings.get('class_weights', ''), pool.label, config['num_classes']))
  stream = data.make_stream(
      len(positives.label),
      {name: len(arrays.label) for name, arrays in negatives.items()},
      {name: settings['negatives'][name].get('weight', 1.0) for name in negatives},
      batch_size=settings['batch_size'],
      negatives_per_batch=settings['negatives_per_batch'] if negatives else 0,
      inside=settings.get('inside', False),
      seed=config['seed'],
      multiple_of=num_parts(settings, num_devices),
  )
  return Inputs(
      pool, stream, tuple(pool.image.shape[1:]), positives.names, negatives, positives)


def check_classes(class_names: Sequence[str], num_classes: int) -> None:
  """Raises ValueError unless the positives have `num_classes` classes.

  Args:
    class_names: of the positives; none: they are not known.
    num_classes: of the config.
  """
  num = len(class_names)
  if num not in (0, num_classes):
    raise ValueError(
        f'num_classes is {num_classes}, and data.positives has {num} classes '
        f'({names.listed(class_names)}); set num_classes={num}, or choose '
        'classes=(...) of the source')


def num_parts(settings: Mapping[str, Any], num_devices: int) -> int:
  """The number of equal parts of a batch: micro-batches on each of the devices.

  Args:
    settings: `config['data']`.
    num_devices: devices that share the batch.
  """
  return num_devices * settings.get('micro_batches', 1)


def check_devices(
    settings: Mapping[str, Any], num_devices: int, prefix: str = 'data.'
) -> None:
  """Raises ValueError unless the batch size is a multiple of `num_parts`.

  Args:
    settings: the part of a config that holds `batch_size`.
    num_devices: devices that share the batch.
    prefix: of the keys of `settings`, for the message.
  """
  size, parts = settings['batch_size'], num_parts(settings, num_devices)
  if size % parts == 0:
    return
  if parts == num_devices:
    raise ValueError(
        f'{prefix}batch_size {size} does not divide over {num_devices} devices; choose '
        f'a multiple of {num_devices}, or use fewer devices (CUDA_VISIBLE_DEVICES=0)')
  raise ValueError(
      f'{prefix}batch_size {size} does not divide into {prefix}micro_batches='
      f'{settings["micro_batches"]} on each of {num_devices} devices; choose a '
      f'multiple of {parts}, or other {prefix}micro_batches')


def check_types(
    evals: Mapping[str, Mapping[str, Any]], evaluators: Mapping[str, Any],
    default: str | None = None,
) -> None:
  """Raises ValueError unless each entry of `evals` has a type in `evaluators`.

  Args:
    evals: of a config.
    evaluators: the valid types, such as `tasks.gan.EVALUATORS`.
    default: the type of an entry without one; None: there is no default.
  """
  for name, spec in evals.items():
    kind = spec.get('type', default)
    if kind not in evaluators:
      raise ValueError(
          names.unknown(f'type of evals.{name},', kind, evaluators))


def most_negatives(settings: Mapping[str, Any]) -> int:
  """The largest number of negatives per batch, given `config['data']`."""
  count = settings['negatives_per_batch']
  return count if isinstance(count, int) else max(count)


def transforms(settings: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
  """The functions that transform images on the device: 'augment' and 'normalise'.

  'augment' takes (images, keys) and 'normalise' takes images; see `data.augment`.
  """
  return {
      'augment': data.make_augment(settings['augment']),
      'normalise': functools.partial(
          data.normalise, mean=settings['mean'], std=settings['std']),
  }


def _check_normalisation(settings, channels):
  for key in ('mean', 'std'):
    if len(settings[key]) not in (1, channels):
      raise ValueError(
          f'data.{key} must hold one number, or one for each of the {channels} '
          f'channels, got {settings[key]}'
      )
  if min(settings['std']) <= 0:
    raise ValueError(f'data.std must be above 0, got {settings["std"]}')
