"""Finds the training pictures that are most similar to a picture.

    search = make_search(clf.run, num=5)
    search(pixels)                         # five `Similar`, the most similar first
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nat_jax import data, runs
from nat_jax.names import listed
from nat_jax.runtime import inference
from nat_jax.task import Run
from nat_jax.tasks import images
from nat_jax.tasks.classify import inputs

MOST = 5000  # positives, and negatives, that are searched
BATCH = 8  # pictures per call for the features of what is asked


class Similar(NamedTuple):
  """A training picture.

  Attributes:
    image: uint8 [h, w, c].
    name: its class, or the name of its set of negatives.
    positive: whether it is of one of the classes.
    similarity: cosine of the angle between its features and those of the picture.
  """

  image: np.ndarray
  name: str
  positive: bool
  similarity: float


def make_search(
    run: Run, num: int, most: int = MOST
) -> Callable[[np.ndarray], list[Similar]]:
  """Makes a search among random training pictures.

  Args:
    run: of a classifier.
    num: pictures that a search returns.
    most: pictures of each kind that are searched.

  Returns:
    search(pixels uint8 [h, w, c]) -> `num` training pictures, or all if there are
    fewer.

  Raises:
    ValueError, OSError: the training data cannot be loaded.
  """
  from sklearn import neighbors

  pictures, names, num_positives = _sample(run, most)
  found = _unit(_features(run, run.config['eval_batch_size'])(pictures))
  nearest = neighbors.NearestNeighbors(
      n_neighbors=min(num, len(found)), algorithm='brute').fit(found)
  of_one = _features(run, BATCH)

  def search(pixels):
    distance, row = nearest.kneighbors(_unit(of_one(pixels[None])))
    # Of vectors of length 1: |a - b|^2 = 2 - 2 cos(a, b).
    return [
        Similar(pictures[k], names[k], bool(k < num_positives), 1 - float(d) ** 2 / 2)
        for d, k in zip(distance[0], row[0], strict=True)]

  return search


def _features(run, batch_size):
  """images [n, h, w, c] -> features [n, d]."""
  predict = inference.make_predict(run.trainer.heads['features'], run.mesh, batch_size)
  return functools.partial(predict, run.state)


def _sample(run, most):
  """(images [n, h, w, c], n names, number of positives, which come first)."""
  positives, negatives = images.load_sets(
      run.config, inputs.uses_negatives(run.config), runs.OTHERS)
  if run.class_names and positives.names not in ((), tuple(run.class_names)):
    raise ValueError(
        f'the training positives are of the classes {listed(positives.names)} now, and '
        f'the classifier was trained on {listed(run.class_names)}')
  rng = np.random.default_rng(0)

  def take(arrays, limit):
    rows = np.sort(rng.permutation(len(arrays.label))[:limit])
    image, settings = arrays.image[rows], run.config['data']
    return rows, (image if image.dtype == np.uint8 else
                  data.quantise(image, settings['mean'], settings['std']))

  rows, image = take(positives, most)
  parts = [image]
  names = [run.class_names[k] if run.class_names else str(k)
           for k in positives.label[rows]]
  for name, one in negatives.items():
    rows, image = take(one, most // len(negatives))
    parts.append(image)
    names += [name] * len(rows)
  return np.concatenate(parts), names, len(parts[0])


def _unit(features):
  features = np.asarray(features, np.float64)
  return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
