"""Generates images with a trained GAN; selects classes, finds near training images.

    path = generate('runs/gan', num=20, labels=['0', '3'])  # 'runs/gan/generated/...'

A GAN is here a run of any task whose row in `TASKS` has the command 'generate'.

The name of each file holds the settings that its content depends on: other settings
write other files, and equal settings write equal bytes.
"""

import json
import math
import os
import shutil
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from nat_jax import data, runs
from nat_jax.commands import flags
from nat_jax.data import decode
from nat_jax.runtime import files, inference
from nat_jax.schema import bounds, defaults
from nat_jax.task import Run
from nat_jax.tasks import TASKS
from nat_jax.tasks.gan import evaluate as generation
from nat_jax.tasks.gan import neighbours as neighbours_lib

FOLDER = 'generated'
COLUMNS = 10  # images per row of a sheet, and steps of an interpolation
SHOWN = 1000  # most samples on a sheet
MOST = 200  # most samples drawn per requested sample, where classes are selected


class Samples(NamedTuple):
  """Generated images.

  Attributes:
    image: uint8 [n, h, w, c].
    label: int32 [n], the class given to the generator, else the discriminator's
      prediction, or -1 where the loss has no classes.
    z: float32 [n, latent], the noise.
  """

  image: np.ndarray
  label: np.ndarray
  z: np.ndarray


def generate(
    workdir: str, num: int = 64, labels: Sequence[int | str] | None = None,
    seed: int = 0, step: int | None = None, interpolate: int = 0, neighbours: int = 0,
    out: str | None = None, truncation: float | None = None, png: bool = False,
    truncations: Sequence[float] = (),
) -> str:
  """Generates images with a GAN's checkpoint; writes a sheet (.png) and an .npz file.

  The .npz file holds 'image', 'label' and 'z' of `Samples`, and 'settings', JSON text.

  Args:
    workdir: of the run.
    num: number of samples.
    labels: classes, by index or by name, in turn. A conditional generator
      (trainer.labels='predefined') is given all classes, since its BatchNorm uses the
      statistics of a batch; otherwise samples are drawn until the discriminator
      predicts each class often enough. None: classes are not selected.
    seed: of the noise.
    step: of the checkpoint; None: the newest.
    interpolate: number of rows of a sheet, each an interpolation on the sphere from one
      sample to another one, which has the same class where classes are given; the rows
      are of all given classes in turn.
    neighbours: number of nearest training images, by `measures.features`, that a sheet
      shows beside each of the first samples.
    out: folder to write to; None: generated/ in the workdir.
    truncation: above 0: numbers of the noise that are farther from 0 are drawn again;
      None: as in evaluations of the run, `measures.truncation`.
    png: whether to write each image to a PNG of its own too, in a folder that has the
      name of the .npz file, as published programs for IS and FID read them.
    truncations: of the rows of a further sheet, of `truncation_rows`.

  Returns:
    The path of the .npz file; the sheets are in the same folder.

  Raises:
    ValueError: no checkpoint of a GAN, a class that it does not have or hardly ever
      generates, or numbers out of range. Nothing is written.
  """
  _check_numbers(num, seed, interpolate, neighbours, [truncation or 0.0, *truncations])
  gan = _restore(workdir, step)
  if truncation is None:
    truncation = generation.truncation_of(gan.config)
  data.check_memory(
      num * (math.prod(gan.shape) + 4 * gan.config['generator']['latent']),
      f'{num} samples', 'ask for fewer')
  wanted = _wanted(labels, gan)
  first, last = _ends(interpolate, len(wanted) if _predefined(gan) else 1, num)
  search = neighbours_lib.make_search(
      gan, neighbours, runs.OTHERS) if neighbours else None
  samples = _draw(gan, num, seed, wanted, truncation)

  classes = None if wanted is None else wanted.tolist()
  settings, tag = _identity(gan, seed, num, classes, truncation)
  out = out or os.path.join(workdir, FOLDER)

  def sheet(images, name, columns, what, captions):
    generation.sheet(
        images, os.path.join(out, f'{name}.png'), columns, captions=captions,
        title=f'{gan.config["name"]}:{gan.config["variant"]}, step {gan.step}, seed '
        f'{seed}: {what}')

  turns = min(len(classes or [0]), COLUMNS)
  sheet(samples.image[:SHOWN], f'sheet_{tag}', COLUMNS // turns * turns,
        *_classes_shown(gan, Samples(*(x[:SHOWN] for x in samples)), wanted))
  for name, images, what, captions in _sheets_of_rows(
      gan, samples, (first, last), truncation, truncations, wanted, seed):
    sheet(images, f'{name}_{tag}', COLUMNS, what, captions)
  line = ''
  if search:
    images, captions, line = search(samples.image)
    sheet(images, f'neighbours{neighbours}_{tag}', neighbours + 1,
          'samples, and the training images nearest to each, with their distance '
          'between features', captions)
  path = os.path.join(out, f'samples_{tag}.npz')
  if jax.process_index() == 0:
    files.write_npz(path, **samples._asdict(), settings=json.dumps(settings))
    if png:
      write_pictures(samples.image, os.path.splitext(path)[0])
    print(line, end='\n' if line else '')
  return path


