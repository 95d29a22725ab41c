"""Prepares the data sets of tfds that a config names, and says which are missing.

    prepare(config)                         # downloads, and fills the array cache
    check([('nat/cifar10:nat', config)])    # NotPrepared: a list of what is missing
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from nat_jax import data, schema
from nat_jax.commands import config_file, flags, plan
from nat_jax.data import tfds_source
from nat_jax.tasks import images


class Source(NamedTuple):
  """A source of tfds in a config.

  Attributes:
    place: its key, such as 'data.positives' or 'evals.svhn'; of a run that is trained
      before, such as 'measures.features: data.positives'.
    spec: of the source.
    optional: whether the run leaves it out where it is not prepared.
  """

  place: str
  spec: Mapping[str, Any]
  optional: bool


def sources(config: Mapping[str, Any]) -> list[Source]:
  """Lists the sources of tfds of a config, and of the runs that are trained before it.

  Training negatives are listed only if there are any per batch.

  Args:
    config: in plain JSON types.
  """
  settings = dict(config.get('data', {}))
  if 'negatives_per_batch' in settings and not images.most_negatives(settings):
    settings.pop('negatives', None)
  parts = {'data': settings} | {
      key: config[key] for key in ('evals', 'measures') if key in config}
  return [one for key, part in parts.items() for one in _walk(part, key, False)]


def _walk(value, place, optional) -> Iterator[Source]:
  """Yields the sources of tfds in a part of a config."""
  if not isinstance(value, Mapping):
    return
  if value.get('name') == 'tfds':
    yield Source(place.removesuffix('.source'), value, optional)
  if 'name' in value and value.get('config') and value.get('workdir'):
    needed = config_file.load(*config_file.split(value['config']))
    if not plan.is_done(value['workdir'], needed):
      yield from (one._replace(place=f'{place}: {one.place}')
                  for one in sources(schema.plain(needed)))
  for key, inner in value.items():
    yield from _walk(inner, f'{place}.{key}', optional or value.get('optional', False))


def check(configs: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
  """Checks that the data sets of configs are at hand; reads no images.

  Args:
    configs: (name on the command line, such as 'nat/cifar10:nat', config) of each.

  Raises:
    data.NotPrepared: some are missing; the message lists them and says how to prepare
      them, or to do without evaluation sets.
  """
  missing: dict[str, dict[str, None]] = {}  # data set -> its places, in order
  lacking = []
  for name, config in configs:
    found = [one for one in sources(schema.plain(config))
             if not one.optional and not tfds_source.is_ready(one.spec)]
    for one in found:
      missing.setdefault(one.spec['dataset'], {})[one.place] = None
    lacking += [name] * bool(found)
  if missing:
    listed = '\n'.join(f'  {dataset:<20} {", ".join(places)}'
                       for dataset, places in missing.items())
    commands = '\n'.join(
        f'  python -m nat_jax.main --mode=prepare --config {name}'
        for name in dict.fromkeys(lacking))
    raise data.NotPrepared(
        'these data sets are neither in the array cache '
        f'({data.cache_root()}) nor prepared as ArrayRecord in '
        f'{tfds_source.prepared_root()}:\n{listed}\nPrepare them, which downloads them '
        f'and needs TensorFlow, by\n  {tfds_source.EXTRA}\n{commands}\nor leave an '
        'evaluation set out: --config.evals.NAME={}')


def prepare(config: Mapping[str, Any]) -> None:
  """Prepares the data sets of a config that are missing, and fills the array cache.

  Args:
    config: of a run, or a ConfigDict.

  Raises:
    ValueError: TensorFlow is not installed, a data set is not in the catalogue of tfds,
      or it was prepared in another format than ArrayRecord.
  """
  found = sources(schema.plain(config))
  if not found:
    print('the config names no data set of tfds')
  for place, spec, optional in found:
    if not tfds_source.is_ready(spec):
      try:
        tfds_source.prepare(spec['dataset'], spec.get('data_dir'))
      except data.NotPrepared:
        if not optional:
          raise
        print(f'{place}: left out, {spec["dataset"]!r} is not in the catalogue of tfds')
        continue
    num = len(data.load(spec).label)  # fills the array cache
    print(f'{place}: {num:,} images of {spec["dataset"]} {spec.get("split", "train")}',
          flush=True)


def run(argv: Sequence[str] = ()) -> None:
  """--mode=prepare: prepares the data sets of --config."""
  del argv
  flags.require([flags.CONFIG], 'prepare')
  prepare(flags.CONFIG.value)
