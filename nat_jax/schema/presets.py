"""Building blocks of configs: data sets, their normalisation, held-out sets, defaults.

    from nat_jax.schema import presets

    def get_config(variant='nat'):
      return presets.experiment(name='digits', variant=variant, steps=600, ...)

A config lists only the keys that differ from the defaults of `nat_jax.schema`.
"""

import copy
import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from nat_jax import schema

NORMALISATION = {  # data set -> mean and std of pixels in [0, 1], per channel
    'cifar10': dict(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    # The std of pytorch-cifar is the mean of per-image stds; the one above is taken
    # over all pixels.
    'cifar10_pytorch': dict(
        mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
    'svhn_cropped': dict(mean=(0.4377, 0.4438, 0.4728), std=(0.1980, 0.2010, 0.1970)),
    'mnist': dict(mean=(0.1307,), std=(0.3081,)),
    'imagenet': dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    'digits': dict(mean=(0.3053,), std=(0.3760,)),  # of scikit-learn's digits / 16
}


def tfds(dataset: str, split: str, **kwargs: Any) -> dict[str, Any]:
  """The spec of a split of a tfds data set; `kwargs` are those of `data.from_tfds`."""
  return {'name': 'tfds', 'dataset': dataset, 'split': split, **kwargs}


def negative(dataset: str, split: str, **kwargs: Any) -> dict[str, Any]:
  """An entry of `data.negatives` or a negative entry of `evals`."""
  return {'source': tfds(dataset, split, **kwargs)}


def unlisted(dataset: str, split: str) -> dict[str, Any]:
  """A negative entry of `evals`, of a data set that the catalogue of tfds lacks.

  It is left out, with a warning, where there is neither a prepared builder of this name
  nor a folder in the array cache.
  """
  return {**negative(dataset, split), 'optional': True}


def positive(dataset: str, split: str, **kwargs: Any) -> dict[str, Any]:
  """A positive entry of `evals`."""
  return {'source': tfds(dataset, split, **kwargs), 'positive': True}


NOISE = {'source': {'name': 'normal_noise', 'num': 10_000}}  # in normalised space

SHARES = {'train': 60, 'validation': 10, 'calibration': 10, 'test': 20}  # part -> %
FOLDERS = {  # name of a folder of pictures that stands for a part -> the part
    **{part: part for part in SHARES}, 'training': 'train', 'testing': 'test',
    **dict.fromkeys(('val', 'valid', 'dev'), 'validation')}

# The test negatives of the paper's CIFAR-10 and SVHN classifiers (CIFAR-100, ILSVRC,
# noise), and Tiny-ImageNet.
NEGATIVES_32 = {
    'cifar100_train': negative('cifar100', 'train'),
    'cifar100_test': negative('cifar100', 'test'),
    'tiny_imagenet': unlisted('tiny_imagenet_val32', 'test'),
    'ilsvrc': unlisted('ilsvrc_samples32', 'test'),
    'noise': NOISE,
}

POINTS = dict(  # networks and batch sizes of GANs of points
    batch_size=64,
    negatives_per_batch=64,
    noise={'name': 'normal'},
    generator={
        'name': 'toy_generator', 'latent': 2, 'widths': (32, 32),
        'activation': 'relu'},
    discriminator={'name': 'toy_discriminator', 'widths': (32, 32)},
)

MOST_KINDS = 20  # of negatives for the test only that get an evaluation set each

CROP_FLIP = [{'name': 'crop', 'pad': 4}, {'name': 'flip'}]


def corrupted(source: Mapping[str, Any], num: int = 500) -> dict[str, dict[str, Any]]:
  """Entries of `evals`: positives under common corruptions, at five strengths each.

  They are evaluated at the end of the run: accuracy, and the share that is accepted.

  Args:
    source: of positives of part 'test': the dict of the set `reference`. It is then
      loaded once, and in the config the entries share it with this set, so that
      --config.evals.test.source.path=PATH changes all of them.
    num: number of images, a random sample; 0: all.

  Returns:
    {'corrupted_NAME_STRENGTH': entry}.
  """
  return {
      f'corrupted_{name}_{strength}': {
          'source': source, 'positive': True, 'type': schema.CORRUPTION, 'every': 0,
          'corrupt': {'name': name, 'strength': strength, 'num': num}}
      for name in ('noise', 'blur', 'contrast', 'jpeg') for strength in range(1, 6)}


def three(names: str) -> tuple[str, str, str]:
  """Splits 'POSITIVES,NEGATIVES,STRANGERS' of a variant; '' for what is not named.

  Args:
    names: of folders or files. 'POSITIVES' and 'POSITIVES,NEGATIVES' will do, and so
      will 'POSITIVES,,STRANGERS', where the negatives are made or in the first file.

  Raises:
    ValueError: an empty name at the end, or more than three.
  """
  found = [os.path.expanduser(name) for name in names.split(',')]
  if len(found) > 3 or (len(found) > 1 and not found[-1].strip()):
    raise ValueError(
        'expected POSITIVES, POSITIVES,NEGATIVES, POSITIVES,NEGATIVES,STRANGERS or '
        'POSITIVES,,STRANGERS, without spaces after commas and without commas in '
        f'names, got {names!r}')
  return tuple([*found, '', ''][:3])


def unseen(
    kinds: Iterable[tuple[str, Mapping[str, Any]]], taken: Collection[str]
) -> dict[str, dict[str, Any]]:
  """Entries of `evals`: kinds of negatives that are tested on and never trained on.

  Args:
    kinds: (name of a kind, such as that of its folder; its source).
    taken: the names of the other sets.

  Returns:
    {name: entry}; in a name, _ stands for what no name of a set may have, and for dots.

  Raises:
    ValueError: a name is too long, or taken but for upper and lower case, in which the
      names of files may not differ.
  """
  entries: dict[str, dict[str, Any]] = {}
  for kind, source in kinds:
    name = re.sub(r'[^\w+-]|^\W', '_', kind)
    same = [one for one in (*taken, *entries) if one.casefold() == name.casefold()]
    if same or len(name.encode()) > 100:
      why = f'another set is called {same[0]!r}' if same else 'it has over 100 bytes'
      raise ValueError(
          f'expected another name for {kind!r}, a kind of negatives for the test only: '
          f'{why}; rename the folder, file or class')
    entries[name] = {'source': source}
  return entries


def hold_out(
    positives: Mapping[str, Any], negatives: Mapping[str, Mapping[str, Any]],
    evals: Mapping[str, Mapping[str, Any]], percent: int = 5,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
  """Holds out validation and calibration sets from training positives and negatives.

  The last `percent` of each training split become evaluation sets of part 'calibration'
  (for thresholds), those before them sets of part 'validation' (for checkpoints and
  recipes). They are called 'calibration' and 'validation' for positives, and
  'calibration_NAME' and 'validation_NAME' for negatives. Percentages are of the whole
  split: with 5 %, 'test[:50%]' becomes [:40%], [40%:45%] and [45%:50%].

  Args:
    positives: source with a split such as 'train' or 'test[:50%]'.
    negatives: as in `data.negatives`; synthetic ones, without a split, are unchanged.
    evals: the test sets. One with the source of training negatives gets what is left
      of that source.
    percent: held out for validation, and as much for calibration.

  Returns:
    (positives, negatives, evals) for a config.
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


def part_splits(named: Collection[str] = (), whole: str = 'all') -> dict[str, str]:
  """The split of each part of a source: 60, 10, 10 and 20 %, where it does not say.

  Args:
    named: parts that the source has; the others are taken from its part 'train', in
      their share of it. (): it has none, and all are shares of the split `whole`.
    whole: such as 'train' of a data set of tfds.

  Returns:
    {part: split} of SHARES: {'train': 'train[:90%]', 'validation': 'validation',
    'calibration': 'train[90%:]', 'test': 'test'} for the three that are named.

  Raises:
    ValueError: some parts are named, but not 'train'.
  """
  if named and 'train' not in named:
    raise ValueError(
        f'expected a part train, got only {", ".join(sorted(named))}; add one, or name '
        'none')
  base = 'train' if named else whole
  taken = [part for part in SHARES if part not in named and part != 'train']
  splits, bound = {}, 100
  for part in reversed(taken):
    end, bound = '' if bound == 100 else f'{bound}%', bound - SHARES[part]
    splits[part] = f'{base}[{bound}%:{end}]'
  splits['train'] = f'{base}[:{bound}%]' if taken else base
  return {part: splits.get(part, part) for part in SHARES}


def inner_folders(path: str | os.PathLike) -> list[str]:
  """The names of the folders in a folder, in order, without hidden ones; [] if none."""
  if not os.path.isdir(path):
    return []
  return sorted(one.name for one in os.scandir(path)
                if one.is_dir() and one.name[0] != '.')


def part_folders(path: str | os.PathLike) -> dict[str, str]:
  """The folders of parts in a folder of pictures, such as pets/train and pets/val.

  A folder has parts if the names of all its folders are in FOLDERS, in upper or lower
  case, and one is 'train'. Hidden folders are left out.

  Args:
    path: of the folder.

  Returns:
    {part: name of its folder}, in the order of SHARES; {}: no parts, or no folder.

  Raises:
    ValueError: two folders of one part; or folders of parts, and others beside them.
  """
  inner = inner_folders(path)
  parts = [FOLDERS.get(name.lower()) for name in inner]
  if 'train' not in parts:
    return {}
  others = [name for name, part in zip(inner, parts, strict=True) if part is None]
  if others:
    classes = inner_folders(os.path.join(path, inner[parts.index('train')]))
    alike = [name for name in others
             if {*classes} & {*inner_folders(os.path.join(path, name))}]
    if not alike and len(inner) - len(others) == 1:
      return {}  # a class of this name
    raise ValueError(
        f'{os.fspath(path)}: expected folders of classes, or of parts '
        f'({", ".join(FOLDERS)}), got both: {", ".join(inner)}; rename '
        f'{(alike or others)[0]} if it is a part, or move it away')
  found = dict(zip(parts, inner, strict=True))
  if len(found) < len(inner):
    raise ValueError(
        f'{os.fspath(path)}: expected one folder for each part, got {", ".join(inner)};'
        ' join or rename those of one part')
  return {part: found[part] for part in SHARES if part in found}


def _part(source, percent):
  """(the source without its held-out ends, {part: source of a held-out end})."""
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


def steps(
    epochs: float, num_examples: int, batch_size: int, multiple: int = 1
) -> int:
  """The number of updates in `epochs` passes over the positives.

  Args:
    epochs, num_examples, batch_size: of the training.
    multiple: rounded down to a multiple of it, but to one at least. With
      `run.updates_per_call` accelerators need not compile a second program, for a
      shorter last call.
  """
  return max(round(epochs * num_examples / batch_size) // multiple, 1) * multiple


def experiment(**differences: Any) -> ml_collections.ConfigDict:
  """Makes a config: the defaults of its task, changed by `differences`.

  The groups `data`, `run`, `measures` are merged key by key; other keys are replaced.

  Raises:
    ValueError: a key that the task does not have (see `nat_jax.schema`).
  """
  base = schema.base_of(differences)
  config = copy.deepcopy(base)
  for key, value in copy.deepcopy(differences).items():
    schema.check_keys({key: value}, base)
    if key in schema.groups(base):
      schema.check_keys(value, base[key], f'{key}.')
      config[key].update(value)
    else:
      config[key] = value
  for part in (config, config.get('trainer', {})):
    if part.get('negative_weight', 0) is None:  # a number, so that a flag can set it
      part['negative_weight'] = config_dict.placeholder(float)
  return ml_collections.ConfigDict(config)
