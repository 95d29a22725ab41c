"""One gradient update of one network, for all tasks; micro-batches; averages.

    net, (loss, aux), norm = descend(net, tx, loss_fn, axis, examples, num=4)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics as clu_metrics
from flax import linen as nn

from nat_jax import models, registry
from nat_jax.task import Axis, Net


def mean_of(name: str, weight: str = '') -> type[clu_metrics.Average]:
  """The average of the output `name` over the filled slots, a field of a Collection.

  Args:
    name: of the output of a step, [n].
    weight: name of the output with the weights of its slots; '': NAME_weight.
  """
  return clu_metrics.Average.from_fun(lambda **outputs: dict(
      values=outputs[name], mask=outputs[weight or f'{name}_weight'] > 0))


def stateless(
    spec: Mapping[str, Any], what: str, num_outputs: int, shape: Sequence[int]
) -> nn.Module:
  """Builds a classifier network, for a player whose update keeps no batch statistics.

  Args:
    spec: of the network, a name in `models.MODELS`.
    what: its key in the config, for messages.
    num_outputs: number of outputs.
    shape: of one example.

  Raises:
    ValueError: an unknown name, or a network with batch statistics.
    TypeError: an unknown or a missing argument.
  """
  made = registry.build(
      models.MODELS, spec, what=what, num_outputs=num_outputs, axis_name=None)
  variables = jax.eval_shape(
      lambda key: made.init(key, jnp.zeros((1, *shape)), train=False),
      jax.random.key(0))
  if set(variables) != {'params'}:
    raise ValueError(
        f'{what} must be a network without batch statistics, which its update does not '
        f'keep, got {spec["name"]!r}; choose another one, such as mlp')
  return made


def descend(
    net: Net,
    tx: optax.GradientTransformation,
    loss_fn: Callable[[Any, Any, Any], tuple[jax.Array, Any, Any]],
    axis: Axis,
    examples: Any = (),
    num: int = 1,
) -> tuple[Net, tuple[jax.Array, Any], jax.Array]:
  """One gradient update of a network, by the sum of the gradients of micro-batches.

  Args:
    net: the network.
    tx: its optimiser.
    loss_fn: (params, batch_stats, examples) -> (terms, batch_stats, aux). The terms are
      an array of any shape, of the examples of this device; their sum over all devices
      and micro-batches is the loss. Aux is a pytree of arrays [n, ...], a row for each
      example (of any type if `num` is 1). The first micro-batch gets the `batch_stats`
      of the network, and each further one those that the one before it returned.
    axis: the devices that share the batch.
    examples: pytree of arrays [n, ...], the last argument of `loss_fn`; n may differ
      between arrays.
    num: number of micro-batches, see `in_parts`.

  Returns:
    (updated net, (loss over the global batch, aux of all examples), global norm of the
    gradient).
  """
  def gradient(batch_stats, examples):
    def total(params):
      terms, changed, aux = loss_fn(params, batch_stats, examples)
      loss = jnp.sum(terms)
      return loss, (loss, changed, aux)

    grads, (loss, changed, aux) = jax.grad(total, has_aux=True)(net.params)
    return grads, loss, changed, aux

  def add(carry, examples):
    grads, loss, batch_stats = carry
    more, another, batch_stats, aux = gradient(batch_stats, examples)
    return (jax.tree.map(jnp.add, grads, more), loss + another, batch_stats), aux

  if num == 1:
    grads, loss, batch_stats, aux = gradient(net.batch_stats, examples)
  else:
    start = jax.tree.map(jnp.zeros_like, net.params), jnp.zeros(()), net.batch_stats
    (grads, loss, batch_stats), aux = in_parts(add, start, examples, num, axis)
  grads = axis.all(grads)
  updates, opt_state = tx.update(grads, net.opt_state, net.params)
  params = optax.apply_updates(net.params, updates)
  return (Net(params, batch_stats, opt_state), (axis.all(loss), aux),
          optax.tree.norm(grads))


def in_parts(
    fn: Callable[[Any, Any], tuple[Any, Any]], carry: Any, examples: Any, num: int,
    axis: Axis,
) -> tuple[Any, Any]:
  """Applies a function to one micro-batch after the other.

  Of `num` examples that follow each other in the global batch each micro-batch gets
  one. So it has about the same share of positives and negatives as the batch, a device
  splits the examples that it holds, and the split does not depend on the number of
  devices. Which one it gets is random, but constant: negatives are spread evenly over
  the batch, and every `num`-th slot could be a negative.

  Args:
    fn: (carry, examples) -> (carry, results); results is a pytree of arrays [n, ...].
    carry: first argument of the first call.
    examples: pytree of arrays [n, ...], the data of keys in place of typed keys, since
      JAX takes a key for used that goes into a loop; every n is a multiple of `num`.
    num: number of micro-batches.
    axis: the devices that share the batch.

  Returns:
    (the last carry, the results in the order of the examples).
  """
  if num == 1:
    return fn(carry, examples)

  def one(carry, examples):
    carry, done = carry
    carry, results = fn(carry, jax.tree.map(lambda x: _after(done, x), examples))
    return (carry, _done((carry, results)) if unroll else done), results

  # XLA's CPU backend runs convolutions in loops a hundred times slower.
  unroll = jax.default_backend() == 'cpu'
  (carry, _), results = jax.lax.scan(
      one, (carry, jnp.zeros(())),
      jax.tree.map(lambda x: _split(x, num, axis), examples), unroll=unroll)
  return carry, jax.tree.map(lambda x: _join(x, num, axis), results)


def _done(tree):
  """A finite number that is known once all floating-point arrays of `tree` are."""
  total = sum((x[(0,) * x.ndim].astype(jnp.float32) for x in jax.tree.leaves(tree)
               if jnp.issubdtype(x.dtype, jnp.floating)), jnp.zeros(()))
  return jnp.nan_to_num(total)  # the first slot may be empty, and hold a NaN


def _after(done, x):
  """x, which XLA cannot compute with before it knows the number `done`.

  Otherwise the unrolled micro-batches would be computed at the same time, with the
  memory of the whole batch: an optimization_barrier is removed before XLA's CPU backend
  orders the operations (jax 0.10).
  """
  return x + (0 * done).astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _split(x, num, axis):
  """[n, ...] -> [num, n / num, ...]."""
  groups = x.reshape(-1, num, *x.shape[1:])
  return jnp.moveaxis(_take(groups, _order(len(groups), num, axis)), 1, 0)


def _join(x, num, axis):
  """Inverse of `_split`."""
  groups = jnp.moveaxis(x, 0, 1)
  order = jnp.argsort(_order(len(groups), num, axis), axis=1)
  return _take(groups, order).reshape(-1, *groups.shape[2:])


def _take(groups, order):
  """Reorders within each group: [g, num, ...] by [g, num]."""
  return jax.vmap(lambda group, places: group[places])(groups, order)


def _order(num_groups, num, axis):
  """Which example of each group of this device each micro-batch gets, [g, num]."""
  num_devices = 1 if axis.name is None else jax.lax.axis_size(axis.name)
  first = np.random.default_rng(0).integers(num, size=num_devices * num_groups)
  order = (first[:, None] + np.arange(num)) % num
  return jax.lax.dynamic_slice_in_dim(
      jnp.asarray(order, jnp.int32), axis.first(num_groups), num_groups)
