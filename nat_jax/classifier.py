"""The library: a trained classifier of pictures that can answer "none of these".

    from nat_jax import Classifier

    clf = Classifier.fit(images, labels, negatives=others, workdir='runs/mine')
    clf = Classifier.restore('runs/mine')              # later
    found = clf.predict(['cat.jpg', pixels, picture])  # a Prediction
    found.names                                        # ('cat', 'none of these', 'dog')
"""

import collections
import contextlib
import functools
import os
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from nat_jax import data, detectors, runs, schema, train
from nat_jax.data.decode import Picture
from nat_jax.runtime import files
from nat_jax.runtime import workdir as workdirs
from nat_jax.schema import presets, recipes
from nat_jax.task import Run
from nat_jax.tasks.classify import rule
from nat_jax.tasks.classify.view import View, make_view, mode_of

# Sizes of the batches of few pictures, which a full batch would make slow. A program is
# compiled for each of them, and for full batches, when it is first needed.
FEW = (8, 64)
DATA = 'data'  # folder in the workdir of `Classifier.fit`
PERIOD = 100  # updates between two evaluations of `Classifier.fit`
SAMPLE = 10_000  # images whose mean and standard deviation normalise all

# What has been decoded, in order: (picture, uint8 [h, w, c] or why it is unreadable).
Decoded = list[tuple[Any, np.ndarray | str]]


class Prediction(NamedTuple):
  """The answers for n pictures.

  Attributes:
    labels: int [n], index into `classes_`; -1 where the picture is not accepted, the
      label of negatives everywhere in nat_jax. The likeliest class of such a picture is
      `probabilities.argmax(1)`.
    names: n texts, the class of each picture, or 'none of these'.
    probabilities: [n, k], of each class, after the temperature of the rule. With a
      background output their sum is below 1.
    scores: [n], what the threshold is compared with; for the score 'max_probability'
      the log-odds of the likeliest class.
    accepted: bool [n], whether the score is at least the threshold.
  """

  labels: np.ndarray
  names: tuple[str, ...]
  probabilities: np.ndarray
  scores: np.ndarray
  accepted: np.ndarray