def _restore(workdir, step) -> Run:
  """The run, whose config has `measures`, also where those of its task have none."""
  able = [name for name, task in TASKS.items() if 'generate' in task.commands]
  gan = runs.restore(workdir, step, able)
  measures = {
      **defaults.GAN['measures'], 'batch_size': gan.config['data']['batch_size'],
      **gan.config.get('measures', {})}
  return gan._replace(config={**gan.config, 'measures': measures})


def _sheets_of_rows(gan, samples, ends, truncation, truncations, wanted, seed):
  """Yields (name, images, what they are, captions) of sheets with COLUMNS columns."""
  first, last = ends
  if first:
    texts = [text for i, j in zip(first, last, strict=True)
             for text in (f'sample {i}', *[''] * (COLUMNS - 2), f'{j}')]
    yield (f'interpolation{len(first)}',
           interpolation(gan, samples, first, last, seed, truncation),
           'interpolations on the sphere, from one sample to another', texts)
  if truncations:
    texts = [text for value in truncations
             for text in (f'{value:g}' if value else 'none', *[''] * (COLUMNS - 1))]
    yield (f'truncations{"-".join(f"{value:g}" for value in truncations)}',
           truncation_rows(gan, truncations, wanted, seed),
           'one noise in all rows, truncated at the number below the row', texts)


def write_pictures(images: np.ndarray, folder: str) -> None:
  """Writes each image to a PNG in `folder`, which then holds these and no others.

  Args:
    images: uint8 [n, h, w, 1 or 3].
    folder: it is replaced when all are written.
  """
  new = f'{folder}.new'
  shutil.rmtree(new, ignore_errors=True)
  os.makedirs(new)
  digits = len(str(len(images) - 1))
  for i, image in enumerate(images):
    decode.to_image(image).save(os.path.join(new, f'{i:0{digits}d}.png'))
  shutil.rmtree(folder, ignore_errors=True)
  os.replace(new, folder)


def _identity(gan, seed, num, classes, truncation):
  """What samples depend on: for their file, and for the names of all files."""
  settings = dict(
      name=gan.config['name'], variant=gan.config['variant'], step=gan.step, seed=seed,
      num=num, labels=classes)
  tag = f'step{gan.step}_seed{seed}_num{num}' + _class_tag(classes)
  if truncation:
    settings['truncation'] = truncation
    tag += f'_truncation{truncation:g}'
  return settings, tag


def _classes_shown(gan, samples, wanted):
  """The title of a sheet of samples, and the class of each as its caption."""
  if (samples.label < 0).any():
    return 'samples, not selected', ()
  how = ('samples, not selected. Below each: the class given to the generator'
         if _predefined(gan) else
         'samples. Below each: the class that the discriminator predicts'
         + (', by which they were selected' if wanted is not None else ''))
  return how, [generation.class_name(gan.class_names, label)
               for label in samples.label.tolist()]


def interpolation(
    gan, samples: Samples, first: Sequence[int], last: Sequence[int], seed: int,
    truncation: float,
) -> np.ndarray:
  """Interpolates on the sphere between samples.

  Each column is generated in its own batch, padded with the same noise of all classes,
  so that BatchNorm statistics are nearly those of independent samples, as in training.

  Args:
    gan: the restored run.
    samples: that are interpolated.
    first, last: numbers of the samples at the ends of each row; the class labels, where
      given, are those of `first`.
    seed, truncation: of the padding noise.

  Returns:
    uint8 images [rows * COLUMNS, h, w, c], row by row.
  """
  sample = _truncated_sampler(gan, truncation)
  labels = samples.label[first] if _predefined(gan) else None
  images = [
      sample(gan.state, len(first), seed, labels,
             slerp(samples.z[first], samples.z[last], t))
      for t in np.linspace(0, 1, COLUMNS)]
  return np.stack(images, 1).reshape(-1, *gan.shape)


