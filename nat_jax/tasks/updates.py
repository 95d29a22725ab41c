"""One update of one network, whatever the task.

    net, (loss, aux), norm = descend(net, tx, loss_fn, axis)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
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
    loss_fn: params -> (terms of the examples of this device, whose sum over all devices
      is minimised: an array of any shape, aux).
    axis: the devices that share the batch.

  Returns:
    (net, (loss over the global batch, aux), global norm of the gradient).
  """
  def total(params):
    terms, aux = loss_fn(params)
    return jnp.sum(terms), (terms, aux)

  grads, (terms, aux) = jax.grad(total, has_aux=True)(net.params)
  grads = axis.all(grads)
  updates, opt_state = tx.update(grads, net.opt_state, net.params)
  params = optax.apply_updates(net.params, updates)
  net = net.replace(params=params, opt_state=opt_state)
  return net, (axis.sum(terms), aux), optax.tree.norm(grads)
