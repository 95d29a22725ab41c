"""The contracts between the training loop and a task, that is, a family of runs.

    task = TASKS[config['task']]                               # nat_jax.tasks
    inputs = task.load(config, num_devices, others)
    trainer = task.build(config, inputs.shape, others)
    evaluator = task.evaluator(config, workdir, inputs, trainer, mesh, others)
    state = trainer.init(key)                                  # State of named nets
    state, metrics = trainer.step(state, frozen, batch, axis=GLOBAL)
    passes = {'real': Pass(...), 'fake': Pass(...)}            # arguments of losses

A step is a pure function of (state, frozen, batch). It runs as one program over all
devices (jit) or as one program per device (pmap); only its `axis` differs.
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
  """Reductions over the devices that share a batch, for use inside a step.

  Attributes:
    name: name of the pmap axis; None if one program computes on the global batch (jit).
  """

  name: str | None = None

  def sum(self, x: jax.Array) -> jax.Array:
    """Returns the sum of all elements of x over the global batch, a scalar."""
    return self.all(jnp.sum(x))

  def sums(self, x: jax.Array) -> jax.Array:
    """Returns the sum over the examples of the global batch, [n, ...] -> [...]."""
    return self.all(jnp.sum(x, axis=0))

  def all(self, tree: Any) -> Any:
    """Returns the sum over the devices of a pytree of per-device sums (gradients)."""
    return tree if self.name is None else jax.lax.psum(tree, self.name)

  def gather(self, x: jax.Array) -> jax.Array:
    """Returns the global batch [N, ...], of which each device has a shard [n, ...]."""
    if self.name is None:
      return x
    return jax.lax.all_gather(x, self.name, tiled=True)

  def first(self, num: int) -> jax.Array | int:
    """Returns the position in the global batch of this device's first example.

    Args:
      num: number of examples per device.
    """
    return 0 if self.name is None else jax.lax.axis_index(self.name) * num

  def keys(self, key: jax.Array, num: int) -> jax.Array:
    """Returns one key per example, by its position in the global batch.

    Args:
      key: typed key, equal on all devices.
      num: number of examples per device.

    Returns:
      Typed keys [num].
    """
    places = self.first(num) + jnp.arange(num)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, places)


GLOBAL = Axis()  # one program computes on the global batch


@flax.struct.dataclass
class Net:
  """The arrays of one network (or of k stacked networks) that is being trained.

  Attributes:
    params: pytree of parameters.
    batch_stats: pytree of batch statistics; {} without any.
    opt_state: state of the optimiser.
  """

  params: Any
  batch_stats: Any
  opt_state: Any

  @property
  def variables(self) -> dict[str, Any]:
    """The variables that `flax.linen.Module.apply` takes."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


@flax.struct.dataclass
class State:
  """The training state that a checkpoint holds; a pytree of arrays only.

  Attributes:
    step: number of completed updates, int32 scalar.
    key: typed key, constant; each step folds its number into it.
    nets: name of a network, such as 'model', 'gen' or 'disc' -> `Net`.
    ema: name of a network -> moving averages of its variables; {} if none are kept.
  """

  step: jax.Array
  key: jax.Array
  nets: dict[str, Net]
  ema: dict[str, Any]


class Pass(NamedTuple):
  """The outputs of a network for one set of a batch, as the losses take them.

  Attributes:
    outputs: float32 [n, num_outputs].
    labels: int32 [n], -1: none. They are the labels of the examples, the labels that
      the generator was given, or dynamic: the argmax of the network's own class logits,
      without gradient.
    weight: float32 [n]; multiplies the loss of an example. 0: an empty slot.
    marginal: [K], the mean of softmax(class logits) over the filled slots of the global
      batch, without gradient; None if the network has no class logits.
    images: [n, ...], the input of the network.
    features: name -> feature maps [n, ...] of the network; 'features' is the input of
      its output layer.
  """

  outputs: jax.Array
  labels: jax.Array
  weight: jax.Array
  marginal: jax.Array | None = None
  images: jax.Array | None = None
  features: dict[str, jax.Array] | None = None