class Classifier:
  """A trained classifier, from `restore` or `fit`.

  A picture is a path, a Pillow image, or uint8 pixels [h, w, c], of any size and mode:
  it is resized as in training (`nat_jax.data.decode`).

      >>> clf = Classifier.restore('runs/digits')
      >>> found = clf.predict(images)                # uint8 [3, 8, 8, 1]
      >>> found.names
      ('0', '2', 'none of these')
      >>> found.labels, found.accepted
      (array([ 0,  2, -1]), array([ True,  True, False]))
      >>> clf.predict('zero.png').names              # one picture, of any size
      ('0',)
      >>> clf.predict_proba(images).shape
      (3, 6)

  Attributes:
    classes_: text [k], the names of the classes in the order of `labels` and of the
      columns of `probabilities`, as in scikit-learn.
    basis: `rule.Basis`, the rule by which pictures are accepted and where it is from.
    run: the restored `task.Run`.
    workdir: of the run.
  """

  def __init__(self, run: Run, basis: rule.Basis, workdir: str):
    """Takes a restored run and its rule; `restore` finds both."""
    self.run, self.basis, self.workdir = run, basis, workdir
    self.classes_ = np.array(
        run.class_names or [str(k) for k in range(run.config['num_classes'])])
    self._predictors: dict[int, Callable] = {}

  @classmethod
  def restore(
      cls, workdir: str | os.PathLike, step: int | None = None,
      threshold: float | None = None,
  ) -> 'Classifier':
    """Restores a classifier from the workdir of a run, with its rule.

    The rule is that of calibration.json, or else keeps 95 % of the positives of part
    'calibration'. See `rule.find`.

    Args:
      workdir: of a run of the task 'classify'.
      step: of the checkpoint; None: the newest, and after early stopping the best.
      threshold: least maximum probability of an accepted picture, instead of the rule;
        0 accepts every picture.

    Raises:
      ValueError: no checkpoint, a run of another task, or no rule (see `rule.find`).
    """
    rule.check_threshold(threshold)
    clf = restore(os.fspath(workdir), step, threshold)
    if clf.basis.note:
      warnings.warn(clf.basis.note, stacklevel=2)
    return clf

  @classmethod
  def fit(
      cls, images: np.ndarray | Sequence[Picture], labels: Sequence[int | str],
      negatives: np.ndarray | Sequence[Picture] | None = None, *,
      workdir: str | os.PathLike, image_size: int | tuple[int, int] | None = None,
      verbose: bool = True, **config: Any,
  ) -> 'Classifier':
    """Trains a negative-aware classifier on arrays, or resumes its training.

    60 % of the pictures are trained on; 10 % are held out for validation (early
    stopping), 10 % for calibration (the threshold) and 20 % for the test, whose figures
    are in eval.json. Each class, and the negatives, are divided so. The pictures are
    written to data/ in the workdir, from where a run that was interrupted is resumed by
    the same call.

    Args:
      images: the positives: uint8 [n, h, w, c], c 1 or 3, or n pictures, which need
        `image_size`.
      labels: [n], the class of each: integers or texts. Their sorted distinct values
        become `classes_`.
      negatives: pictures of none of the classes, which get the size and the channels of
        `images`; None: positives with shuffled patches.
      workdir: folder of the run.
      image_size: side, or (h, w), to which all pictures are resized; None: that of
        `images`.
      verbose: whether to print the progress.
      **config: keys of the config that differ (nat_jax/schema/defaults.py), such as
        steps=500, model={'name': 'resnet18'} or seed=1. Of `data` and `run` the keys
        that are given differ. Pictures are augmented by random crops only; data=
        {'augment': presets.CROP_FLIP} mirrors them too.

    Raises:
      ValueError: data or a key that is not valid, or a workdir with a run of other data
        or of another config. Nothing but data/ is written.
      train.Preempted, train.Diverged, OSError: see `train.train`.
    """
    _check_workdir(workdir)
    workdir = files.absolute(workdir)
    arrays = _arrays(images, labels, negatives, image_size)
    paths = {name: os.path.join(workdir, DATA, f'{name}-{_crc32(one):08x}.npz')
             for name, one in arrays.items()}
    settings = _config(arrays['positives'], paths, config)
    with workdirs.hold(workdir):
      train.check(settings, workdir)
      for name, path in paths.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if not os.path.exists(path):
          one = arrays[name]
          files.write_npz(path, image=one.image, label=one.label, names=one.names)
      with contextlib.ExitStack() as stack:
        if not verbose:
          nowhere = stack.enter_context(open(os.devnull, 'w'))
          stack.enter_context(contextlib.redirect_stdout(nowhere))
        train.train(settings, workdir)
    return cls.restore(workdir)

  def predict(self, images: np.ndarray | Picture | Sequence[Picture]) -> Prediction:
    """Classifies pictures, each alone: other pictures do not change its answer.

    Args:
      images: uint8 [n, h, w, c], or a sequence of pictures, or one picture.

    Returns:
      A `Prediction` for n pictures, 1 for a single one.

    Raises:
      ValueError: pictures that cannot be read; the message names the first.
    """
    pictures = _as_list(images)
    num = next((num for num in FEW if len(pictures) <= num), None)
    nothing = np.empty((0, len(self.classes_)))
    done = [rule.Decisions(nothing.astype(int), nothing, nothing[:, 0],
                           nothing[:, 0].astype(bool))]
    count = 0
    for decoded, decided in self.decide_each(pictures, num):
      for place, (picture, found) in enumerate(decoded, count):
        if isinstance(found, str):
          raise ValueError(_unreadable(place, picture, found))
      count += len(decoded)
      done.append(decided)
    order, probabilities, scores, accepted = map(
        np.concatenate, zip(*done, strict=True))
    labels = np.where(accepted, order[:, 0], -1)
    answers = [*self.classes_.tolist(), rule.NONE]  # of -1 the last
    return Prediction(labels, tuple(answers[k] for k in labels), probabilities, scores,
                      accepted)

  def predict_proba(
      self, images: np.ndarray | Picture | Sequence[Picture]
  ) -> np.ndarray:
    """The probabilities [n, k] of `predict`, by scikit-learn's name."""
    return self.predict(images).probabilities

  @functools.cached_property
  def score_fit(self) -> detectors.Fit | None:
    """What the score of the rule is fitted to; None: nothing.

    Raises:
      ValueError: see `detectors.read_fit`.
    """
    return detectors.read_fit(
        self.workdir, self.basis.rule.score, self.basis.calibration or {})

  @functools.cached_property
  def view(self) -> View:
    """How pictures become inputs; of a classifier of vectors by its backbone.

    Raises:
      ValueError: see `make_view`.
    """
    return make_view(self.run)

  def decide(self, pixels: np.ndarray, batch_size: int) -> rule.Decisions:
    """The decisions on pictures that are decoded already.

    Args:
      pixels: uint8 [n, h, w, c], of `view.size`.
      batch_size: pictures per batch; a program is compiled for each number.
    """
    if batch_size not in self._predictors:
      self._predictors[batch_size] = detectors.make_scorer(
          self.run, self.basis.rule.score, self.score_fit, batch_size)
    logits, score = self._predictors[batch_size](self.view.inputs(pixels))
    return rule.decide(logits, len(self.classes_), self.basis.rule, score)

  def decide_each(
      self, pictures: Iterable[Picture], batch_size: int | None = None
  ) -> Iterator[tuple[Decoded, rule.Decisions | None]]:
    """Decodes and classifies any number of pictures, batch by batch.

    No more than two batches of them are in memory.

    Args:
      pictures: paths, Pillow images, or uint8 pixels.
      batch_size: pictures per batch; None: `eval_batch_size` of the config.

    Yields:
      (what each picture of a batch was decoded to, the decisions on those that can be
      read; None if none can).
    """
    num = batch_size or self.run.config['eval_batch_size']
    view, batch = self.view, []

    def decided(batch):
      pixels = [found for _, found in batch if not isinstance(found, str)]
      return batch, self.decide(np.stack(pixels), num) if pixels else None

    with warnings.catch_warnings():
      # Pillow warns, without naming the file, of large pictures and of damaged tags in
      # pictures that it nevertheless reads.
      warnings.filterwarnings('ignore', module=r'PIL\.')
      for one in data.decode_each(pictures, view.size, view.mode, ahead=num):
        batch.append(one)
        if len(batch) == num:
          yield decided(batch)
          batch = []
      if batch:
        yield decided(batch)


