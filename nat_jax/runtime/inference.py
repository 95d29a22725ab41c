"""Batched inference: applies a network to any number of examples.

    predict = make_predict(trainer.heads['logits'], mesh, batch_size=512)
    logits = predict(state, images)                # numpy [n, k]
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from nat_jax.runtime import parallel


def make_predict(head, mesh, batch_size: int) -> Callable[[Any, np.ndarray], Any]:
  """Compiles a head for inference in batches.

  Args:
    head: (state, images [n, ...]) -> array [n, ...].
    mesh: from `parallel.make_mesh`.
    batch_size: images per batch, rounded up to a multiple of the number of devices.

  Returns:
    predict(state, images) -> numpy array with one row per image, for any number of
    images. The last batch is padded, and the results of the padding are removed. Of
    images that are read from disk each process reads its own rows only.
  """
  num_devices = mesh.devices.size
  batch_size = -(-batch_size // num_devices) * num_devices
  run = parallel.wrap_head(head, mesh, own_rows=True)
  rows = parallel.local(batch_size, mesh)

  def predict(state, images):
    pending, done = [], []
    for start in range(0, len(images), batch_size):
      batch = np.asarray(images[start + rows.start : start + rows.stop])
      missing = rows.stop - rows.start - len(batch)
      batch = np.pad(batch, [(0, missing), *[(0, 0)] * (batch.ndim - 1)])
      pending.append(run(state, batch))
      if len(pending) > 2:  # keeps two batches queued on the device
        done.append(np.asarray(pending.pop(0)))
    done += [np.asarray(logits) for logits in pending]
    return np.concatenate(done)[: len(images)]

  return predict
