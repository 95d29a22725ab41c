"""Every key that a config may have, its default, and what it means.

    base = base_of(config)      # one of DEFAULTS, by config['task']
    config = plain(config)      # a dict; ValueError: an unknown key, a senseless value

What each value may be stands in `nat_jax.schema.bounds`. Specs are
`{'name': ..., **arguments}` and are looked up in the table that the comment beside them
names.
"""

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

from nat_jax.schema import bounds

RUN: dict[str, Any] = dict(  # how it is run; may change when a run is resumed
    mode='jit',  # or 'pmap'
    placement='resident',  # pixels on the device; 'streamed': gathered by the host
    updates_per_call=50,  # updates between two looks at the metrics
    log_every=100,
    eval_every=0,  # 0: at the end only
    checkpoint_every=500,  # 0: at the end only
    keep=2,  # newest checkpoints kept, beside the best
    tensorboard=True,
)

CLASSIFY: dict[str, Any] = dict(
    task='classify',  # nat_jax.tasks.TASKS
    name='experiment',  # printed in reports
    variant='',  # what this run is among its siblings: 'nat', 'baseline', ...
    trainer={'name': 'supervised'},  # nat_jax.tasks.classify.TRAINERS
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
        batch_size=128,  # positives per batch (with inside=True: examples)
        negatives_per_batch=(5, 25),  # drawn uniformly, both ends included
        inside=False,  # True: negatives take the places of positives
        augment=[],  # nat_jax.data.AUGMENTS, in this order
        treatment={},  # of the negatives, in the step: tasks.classify.TREATMENTS
    ),
    # name -> {'source': ..., 'positive': bool, 'seen': True|False|None, 'part': PARTS,
    #   'type': nat_jax.tasks.classify.EVALUATORS, 'every': updates; 0: at the end only.
    #   Without 'every' run.eval_every holds for part 'validation', and for all sets if
    #   none is of that part}
    evals={},
    # The positive eval that the negatives of part 'test' are compared with; those of
    # the other parts are compared with the one positive eval of their part.
    reference='test',
    eval_batch_size=512,
    # Figure of an eval of part 'validation' whose best checkpoint is kept too, such as
    # 'validation/accuracy'; '': none.
    best='',
    compare_with='',  # variant of this config file to train too and print beside
    run=RUN,
)

GAN: dict[str, Any] = dict(
    task='gan',
    name='experiment',
    variant='',  # 'am', 'nat3', ...
    trainer=dict(
        name='gan',  # nat_jax.tasks.gan.TRAINERS
        n_critic=1,  # updates of the discriminator for one of the generator
        negatives_every=1,  # external negatives take part in every n-th step
        joint=True,  # negatives in one pass with generated images; False: in their own
        negative_weight=None,  # of their mean; None: one mean with generated images
        simultaneous=False,  # the generator learns from D as it was before the step
        labels='dynamic',  # of generated images; or 'predefined'
    ),
    seed=0,
    steps=1000,  # updates of the generator
    num_classes=10,
    generator={'name': 'dcgan_generator', 'latent': 100},  # nat_jax.models.GENERATORS
    discriminator={'name': 'dcgan_discriminator'},  # nat_jax.models.DISCRIMINATORS
    loss={'name': 'nat_gan'},  # nat_jax.losses.GAN_OBJECTIVES
    penalties=[],  # of the discriminator: nat_jax.losses.PENALTIES
    optimizer={'name': 'adam', 'b1': 0.5, 'b2': 0.999},  # of both networks
    # To 0 at update `over` (0: the last).
    schedule={'name': 'linear', 'learning_rate': 4e-4, 'over': 0},
    disc_schedule={},  # of the discriminator, where it differs
    grad_clip=0.0,
    ema_decay=0.0,  # moving average of the generator, which then makes the samples
    data=dict(
        positives={'name': 'digits'},
        negatives={},
        mean=(0.5,),
        std=(128 / 255,),  # (x - 127.5) / 128, as AM-GAN
        batch_size=100,
        negatives_per_batch=0,  # the X of "NAT-GAN X"
        augment=[],
    ),
    # name -> {'type': nat_jax.tasks.gan.EVALUATORS, 'every': updates; 0: at the end
    #   only; without it run.eval_every}
    evals={'samples': {'type': 'samples'}},
    measures=dict(  # of the evaluations of type 'samples'
        reference={},  # a source of real images to compare with; {}: the positives
        num_samples=10_000,  # generated; at most as many real images
        batch_size=100,  # of sampling: batch statistics depend on it
        features={'name': 'pixels'},  # nat_jax.tasks.gan.FEATURES
        independent={},  # the same, for a second Inception Score: of other labels
        splits=1,  # of the Inception Score
        neighbours=5,  # k of precision, recall, density, coverage
    ),
    compare_with='',
    run=RUN,
)