def truncation_rows(
    gan, truncations: Sequence[float], wanted: np.ndarray | None, seed: int
) -> np.ndarray:
  """Samples of one noise, at several truncations.

  Number u of a column, uniform in (0, 1), becomes the quantile u of normal noise that
  is truncated at the value of the row. Each row is generated in its own batch, padded
  with noise of the same truncation.

  Args:
    gan: the restored run.
    truncations: of each row; 0: none.
    wanted: classes that a conditional generator is given, in turn over the columns.
    seed: of the noise.

  Returns:
    uint8 images [rows * COLUMNS, h, w, c], row by row.
  """
  labels = np.resize(wanted, COLUMNS) if _predefined(gan) else None
  shape = COLUMNS, gan.config['generator']['latent']
  images = []
  for value in truncations:
    sample = _truncated_sampler(gan, value)
    # An infinite bound makes the quantiles those of normal noise.
    z = generation.draw_noise(np.random.default_rng(seed), shape, value or math.inf)
    images.append(sample(gan.state, COLUMNS, seed, labels, z))
  return np.concatenate(images)


def _truncated_sampler(gan, truncation):
  """`make_sampler`, with a truncation other than that of the run's evaluations."""
  measures = {**gan.config['measures'], 'truncation': truncation}
  return generation.make_sampler(
      {**gan.config, 'measures': measures}, gan.trainer, gan.mesh)


