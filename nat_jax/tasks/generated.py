"""Examples that a trained run generates, as a source of negatives: {'name': 'run'}.

    spec = {'name': 'run', 'workdir': 'runs/gan', 'num': 2000, 'seed': 0}
    spec = identify(spec, others)         # adds the step and the checksum of the run
    negatives = run(**arguments, like=positives, settings=config['data'], others=others)

It is not in `data.SOURCES`, since a module of data may not import a task: the runs come
through `others`, as teachers do.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nat_jax import data, losses, metrics
from nat_jax.runtime import inference, parallel
from nat_jax.task import Others
from nat_jax.tasks import checkpoints

MOST = 20  # most examples drawn per example asked for, where a filter selects
REFERENCE = 5000  # most positives to which distances are measured
BATCH = 512  # examples per batch of the classifier of a filter
# Argument with a workdir -> arguments with the step and the checksum of its checkpoint.
IDENTITIES = {'workdir': ('step', 'crc32'),
              'classifier': ('classifier_step', 'classifier_crc32')}


def run(
    workdir: str, num: int = 2000, seed: int = 0, step: int | None = None,
    crc32: int | None = None, classifier: str = '',
    confidence: Sequence[float] | None = None, classifier_step: int | None = None,
    classifier_crc32: int | None = None, distance: Sequence[float] | None = None, *,
    like: data.Arrays | None, settings: Mapping[str, Any], others: Others | None,
) -> data.Arrays:
  """Generates examples with a GAN, a GAN of points or a generator of outliers.

  Args:
    workdir: of the run.
    num: number of examples.
    seed: of the noise. Equal seeds and checkpoints give equal examples.
    step: of the checkpoint; None: the last.
    crc32: its checksum, from `identify`.
    classifier: workdir of a classifier, for `confidence`; '': none.
    confidence: (lowest, highest) largest class probability, by the classifier, of the
      examples that are kept; None: all are.
    classifier_step, classifier_crc32: as `step` and `crc32`, of the classifier.
    distance: (lowest, highest) Euclidean distance to the nearest positive of the
      examples that are kept, in multiples of the median distance of a positive to the
      nearest other one; None: all are kept.
    like: the positives, with which the examples must agree in shape.
    settings: `config['data']`, whose `mean` and `std` standardise vectors.
    others: opens the runs.

  Returns:
    uint8 images [num, h, w, c] or standardised float32 vectors [num, d], of one class.

  Raises:
    ValueError: a run that is missing, has changed, or generates nothing; examples of
      another shape than the positives; or a filter that too few examples pass.
  """
  if like is None or others is None:
    raise ValueError(
        "the source 'run' can be one of negatives only: in data.negatives, or in evals "
        'for a set that is compared with positives')
  if bool(classifier) != (confidence is not None):
    raise ValueError(
        "the source 'run' needs `classifier`, the workdir of a classifier, and "
        f'`confidence`, (lowest, highest), together; got {classifier!r} and '
        f'{confidence}')
  for one in ((workdir, step, crc32), (classifier, classifier_step, classifier_crc32)):
    _check_unchanged(*one, others)
  shape, draw = others.sampler(workdir, step)
  expected = tuple(like.image.shape[1:])
  if shape != expected:
    raise ValueError(
        f'the run in {workdir} generates {_kind(shape)}, and the positives are '
        f'{_kind(expected)}; use a run that was trained on examples of this shape')
  data.check_memory(
      num * np.prod(shape) * 4, f'{num} generated examples', 'lower num of the source')
  prepare = functools.partial(_prepared, settings=settings)
  tests = []
  if confidence is not None:
    sure = _confidence(classifier, classifier_step, shape, others)
    tests.append(lambda x: _within(sure(x), confidence))
  if distance is not None:
    far = _distance(like)
    tests.append(lambda x: _within(far(prepare(x)), distance))
  filters = ', '.join(f'{key}={list(value)}' for key, value in (
      ('confidence', confidence), ('distance', distance)) if value is not None)
  found = prepare(_select(draw, num, seed, tests, f'the run in {workdir}', filters))
  return data.Arrays(found, np.zeros(num, np.int32), ('generated',))


FROM_RUNS = {'run': run}


def identify(spec: Mapping[str, Any], others: Others) -> dict[str, Any]:
  """The spec with the step and the checksum of each checkpoint that it uses.

  A resolved config holds them, so that a run that is resumed uses the same checkpoints,
  or is refused.

  Args:
    spec: of the source 'run'.
    others: reads the checkpoints.

  Raises:
    ValueError: a run that is missing, or whose training is not complete.
  """
  spec = dict(spec)
  for key, (step_key, crc32_key) in IDENTITIES.items():
    workdir = spec.get(key)
    if not workdir:
      continue
    found = checkpoints.identity(workdir, spec.get(step_key), step_key, others)
    spec |= {step_key: found['step'], crc32_key: found['crc32']}
  return spec


def _check_unchanged(workdir, step, expected, others):
  """Raises ValueError if a checkpoint has another checksum than `expected`."""
  if not workdir or expected is None:
    return
  crc32 = others.about(workdir, step)['crc32']
  if crc32 != expected:
    raise ValueError(
        f'the checkpoint of step {step} in {workdir} is another one than this run was '
        f'trained with (checksum {crc32}, not {expected}); put the former one back, or '
        'train in another --workdir')


def _kind(shape):
  """A shape for messages."""
  if data.is_vectors(shape):
    return f'vectors of {shape[0]} columns'
  return f'pictures of {list(shape)} (height, width, channels)'


def _prepared(examples, settings):
  """What a network of this config takes: vectors are standardised."""
  if not data.is_vectors(examples.shape[1:]):
    return examples
  return data.standardise(examples, settings['mean'], settings['std'])


def _within(values, bounds):
  low, high = bounds
  return (values >= low) & (values <= high)


def _select(draw, num, seed, tests, origin, filters):
  """The first `num` examples that pass all tests; ValueError for too few."""
  if not tests:
    return draw(num, (seed, 0))
  kept, count = [], 0
  for i in range(MOST):
    examples = draw(num, (seed, i))
    for test in tests:
      if len(examples):
        examples = examples[test(examples)]
    kept.append(examples)
    count += len(examples)
    if count >= num:
      return np.concatenate(kept)[:num]
  raise ValueError(
      f'{count} of {MOST * num} examples that {origin} generated pass {filters}, and '
      f'num={num} are asked for; widen the filter'
      + (f', or set num to {count} or less' if count else ''))


def _confidence(
    workdir: str, step: int | None, shape: tuple[int, ...], others: Others
) -> Callable[[np.ndarray], np.ndarray]:
  """Returns examples, as generated -> largest class probability by a classifier."""
  found = others.restore(workdir, step, 'classify')
  if found.shape != shape:
    raise ValueError(
        f'the classifier in {workdir} takes {_kind(found.shape)}, and the examples '
        f'are {_kind(shape)}; choose a classifier of such examples')
  head, k = found.trainer.heads['logits'], found.config['num_classes']
  state, mesh = parallel.on_one_device(found.state)  # as for what is generated
  predict = inference.make_predict(
      lambda state, images: losses.max_probability(head(state, images), k), mesh, BATCH)
  settings = found.config['data']
  return lambda examples: predict(state, _prepared(examples, settings))


def _distance(positives: data.Arrays) -> Callable[[np.ndarray], np.ndarray]:
  """Returns prepared examples -> distance to the nearest positive, in medians."""
  num = len(positives.image)
  if num < 2:
    raise ValueError(f'`distance` needs 2 positives or more, got {num}')
  rows = np.random.default_rng(0).permutation(num)[:REFERENCE]
  reference = _flat(positives.image[np.sort(rows)])
  own = metrics.nearest_neighbours(reference, reference, 2)[0][:, 1]
  unit = np.median(own)
  if not unit > 0:
    raise ValueError(
        'the median distance of a positive to the nearest other one is 0, since most '
        'positives are there twice; `distance` cannot be measured')
  return lambda examples: metrics.nearest_neighbours(
      _flat(examples), reference, 1)[0][:, 0] / unit


def _flat(examples):
  """float32 [n, -1]; pixels are scaled to [0, 1]."""
  flat = np.asarray(examples).reshape(len(examples), -1)
  return flat / np.float32(255) if flat.dtype == np.uint8 else flat
