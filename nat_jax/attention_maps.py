"""Saves where a network looks in a few images, for the figure of the report.

    attention_maps.save(workdir, trainer, state, mesh, sets)   # scores/attention.npz
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from nat_jax import losses
from nat_jax.runtime import parallel

FILE = 'attention.npz'  # in scores/
NUM_IMAGES = 4  # the first so many of each set


def save(workdir: str, trainer, state, mesh, sets: Mapping[str, Any]) -> None:
  """Writes the attention maps of a network for the first images of each set.

  The file holds 'image' [n, h, w, c] uint8, 'set' [n] names, and for each group of
  the network its maps [n, height, width] of length 1. Sets without pixels (noise in
  normalised space) and networks without groups are left out.

  Args:
    workdir: of the run.
    trainer: with the head 'aux'.
    state: its state.
    mesh: the devices.
    sets: of `inputs.load_evals`.
  """
  first = {name: s.arrays.image[:NUM_IMAGES] for name, s in sets.items()}
  first = {name: x for name, x in first.items() if x.dtype == np.uint8}
  head = trainer.heads.get('aux')
  if not first or head is None:
    return
  images = np.concatenate(list(first.values()))
  shapes = jax.eval_shape(head, state, images)
  groups = [key for key, x in shapes.items() if x.ndim == 4]
  if not groups:
    return

  def maps(state, images):
    aux = head(state, images)
    return {key: losses.attention_map(aux[key]).reshape(aux[key].shape[:3])
            for key in groups}

  missing = -len(images) % mesh.devices.size
  padded = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
  found = parallel.wrap_head(maps, mesh)(state, padded)
  if jax.process_index():
    return
  os.makedirs(os.path.join(workdir, 'scores'), exist_ok=True)
  np.savez_compressed(
      os.path.join(workdir, 'scores', FILE), image=images,
      set=np.repeat(list(first), [len(x) for x in first.values()]),
      **{key: np.asarray(x)[: len(images)] for key, x in found.items()})
