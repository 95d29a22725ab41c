"""How pictures become the inputs of a classifier, of pictures or of vectors.

    view = make_view(run)
    decoded = data.decode_each(paths, view.size, view.mode)
    logits = predict(view.inputs(np.stack(pictures)))
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from nat_jax import data
from nat_jax.runtime import backbones
from nat_jax.task import Run


class View(NamedTuple):
  """How pictures are decoded, and what the network gets.

  Attributes:
    size: (h, w) to which pictures are decoded.
    mode: 'RGB' or 'L', see `data.decode_each`.
    inputs: decoded pictures, uint8 [n, h, w, c] -> images or vectors, for the network.
    traced: the same as a part of a JAX program; None: a backbone that is not of JAX.
  """

  size: tuple[int, int]
  mode: str
  inputs: Callable[[np.ndarray], np.ndarray]
  traced: Callable[[jax.Array], jax.Array] | None

  @property
  def shape(self) -> tuple[int, int, int]:
    """(h, w, c) of decoded pictures."""
    return (*self.size, 1 if self.mode == 'L' else 3)


def mode_of(channels: int) -> str:
  """The mode of Pillow for pictures with 1 or 3 channels."""
  return 'L' if channels == 1 else 'RGB'


def make_view(run: Run) -> View:
  """The view of a restored classifier; that of vectors needs their backbone.

  Raises:
    ValueError: the run knows no backbone of its vectors, or it cannot be built.
  """
  if not data.is_vectors(run.shape):
    height, width, channels = run.shape
    return View((height, width), mode_of(channels), *2 * [lambda images: images])
  settings = run.config['data']
  if not settings['backbone']:
    raise ValueError(
        'the run was trained on vectors, and does not know how they are made of '
        'pictures (data.backbone is empty); vectors that --mode=embed has made, and '
        '--config embeddings:FILE.npz, record it')
  backbone = backbones.build(settings['backbone'])
  mean, std = (np.array(settings[key], np.float32)[None] for key in ('mean', 'std'))
  return View(
      backbones.decoded_size(backbone.spec), 'RGB',
      lambda images: data.standardise(
          backbone.embed(images), settings['mean'], settings['std']),
      backbone.traced and (lambda images: (backbone.traced(images) - mean) / std))