def _ends(rows, turns, num):
  """Numbers of the samples at both ends of each row of interpolations: two lists.

  Samples i and i + turns have one class, if `turns` classes are given in turn.

  Raises:
    ValueError: there are fewer samples.
  """
  first = [2 * turns * (i // turns) + i % turns for i in range(rows)]
  last = [i + turns for i in first]
  if rows and last[-1] >= num:
    raise ValueError(
        f'{rows} rows of interpolation need two samples each, {last[-1] + 1} in all, '
        f'got num={num}; ask for more samples with --num')
  return first, last


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
  """Spherical interpolation: (sin((1 - t) w) a + sin(t w) b) / sin w.

  w is the angle between a and b; where they are (anti-)parallel the interpolation is
  linear. Normal noise lies near a sphere, which linear interpolation would leave.

  Args:
    a, b: [n, d].
    t: in [0, 1]; 0 gives a.

  Returns:
    [n, d].

  Reference: White, "Sampling Generative Networks", arXiv:1609.04468.
  """
  length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
  w = np.arccos(np.clip((a * b).sum(1) / np.maximum(length, 1e-12), -1, 1))[:, None]
  flat = np.sin(w) < 1e-4
  sin = np.where(flat, 1, np.sin(w))
  return np.where(flat, 1 - t, np.sin((1 - t) * w) / sin) * a + np.where(
      flat, t, np.sin(t * w) / sin) * b


def _draw(gan, num, seed, wanted, truncation) -> Samples:
  """The first `num` samples of the seed's noise; with `wanted`, of these classes."""
  stream, given = _stream(gan, seed, truncation), _predefined(gan)
  every = list(range(gan.config['num_classes']))
  if wanted is None or given and wanted.tolist() == every:
    found = [next(stream)]
    while sum(len(batch.z) for batch in found) < num:
      found.append(next(stream))
    image, label, z = (np.concatenate(x)[:num] for x in zip(*found, strict=True))
    return Samples(image, label, z)
  turns, drawn = np.resize(wanted, num).tolist(), 0
  found = {c: [] for c in turns}
  while missing := {generation.class_name(gan.class_names, c): n for c in found
                    if (n := turns.count(c) - len(found[c])) > 0}:
    if drawn >= MOST * num and not given:
      raise ValueError(
          f'the discriminator predicted some classes for too few of {drawn} samples; '
          f'missing: {missing}. Ask for other classes or for fewer samples, use '
          "another checkpoint, or train a GAN with trainer.labels='predefined'")
    batch = next(stream)
    drawn += len(batch.z)
    for i, c in enumerate(batch.label.tolist()):
      if c in found:
        found[c].append(tuple(part[i] for part in batch))
  image, label, z = zip(*(found[c].pop(0) for c in turns), strict=True)
  if jax.process_index() == 0 and not given:
    print(f'{num} samples of {drawn} that were drawn: the discriminator selected them')
  return Samples(np.stack(image), np.asarray(label, np.int32), np.stack(z))


def _stream(gan, seed, truncation):
  """Yields batches of samples; a conditional generator gets all classes in turn."""
  size = generation.sampling_batch(gan.config, gan.mesh)
  sample = generation.make_sampler(gan.config, gan.trainer, gan.mesh)
  latent, label = gan.config['generator']['latent'], np.full(size, -1, np.int32)
  made = 0
  rng, classify = np.random.default_rng(seed), None
  if 'logits' in gan.trainer.heads:
    classify = inference.make_predict(gan.trainer.heads['logits'], gan.mesh, size)
  while True:
    z = generation.draw_noise(rng, (size, latent), truncation)
    if _predefined(gan):
      label = generation.class_turns(gan.config, made + size)[made:]
      made += size
    image = sample(gan.state, size, seed, label if _predefined(gan) else None, z)
    if classify and not _predefined(gan):
      label = classify(gan.state, image).argmax(-1).astype(np.int32)
    yield Samples(image, label, z)


def _wanted(labels, gan):
  """The distinct class indices of `labels`; a string is looked up as a name first."""
  if labels is None:
    return np.arange(gan.config['num_classes']) if _predefined(gan) else None
  k, names = gan.config['num_classes'], list(gan.class_names)
  if 'logits' not in gan.trainer.heads and not _predefined(gan):
    # A GAN with an encoder has no key `loss`: its losses are those of its trainer.
    loss = gan.config.get('loss', gan.config['trainer'])['name']
    raise ValueError(
        f'the loss {loss!r} of this run has no classes, so that labels cannot be '
        "selected; leave out --labels, or train a run of task='gan' with a loss that "
        "has classes (loss={'name': 'nat_gan'}, 'am_gan', 'ac_gan', ...)")
  wanted = []
  for label in labels:
    if label in names:
      label = names.index(label)
    elif isinstance(label, str) and label.strip().removeprefix('-').isdigit():
      label = int(label)
    if isinstance(label, str) or not 0 <= label < k:
      known = f' ({", ".join(names)})' if names else ''
      raise ValueError(
          f'labels must be of the classes 0..{k - 1}{known}, got {label!r}')
    wanted.append(int(label))
  if not wanted:
    raise ValueError('labels must name at least one class, got none')
  return np.asarray(list(dict.fromkeys(wanted)))


def _check_numbers(num, seed, interpolate, neighbours, truncations):
  """Raises ValueError for numbers out of range."""
  for name, value, bound in (
      ('num', num, bounds.whole('[1, 1e7]')), ('seed', seed, bounds.SEED),
      ('interpolate', interpolate, bounds.whole('[0, 1e6]')),
      ('neighbours', neighbours, bounds.whole('[0, 1e6]')),
      *(('truncation', x, bounds.BOUNDS['measures.truncation']) for x in truncations)):
    if not bound.holds(value):
      raise ValueError(f'{name} must be {bound.what}, got {value}')


def _class_tag(classes):
  """The part of file names that holds the selected classes (a checksum if long)."""
  if classes is None:
    return ''
  text = '-'.join(map(str, classes))
  return f'_labels{text if len(text) <= 40 else zlib.crc32(text.encode())}'


def _numbers(texts):
  """The numbers of --truncations."""
  try:
    return [float(text) for text in texts]
  except ValueError:
    raise ValueError(
        f'--truncations must be numbers, such as 0.5,1,2,0, got {",".join(texts)}'
    ) from None


def _predefined(gan):
  return gan.config['trainer'].get('labels') == 'predefined'


def run(argv: Sequence[str] = ()) -> None:
  """--mode=generate: generates images with a GAN."""
  del argv
  path = generate(
      flags.needed(flags.WORKDIR, 'generate'), flags.NUM.value, flags.LABELS.value,
      flags.SEED.value, flags.STEP.value, flags.INTERPOLATE.value,
      flags.NEIGHBOURS.value, truncation=flags.TRUNCATION.value,
      png=flags.FORMAT.value == 'png', truncations=_numbers(flags.TRUNCATIONS.value))
  if jax.process_index() == 0:
    print(f'written: {path} and the sheets beside it')
