"""The checks of a config, and its keys with their defaults and meanings (`defaults`).

    base = base_of(config)      # one of DEFAULTS, by config['task']
    config = plain(config)      # a dict; ValueError: an unknown key, an invalid value

`nat_jax.schema.bounds` holds the valid values.
"""

import copy
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from nat_jax import names
from nat_jax.schema import bounds
from nat_jax.schema.defaults import CLASSIFY, DEFAULTS

GROUPS = ('data', 'measures', 'run')


def base_of(config: dict[str, Any]) -> dict[str, Any]:
  """Returns the keys and defaults of the task of a config: an entry of DEFAULTS.

  Raises:
    ValueError: an unknown task.
  """
  name = config.get('task', 'classify')
  if not isinstance(name, str) or name not in DEFAULTS:
    raise ValueError(names.unknown('task', name, DEFAULTS))
  return DEFAULTS[name]


def groups(base: dict[str, Any]) -> list[str]:
  """Returns the keys of `base` whose dicts are merged key by key, not replaced."""
  return [key for key in GROUPS if key in base and 'name' not in base[key]]


def periods(config: Mapping[str, Any]) -> dict[str, int]:
  """Returns after how many updates each entry of `evals` is evaluated; 0: at the end.

  It is `every` of the entry or, without one, `run.eval_every`.
  """
  return {name: config['run']['eval_every'] if entry.get('every') is None
          else entry['every'] for name, entry in config['evals'].items()}


def check_keys(
    given: dict[str, Any], known: dict[str, Any], prefix: str = '',
    elsewhere: Sequence[str] = (),
) -> None:
  """Raises ValueError if `given` is not a dict, or has a key that is not in `known`.

  Args:
    given: to check.
    known: dict with the valid keys.
    prefix: of the keys in the message, such as 'data.'.
    elsewhere: dotted keys, of which the message suggests the first; (): a key of that
      name in one of the dicts that `known` holds or, without one, the most similar key.
  """
  if not hasattr(given, 'keys'):  # a ConfigDict is no Mapping
    raise ValueError(
        f'{prefix[:-1] or "a config"} must be a dict with keys of '
        f'{", ".join(sorted(known))}, got {bounds.shown(given)}')
  unknown = sorted(set(given) - set(known), key=str)
  if unknown:
    key = unknown[0]
    hint = names.hint(key, known, elsewhere or [
        prefix + one for one in same_name(str(key), known)])
    raise ValueError(
        f'unknown config key {prefix}{key!r}{hint}; '
        'valid keys: ' + ', '.join(prefix + key for key in sorted(known))
    )


def same_name(key: str, config: Mapping[str, Any]) -> list[str]:
  """The keys in the dicts of a config that are called as the last part of a key.

  Args:
    key: dotted, such as 'image_size'.
    config: with groups of keys, such as 'data', and specs.

  Returns:
    Dotted keys, such as ['data.image_size'].
  """
  last = key.rpartition('.')[2]
  return [f'{group}.{last}' for group, part in config.items()
          if hasattr(part, 'keys') and last in part and last != 'name']


def check_override(key: str, value: str = '') -> None:
  """Raises ValueError if --config.KEY=VALUE cannot change a key in any config.

  Args:
    key: dotted, such as 'run.log_every'. A whole group such as 'data' cannot be changed
      at once.
    value: as text. That of a spec, such as 'model', is a dict.
  """
  first, _, rest = key.partition('.')
  elsewhere = [one for base in ALL for one in same_name(key, base)]
  check_keys(
      {first: 0}, dict.fromkeys(k for base in ALL for k in base), elsewhere=elsewhere)
  inner = [base[first] for base in ALL if first in groups(base)]
  if rest and len(inner) == sum(first in base for base in ALL):
    second = re.split(r'[.\[]', rest)[0]
    check_keys(
        {second: 0}, dict.fromkeys(k for one in inner for k in one), f'{first}.',
        elsewhere)
  if key in GROUPS:
    raise ValueError(
        f'{key} is a group of keys; write --config.{key}.KEY=VALUE for one of '
        f'{", ".join(sorted({k for one in inner for k in one}))}')
  if key in bounds.SPECS and not value.lstrip().startswith('{'):
    name = value or 'NAME'
    raise ValueError(
        f'{key} is a spec; write --config.{key}="{{\'name\': {name!r}, ...}}" with its '
        f'arguments, or --config.{key}.name={name} and --config.{key}.ARGUMENT=VALUE '
        'for what is in the config')


ALL = tuple(DEFAULTS.values())


# Number of the format of config.json, eval.json and checkpoints, which they hold under
# the key 'format'. Version 0.1 wrote format 1, without this key.
FORMAT = 2


class Newer(ValueError):
  """A file has a format that a later version of nat_jax introduced."""


def check_format(found: Mapping[str, Any], where: str) -> None:
  """Raises Newer unless this version can read the format of a file.

  Args:
    found: content of the file, with or without the key 'format'.
    where: name of the file, for the message.

  Raises:
    Newer: the format is not 1..FORMAT.
  """
  number = found.get('format', 1)
  if number not in range(1, FORMAT + 1):
    raise Newer(
        f'{where} has format {bounds.shown(number)}, but this version of nat_jax reads '
        f'formats up to {FORMAT}: use the version that wrote it, or a later one')