class Trainer(NamedTuple):
  """The functions of a training method; `_replace` makes a variant of it.

  Attributes:
    init: key -> State.
    frozen: () -> pytree of arrays that a step reads and never changes, such as a
      teacher's; `{}` if none. They are arguments of the step, so that they are neither
      saved in checkpoints nor constants of the compiled program.
    step: (state, frozen, batch, *, axis) -> (state, clu Collection). A batch is
      {'image': [n, ...], 'label': int32 [n] (-1: negative), 'weight': float32 [n] (0:
      empty slot)}, or a dict of such batches.
    heads: name -> function (state, images) -> [n, ...], for evaluation. 'aux' returns
      the network's feature maps by name; 'samples' takes noise instead of images.
    figures: clu Collection -> {name: float}, with `images`, the number of examples
      that the updates were trained on.
    line: {name: float} of `figures` -> text for the progress line.
    learning_rate: index of an update -> its learning rate, for metrics.jsonl.
    start: shapes of the state -> (new state -> the state that training starts from).
      With pretrained weights the first call reads and checks them, and the second
      returns them as arrays of numpy in the place of random ones.
    watch: names of figures; a run has diverged if one of them is not finite.
  """

  init: Callable[..., State]
  frozen: Callable[[], Any]
  step: Callable[..., tuple[State, clu_metrics.Collection]]
  heads: dict[str, Callable[..., jax.Array]]
  figures: Callable[[clu_metrics.Collection], dict[str, float]]
  line: Callable[[dict[str, float]], str]
  learning_rate: Callable[[int], Any] = lambda update: math.nan
  start: Callable[[Any], Callable[[State], State]] = lambda shapes: lambda state: state
  watch: tuple[str, ...] = ('loss', 'grad_norm')


class Inputs(NamedTuple):
  """The training data of a run.

  Attributes:
    pool: all examples (`data.Pool` of numpy arrays), of which `data.gather` takes rows;
      None if a restored run is only evaluated.
    stream: `data.Stream`: which rows each step takes; None if `pool` is None.
    shape: of one example: (height, width, channels), or (d,) for points.
    class_names: names of the classes of the positives; () if the source has none.
    negatives: name -> set of negatives in the pool; None: not loaded.
    positives: `data.Arrays` of the positives in the pool, or of what its examples are
      made from, such as the whole series of windows; None: not known.
  """

  pool: Any
  stream: Any
  shape: tuple[int, ...]
  class_names: tuple[str, ...] = ()
  negatives: Mapping[str, Any] | None = None
  positives: Any = None


class Evaluator(NamedTuple):
  """The evaluations that the training loop makes.

  Attributes:
    periods: name of an evaluation (an entry of `evals`) -> its period in updates; 0:
      only after the last update, after which all evaluations are made.
    run: (state, names, final) -> ({name: figures}, details that `save` needs), of the
      named evaluations. With `final` the figures are written to eval.json.
    save: (state, step, figures, details) -> the content of the eval.json it wrote.
    summary: {name: figures} -> a line for the terminal.
    num_bytes: upper bound of the disk space in bytes that `save` needs.
    brief: {name: figures} -> a few words for the progress line, which shows them until
      the next evaluation; '' for none.
    start: () -> None, called by the first process when the workdir is prepared and
      before the first update, to write what is known of the data.
    beside: whether evaluations before the last update may run in a thread, on a copy
      of the state, while the training goes on. Those of a run that chooses its
      checkpoint by them (the config key `best`) never do.
  """

  periods: Mapping[str, int]
  run: Callable[..., tuple[dict[str, Any], Any]]
  save: Callable[..., dict[str, Any]]
  summary: Callable[[Mapping[str, Any]], str]
  num_bytes: int
  brief: Callable[[Mapping[str, Any]], str] = lambda figures: ''
  start: Callable[[], None] = lambda: None
  beside: bool = False


class Run(NamedTuple):
  """A run that was restored from a checkpoint.

  Attributes:
    config: resolved.
    shape: of one example, see `Inputs`.
    class_names: of the positives; () if there are none.
    trainer: of the task.
    state: the restored `State`.
    step: number of completed updates.
    mesh: the devices that hold the state.
    crc32: checksum of the checkpoint; None: not of a checkpoint.
  """

  config: dict[str, Any]
  shape: tuple[int, ...]
  class_names: tuple[str, ...]
  trainer: Trainer
  state: Any
  step: int
  mesh: jax.sharding.Mesh
  crc32: int | None = None


