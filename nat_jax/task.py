"""The contracts: what a run is made of, whatever family (task) it belongs to.

    task = TASKS[config['task']]                               # nat_jax.tasks
    inputs = task.load(config, num_devices)
    trainer = task.build(config, inputs.shape, others)
    evaluator = task.evaluator(config, workdir, inputs, trainer, mesh, others)
    state = trainer.init(key)                                  # State of named nets
    state, metrics = trainer.step(state, frozen, batch, axis=GLOBAL)
    passes = {'real': Pass(...), 'fake': Pass(...)}            # what losses look at

A step is a pure function of (state, frozen, batch). It runs as one program over all
devices (jit), or as one program per device (pmap); `Axis` is all that differs.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics


class Axis(NamedTuple):
  """The devices that share a batch, as a step sees them.

  Attributes:
    name: of the pmap axis; None where one program sees the global batch.
  """

  name: str | None = None

  def sum(self, x: jax.Array) -> jax.Array:
    """The sum of all elements of x over the global batch, a scalar."""
    return self.all(jnp.sum(x))

  def sums(self, x: jax.Array) -> jax.Array:
    """The sums over the examples of the global batch, [n, ...] -> [...]."""
    return self.all(jnp.sum(x, axis=0))

  def all(self, tree: Any) -> Any:
    """Adds up over the devices what each of them has summed, such as gradients."""
    return tree if self.name is None else jax.lax.psum(tree, self.name)

  def gather(self, x: jax.Array) -> jax.Array:
    """The global batch [N, ...] of which each device has a shard [n, ...]."""
    if self.name is None:
      return x
    return jax.lax.all_gather(x, self.name, tiled=True)

  def first(self, num: int) -> jax.Array | int:
    """The place in the global batch of the first of this device's `num` examples."""
    return 0 if self.name is None else jax.lax.axis_index(self.name) * num

  def keys(self, key: jax.Array, num: int) -> jax.Array:
    """One key per example, by its place in the global batch; typed keys [num]."""
    places = self.first(num) + jnp.arange(num)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, places)


GLOBAL = Axis()  # one program sees the global batch