def restore(
    workdir: str, step: int | None = None, threshold: float | None = None,
    keep: float = 0.95,
) -> Classifier:
  """`Classifier.restore` without a warning: `basis.note` is for the caller to tell.

  Args:
    workdir, step, threshold: see `Classifier.restore`.
    keep: see `rule.find`.
  """
  run = runs.restore(workdir, step, 'classify')
  basis = rule.find(workdir, run.config, run.step, run.crc32, threshold, keep)
  return Classifier(run, basis, workdir)


def _as_list(images) -> Sequence[Picture]:
  """A sequence of pictures; a single picture becomes a sequence of one."""
  if isinstance(images, str | os.PathLike | Image.Image):
    return [images]
  if not (isinstance(images, Iterable) or hasattr(images, '__getitem__')):
    raise ValueError(
        'expected pictures: a path, a Pillow image, uint8 pixels, or a sequence of '
        f'them, got {images!r}')
  if not _is_numeric(images):
    pictures = [one if isinstance(one, str | os.PathLike | Image.Image)
                else np.asarray(one) for one in images]
    _load_repeated(pictures)
    return pictures
  images = np.asarray(images)
  if images.dtype != np.uint8 or images.ndim not in (2, 3, 4) or (
      images.ndim > 2 and images.shape[-1] not in (1, 3, 4)):
    raise ValueError(
        'expected pictures as uint8 (0 to 255) [n, h, w, c], or one as [h, w, c], with '
        f'1, 3 or 4 channels, got {images.dtype} {list(images.shape)}; images[..., '
        'None] adds a channel to grey pictures, and of numbers from 0 to 1 (images * '
        '255).round().astype(numpy.uint8) makes pixels')
  return images if images.ndim == 4 else [images]


def _is_numeric(images):
  """Whether pictures are one array of pixels; not an array or a column of paths."""
  return hasattr(images, 'ndim') and np.asarray(images).dtype.kind not in 'OSU'


def _load_repeated(pictures):
  """Loads images of Pillow that are given twice: two threads must not do so at once."""
  times = collections.Counter(
      id(one) for one in pictures if isinstance(one, Image.Image))
  for one in pictures:
    if times[id(one)] > 1:
      with contextlib.suppress(Exception):  # what is wrong with it is told later
        one.load()


def _unreadable(place, picture, reason):
  """The message on a picture that cannot be read."""
  name = picture if isinstance(picture, str | os.PathLike) else type(picture).__name__
  return (f'picture {place} ({name}) cannot be read: {reason}; leave it out, or use '
          '--mode=predict, which gives unreadable files a row of their own')


# Training from arrays.


def _check_workdir(workdir):
  """Raises ValueError unless a workdir is a local folder, or a new one."""
  if not isinstance(workdir, str | os.PathLike) or os.path.isfile(workdir):
    raise ValueError(
        f'workdir must be the path of a folder, which need not exist, got {workdir!r}')
  if files.is_remote(workdir):
    raise ValueError(
        f'Classifier.fit needs a local workdir, for the pictures, got {workdir}; train '
        'with --config and --workdir there instead')