class Others(NamedTuple):
  """Functions by which a task reads other runs, such as a teacher.

  Attributes:
    about: (workdir, step or None) -> {'step', 'config', 'crc32', 'complete'} of a
      checkpoint; None: the newest one, with early stopping the best one.
    restore: (workdir, step or None, name of the task) -> Run.
    sampler: (workdir, step or None) -> (shape of an example, function (num, seed) ->
      examples that the run generates). Equal arguments give equal examples.
  """

  about: Callable[..., dict[str, Any]]
  restore: Callable[..., Run]
  sampler: Callable[..., tuple[tuple[int, ...], Callable[..., np.ndarray]]]


class Task(NamedTuple):
  """A family of runs: one row of `nat_jax.tasks.TASKS`.

  Attributes:
    title: plural noun for its runs, such as 'classifiers', for messages and reports.
    load: (config, number of devices, others) -> Inputs.
    build: (config, shape of an example, others) -> Trainer.
    evaluator: (config, workdir, inputs, trainer, mesh, others) -> Evaluator.
    tables: groups of runs (`reports.group`) -> the tables of their report.
    figures: groups of runs -> (file name, caption, note, figure or None) per figure.
    commands: modes of `nat_jax.main` that its runs support, besides train and report; a
      row made by `_replace` needs its own. `generate` takes runs of the tasks that list
      it.
    resolve: (config, others) -> the config, completed with values from other runs.
    verdict: groups of runs -> what they can do, in words: (headline or '', sentences)
      per paragraph.
    sampler: Run on one device of this process -> function (num, seed) -> examples that
      it generates: uint8 [num, h, w, c], or float32 vectors [num, d]; None: its runs
      generate nothing. A seed is a whole number or a sequence of them.
    predict: (Run, workdir, paths of files, path to write to or None) -> a summary: what
      --mode=predict does with files. None: it classifies pictures, or the task has no
      such mode.
  """

  title: str
  load: Callable[..., Inputs]
  build: Callable[..., Trainer]
  evaluator: Callable[..., Evaluator]
  tables: Callable[..., list[Any]]
  figures: Callable[..., Any]
  commands: tuple[str, ...] = ('evaluate',)
  resolve: Callable[..., dict[str, Any]] = lambda config, others: config
  verdict: Callable[..., list[tuple[str, list[str]]]] = lambda groups: []
  sampler: Callable[[Run], Callable[..., np.ndarray]] | None = None
  predict: Callable[[Run, str, Sequence[str], str | None], str] | None = None


def figures(metrics: clu_metrics.Collection) -> dict[str, float]:
  """Returns the averages of a collection; NaN where there were no values."""
  with np.errstate(invalid='ignore'):  # without negatives: 0 / 0
    return {name: float(value) for name, value in metrics.compute().items()}


def merge(collections: Sequence[clu_metrics.Collection]) -> clu_metrics.Collection:
  """Returns the sums of several collections, added in order."""
  return functools.reduce(lambda one, other: one.merge(other), collections)


def to_json(metrics: clu_metrics.Collection) -> dict[str, Any]:
  """Returns the sums of a collection by name; JSON represents float32 exactly."""
  return {jax.tree_util.keystr(path): np.asarray(leaf).tolist()
          for path, leaf in jax.tree_util.tree_leaves_with_path(metrics)}


def from_json(
    sums: Mapping[str, Any], like: clu_metrics.Collection
) -> clu_metrics.Collection | None:
  """Inverse of `to_json`.

  Args:
    sums: from `to_json`.
    like: a collection of the expected type.

  Returns:
    The collection; None if the names in `sums` are not those of `like`.
  """
  leaves, structure = jax.tree_util.tree_flatten_with_path(like)
  names = [jax.tree_util.keystr(path) for path, _ in leaves]
  if set(names) != set(sums):
    return None
  return structure.unflatten(
      np.asarray(sums[name], leaf.dtype)
      for name, (_, leaf) in zip(names, leaves, strict=True))


def collect(metrics: type[clu_metrics.Collection], axis: Axis, **outputs: Any):
  """Returns the collection of the outputs of one step, over the global batch.

  Args:
    metrics: class of the collection.
    axis: the devices that share the batch.
    **outputs: arrays of this device, the arguments of `single_from_model_output`.
  """
  if axis.name is None:
    return metrics.single_from_model_output(**outputs)
  return metrics.gather_from_model_output(axis_name=axis.name, **outputs)
