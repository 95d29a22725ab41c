"""Evaluation classifiers: the features and class probabilities of images for metrics.

    features = registry.build(FEATURES, spec, mesh=mesh, image_shape=(32, 32, 3))
    found = features.apply(images)    # uint8 -> {'features': [n, d], 'probs': [n, k]}
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import logging
from scipy import special

from nat_jax import data
from nat_jax.models import inception as inception_net
from nat_jax.runtime import files, inference, processes
from nat_jax.task import Others
from nat_jax.tasks import checkpoints

BATCH = 500
MAX_BYTES = 1_000_000_000  # size of the folder of features of real images


class Features(NamedTuple):
  """An evaluation classifier of generated images.

  Attributes:
    convention: description that reports print beside every metric.
    identity: text that differs where results may differ, for the cache of features.
    apply: uint8 images [n, h, w, c] -> {'features': [n, d] float32} and, if it has
      classes, 'probs': [n, k].
    num_classes: k; 0: it has no classes.
  """

  convention: str
  identity: str
  apply: Callable[[np.ndarray], dict[str, np.ndarray]]
  num_classes: int


def pixels(*, mesh, image_shape, others) -> Features:
  """Pixels as features, without classes; for tiny images only."""
  del mesh, image_shape, others

  def apply(images):
    return {'features': images.reshape(len(images), -1).astype(np.float32) / 255}

  return Features('features: raw pixels in [0, 1]; not comparable with published FID',
                  'pixels', apply, 0)


def checkpoint(
    workdir: str, step: int | None = None, config: str = '', *, mesh, image_shape,
    others: Others,
) -> Features:
  """A classifier that was trained with this program.

  Args:
    workdir: of the run.
    step: of its checkpoint; None: the newest.
    config: config of the run, FILE:VARIANT; --mode=train trains it if it is missing.
    mesh: the devices.
    image_shape: of the images to be evaluated.
    others: restores the run.

  Raises:
    ValueError: the run is missing, is not a classifier, takes images of another shape,
      or is not trained to its end (without `step`).
  """
  del config
  if not workdir:
    raise ValueError(
        "measures.features {'name': 'checkpoint'} needs the workdir of a trained "
        'classifier: --config.measures.features.workdir=DIR')
  found = checkpoints.identity(workdir, step, 'measures.features.step', others)
  restored = others.restore(workdir, found['step'], 'classify')
  if restored.shape != tuple(image_shape):
    raise ValueError(
        f'the classifier in {workdir} takes images of {restored.shape}, but those of '
        f'the GAN are {tuple(image_shape)}; train a classifier on images of that shape')
  heads, k = restored.trainer.heads, restored.config['num_classes']
  predict = inference.make_predict(
      lambda state, images: jnp.concatenate(  # in one program, which shares the pass
          [heads['logits'](state, images)[:, :k], heads['features'](state, images)], 1),
      mesh, BATCH)

  def apply(images):
    found = predict(restored.state, images)
    return {'features': found[:, k:], 'probs': special.softmax(
        found[:, :k].astype(np.float64), axis=1)}

  name = f'{restored.config["name"]}:{restored.config["variant"]}'
  return Features(
      f'classifier and features: our own {name}, step {restored.step}; not comparable '
      'with published IS, AM score and FID',
      f'{files.absolute(workdir)} {restored.step} '
      f'{restored.crc32}',
      apply, k)


def inception(
    path: str, bias: bool = False, *, mesh, image_shape, others: Others
) -> Features:
  """The Inception network of 2015-12-05, with the user's weight file.

  Args:
    path: of the file; see `nat_jax.models.inception`.
    bias: whether class logits include the bias (the first IS code leaves it out).
    mesh: the devices.
    image_shape: of the images to be evaluated.
    others: not used.

  Raises:
    ValueError: the file is missing or holds other arrays, or images have neither 1 nor
      3 channels.
  """
  del others
  if image_shape[-1] not in (1, 3):
    raise ValueError(
        f'Inception takes grey or RGB images, got images of {tuple(image_shape)}')
  if not os.path.isfile(path or ''):
    raise ValueError(
        f"measures.features {{'name': 'inception'}} needs a weight file, and {path!r} "
        'is not a file; nat_jax/models/inception.py says how to make one')
  variables = inception_net.load_weights(path)

  def head(variables, images):
    pool3, logits = inception_net.inception_features(variables, images, bias=bias)
    return jnp.concatenate([logits, pool3], 1)

  predict = inference.make_predict(head, mesh, 50)

  def apply(images):
    found = predict(variables, images)
    return {'features': found[:, -2048:], 'probs': special.softmax(
        found[:, :-2048].astype(np.float64), axis=1)}

  with_bias = 'with' if bias else 'without'
  return Features(
      f'classifier and features: Inception 2015-12-05 from {os.path.basename(path)}, '
      f'TF1 bilinear resize, logits {with_bias} bias, uint8 images',
      f'{os.path.realpath(path)} {os.path.getmtime(path)} {bias}', apply, 1008)


FEATURES = {'pixels': pixels, 'checkpoint': checkpoint, 'inception': inception}


def reference(
    arrays: data.Arrays, num: int | None, features: Features,
    image_shape: tuple[int, ...], key: str = 'measures.reference',
) -> tuple[data.Arrays, dict[str, np.ndarray]]:
  """Computes the features of real images, or reads them from a cache on disk.

  Args:
    arrays: the images.
    num: the most images; they are drawn without repetition by a fixed seed, in random
      order (which an Inception Score over splits needs). None: all.
    features: the evaluation classifier.
    image_shape: the shape that the images must have.
    key: of the config that names their source, for the error.

  Returns:
    (the images that were used, with labels; the result of `features.apply`).

  Raises:
    ValueError: the images have another shape.
  """
  if arrays.image.shape[1:] != tuple(image_shape):
    raise ValueError(
        f'{key} has images of {arrays.image.shape[1:]}, the training '
        f'images are {tuple(image_shape)}; choose a source of the same shape')
  rows = np.random.default_rng(0).permutation(len(arrays.label))[:num]
  arrays = arrays._replace(image=arrays.image[rows], label=arrays.label[rows])
  digest = hashlib.sha256(np.ascontiguousarray(arrays.image)).hexdigest()
  digest = hashlib.sha256(json.dumps([features.identity, digest]).encode()).hexdigest()
  path = data.cache_folder('features') / f'{digest[:32]}.npz'
  cached = _read_cached(path, len(arrays.label))
  if processes.count(cached is not None) == processes.total():
    return arrays, cached
  found = features.apply(arrays.image)  # by all processes together
  _keep(path, found)  # each host has its own cache
  return arrays, found


def _keep(path, found):
  """Writes features into the cache, and removes the least recently used ones.

  If that fails a warning is logged, and the features are computed again the next time.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_npz(path, **found)
    kept = [(each.stat(), each) for each in path.parent.glob('*.npz')]
    num_bytes = 0
    for about, each in sorted(kept, key=lambda one: -one[0].st_mtime_ns):
      num_bytes += about.st_size
      if num_bytes > MAX_BYTES and each != path:
        each.unlink(missing_ok=True)
  except OSError as error:  # another process may have removed a file meanwhile
    logging.warning('The cache of features, %s: %s.', path.parent, error)


def _read_cached(path, num):
  """The features of `num` images in a file of the cache; None if there are none."""
  try:
    with contextlib.suppress(OSError):
      os.utime(path)  # it was used now
    found = files.read_npz(path, 'it is written again', keys=('features',))
  except FileNotFoundError:
    return None
  except files.Unreadable as error:
    logging.warning('%s.', error)
    return None
  if any(x.shape[:1] != (num,) for x in found.values()):
    logging.warning('%s is not of %d images; it is written again.', path, num)
    return None
  return found
