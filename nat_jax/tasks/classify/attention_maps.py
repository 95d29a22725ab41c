"""Computes the attention maps of a few images, for a figure of the report.

    maps = attention_maps.compute(trainer, state, mesh, sets)
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from nat_jax import losses
from nat_jax.runtime import parallel

NUM_IMAGES = 4  # the first images of each set


def compute(trainer, state, mesh, sets: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The attention maps of a network for the first images of each set.

  Args:
    trainer: with the head 'aux'.
    state: its state.
    mesh: the devices.
    sets: evaluation sets from `inputs.load_evals`.

  Returns:
    'image' [n, h, w, c] uint8, 'set' [n] (names), and for each group of layers
    'group1', ... its maps [n, height, width] of Euclidean norm 1. Sets that are not
    uint8 (noise in normalised space) are left out. {} for a network without groups.
  """
  first = {name: s.arrays.image[:NUM_IMAGES] for name, s in sets.items()}
  first = {name: x for name, x in first.items() if x.dtype == np.uint8}
  head = trainer.heads.get('aux')
  if not first or head is None:
    return {}
  images = np.concatenate(list(first.values()))
  shapes = jax.eval_shape(head, state, images)
  groups = [key for key, x in shapes.items() if x.ndim == 4]
  if not groups:
    return {}

  def maps(state, images):
    aux = head(state, images)
    return {key: losses.attention_map(aux[key]).reshape(aux[key].shape[:3])
            for key in groups}

  missing = -len(images) % mesh.devices.size
  padded = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
  found = parallel.wrap_head(maps, mesh)(state, padded)
  return {
      'image': images, 'set': np.repeat(list(first), [len(x) for x in first.values()]),
      **{key: np.asarray(x)[: len(images)] for key, x in found.items()}}
