"""Images -> the features and class probabilities that generated images are measured by.

    features = registry.build(FEATURES, spec, mesh=mesh, image_shape=(32, 32, 3))
    found = features.apply(images)    # uint8 -> {'features': [n, d], 'probs': [n, k]}
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import logging
from scipy import special

from nat_jax import data
from nat_jax.models import inception as inception_net
from nat_jax.runtime import files, inference, processes
from nat_jax.task import Others

BATCH = 500


class Features(NamedTuple):
  """What generated images are measured by.

  Attributes:
    convention: what is printed beside every figure that rests on it.
    identity: differs where the numbers may differ.
    apply: uint8 images [n, h, w, c] -> {'features': [n, d] float32} and, where it knows
      classes, 'probs': [n, k].
    num_classes: k, or 0.
  """

  convention: str
  identity: str
  apply: Callable[[np.ndarray], dict[str, np.ndarray]]
  num_classes: int


def pixels(*, mesh, image_shape, others) -> Features:
  """The pixels themselves: for tiny images only, and without class scores."""
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
    config: of the run, FILE:VARIANT; main trains it where there is no such run.
    mesh: where it runs.
    image_shape: of the images to be judged.
    others: reads the run.

  Raises:
    ValueError: there is no such run, it is no classifier, or of other images.
  """
  del config
  if not workdir:
    raise ValueError(
        "measures.features {'name': 'checkpoint'} needs the workdir of a trained "
        'classifier: --config.measures.features.workdir=DIR')
  restored = others.restore(workdir, step, 'classify')
  if restored.shape != tuple(image_shape):
    raise ValueError(
        f'the classifier in {workdir} takes images of {restored.shape}, '
        f'those to be judged are {tuple(image_shape)}; train one on the same shape')
  heads, k = restored.trainer.heads, restored.config['num_classes']
  predict = inference.make_predict(
      lambda state, images: jnp.concatenate(  # one pass: XLA sees that they share it
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
      f'{os.path.realpath(workdir)} {restored.step} '
      f'{os.path.getmtime(os.path.join(workdir, "checkpoints", str(restored.step)))}',
      apply, k)


def inception(
    path: str, bias: bool = False, *, mesh, image_shape, others: Others
) -> Features:
  """The Inception network of 2015-12-05 with a weight file of the user's.

  Args:
    path: of the file; see `nat_jax.models.inception`.
    bias: whether the class logits have their bias (the Inception Score's code leaves
      it out).
    mesh, image_shape, others: as for `checkpoint`.

  Raises:
    ValueError: the file is not there, or holds other arrays.
  """
  del others
  if image_shape[-1] not in (1, 3):
    raise ValueError(
        f'Inception judges grey or RGB images, got images of {tuple(image_shape)}')
  if not os.path.isfile(path or ''):
    raise ValueError(
        f"measures.features {{'name': 'inception'}} needs a weight file, and {path!r} "
        'is none; how to make one: nat_jax/models/inception.py')
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
    source: Mapping[str, Any], num: int, features: Features,
    image_shape: tuple[int, ...],
) -> tuple[data.Arrays, dict[str, np.ndarray]]:
  """Real images of a source, and what `features` finds in them (kept on disk).

  Args:
    source: spec of a data source.
    num: the most images, drawn without repetition by a fixed seed, in random order
      (an Inception Score over splits needs it).
    features: of this module.
    image_shape: that the images must have.

  Raises:
    ValueError: the images have another shape.
  """
  arrays = data.load(source)
  if arrays.image.shape[1:] != tuple(image_shape):
    raise ValueError(
        f'measures.reference has images of {arrays.image.shape[1:]}, the training '
        f'images are {tuple(image_shape)}; choose a source of the same shape')
  rows = np.random.default_rng(0).permutation(len(arrays.label))[:num]
  arrays = arrays._replace(image=arrays.image[rows], label=arrays.label[rows])
  print_ = hashlib.sha256(np.ascontiguousarray(arrays.image)).hexdigest()
  key = hashlib.sha256(json.dumps([features.identity, print_]).encode()).hexdigest()
  path = data.cache_folder('features') / f'{key[:32]}.npz'
  cached = _read_cached(path, len(arrays.label))
  if processes.count(cached is not None) == processes.total():
    return arrays, cached
  found = features.apply(arrays.image)  # by all processes together
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_npz(path, **found)  # each host has its own cache
  return arrays, found


def _read_cached(path, num):
  """The features of `num` images in a file of the cache; None: they are to be made."""
  try:
    found = files.read_npz(path, 'it is made again', keys=('features',))
  except FileNotFoundError:
    return None
  except files.Unreadable as error:
    logging.warning('%s.', error)
    return None
  if any(x.shape[:1] != (num,) for x in found.values()):
    logging.warning('%s is not of %d images; it is made again.', path, num)
    return None
  return found
