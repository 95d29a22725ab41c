"""Samples of a trained generator, and their metrics.

    sample = make_sampler(config, trainer, mesh)
    images = sample(state, num=64, seed=0)                 # uint8 [64, h, w, c]
"""

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from scipy import special

from nat_jax import data, metrics, registry, schema
from nat_jax.reports import pictures
from nat_jax.runtime import files, parallel, results
from nat_jax.task import Evaluator, Inputs, Others, Run, Trainer
from nat_jax.tasks import images as shared
from nat_jax.tasks.gan import features
from nat_jax.tasks.gan.metrics import COLLAPSED

SHEET = 100  # images per sheet of samples
COLUMNS = 10  # most images in a row of a sheet
HELD_OUT = (  # metrics of held-out images in eval.json, what real images reach
    'num_samples', 'inception_score', 'am_score', 'fid', 'kid', 'cafd', 'class_kl',
    'diversity', 'precision', 'recall', 'density', 'coverage')


def make_sampler(
    config: Mapping[str, Any], trainer, mesh
) -> Callable[..., np.ndarray]:
  """Returns sample(state, num, seed=0, labels=None, z=None) -> uint8 [num, h, w, c].

  The generator is applied to full batches of `sampling_batch` images, because its
  BatchNorm uses the statistics of the batch; surplus images are dropped. `labels`, int
  [num], are the labels for a class-conditional generator (default: all classes in
  turn). `z`, [num, latent], replaces the noise drawn from `seed` (`draw_noise` with
  `measures.truncation`).

  Args:
    config: of a GAN.
    trainer: with the head 'samples'.
    mesh: the devices.
  """
  run = parallel.wrap_head(trainer.heads['samples'], mesh)
  size, settings = sampling_batch(config, mesh), config['data']
  latent = config['generator']['latent']
  truncation = truncation_of(config)

  def sample(state, num, seed=0, labels=None, z=None):
    whole = -(-num // size) * size
    rng = np.random.default_rng(seed)
    noise = draw_noise(rng, (whole, latent), truncation)
    if z is not None:
      noise[:num] = z
    label = class_turns(config, whole)
    if labels is not None:
      label[:num] = labels
    images = []
    for start in range(0, whole, size):
      rows = slice(start, start + size)
      batch = np.asarray(run(state, {'z': noise[rows], 'label': label[rows]}))
      images.append(data.quantise(batch, settings['mean'], settings['std']))
    return np.concatenate(images)[:num]

  return sample


def class_turns(config: Mapping[str, Any], num: int) -> np.ndarray:
  """The classes that a conditional generator gets by default: all in turn, int [num].

  Every copy of stacked generators gets all of them; copy i % n makes image i.
  """
  turn = np.arange(config['num_classes'], dtype=np.int32)
  return np.resize(turn.repeat(_copies(config)), num)


def class_name(names: Sequence[str], label: int) -> str:
  """The name of a class, or its number where the data had no class for it."""
  return names[label] if label < len(names) else str(label)


def _copies(config):
  """The number of stacked generators; 1 of other generators."""
  generator = config['generator']
  return generator['num'] if generator['name'] == 'stacked' else 1


def truncation_of(config: Mapping[str, Any]) -> float:
  """Returns `measures.truncation`; 0 for a run of a version without that key."""
  return config['measures'].get('truncation', 0.0)


def draw_noise(
    rng: np.random.Generator, shape: tuple[int, ...], truncation: float = 0.0
) -> np.ndarray:
  """Normal noise, float32; numbers farther from 0 than `truncation` are drawn again.

  Truncation trades the variety of samples for their quality.

  Args:
    rng: of the noise.
    shape: of the array.
    truncation: 0: none.

  Reference: Brock, Donahue, Simonyan, "Large Scale GAN Training for High Fidelity
  Natural Image Synthesis", ICLR 2019, section 3.1.
  """
  if not truncation:
    return rng.standard_normal(shape, np.float32)
  # By quantiles, because drawing again would take long where the bound is small.
  low, high = special.ndtr([-truncation, truncation])
  return special.ndtri(rng.uniform(low, high, shape)).astype(np.float32)


def sampler_of(run: Run) -> Callable[..., np.ndarray]:
  """Returns draw(num, seed) -> uint8 [num, h, w, c]; of all classes in turn, if the
  generator is given classes.

  Args:
    run: of a GAN.
  """
  sample = make_sampler(run.config, run.trainer, run.mesh)
  return lambda num, seed: sample(run.state, num, seed)


def sampling_batch(config: Mapping[str, Any], mesh) -> int:
  """`measures.batch_size`, rounded up so that devices and stacked generators share it.
  """
  unit = mesh.devices.size * _copies(config)
  return -(-config['measures']['batch_size'] // unit) * unit


def make_evaluator(
    config: Mapping[str, Any], workdir: str, given: Inputs, trainer: Trainer, mesh,
    others: Others,
) -> Evaluator:
  """Returns the `Evaluator` of a GAN, which makes each entry of `evals` by its type.

  Args:
    config: of a GAN.
    workdir: folder to which sheets and results are written.
    given: the inputs of the run.
    trainer: of the run.
    mesh: the devices.
    others: reads the evaluation classifier.

  Raises:
    ValueError: an unknown type, or a mistake in the features or the reference images.
  """
  shared.check_types(config['evals'], EVALUATORS)
  sample = make_sampler(config, trainer, mesh)
  measured = functools.cache(lambda: _make_measured(config, given, mesh, others))
  made, steps = {}, config['steps']
  for name, spec in config['evals'].items():
    made[name] = EVALUATORS[spec['type']](
        name, config, workdir, sample, measured=measured, given=given, mesh=mesh,
        others=others)
  periods = schema.periods(config)

  def run(state, names, final):
    del final
    found = {name: made[name](state) for name in names}
    figures = {name: {'type': config['evals'][name]['type'], **figures}
               for name, (figures, _) in found.items()}
    return figures, {name: details for name, (_, details) in found.items()}

  def save(state, step, figures, details):
    del state
    arrays, conventions = {}, {}
    for name, (images, more) in details.items():
      conventions |= more
      if name == results.SAMPLES:
        arrays[results.SAMPLES] = {'image': images}
    evaluation = {
        'num_classes': config['num_classes'],
        'class_names': list(given.class_names), 'evals': figures,
        'conventions': conventions,
    }
    return results.write_evaluation(workdir, config, step, evaluation, arrays)

  # The images of samples.npz, and a sheet (PNG) per evaluation.
  sheets = sum(1 + steps // (every or steps) for every in periods.values())
  num_bytes = (1 + sheets) * SHEET * math.prod(given.shape)
  return Evaluator(periods, run, save, summary, num_bytes, beside=True)


class Measured(NamedTuple):
  """What evaluations with metrics share.

  Attributes:
    extractor: the evaluation classifier.
    images: the real images to compare with, uint8 [m, h, w, c].
    found: of `extractor`, and 'labels', the classes that it predicts, or None.
  """

  extractor: features.Features
  images: np.ndarray
  found: dict[str, Any]


def _make_measured(config, given, mesh, others) -> Measured:
  settings = config['measures']
  extractor = registry.build(
      features.FEATURES, settings['features'], what='features', mesh=mesh,
      image_shape=given.shape, others=others)
  source = settings['reference'] or config['data']['positives']
  arrays, real = features.reference(
      data.load(source), settings['num_samples'], extractor, given.shape)
  return Measured(extractor, arrays.image, {**real, 'labels': _classes(real)})


def sheet_of_samples(name, config, workdir, sample, given, **unused):
  """Evaluation of the type 'sheet': a picture of samples from fixed noise, no figures.

  Args:
    name, config, workdir, sample, given: see `measured_samples`.
    **unused: what other types need.

  Returns:
    state -> ({}, (images, {})); it writes figures/<name>_<step>.png.
  """
  del unused
  write_sheet = _sheet_writer(name, config, workdir, given)

  def look(state):
    images = sample(state, SHEET, config['seed'])
    write_sheet(images, state)
    return {}, (images, {})

  return look


def quick_measures(name, config, workdir, sample, measured, given, **unused):
  """Evaluation of the type 'quick': a sheet, and FID and IS of `num_quick` samples.

  Args:
    name, config, workdir, sample, measured, given: see `measured_samples`.
    **unused: what other types need.

  Returns:
    state -> (figures, (the first images, {metric: its convention})); it writes
    figures/<name>_<step>.png. The Frechet distance of few samples is larger than that
    of many.
  """
  del unused
  settings, (extractor, real_images, real) = config['measures'], measured()
  reference = metrics.gaussian_stats(real['features'])
  if settings['splits'] > settings['num_quick']:
    raise ValueError(
        f'measures.splits must be {settings["num_quick"]} or less, the number of '
        f'samples measures.num_quick, got {settings["splits"]}')
  write_sheet = _sheet_writer(name, config, workdir, given)

  def measure(state):
    images = sample(state, settings['num_quick'], config['seed'])
    write_sheet(images, state)
    found = extractor.apply(images)
    figures = {'num_samples': len(images),
               'fid': metrics.fid(found['features'], reference)}
    if 'probs' in found:
      figures['inception_score'], _ = metrics.inception_score(
          found['probs'], settings['splits'])
      figures['am_score'] = metrics.am_score(found['probs'], real['probs'])
    return {**figures, **_variety(images, real_images)}, (
        images[:SHEET], {results.CLASSIFIER: extractor.convention})

  return measure


def measured_samples(name, config, workdir, sample, measured, given, mesh, others):
  """Evaluation of the type 'samples': a sheet, and metrics of `num_samples` samples.

  Args:
    name: of the entry of `evals`.
    config: of the run; `measures` holds the settings of the metrics.
    workdir: folder to which the sheet is written.
    sample: from `make_sampler`.
    measured: () -> what evaluations share.
    given: the inputs of the run.
    mesh: the devices.
    others: reads the evaluation classifier.

  Returns:
    state -> (figures, (the first images, {metric: its convention})); it writes
    figures/<name>_<step>.png.

  Raises:
    ValueError: a mistake in the features or the reference images.
  """
  settings = config['measures']
  extractor, real_images, real = measured()
  _check_numbers(settings, *real['features'].shape)
  independent = _independent(settings, real_images, given.shape, mesh, others)
  held_out = _held_out(settings, extractor, given.shape)
  if held_out and len(held_out['features']) <= settings['neighbours']:
    raise ValueError(
        f'measures.held_out has {len(held_out["features"])} images, and measures.'
        f'neighbours={settings["neighbours"]} needs more; lower it, or hold more out')
  memorised = _memorised(config, extractor, given.shape, held_out)
  write_sheet = _sheet_writer(name, config, workdir, given)

  def summarise(found, seed):
    num = len(found['features'])
    return metrics.generative_summary(
        {**found, 'labels': _classes(found)}, real, extractor.num_classes,
        splits=min(settings['splits'], num), k=settings['neighbours'], seed=seed)

  # Of one seed for all runs, so that their figures are the same.
  of_held_out = functools.cache(lambda: summarise(held_out, 0)[0])

  def measure(state):
    images = sample(state, settings['num_samples'], config['seed'])
    write_sheet(images, state)
    found = extractor.apply(images)
    figures, conventions = summarise(found, config['seed'])
    if extractor.num_classes:
      figures['reference_class_shares'] = metrics.class_histogram(
          real['labels'], extractor.num_classes).tolist()
    for more in (
        independent(images), memorised(found['features']),
        _label_fidelity(config, found)):
      for part, some in zip((figures, conventions), more, strict=True):
        part.update(some)
    if held_out:
      floor = of_held_out()
      figures['held_out'] = {key: floor[key] for key in HELD_OUT if key in floor}
      conventions['held_out'] = (
          f'Of {floor["num_samples"]} real images, measures.held_out, as if generated.')
    return {**figures, **_variety(images, real_images)}, (
        images[:SHEET], {results.CLASSIFIER: extractor.convention, **conventions})

  return measure


# `type` of an entry of `evals` -> function with the arguments and the return type of
# `measured_samples`.
EVALUATORS = {
    'samples': measured_samples, 'quick': quick_measures, 'sheet': sheet_of_samples}


def _sheet_writer(name, config, workdir, given):
  """Returns (images, state) -> None, which writes the sheet of an evaluation.

  Below each image of a conditional generator is its class; up to `COLUMNS` classes are
  in columns.
  """
  columns, captions = COLUMNS, []
  if config['trainer'].get('labels') == 'predefined':
    captions = [class_name(given.class_names, label)
                for label in class_turns(config, SHEET).tolist()]
    turns = min(config['num_classes'] * _copies(config), COLUMNS)
    columns = COLUMNS // turns * turns

  def write(images, state):
    path = os.path.join(workdir, 'figures', f'{name}_{int(state.step):07d}.png')
    shown = images[:SHEET // COLUMNS * columns]
    sheet(shown, path, columns, captions=captions[:len(shown)])

  return write


def _independent(settings, real, image_shape, mesh, others):
  """Returns images -> (figures, conventions) of a second, independent Inception Score.

  The classifier of the first Inception Score may have been trained on the labels that
  the discriminator was trained on; then that score is not independent of the training.
  """
  if not settings['independent']:
    return lambda images: ({}, {})
  extractor = registry.build(
      features.FEATURES, settings['independent'], what='features', mesh=mesh,
      image_shape=image_shape, others=others)
  if not extractor.num_classes:
    raise ValueError(
        'measures.independent needs features of a classifier (checkpoint, inception), '
        f'got {settings["independent"]["name"]!r}')

  def score(images):
    probs = extractor.apply(images)['probs']
    return metrics.inception_score(probs, settings['splits'])[0]

  name = 'independent_inception_score'
  of_real = score(real)
  return lambda images: (
      {name: score(images), f'reference_{name}': of_real}, {name: extractor.convention})


def _held_out(settings, extractor, image_shape):
  """What `extractor` finds in the images of `measures.held_out`; None without them."""
  if not settings.get('held_out'):  # a run of a version without that key has none
    return None
  return features.reference(
      data.load(settings['held_out']), settings['num_samples'], extractor, image_shape,
      'measures.held_out')[1]


def _memorised(config, extractor, image_shape, held_out):
  """Returns features of samples -> (figures, conventions) of `metrics.memorisation`."""
  if held_out is None:
    return lambda found: ({}, {})
  train, _ = shared.load_sets(config, uses_negatives=False)
  train = features.reference(
      train, None, extractor, image_shape, 'data.positives')[1]['features']
  held_out = held_out['features']
  convention = (
      f'Distances to the nearest of {len(train)} training images, beside those of '
      f'{len(held_out)} held-out images: ')

  def measure(found):
    return metrics.memorisation(found, train, held_out, seed=config['seed']), {
        'repeats': f'{convention}share of samples that are nearer than 99 % of the '
        'held-out images; 0.01 is expected.',
        'nearer_training': f'{convention}share of samples that are nearer to the '
        'training images than to equally many held-out ones; 0.5 is expected.'}

  return measure


def _label_fidelity(config, found):
  """(figures, conventions) of samples of given classes, all of them in turn."""
  num_classes = config['num_classes']
  if config['trainer'].get('labels') != 'predefined' or (
      found.get('probs', np.zeros((0, 0))).shape[1] != num_classes):
    return {}, {}
  labels = _classes(found)
  right = labels == class_turns(config, len(labels))
  return {'label_fidelity': float(right.mean())}, {
      'label_fidelity': 'Share of samples that the evaluation classifier assigns to '
      'the class that the generator was given.'}


SUMMARY = ('inception_score', 'am_score', 'fid', 'kid', 'precision', 'recall')


def summary(figures: Mapping[str, Any]) -> str:
  """Returns the metrics of the samples in one line; '' if only sheets were made."""
  known, texts = {name: metrics.METRICS[name] for name in SUMMARY}, []
  for name, values in figures.items():
    text = ' '.join(f'{metric.title} {values[key]:.{metric.digits}f}'
                    for key, metric in known.items() if values.get(key) is not None)
    if values.get('collapsed'):
      text += '  COLLAPSED: the samples are nearly identical'
    if text:
      texts.append(text if name == results.SAMPLES else f'{name}: {text}')
  return '; '.join(texts)


def sheet(images: np.ndarray, path: str, columns: int = 10, **text: Any) -> None:
  """Writes a PNG of images in rows; only the first process writes.

  Args:
    images: uint8 [n, h, w, c].
    path: of the PNG.
    columns: images per row.
    **text: title and captions, see `pictures.save_sheet`.
  """
  if jax.process_index() == 0:
    files.as_path(path).parent.mkdir(parents=True, exist_ok=True)
    pictures.save_sheet(images, path, columns, **text)


def _check_numbers(settings, num_real, dim):
  """Raises ValueError for too few images; warns if the FID is of low rank."""
  num = min(settings['num_samples'], num_real)
  for key, most in (('splits', settings['num_samples']), ('neighbours', num - 1)):
    if settings[key] > most:
      raise ValueError(
          f'measures.{key} must be {most} or less, got {settings[key]}: there are '
          f'measures.num_samples={settings["num_samples"]} samples and {num_real} real '
          f'images to compare with; lower measures.{key}, or provide more images')
  note = metrics.rank_note(num, dim)
  if note:
    logging.warning(
        'FID: %s Raise measures.num_samples (now %d; there are %d real images).', note,
        settings['num_samples'], num_real)


def _classes(found: Mapping[str, np.ndarray]) -> np.ndarray | None:
  """The predicted class of each image, int [n]; None if the features have no probs."""
  return found['probs'].argmax(-1) if 'probs' in found else None


def _variety(images, real_images):
  """The spread of samples relative to real images, and whether they are all alike."""
  spread = float(_spread(images) / _spread(real_images))
  return {'spread': spread, 'collapsed': spread < COLLAPSED}


def _spread(images: Sequence[np.ndarray]) -> float:
  """The root mean square distance of images from their mean."""
  flat = np.asarray(images, np.float32).reshape(len(images), -1)
  return float(np.sqrt(np.square(flat - flat.mean(0)).sum(1).mean()))
