"""Devices: the mesh, jit and pmap, donation, and k updates per call.

    mesh = make_mesh()
    run = wrap_step(trainer.step, mesh, mode='jit', fetch=data.gather)
    state, metrics = run(state, frozen, pool, index)   # index [k, n]: k updates
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nat_jax import names
from nat_jax.task import GLOBAL, Axis, Trainer

MODES = ('jit', 'pmap')


def usable_cores() -> list[int]:
  """The numbers of the CPU cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A one-dimensional mesh of all devices with the axis 'data'.

  Devices are in the order of `jax.devices()`, so that the rows of a batch that belong
  to one process are contiguous. The axis type is Auto: with Explicit axes label gathers
  and random crops fail at trace time.
  """
  devices = np.array(jax.devices() if devices is None else devices)
  return Mesh(devices, ('data',), axis_types=(AxisType.Auto,))


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Puts a copy of every array of `tree` on every device."""
  return jax.device_put(tree, NamedSharding(mesh, P()))


def on_one_device(tree: Any) -> tuple[Any, Mesh]:
  """(a replicated tree on the first device of this process, the mesh of this device).

  Results on it are the same in every process, and with any number of devices.
  """
  tree = jax.tree.map(lambda x: x.addressable_data(0), tree)
  device, = jax.tree.leaves(tree)[0].devices()
  return tree, make_mesh([device])


def scans(mesh: Mesh) -> bool:
  """Whether the k updates of a call run as one `lax.scan`; False: one dispatch each.

  XLA's CPU backend runs convolutions in loops a hundred times slower than outside of
  them (jax 0.10), and dispatch is cheap on CPUs.
  """
  return mesh.devices.flat[0].platform != 'cpu'


def takes_turns(mesh: Mesh) -> bool:
  """Whether a program must end before the next one is dispatched.

  The simulated devices of a CPU share threads. With several programs under way, those
  of one that wait for each other in a sum can hold all threads while the program of the
  last device is not yet dispatched; XLA then aborts the process after a minute.
  """
  return len(mesh.local_devices) > 1 and mesh.local_devices[0].platform == 'cpu'


def traced_once(trainer: Trainer) -> Trainer:
  """The same trainer, with an `init` and a `step` that remember what they traced.

  Both are traced when they are tried, when shapes are asked for, and when they are
  compiled. Inlined, they leave no mark in the programs that they become part of.
  """
  traced = jax.jit(trainer.step, inline=True, static_argnames='axis')

  def step(state, frozen, batch, *, axis=GLOBAL):
    return traced(state, frozen, batch, axis=axis)

  return trainer._replace(init=jax.jit(trainer.init, inline=True), step=step)