@flax.struct.dataclass
class Net:
  """The arrays of one network (or of k stacked ones) that is being trained."""

  params: Any
  batch_stats: Any
  opt_state: Any

  @property
  def variables(self) -> dict[str, Any]:
    """What `flax.linen.Module.apply` takes."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


@flax.struct.dataclass
class State:
  """Everything that a run must remember; a pytree of arrays only.

  Attributes:
    step: completed updates, int32 scalar.
    key: typed key, never changed; steps fold their number into it.
    nets: the players by name, such as 'model', or 'gen' and 'disc'.
    ema: moving averages of the variables of some of the nets, by name.
  """

  step: jax.Array
  key: jax.Array
  nets: dict[str, Net]
  ema: dict[str, Any]


class Pass(NamedTuple):
  """What a network made of one set of a batch, for the losses.

  Attributes:
    outputs: [n, num_outputs].
    labels: int32 [n]; of the examples, given to the generator, or dynamic (the class
      that the network itself finds likeliest, without gradient). -1: none.
    weight: float32 [n]; multiplies the loss of an example. 0: an empty slot.
    marginal: [K], the mean of softmax(class logits) over the filled slots of the global
      batch, without gradient; None where the network knows no classes.
    images: [n, ...], what the network saw.
    features: named feature maps [n, ...] of the network; 'features' is the input of its
      output layer.
  """

  outputs: jax.Array
  labels: jax.Array
  weight: jax.Array
  marginal: jax.Array | None = None
  images: jax.Array | None = None
  features: dict[str, jax.Array] | None = None


class Trainer(NamedTuple):
  """A way of training. To make another one, replace one of the functions.

  Attributes:
    init: key -> State.
    frozen: () -> pytree of arrays that a step reads and never changes (teachers);
      `{}` if none. They are arguments of the step, so neither saved nor compiled in.
    step: (state, frozen, batch, *, axis) -> (state, clu Collection). A batch is
      {'image': [n, ...], 'label': int32 [n] (-1: negative), 'weight': float32 [n] (0:
      empty slot)}, or a dict of such.
    heads: name -> function (state, images) -> [n, ...], for evaluation; 'aux' gives
      the network's named feature maps; 'samples' takes noise instead of images.
    figures: clu Collection -> floats, among them `images`, the number that was seen.
    line: (the floats of `figures`) -> text for the line of progress.
    learning_rate: (number of an update) -> its learning rate, for the records.
    watch: names of figures that must be finite, or the run has diverged.
  """

  init: Callable[..., State]
  frozen: Callable[[], Any]
  step: Callable[..., tuple[State, clu_metrics.Collection]]
  heads: dict[str, Callable[..., jax.Array]]
  figures: Callable[[clu_metrics.Collection], dict[str, float]]
  line: Callable[[dict[str, float]], str]
  learning_rate: Callable[[int], Any] = lambda update: math.nan
  watch: tuple[str, ...] = ('loss', 'grad_norm')


class Inputs(NamedTuple):
  """What the updates read, and what is known of it.

  Attributes:
    pool: all examples (numpy arrays), of which `data.gather` takes rows; None where a
      restored run is evaluated.
    stream: which rows each step takes; None where `pool` is.
    shape: of one example: (height, width, channels), or (d,) of points.
    class_names: of the positives; () where the source has none.
    negatives: the sets of negatives in the pool, by name; None: not loaded.
  """

  pool: Any
  stream: Any
  shape: tuple[int, ...]
  class_names: tuple[str, ...] = ()
  negatives: Mapping[str, Any] | None = None


class Evaluator(NamedTuple):
  """How the loop looks at what it trains.

  Attributes:
    periods: name of an evaluation (an entry of `evals`) -> every how many updates it is
      made; 0: at the last update alone, where all of them are made.
    run: (state, names, final) -> (figures by name, details that `save` needs), of the
      evaluations that are named. With `final` they go to eval.json.
    save: (state, step, figures, details) -> what it wrote to eval.json.
    summary: figures -> a line for the terminal.
    num_bytes: disk space that `save` will need, at most.
  """

  periods: Mapping[str, int]
  run: Callable[..., tuple[dict[str, Any], Any]]
  save: Callable[..., dict[str, Any]]
  summary: Callable[[Mapping[str, Any]], str]
  num_bytes: int


class Run(NamedTuple):
  """A run that was restored from a checkpoint, and what is known of it."""

  config: dict[str, Any]
  shape: tuple[int, ...]
  class_names: tuple[str, ...]
  trainer: Trainer
  state: Any
  step: int
  mesh: jax.sharding.Mesh


class Others(NamedTuple):
  """How a task reads other runs: a teacher, a classifier that measures samples.

  Attributes:
    about: (workdir, step or None) -> the step, 'config' and 'crc32' of a checkpoint.
    restore: (workdir, step or None, name of the task) -> Run.
  """

  about: Callable[..., dict[str, Any]]
  restore: Callable[..., Run]


class Task(NamedTuple):
  """A family of runs: one row of `nat_jax.tasks.TASKS`.

  Attributes:
    title: what its runs are called, in the plural.
    load: (config, number of devices) -> Inputs.
    build: (config, shape of an example, others) -> Trainer.
    evaluator: (config, workdir, inputs, trainer, mesh, others) -> Evaluator.
    tables: groups of runs (`reports.group`) -> the tables of their report.
    figures: groups of runs -> (file name, caption, note, figure or None) of each.
    commands: the modes of `nat_jax.main` for its runs, besides train and report.
    resolve: (config, others) -> the config with what it takes from other runs.
  """

  title: str
  load: Callable[..., Inputs]
  build: Callable[..., Trainer]
  evaluator: Callable[..., Evaluator]
  tables: Callable[..., list[Any]]
  figures: Callable[..., Any]
  commands: tuple[str, ...] = ('evaluate',)
  resolve: Callable[..., dict[str, Any]] = lambda config, others: config


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


def collect(metrics: type[clu_metrics.Collection], axis: Axis, **outputs: Any):
  """Returns the collection of one step's outputs, over the global batch."""
  if axis.name is None:
    return metrics.single_from_model_output(**outputs)
  return metrics.gather_from_model_output(axis_name=axis.name, **outputs)
