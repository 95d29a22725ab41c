"""Programs that run without this package: StableHLO of several platforms, by JAX.

    data = serialise(lambda images: {'logits': ...}, (32, 32, 3))  # any batch size
    jax.export.deserialize(bytearray(data)).call(images)           # [n, 32, 32, 3]
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

PLATFORMS = ('cpu', 'cuda', 'tpu')


def serialise(
    fn: Callable[[jax.Array], Any], shape: Sequence[int], dtype: Any = np.uint8,
    platforms: Sequence[str] = PLATFORMS,
) -> bytes:
  """Lowers a function of a batch of any size and serialises it with its constants.

  Args:
    fn: array [n, *shape] -> pytree of arrays [n, ...]; its constants are numpy arrays.
    shape: of one example.
    dtype: of the examples.
    platforms: on which the program is to run; none of them is needed here.

  Returns:
    What `jax.export.deserialize` reads, by JAX's policy in versions of JAX that are up
    to six months newer or three weeks older.

  Raises:
    ValueError: the function depends on the size of the batch.
  """
  size, = export.symbolic_shape('n')
  example = jax.ShapeDtypeStruct((size, *shape), dtype)
  # Otherwise the program names the source files, and with them folders of this machine.
  limit = jax.config.jax_traceback_in_locations_limit
  jax.config.update('jax_traceback_in_locations_limit', 0)
  try:
    found = export.export(jax.jit(fn), platforms=platforms)(example)
  # What tracing raises where a symbolic size is used as a number.
  except (TypeError, ValueError, IndexError) as error:
    raise ValueError(
        'the network cannot be lowered for batches of any size (in Python, '
        f'images.shape[0] works where len(images) does not): {error}') from error
  finally:
    jax.config.update('jax_traceback_in_locations_limit', limit)
  return bytes(found.serialize())