def wrap_step(
    step: Callable[..., Any],
    mesh: Mesh,
    *,
    mode: str = 'jit',
    fetch: Callable[[Any, Any], Any] | None = None,
    scan: bool | None = None,
) -> Callable[..., Any]:
  """Compiles a trainer's step to run over the devices of `mesh`.

  Args:
    step: (state, frozen, batch, *, axis) -> (state, metrics).
    mesh: from `make_mesh`.
    mode: 'jit' (one program over the mesh) or 'pmap' (one program per device).
    fetch: (source, item) -> batch, run on the device; None: items are batches.
    scan: whether all k updates are one compiled loop; None: `scans(mesh)`.

  Returns:
    run(state, frozen, source, items, num=None) -> (state, metrics merged over updates).
    `items` is a pytree of numpy arrays [k, n, ...], the rows of this process (`local`)
    of k global batches. With `num` only the first `num` updates are done, one dispatch
    each. If k is the same in all calls at most two programs are compiled, whatever
    `num` is. The state is donated: do not use it again.

  Raises:
    ValueError: an unknown mode.
  """
  if mode not in MODES:
    raise ValueError(names.unknown('run.mode', mode, MODES))
  scan = scans(mesh) if scan is None else scan
  axis = Axis('data' if mode == 'pmap' else None)

  def fetched(source, item):
    return item if fetch is None else fetch(source, item)

  def update(state, sums, frozen, source, item):
    # The barrier keeps XLA from fusing the step with `fetch`, so that the results have
    # the same bits however the batch was made.
    batch = jax.lax.optimization_barrier(fetched(source, item))
    state, metrics = step(state, frozen, batch, axis=axis)
    return state, sums.merge(metrics)

  def one(state, sums, i, frozen, source, items):
    item = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, 0, False), items)
    return *update(state, sums, frozen, source, item), i + 1

  def many(state, sums, i, frozen, source, items):
    (state, sums), _ = jax.lax.scan(
        lambda carry, item: (update(*carry, frozen, source, item), None),
        (state, sums), items)
    return state, sums, i

  all_at_once, one_by_one = (_compile(fn, mesh, mode) for fn in (many, one))
  start = None

  def run(state, frozen, source, items, num=None):
    nonlocal start
    if start is None:
      zeros = _zero_metrics(step, fetched, state, frozen, source, items)
      start = _as_returned((zeros, np.int32(0)), mesh, mode)
    k = len(jax.tree.leaves(items)[0])
    num = num or k
    # One transfer for all updates of the call, and a counter that stays on the device:
    # on a CPU, a transfer per update costs 7 % of the time of a small network.
    items, (sums, i) = split(items, mesh, mode), start
    if scan and num == k:
      state, sums, _ = all_at_once(state, sums, i, frozen, source, items)
    else:
      for _ in range(num):
        state, sums, i = one_by_one(state, sums, i, frozen, source, items)
        if takes_turns(mesh):
          jax.block_until_ready(i)
    return _global(state, mesh, mode), sums

  return run


def _zero_metrics(step, fetched, *given):
  """The metrics of no update: zeros, in numpy."""
  # Shapes without shardings, as in `feed.make_feed`: the step is not traced again.
  plain = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), given)
  shapes = jax.eval_shape(
      lambda state, frozen, source, items: step(
          state, frozen, fetched(source, jax.tree.map(lambda x: x[0], items)))[1],
      *plain)
  return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


def _compile(fn, mesh, mode):
  if mode == 'pmap':
    return jax.pmap(
        fn, axis_name='data', in_axes=(None,) * 5 + (1,), out_axes=None,
        donate_argnums=0, devices=list(mesh.devices.flat),
    )
  whole = NamedSharding(mesh, P())
  return jax.jit(
      fn,
      in_shardings=(whole,) * 5 + (NamedSharding(mesh, P(None, 'data')),),
      out_shardings=(whole,) * 3,
      donate_argnums=0,
  )


def _as_returned(tree, mesh, mode):
  """Converts numpy arrays to the type that a call returns.

  Otherwise the program compiled for the first call could not be used for the next one.
  """
  if mode == 'jit':
    return replicate(tree, mesh)
  same = jax.pmap(
      lambda _, x: x, axis_name='data', in_axes=(0, None), out_axes=None,
      devices=list(mesh.devices.flat))
  return same(np.zeros(len(mesh.local_devices)), tree)


