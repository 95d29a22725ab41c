"""Checkpoints of version 0.1, whose states had another layout.

    if is_old(config):
      state = from_old(restore(to_old(target)))

Version 0.1 had one class of states for classifiers (`net`) and one for GANs (`gen`,
`disc`); the moving average was that of the classifier or of the generator, or None.
Configs of version 0.1 are brought up to date by `nat_jax.schema.upgrade`. A run
that goes on from such a checkpoint ends where version 0.1 would have ended, unless it
has a range of `negatives_per_batch`, which means other batches now, or a warm-up, which
means other learning rates.
"""

from collections.abc import Mapping
from typing import Any

import flax

from nat_jax.task import Net, State


@flax.struct.dataclass
class TrainState:
  """Of a classifier."""

  step: Any
  key: Any
  net: Net
  ema: Any = None


@flax.struct.dataclass
class GanState:
  """Of a GAN."""

  step: Any
  key: Any
  gen: Net
  disc: Net
  ema: Any = None


def is_old(config: Mapping[str, Any]) -> bool:
  """Whether a config, as it stands in a checkpoint, is of version 0.1."""
  return 'task' not in config


def to_old(state: State) -> TrainState | GanState:
  """The same arrays (or their shapes) in the layout of version 0.1."""
  ema = next(iter(state.ema.values()), None)
  if 'model' in state.nets:
    return TrainState(state.step, state.key, state.nets['model'], ema)
  return GanState(state.step, state.key, state.nets['gen'], state.nets['disc'], ema)


def from_old(state: TrainState | GanState) -> State:
  """The inverse of `to_old`."""
  nets = ({'model': state.net} if isinstance(state, TrainState) else
          {'gen': state.gen, 'disc': state.disc})
  ema = {} if state.ema is None else {next(iter(nets)): state.ema}
  return State(state.step, state.key, nets, ema)
