"""Plain values that configs are made of: the base keys, data-set facts, recipes.

    from nat_jax import presets

    def get_config(variant='nat'):
      return presets.experiment(name='digits', variant=variant, steps=600, ...)

A config names only what differs from `BASE`. Specs are `{'name': ..., **arguments}`
and are looked up in the table of their package (`nat_jax.models.MODELS` and so on).
"""

import copy
import re
from typing import Any

import ml_collections

# Every key of a classification config with its default, and what it means.
BASE: dict[str, Any] = dict(
    name='experiment',  # printed in reports
    variant='',  # what this run is among its siblings: 'nat', 'baseline', ...
    trainer={'name': 'supervised'},  # nat_jax.trainers.TRAINERS
    seed=0,  # of the parameters, the batches and the augmentation
    steps=1000,  # updates in all
    num_classes=10,
    model={'name': 'small_conv'},  # nat_jax.models.MODELS
    loss={'name': 'nat'},  # nat_jax.losses.OBJECTIVES
    optimizer={'name': 'sgd'},  # nat_jax.runtime.optim.OPTIMIZERS
    schedule={'name': 'cosine', 'learning_rate': 0.1},  # runtime.optim.SCHEDULES
    grad_clip=0.0,  # largest global gradient norm; 0: not clipped
    ema_decay=0.0,  # moving average of the parameters, used by evaluation; 0: none
    data=dict(
        positives={'name': 'digits'},  # a source: nat_jax.data.SOURCES
        negatives={},  # name -> {'source': a source or synthetic one, 'weight': 1.0}
        mean=(0.5,),  # per channel, of pixels in [0, 1]
        std=(0.5,),
        batch_size=128,  # positives a batch (with inside=True: examples a batch)
        negatives_per_batch=(5, 25),  # drawn uniformly, both ends included
        inside=False,  # True: negatives take the places of positives
        augment=[],  # nat_jax.data.AUGMENTS, in this order
        treatment={},  # of the negatives, in the step: nat_jax.trainers.TREATMENTS
    ),
    evals={},  # name -> {'source': ..., 'positive': bool, 'seen': True|False|None}
    reference='test',  # the positive eval that negatives are compared with
    eval_batch_size=512,
    best='',  # keep the best checkpoint by this figure, e.g. 'val/accuracy'; '': none
    compare_with='',  # variant of this config file to train too and print beside
    run=dict(  # how it is run; may change when a run is resumed
        mode='jit',  # or 'pmap'
        placement='resident',  # pixels on the device; 'streamed': gathered by the host
        updates_per_call=50,  # updates between two looks at the metrics
        log_every=100,
        eval_every=0,  # 0: at the end only
        checkpoint_every=500,  # 0: at the end only
        keep=2,  # newest checkpoints kept, beside the best
        tensorboard=True,
    ),
)

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

CROP_FLIP = [{'name': 'crop', 'pad': 4}, {'name': 'flip'}]


def steps(epochs: float, num_examples: int, batch_size: int) -> int:
  """Updates that make so many passes through the positives."""
  return round(epochs * num_examples / batch_size)


def experiment(**differences: Any) -> ml_collections.ConfigDict:
  """Returns `BASE` with an experiment's differences, as a config.

  Groups (`data`, `run`) are merged key by key; everything else is replaced whole.

  Raises:
    ValueError: a key that `BASE` does not have.
  """
  config = copy.deepcopy(BASE)
  for key, value in differences.items():
    if key in GROUPS:
      check_keys(value, BASE[key], f'{key}.')
      config[key].update(value)
    else:
      check_keys({key: value}, BASE)
      config[key] = value
  return ml_collections.ConfigDict(config)


GROUPS = ('data', 'run')


def check_keys(given: dict[str, Any], known: dict[str, Any], prefix: str = '') -> None:
  """Raises ValueError for a key of `given` that is not in `known`."""
  unknown = sorted(set(given) - set(known))
  if unknown:
    raise ValueError(
        f'unknown config key {prefix}{unknown[0]!r}; valid keys: '
        + ', '.join(prefix + key for key in sorted(known))
    )


def with_defaults(config: dict[str, Any]) -> dict[str, Any]:
  """Adds what `BASE` has and a config saved by an earlier version lacks."""
  groups = {group: {**BASE[group], **config[group]} for group in GROUPS}
  return copy.deepcopy({**BASE, **config, **groups})


# Numbers that must be at least so much.
LEAST = {
    'seed': 0, 'steps': 1, 'num_classes': 2, 'grad_clip': 0, 'ema_decay': 0,
    'eval_batch_size': 1, 'data.batch_size': 1, 'run.updates_per_call': 1,
    'run.log_every': 1, 'run.eval_every': 0, 'run.checkpoint_every': 0, 'run.keep': 1,
}
EVAL_KEYS = ('source', 'positive', 'seen')
NEGATIVE_KEYS = ('source', 'weight')


def check_config(config: dict[str, Any]) -> None:
  """Raises ValueError unless `config` has the keys of `BASE`, with sensible values."""
  for given, known, prefix in (
      (config, BASE, ''), *((config.get(g, {}), BASE[g], f'{g}.') for g in GROUPS)
  ):
    check_keys(given, known, prefix)
    missing = sorted(set(known) - set(given))
    if missing:
      raise ValueError(
          f'config key {prefix}{missing[0]!r} is missing; start the config from '
          'nat_jax.presets.experiment(...), which fills in every default'
      )
  for key, least in LEAST.items():
    value, kind = _at(config, key), type(_at(BASE, key))
    kinds = (int, float) if kind is float else int
    if not isinstance(value, kinds) or isinstance(value, bool) or not value >= least:
      what = 'a number' if kind is float else 'a whole number'
      raise ValueError(f'{key} must be {what} of {least} or more, got {value!r}')
  count = config['data']['negatives_per_batch']
  pair = [count] if isinstance(count, int) else count
  if not (1 <= len(pair) <= 2 and all(isinstance(n, int) for n in pair)):
    raise ValueError(
        'data.negatives_per_batch must be a whole number or a pair (lowest, highest), '
        f'got {count}'
    )
  specs = {key: config[key] for key, value in BASE.items()
           if isinstance(value, dict) and 'name' in value}
  specs['data.positives'] = config['data']['positives']
  for group, sets, keys in (
      ('evals', config['evals'], EVAL_KEYS),
      ('data.negatives', config['data']['negatives'], NEGATIVE_KEYS)):
    for name, entry in sets.items():
      if not re.fullmatch(r'\w[\w.+-]*', name):  # there will be files of this name
        raise ValueError(
            f'{group}: {name!r} must be of letters, digits, and _ . + - alone')
      check_keys(entry, dict.fromkeys(keys), f'{group}.{name}.')
      specs[f'{group}.{name}.source'] = entry.get('source')
  for key, spec in specs.items():
    if not isinstance(spec, dict) or not isinstance(spec.get('name'), str):
      raise ValueError(f"{key} must be {{'name': ..., arguments}}, got {spec!r}")


def _at(config, key):
  for part in key.split('.'):
    config = config[part]
  return config
