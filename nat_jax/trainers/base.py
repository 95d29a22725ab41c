"""What every trainer is: a bundle of pure functions over an explicit state."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics


@flax.struct.dataclass
class Net:
  """The arrays of one network that is being trained."""

  params: Any
  batch_stats: Any
  opt_state: Any


@flax.struct.dataclass
class TrainState:
  """Everything that a run must remember; a pytree of arrays only.

  Attributes:
    step: completed updates, int32 scalar.
    key: typed key, never changed; steps fold their number into it.
    net: the network.
    ema: moving average of `{'params', 'batch_stats'}`, or None.
  """

  step: jax.Array
  key: jax.Array
  net: Net
  ema: Any = None


@flax.struct.dataclass
class GanState:
  """The same for a pair of networks.

  Attributes:
    step: completed updates of the generator.
    key: as in `TrainState`.
    gen: the generator; it has no batch_stats.
    disc: the discriminator; batch_stats holds what spectral norm remembers.
    ema: moving average of the generator's parameters, or None.
  """

  step: jax.Array
  key: jax.Array
  gen: Net
  disc: Net
  ema: Any = None


class Trainer(NamedTuple):
  """A way of training. To make another one, replace one of the functions.

  Attributes:
    init: key -> state.
    frozen: () -> pytree of arrays that a step reads and never changes (teachers);
      `{}` if none. They are arguments of the step, so neither saved nor compiled in.
    step: (state, frozen, batch, *, axis_name=None) -> (state, clu Collection).
    heads: name -> function (state, images) -> [n, ...], for evaluation; 'aux' gives
      the network's named feature maps; 'samples' takes noise instead of images.
    figures: clu Collection -> floats, among them `images`, the number that was seen.
    line: (those floats) -> what the line of progress says of them.
    watch: names of figures that must be finite, or the run has diverged.
  """

  init: Callable[..., Any]
  frozen: Callable[[], Any]
  step: Callable[..., Any]
  heads: dict[str, Callable[..., jax.Array]]
  figures: Callable[[clu_metrics.Collection], dict[str, float]]
  line: Callable[[dict[str, float]], str]
  watch: tuple[str, ...] = ('loss', 'grad_norm')


def figures(metrics: clu_metrics.Collection) -> dict[str, float]:
  """The averages of a collection; NaN where there was nothing to average."""
  with np.errstate(invalid='ignore'):  # no negatives: 0 / 0
    return {name: float(value) for name, value in metrics.compute().items()}


def merge(collections: Sequence[clu_metrics.Collection]) -> clu_metrics.Collection:
  """The sums of several collections, added in order."""
  return functools.reduce(lambda one, other: one.merge(other), collections)


def to_json(metrics: clu_metrics.Collection) -> dict[str, Any]:
  """The sums of a collection by name; float32 survives JSON exactly."""
  return {jax.tree_util.keystr(path): np.asarray(leaf).tolist()
          for path, leaf in jax.tree_util.tree_leaves_with_path(metrics)}


def from_json(
    sums: Mapping[str, Any], like: clu_metrics.Collection
) -> clu_metrics.Collection | None:
  """The collection that `to_json` was given, None if it had other sums than `like`."""
  leaves, structure = jax.tree_util.tree_flatten_with_path(like)
  names = [jax.tree_util.keystr(path) for path, _ in leaves]
  if set(names) != set(sums):
    return None
  return structure.unflatten(
      np.asarray(sums[name], leaf.dtype)
      for name, (_, leaf) in zip(names, leaves, strict=True))


def cross_device_sum(axis_name: str | None) -> Callable[[jax.Array], jax.Array]:
  """Returns `x -> sum of x over the global batch`, whoever holds its parts."""
  if axis_name is None:
    return jnp.sum
  return lambda x: jax.lax.psum(jnp.sum(x), axis_name)


def collect(metrics: type[clu_metrics.Collection], axis_name: str | None, **outputs):
  """Returns the collection of one step's outputs, over the global batch."""
  if axis_name is None:
    return metrics.single_from_model_output(**outputs)
  return metrics.gather_from_model_output(axis_name=axis_name, **outputs)


def example_keys(key: jax.Array, num: int, axis_name: str | None) -> jax.Array:
  """One key for each example, by its place in the global batch; typed keys [num]."""
  first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * num
  return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(num))
