"""Finds the training images nearest to samples, to see whether a GAN memorises.

    search = make_search(run, num=3, others=others)
    images, captions, line = search(samples)  # of a sheet, and a line of figures
"""

from collections.abc import Callable

import numpy as np

from nat_jax import metrics, registry
from nat_jax.task import Others, Run
from nat_jax.tasks import images as shared
from nat_jax.tasks.gan import features

SHOWN = 10  # samples on the sheet
QUERIES = 1000  # training images whose own nearest neighbour is searched for
BLOCK = 10_000  # training images per block of the search


def make_search(
    gan: Run, num: int, others: Others
) -> Callable[[np.ndarray], tuple[np.ndarray, list[str], str]]:
  """Makes a search for the training positives nearest to samples of a GAN.

  Distances are between features of the config key `measures.features`.

  Args:
    gan: the restored run.
    num: number of neighbours per sample.
    others: reads the run of the evaluation classifier.

  Returns:
    search(uint8 samples [n, h, w, c]) -> (images, captions, line). images holds rows of
    num + 1: a sample and its neighbours, whose captions are their distances from it.
    The line compares the median distance of samples to
    their nearest training image with that of training images to their nearest other
    one.

  Raises:
    ValueError: the features or the training images cannot be loaded, there are fewer
      than `num` training images, or they have another shape than the samples.
  """
  extractor = registry.build(
      features.FEATURES, gan.config['measures']['features'], what='features',
      mesh=gan.mesh, image_shape=gan.shape, others=others)
  train = shared.load_sets(gan.config, uses_negatives=False)[0].image
  if train.shape[1:] != gan.shape:
    raise ValueError(
        f'the run was trained on images of {gan.shape}, and its source data.positives '
        f'now has images of {train.shape[1:]}; restore the data it was trained on')
  if num > len(train):
    raise ValueError(
        f'neighbours must be {len(train)} (the training images) or fewer, got {num}')

  def search(samples):
    rows = np.random.default_rng(0).permutation(len(train))[:QUERIES]
    queries = extractor.apply(np.concatenate([samples, train[rows]]))['features']
    distance, index = _nearest(queries, train, extractor, max(num, 2))
    distance, others = np.split(distance, [len(samples)])
    index, of_others = np.split(index, [len(samples)])
    # An image is not its own neighbour.
    among = np.where(of_others == rows[:, None], np.inf, others).min(1)
    images = np.concatenate([samples[:, None], train[index[:, :num]]], 1)[:SHOWN]
    captions = [text for i, row in enumerate(distance[:SHOWN, :num])
                for text in (f'sample {i}', *(f'{d:.4g}' for d in row))]
    return (images.reshape(-1, *gan.shape), captions,
            _sentence(distance[:, 0], among, extractor))

  return search


def _sentence(own, among, extractor):
  ours, theirs = np.median(own), np.median(among)
  ratio = f'{ours / theirs:.2f}' if theirs > 0 else 'none'
  return (
      f'distance to the nearest training image, median: {ours:.4g} of {len(own)} '
      f'samples, {theirs:.4g} of {len(among)} training images to another one; ratio '
      f'{ratio} (copies: near 0), exact copies: {(own == 0).sum()}; '
      f'{extractor.convention}')


def _nearest(queries, train, extractor, num):
  """(distances, rows of train) of the `num` nearest per query, nearest first."""
  distance = np.zeros((len(queries), 0))
  index = np.zeros((len(queries), 0), int)
  for start in range(0, len(train), BLOCK):
    block = extractor.apply(train[start : start + BLOCK])['features']
    d, i = metrics.nearest_neighbours(queries, block, min(num, len(block)))
    distance, index = np.hstack([distance, d]), np.hstack([index, i + start])
    order = np.argsort(distance, 1, kind='stable')[:, :num]
    distance = np.take_along_axis(distance, order, 1)
    index = np.take_along_axis(index, order, 1)
  return distance, index