def _arrays(images, labels, negatives, size) -> dict[str, data.Arrays]:
  """The positives and, where given, the negatives, a class of their own."""
  image = _pixels('images', images, size)
  labels = np.asarray(labels)
  if labels.dtype == object and all(isinstance(one, str) for one in labels.flat):
    labels = labels.astype(str)
  if labels.shape != (len(image),):
    raise ValueError(
        f'expected one label for each of {len(image)} images, got labels of shape '
        f'{list(labels.shape)}')
  if labels.dtype.kind not in 'biuU':
    raise ValueError(
        f'expected labels that are integers or texts, got {labels.dtype}')
  names, label = np.unique(labels, return_inverse=True)
  if len(names) < 2:
    raise ValueError(f'expected images of at least two classes, got {len(names)}')
  rarest = int(np.bincount(label).argmin())
  if np.bincount(label)[rarest] < 10:
    raise ValueError(
        f'the class {str(names[rarest])!r} has {np.bincount(label)[rarest]} images; at '
        'least 10 are needed, since 10 % of each class are held out for calibration')
  found = {'positives': data.Arrays(
      image, label.astype(np.int32), tuple(map(str, names)))}
  if negatives is not None:
    other = _pixels('negatives', negatives, image.shape[1:3], image.shape[3])
    if len(other) < 10:
      raise ValueError(f'expected 10 negatives or more, got {len(other)}')
    found['negatives'] = data.Arrays(
        other, np.zeros(len(other), np.int32), ('negatives',))
  return found


def _pixels(what, pictures, size, channels=None) -> np.ndarray:
  """The pictures as uint8 [n, h, w, c], of a size and with channels unless None."""
  if size is not None:
    size = (size, size) if isinstance(size, int) else tuple(size)
  whole = np.asarray(pictures) if _is_numeric(pictures) else None
  if whole is None and size is None:
    raise ValueError(
        f'{what}: expected uint8 pixels [n, h, w, c], or a list of pictures together '
        f'with image_size=..., got {type(pictures).__name__} without image_size')
  if whole is not None and (
      whole.dtype != np.uint8 or whole.ndim != 4 or whole.shape[3] not in (1, 3)):
    raise ValueError(
        f'{what}: expected uint8 pixels (0 to 255) [n, h, w, c] with 1 or 3 channels, '
        f'got {whole.dtype} {list(whole.shape)}')
  if channels is None:
    channels = 3 if whole is None else whole.shape[3]
  if whole is not None and (*(size or whole.shape[1:3]), channels) == whole.shape[1:]:
    return whole
  mode = mode_of(channels)
  pictures = _as_list(pictures)
  found = []
  for place, (picture, one) in enumerate(data.decode_each(pictures, size, mode)):
    if isinstance(one, str):
      raise ValueError(f'{what}: {_unreadable(place, picture, one)}')
    found.append(one)
  if not found:
    raise ValueError(f'{what}: expected pictures, got none')
  return np.stack(found)


def _crc32(arrays):
  """A checksum by which a set of images has its name, and a run its data."""
  shape = repr((arrays.image.shape, arrays.names)).encode()
  found = zlib.crc32(shape)
  for part in (arrays.image, arrays.label):
    found = zlib.crc32(np.ascontiguousarray(part), found)
  return found


def _config(positives, paths, changes):
  """The config of `Classifier.fit`, with the changes of the caller."""
  def source(name, split):
    return {'name': 'arrays', 'path': paths[name], 'split': split}

  given, tested = {'shuffled': recipes.SHUFFLED}, {}
  if 'negatives' in paths:
    given = {'negatives': {'source': source('negatives', 'all[:80%]')}}
    tested = {'negatives': {'source': source('negatives', 'all[80%:]')}}
  trained, given, evals = presets.hold_out(
      source('positives', 'all[:80%]'), given,
      {'test': {'source': source('positives', 'all[80%:]'), 'positive': True}, **tested,
       'noise': {'source': {'name': 'normal_noise', 'num': 1000}}}, percent=10)
  sample = np.random.default_rng(0).permutation(len(positives.label))[:SAMPLE]
  pixels = positives.image[np.sort(sample)] / np.float32(255)
  mean, std = pixels.mean((0, 1, 2)), np.maximum(pixels.std((0, 1, 2)), 1e-3)
  steps = changes.get('steps', 2000)
  schema.bounds.check('steps', 'steps', steps)
  period = min(PERIOD, steps)
  settings = dict(
      name=os.path.basename(os.path.dirname(os.path.dirname(paths['positives']))),
      variant='nat', num_classes=len(positives.names), steps=steps,
      loss={'name': 'nat'}, best=f'{schema.VALIDATION}/accuracy', patience=10 * period,
      evals=evals, **recipes.SMALL)
  settings['data'] = dict(
      positives=trained, negatives=given, batch_size=64, negatives_per_batch=(4, 12),
      augment=[{'name': 'crop', 'pad': max(1, min(positives.image.shape[1:3]) // 8)}],
      mean=np.round(mean, 4).tolist(), std=np.round(std, 4).tolist())
  settings['run'] = {
      **settings['run'], 'eval_every': period, 'checkpoint_every': period}
  for key, value in changes.items():
    grouped = key in ('data', 'run') and hasattr(value, 'keys')
    settings[key] = {**settings[key], **value} if grouped else value
  return presets.experiment(**settings)
