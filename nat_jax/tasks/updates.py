"""One update of one network, whatever the task.

    net, (loss, aux), norm = descend(net, tx, loss_fn, axis)
"""

from collections.abc import Callable
from typing import Any

import jax
import optax

from nat_jax.task import Axis, Net


def descend(
    net: Net,
    tx: optax.GradientTransformation,
    loss_fn: Callable[[Any], tuple[jax.Array, Any]],
    axis: Axis,
) -> tuple[Net, tuple[jax.Array, Any], jax.Array]:
  """One update of a net.

  Args:
    net: its `batch_stats` stay as they are.
    tx: its optimiser.
    loss_fn: params -> (sum over the examples of this device, aux).
    axis: the devices that share the batch.

  Returns:
    (net, (loss over the global batch, aux), global norm of the gradient).
  """
  (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(net.params)
  grads = axis.all(grads)
  updates, opt_state = tx.update(grads, net.opt_state, net.params)
  params = optax.apply_updates(net.params, updates)
  net = net.replace(params=params, opt_state=opt_state)
  return net, (axis.all(loss), aux), optax.tree.norm(grads)
