"""Loads the training images and the evaluation sets of a classifier's config.

    inputs = load(config, num_devices=1)     # pool of images, stream of indices
    sets = load_evals(config, inputs.negatives)
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from nat_jax import data, losses, schema
from nat_jax.names import listed
from nat_jax.task import Inputs, Others
from nat_jax.tasks import images

NONE = 'none of these'  # the answer for pictures of no class; no name of a class


class EvalSet(NamedTuple):
  """One evaluation set.

  Attributes:
    arrays: images and labels (-1 in a negative set).
    positive: whether its images belong to the classes of the classifier.
    seen: whether a negative set shares its source and a class with the training
      negatives.
    overlap: number of images of a negative set that equal a training negative in all
      pixels.
    part: one of `schema.PARTS`, which determines its use.
    type: type of evaluation, a name in `classify.EVALUATORS`.
    corrupt: the entry `corrupt` of the set; None: its images are as in the source.
  """

  arrays: data.Arrays
  positive: bool
  seen: bool
  overlap: int
  part: str
  type: str = schema.ACCURACY_NCR
  corrupt: Mapping[str, Any] | None = None


def load(
    config: Mapping[str, Any], num_devices: int = 1, others: Others | None = None
) -> Inputs:
  """Loads positives and negatives, and makes the stream of batches.

  Negatives are not loaded if the loss does not use negatives, even if the config names
  some.

  Args:
    config: of a classifier.
    num_devices: number of devices that share a batch.
    others: opens the runs that negatives are drawn from.

  Raises:
    ValueError: a mistake in the data or the batch; the message says how to correct it.
  """
  settings = config['data']
  images.check_devices(settings, num_devices)
  needed = uses_negatives(config)
  # Those that the trainer 'adversarial' makes of positives may be the only ones.
  trainer = config['trainer']
  made = (trainer['name'] == 'adversarial'
          and trainer.get('labels', 'negative') == 'negative')
  if needed and not made and not (
      settings['negatives'] and images.most_negatives(settings)):
    raise ValueError(
        f'the loss {config["loss"]["name"]!r} needs negatives, but the config has none '
        f'(data.negatives: {sorted(settings["negatives"])}, '
        f'data.negatives_per_batch: {settings["negatives_per_batch"]}); add some, or '
        "train without negatives by loss={'name': 'cross_entropy'}"
    )
  positives, negatives = images.load_sets(config, needed, others)
  if NONE in positives.names:
    raise ValueError(
        f'the class {NONE!r} has the name of the answer for pictures of no class; '
        'rename it, or use its pictures as negatives')
  images.check_classes(positives.names, config['num_classes'])
  return images.make_inputs(config, positives, negatives, num_devices)


def references(config: Mapping[str, Any]) -> dict[str, str]:
  """Returns the positive set that the negative sets of each part are compared with.

  Args:
    config: of a classifier.

  Returns:
    {part: name of a set}: `config['reference']` for part 'test'; for another part its
    positive set, if it has exactly one.

  Raises:
    ValueError: no positive set of part 'test' has the name `config['reference']`, or a
      part with negative sets does not have exactly one positive set.
  """
  name = config['reference']
  members: dict[str, dict[str, bool]] = {part: {} for part in schema.PARTS}
  for each, spec in config['evals'].items():
    members[spec.get('part', schema.TEST)][each] = bool(spec.get('positive'))
  if not members[schema.TEST].get(name):
    raise ValueError(
        f'evals must hold a positive set named {name!r} (the config key reference) of '
        f'part {schema.TEST!r}, with which the negative sets of this part are '
        f'compared; sets of this part: {sorted(members[schema.TEST])}'
    )
  found = {schema.TEST: name}
  for part in (schema.VALIDATION, schema.CALIBRATION):
    positive = [each for each, is_positive in members[part].items() if is_positive]
    if len(positive) == 1:
      found[part] = positive[0]
    elif len(members[part]) > len(positive):
      raise ValueError(
          f'evals must hold one positive set of part {part!r}, with which the negative '
          f'sets of this part are compared, got {len(positive)}: {positive}; add one '
          f"({{'source': ..., 'positive': True, 'part': {part!r}}}) or keep only one"
      )
  return found


def load_evals(
    config: Mapping[str, Any], trained: Mapping[str, data.Arrays] | None = None,
    parts: Sequence[str] = schema.PARTS, others: Others | None = None,
    class_names: Sequence[str] = (),
) -> dict[str, EvalSet]:
  """Loads the evaluation sets of a config, the sets of `references` first.

  Where a positive set and the run both name their classes, labels follow the names: a
  test folder may lack a class, or hold the classes in another order. A warning is
  logged for each negative set that contains training negatives, and for each optional
  set that is left out, because its data set is not prepared.

  Args:
    config: of the run.
    trained: name -> training negatives, among which those of negative sets are
      counted; None: they are loaded.
    parts: parts whose sets are loaded.
    others: opens the runs that negatives are drawn from.
    class_names: of the training positives; (): labels of all sets stay as they are.

  Returns:
    {name: EvalSet}.

  Raises:
    ValueError: see `references`; or a data set that is not prepared, labels out of
      range, classes that the run does not have, or images of different shapes.
  """
  compared = references(config)
  specs = {name: config['evals'][name] for name in compared.values()} | config['evals']
  if trained is None:
    trained = {}
    if uses_negatives(config):
      _, trained = images.load_sets(config, True, others)
  sets: dict[str, EvalSet] = {}
  for name, spec in specs.items():
    part = spec.get('part', schema.TEST)
    if part not in parts:
      continue
    try:
      arrays = _load(config, name, sets, compared.get(part), others)
    except data.NotPrepared as error:
      if not spec.get('optional'):
        raise data.NotPrepared(f'evals.{name}: {error}') from None
      dataset, split = spec['source']['dataset'], spec['source'].get('split', 'train')
      logging.warning(
          'Evaluation set %r is left out: tfds has no prepared data set %r. To include '
          'it, write images by nat_jax.data.write_cache(%r, %r, image, label)',
          name, dataset, dataset, split.partition('[')[0])
      continue
    sets[name] = _checked(config, name, arrays, sets, class_names)
  return _with_overlaps(sets, trained)


def _load(config, name, sets, reference, others):
  """The images of an evaluation set.

  Args:
    config: of the run.
    name: of the set.
    sets: those that are loaded already.
    reference: name of the positives of its part, or None.
    others: see `load_evals`.
  """
  specs = config['evals']
  source, corrupt = specs[name]['source'], specs[name].get('corrupt')
  # Synthetic negatives are derived from the positives of their own part only.
  like = sets[reference].arrays if reference in sets else None
  if corrupt is None:
    return images.load_source(config, source, like, others)
  same = reference in sets and specs[reference]['source'] == source
  # The pictures are decoded once.
  arrays = like if same else images.load_source(config, source, like, others)
  try:
    return data.corrupt(arrays, corrupt)
  except (ValueError, TypeError) as error:
    raise type(error)(f'evals.{name}.corrupt: {error}') from None


def _checked(config, name, arrays, sets, class_names):
  """The set of loaded images; see `_load`. It may be the first of `sets`."""
  spec = config['evals'][name]
  part, positive = spec.get('part', schema.TEST), bool(spec.get('positive', False))
  shape = next(iter(sets.values())).arrays.image.shape[1:] if sets else None
  if shape and arrays.image.shape[1:] != shape:
    raise ValueError(
        f'evaluation set {name!r} has images of shape {arrays.image.shape[1:]}, the '
        f'positives have {shape}; set size and mode of its source to match the '
        'positives, or data.image_size for all sources of pictures; vectors must be '
        'of one kind, such as those of one backbone')
  if spec.get('type') == schema.CORRUPTION and not (
      positive and part == schema.TEST and 'corrupt' in spec):
    raise ValueError(
        f'evals.{name}: a set of type {schema.CORRUPTION!r} must have '
        f"'positive': True, the part {schema.TEST!r} and the key 'corrupt', "
        f"{{'name': ..., 'strength': ...}}; got {spec}")
  if positive:
    arrays = _by_class(name, arrays, class_names)
    _check_labels(name, arrays, config['num_classes'])
  else:
    arrays = arrays._replace(label=arrays.label * 0 - 1)
  return EvalSet(
      arrays, positive, not positive and is_seen(config, spec), 0, part,
      spec.get('type', schema.ACCURACY_NCR), spec.get('corrupt'))


def _with_overlaps(sets, trained):
  """The sets with their numbers of training negatives, of which a warning tells."""
  overlaps = data.count_overlaps(
      {name: one.arrays for name, one in sets.items() if not one.positive},
      trained.values())
  for name, overlap in overlaps.items():
    if overlap:
      logging.warning('Evaluation set %s', data.overlap_sentence(
          name, overlap, len(sets[name].arrays.label)))
  return {name: one._replace(overlap=overlaps.get(name, 0))
          for name, one in sets.items()}


def is_seen(config: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
  """Whether a negative set is of a kind that the classifier was trained on.

  Args:
    config: of a classifier.
    spec: of the set, an entry of `evals`; its key `seen` has precedence.
  """
  if spec.get('seen') is not None:
    return bool(spec['seen'])
  return uses_negatives(config) and any(
      _same_kind(spec['source'], other['source'])
      for other in config['data']['negatives'].values())


def _by_class(name, arrays, class_names):
  """The images of a positive set, with the labels that the run gives to its classes."""
  if not class_names or not arrays.names or arrays.names == tuple(class_names):
    return arrays
  known = {} if len(set(class_names)) < len(class_names) else {
      each: k for k, each in enumerate(class_names)}
  unknown = [each for each in arrays.names if each not in known]
  if unknown:
    raise ValueError(
        f'the positive evaluation set {name!r} has classes that the run was not '
        f'trained on, {listed(unknown)}; its own are {listed(class_names)}. Give equal '
        'names to equal classes, or choose classes=(...) of the source')
  label = np.array([known[each] for each in arrays.names], np.int32)[arrays.label]
  return arrays._replace(label=label, names=tuple(class_names))


def _check_labels(name, arrays, num_classes):
  low, high = arrays.label.min(), arrays.label.max()
  if low < 0 or high >= num_classes:
    raise ValueError(
        f'labels of the positive evaluation set {name!r} must be 0..{num_classes - 1}, '
        f'got {low}..{high}; give its source the same classes=(...) as the positives'
    )


def uses_negatives(config: Mapping[str, Any]) -> bool:
  """Whether the loss of a classifier's config needs negatives."""
  return losses.make_objective(config['loss'], config['num_classes']).uses_negatives


def _same_kind(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
  """Whether two sources draw from one data set and share a class of it."""
  keys = ('name', 'dataset', 'path', 'workdir')
  if any(one.get(key) != other.get(key) for key in keys):
    return False
  classes, others = one.get('classes'), other.get('classes')
  return classes is None or others is None or bool(set(classes) & set(others))