GAAN: dict[str, Any] = {  # GANs with an encoder; their losses are fixed
    **{key: value for key, value in GAN.items() if key != 'loss'},
    'task': 'gaan',
    'trainer': dict(
        name='gaan',  # nat_jax.tasks.gaan.TRAINERS
        recon_weight=0.05,  # of reconstructions among what D takes for real
        distance_weight=1.0,  # of the distances between codes in the encoder's loss
    ),
    'encoder': {'name': 'mlp'},  # nat_jax.models.MODELS, without batch statistics
}

POINTS: dict[str, Any] = dict(  # GANs of points on a line or in a plane
    task='points',
    name='experiment',
    variant='nat',
    seed=0,  # the first of num_seeds
    num_seeds=10,  # trained side by side
    steps=5000,
    data={'name': 'gaussian1d'},  # nat_jax.data.POINTS
    batch_size=8,
    negatives=True,  # False: the original GAN
    negatives_per_batch=8,
    negative_weight=None,  # of their mean; None: one mean with generated points
    noise={'name': 'normal'},  # nat_jax.tasks.points.NOISES
    generator={'name': 'toy_generator', 'latent': 1},
    discriminator={'name': 'toy_discriminator'},
    optimizer={'name': 'adam'},  # of both networks
    schedule={'name': 'constant', 'learning_rate': 1e-3},
    num_samples=2000,  # for the figures of merit
    tolerance=10.0,  # converged: distance below this multiple of the floor
    compare_with='',
    # eval_every: looks at samples and boundary, which divide the steps
    run={**RUN, 'log_every': 500, 'eval_every': 100, 'checkpoint_every': 1000},
)
DEFAULTS = {'classify': CLASSIFY, 'gan': GAN, 'gaan': GAAN, 'points': POINTS}
GROUPS = ('data', 'measures', 'run')


def base_of(config: dict[str, Any]) -> dict[str, Any]:
  """The keys and defaults that a config is held against, by its task.

  Raises:
    ValueError: a task that does not exist.
  """
  name = config.get('task', 'classify')
  if not isinstance(name, str) or name not in DEFAULTS:
    raise ValueError(f'unknown task {name!r}; valid: {", ".join(DEFAULTS)}')
  return DEFAULTS[name]


def groups(base: dict[str, Any]) -> list[str]:
  """The keys of `base` that are merged key by key, and not replaced whole."""
  return [key for key in GROUPS if key in base and 'name' not in base[key]]


def check_keys(given: dict[str, Any], known: dict[str, Any], prefix: str = '') -> None:
  """Raises ValueError for a key of `given` that is not in `known`, or no dict."""
  if not hasattr(given, 'keys'):  # a ConfigDict is no Mapping
    raise ValueError(
        f'{prefix[:-1] or "a config"} must be a dict with keys of '
        f'{", ".join(sorted(known))}, got {bounds.shown(given)}')
  unknown = sorted(set(given) - set(known), key=str)
  if unknown:
    raise ValueError(
        f'unknown config key {prefix}{unknown[0]!r}; valid keys: '
        + ', '.join(prefix + key for key in sorted(known))
    )


def check_override(key: str) -> None:
  """Raises ValueError for --config.KEY of a key that no config has."""
  first, _, rest = key.partition('.')
  check_keys({first: 0}, dict.fromkeys(k for base in ALL for k in base))
  inner = [base[first] for base in ALL if first in groups(base)]
  if rest and len(inner) == sum(first in base for base in ALL):
    second = re.split(r'[.\[]', rest)[0]
    check_keys(
        {second: 0}, dict.fromkeys(k for one in inner for k in one), f'{first}.')


ALL = tuple(DEFAULTS.values())


# Of config.json, eval.json and checkpoints, under the key 'format'. Format 1, which
# version 0.1 wrote, has no such key.
FORMAT = 2


class Newer(ValueError):
  """A later version wrote something in a format that this one does not know."""


def check_format(found: Mapping[str, Any], where: str) -> None:
  """Raises Newer unless this version knows the format of what was read.

  Args:
    found: what was read, with or without the key 'format'.
    where: it was read, for the message.
  """
  number = found.get('format', 1)
  if number not in range(1, FORMAT + 1):
    raise Newer(
        f'{where} has format {bounds.shown(number)}, and this version of nat_jax knows '
        f'formats up to {FORMAT}: take the version that wrote it, or a later one')


def upgrade(config: dict[str, Any]) -> dict[str, Any]:
  """A config saved by any version in the form of this one.

  What a config lacks is added, and the number of its format is removed. Version 0.1

  - had no key `task`: the name of the trainer told it;
  - had a weight of 0 where negatives share one mean with generated examples;
  - gave GANs of points a number of looks, `snapshots`, where there is a period now;
  - chose the best checkpoint by any evaluation set, where it must be one of part
    'validation' now. The set that `best` names becomes one, unless it is the reference
    or a negative set: such a choice is dropped.

  Raises:
    Newer: a later version saved it.
  """
  check_format(config, 'a config')
  config = copy.deepcopy(config)
  config.pop('format', None)
  if 'task' not in config:
    trainer = config.get('trainer', {})
    config['task'] = {'gan': 'gan', 'points': 'points'}.get(
        trainer.get('name'), 'classify')
    {'classify': _upgrade_best, 'gan': _upgrade_weight, 'points': _upgrade_points}[
        config['task']](config)
  base = base_of(config)
  merged = {key: {**base[key], **config.get(key, {})} for key in groups(base)}
  return copy.deepcopy({**base, **config, **merged})