def upgrade(config: dict[str, Any]) -> dict[str, Any]:
  """Converts a config that any version has saved to the form of this version.

  Missing keys get their defaults, and the key `format` is removed. Differences of
  version 0.1:

  - It had no key `task`: the task followed from the name of the trainer.
  - negative_weight=0 meant one mean over negatives and generated examples; now that is
    None.
  - GANs of points had a number of evaluations, `snapshots`, instead of a period.
  - `best` could name a figure of any set; now the set must be of part 'validation'. The
    set becomes one of that part if it is positive and not the reference; otherwise
    `best` becomes ''.

  Args:
    config: as saved; not changed.

  Returns:
    A new config.

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
  if config['task'] == 'gaan':  # whose trainer has keys that were added later
    merged['trainer'] = {**base['trainer'], **config.get('trainer', {})}
  # JSON types, as in what was saved: some defaults are tuples.
  return json.loads(json.dumps({**base, **config, **merged}))


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


MEASURED = 'evals', 'reference', 'eval_batch_size', 'measures'  # keys of evaluations
EVAL_KEYS = ('type', 'every')  # keys of each entry of `evals`
SET_KEYS = (  # of those that are evaluation sets
    'source', 'positive', 'seen', 'optional', 'part', 'corrupt', *EVAL_KEYS)
ENTRY_KEYS = {  # task -> keys of each entry of its `evals`, where not EVAL_KEYS
    'advgan': ('source', 'classifier', *EVAL_KEYS),
    'classify': SET_KEYS,
    'segment': ('source', 'seen', 'part', 'every'),
    'semi_supervised': SET_KEYS,
}
PARTS = TEST, VALIDATION, CALIBRATION = bounds.PARTS
ACCURACY_NCR = 'accuracy_ncr'  # default `type` of an entry of `evals` with a source
CORRUPTION = 'corruption'  # `type` of an entry of `evals` with corrupted positives
NEGATIVE_KEYS = ('source', 'weight')
LISTS = ('data.augment', 'penalties')  # keys whose values are lists of specs
SETS = {'data.negatives': NEGATIVE_KEYS}  # dicts name -> entry, besides `evals`


def check_config(config: dict[str, Any]) -> None:
  """Raises ValueError unless `config` has all keys of its task, with valid values.

  Args:
    config: a plain dict.
  """
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
    elif key == 'evals':
      _check_entries(key, config[key], ENTRY_KEYS.get(config['task'], EVAL_KEYS))
    else:
      _check_value(key, config[key])
  _check_best(config)


def _check_best(config):
  """Raises ValueError if `best` is a rate at a threshold at which it is always 1."""
  name, _, rest = config.get('best', '').partition('/')
  metric, _, t = rest.partition('/')
  if metric not in ('ncr', 'par') or not re.fullmatch(r'\d*\.?\d+', t):
    return
  classes = config['num_classes']
  # A background output takes its share of the probability.
  if float(t) * classes <= 1 and config['loss']['name'] != 'background':
    raise ValueError(
        f'best={config["best"]!r} says nothing: the largest of {classes} probabilities '
        f'is at least 1/{classes}, so that this rate is 1 for every network; use a '
        f'threshold above {1 / classes:.3g}, or best={name + "/auroc"!r}')


def _check_value(key, value):
  """Checks the value of a key: a dict of entries, a list of specs or a single value."""
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
  """Checks a dict of entries, each with some of the keys `known`.

  If `known` has the key 'source', each entry must have it.
  """
  if not isinstance(value, dict):
    raise ValueError(
        f'{key} must be a dict, name -> {{{", ".join(known)}}}, got '
        f'{bounds.shown(value)}')
  for name, entry in value.items():
    # Files of the run are named after the entry.
    if not re.fullmatch(r'\w[\w.+-]*', name) or not bounds.NAME.holds(name):
      raise ValueError(
          f'{key}: the name {bounds.shown(name)} must start with a letter, a digit or '
          '_, consist of letters, digits and _ . + - only, and have at most 100 bytes')
    check_keys(entry, dict.fromkeys(known), f'{key}.{name}.')
    given = {'source': None, **entry} if 'source' in known else entry
    for inner, one in given.items():
      bounds.check(f'{key}.{name}.{inner}', f'{key}.*.{inner}', one)


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
  """Checks a config and returns it as a dict of JSON types.

  Args:
    config: a ConfigDict or a dict. It may be the content of a config.json; the key
      `format` is removed.

  Raises:
    ValueError: see `check_config`; or a value that JSON cannot represent.
    Newer: it is the content of a config.json that a later version wrote.
  """
  config = config.to_dict() if hasattr(config, 'to_dict') else config
  if not isinstance(config, dict):
    raise ValueError(
        'a config must be what nat_jax.schema.presets.experiment(...) returns, got '
        f'{bounds.shown(config)}')
  check_format(config, 'a config')
  config = {key: value for key, value in config.items() if key != 'format'}
  if isinstance(config.get('evals'), dict):  # --config.evals.NAME={} leaves one out
    config['evals'] = {name: one for name, one in config['evals'].items() if one != {}}
  try:
    config = json.loads(json.dumps(config))
  except (TypeError, ValueError, RecursionError) as error:
    raise ValueError(
        'a config may hold numbers, text, True, False, None, lists and dicts only, got '
        f'another value ({error}); replace it'
    ) from error
  try:
    check_config(config)
  except RecursionError:
    raise ValueError('a config must not be nested hundreds of levels deep') from None
  return config