def _global(state, mesh, mode):
  """The state as global arrays; pmap returns arrays of one process."""
  if mode != 'pmap' or jax.process_count() == 1:
    return state
  whole = NamedSharding(mesh, P())

  def join(x):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      return jax.random.wrap_key_data(join(jax.random.key_data(x)))
    shards = [shard.data for shard in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(x.shape, whole, shards)

  return jax.tree.map(join, state)


def local(num: int, mesh: Mesh) -> slice:
  """Which of the `num` rows of a global batch the devices of this process hold."""
  each, here = num // mesh.devices.size, mesh.local_devices
  first = each * list(mesh.devices.flat).index(here[0])  # in order, see `make_mesh`
  return slice(first, first + each * len(here))


def split(items: Any, mesh: Mesh, mode: str = 'jit') -> Any:
  """Splits batches [k, n, ...] over the devices, along their second axis.

  Args:
    items: pytree of numpy arrays [k, n, ...]: the rows of this process, see `local`.
    mesh: from `make_mesh`.
    mode: 'jit' or 'pmap'.

  Returns:
    With 'jit' global sharded arrays; with 'pmap' arrays
    [k, devices of this process, n / this number, ...].
  """
  parts = NamedSharding(mesh, P(None, 'data'))

  def lay_out(x):
    if mode == 'pmap':
      x = x.reshape(x.shape[0], len(mesh.local_devices), -1, *x.shape[2:])
    if jax.process_count() == 1:
      return jax.device_put(x, parts)
    if mode == 'pmap':
      return x
    return jax.make_array_from_process_local_data(parts, x)

  return jax.tree.map(lay_out, items)


def _place(x, sharding, own_rows):
  if jax.process_count() == 1:
    return jax.device_put(x, sharding)
  if own_rows:
    return jax.make_array_from_process_local_data(sharding, x)
  return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def wrap_head(
    head: Callable[..., jax.Array], mesh: Mesh, own_rows: bool = False
) -> Callable[..., jax.Array]:
  """Compiles a trainer's head to run over the devices of `mesh`.

  Args:
    head: (state, images) -> array [n, ...]; images is an array [n, ...] or a pytree of
      such arrays.
    mesh: from `make_mesh`.
    own_rows: whether each process passes only the rows that its devices hold (`local`),
      and not all n.

  Returns:
    A function with the arguments of `head`, whose result is replicated on all devices.
  """
  whole, parts = NamedSharding(mesh, P()), NamedSharding(mesh, P('data'))
  compiled = jax.jit(head, in_shardings=(whole, parts), out_shardings=whole)

  def run(state, images):
    found = compiled(state, jax.tree.map(
        lambda x: _place(x, parts, own_rows), images))
    return jax.block_until_ready(found) if takes_turns(mesh) else found

  return run


def init_state(init: Callable[..., Any], key: jax.Array, mesh: Mesh) -> Any:
  """Computes the initial state `init(key)`, replicated on all devices of `mesh`.

  The program runs once. On CPUs it is compiled at LLVM's optimisation level 1, which
  takes 40 % of the time and gives the same bits.
  """
  # Typed keys are arrays of this process, which cannot be inputs on a global mesh.
  numbers = np.asarray(jax.random.key_data(key))
  whole = NamedSharding(mesh, P())
  options = None if scans(mesh) else {'xla_backend_optimization_level': 1}
  return jax.jit(
      lambda x: init(jax.random.wrap_key_data(x)), out_shardings=whole,
      compiler_options=options)(numbers)


@jax.jit
def all_finite(tree: Any) -> jax.Array:
  """Whether all floating-point arrays in `tree` are free of NaN and infinity."""
  return jnp.array([
      jnp.isfinite(x).all()
      for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]).all()


@jax.jit
def copy(tree: Any) -> Any:
  """A copy of a state on its devices, which stays when the state is donated."""
  return jax.tree.map(jnp.copy, tree)


def make_most(mesh: Mesh) -> Callable[[Sequence[int]], jax.Array]:
  """Returns a function that computes the elementwise maximum over processes.

  The function takes the numbers of this process, [m] ints, and returns the maxima, [m]
  int32, before they are computed: the devices compute them after the programs that were
  dispatched earlier. All processes must call it between the same programs.
  """
  parts, whole = NamedSharding(mesh, P('data')), NamedSharding(mesh, P())
  most_of = jax.jit(lambda x: x.max(0), in_shardings=parts, out_shardings=whole)

  def start(numbers):
    rows = np.tile(np.asarray(numbers, np.int32), (len(mesh.local_devices), 1))
    return most_of(jax.make_array_from_process_local_data(parts, rows))

  return start


def abstract_state(init: Callable[..., Any], mesh: Mesh) -> Any:
  """The shapes, dtypes and shardings of `init(key)`, without computing it."""
  whole = NamedSharding(mesh, P())
  shapes = jax.eval_shape(init, jax.random.key(0))
  return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes
  )