def _upgrade_best(config):
  evals, best = config.get('evals', {}), config.get('best', '')
  chosen = evals.get(best.partition('/')[0], {})
  if not best or chosen.get('part'):
    return
  if chosen.get('positive') and chosen is not evals.get(
      config.get('reference', CLASSIFY['reference'])):
    chosen['part'] = VALIDATION
  else:
    config['best'] = ''


def _upgrade_weight(config):
  trainer = config['trainer']
  if 'negative_weight' in trainer:
    trainer['negative_weight'] = trainer['negative_weight'] or None


def _upgrade_points(config):
  del config['trainer']
  config['negative_weight'] = config.get('negative_weight') or None
  snapshots = config.pop('snapshots', None)
  if snapshots:
    config['run'] = {'eval_every': config['steps'] // snapshots}


EVAL_KEYS = ('type', 'every')  # of an entry of `evals`
SET_KEYS = ('source', 'positive', 'seen', 'part', *EVAL_KEYS)  # where it is a set
PARTS = TEST, VALIDATION, CALIBRATION = bounds.PARTS
NEGATIVE_KEYS = ('source', 'weight')
LISTS = ('data.augment', 'penalties')  # of specs
SETS = {'evals': SET_KEYS, 'data.negatives': NEGATIVE_KEYS}  # name -> such an entry


def check_config(config: dict[str, Any]) -> None:
  """Raises ValueError unless `config` has the keys of its base, with sense."""
  base = base_of(config)
  for given, known, prefix in (
      (config, base, ''), *((config.get(g, {}), base[g], f'{g}.') for g in groups(base))
  ):
    check_keys(given, known, prefix)
    missing = sorted(set(known) - set(given))
    if missing:
      raise ValueError(
          f'config key {prefix}{missing[0]!r} is missing; start the config from '
          'nat_jax.schema.presets.experiment(...), which fills in every default'
      )
  for key in base:
    if key in groups(base):
      for inner in base[key]:
        _check_value(f'{key}.{inner}', config[key][inner])
    elif key == 'evals' and 'reference' not in base:
      _check_entries(key, config[key], EVAL_KEYS)
    else:
      _check_value(key, config[key])


def _check_value(key, value):
  """Checks the value of a key: a set of entries, a list of specs, or one by itself."""
  if key in SETS:
    _check_entries(key, value, SETS[key])
  elif key in LISTS:
    if not isinstance(value, list | tuple):
      raise ValueError(f'{key} must be a list of specs, got {bounds.shown(value)}')
    for i, spec in enumerate(value):
      bounds.check(f'{key}[{i}]', f'{key}.*', spec)
  else:
    bounds.check(key, key, value)


def _check_entries(key, value, known):
  """Checks a dict of entries by name, each with some of the keys `known`.

  An entry needs a source if it may have one.
  """
  if not isinstance(value, dict):
    raise ValueError(
        f'{key} must be a dict, name -> {{{", ".join(known)}}}, got '
        f'{bounds.shown(value)}')
  for name, entry in value.items():
    # There will be files of this name.
    if not re.fullmatch(r'\w[\w.+-]*', name) or not bounds.NAME.holds(name):
      raise ValueError(
          f'{key}: {bounds.shown(name)} must be of letters, digits, and _ . + - '
          'alone, and at most 100 bytes long')
    check_keys(entry, dict.fromkeys(known), f'{key}.{name}.')
    given = {'source': None, **entry} if 'source' in known else entry
    for inner, one in given.items():
      bounds.check(f'{key}.{name}.{inner}', f'{key}.*.{inner}', one)


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config (a ConfigDict or a dict) as JSON would give it back, checked.

  It may be what config.json holds: the number of the format is removed.

  Raises:
    ValueError: as `check_config`, or it holds what JSON cannot.
    Newer: it was read from a config.json that a later version wrote.
  """
  config = config.to_dict() if hasattr(config, 'to_dict') else config
  if not isinstance(config, dict):
    raise ValueError(
        'a config must be what nat_jax.schema.presets.experiment(...) returns, got '
        f'{bounds.shown(config)}')
  check_format(config, 'a config')
  config = {key: value for key, value in config.items() if key != 'format'}
  try:
    config = json.loads(json.dumps(config))
  except (TypeError, ValueError, RecursionError) as error:
    raise ValueError(
        f'a config holds numbers, text, True, False, None, lists and dicts: {error}'
    ) from error
  try:
    check_config(config)
  except RecursionError:
    raise ValueError('a config must not be nested hundreds of levels deep') from None
  return config
