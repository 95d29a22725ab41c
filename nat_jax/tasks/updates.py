"""One gradient update of one network, for all tasks.

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
  """One gradient update of a network.

  Args:
    net: the network; its `batch_stats` are not changed.
    tx: its optimiser.
    loss_fn: params -> (terms, aux). The terms are an array of any shape, of the
      examples of this device; their sum over all devices is the loss.
    axis: the devices that share the batch.

  Returns:
    (updated net, (loss over the global batch, aux), global norm of the gradient).
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
