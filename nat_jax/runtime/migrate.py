"""Converts the states in checkpoints of version 0.1, which had another layout.

    if is_old(config):
      state = from_old(restore(to_old(target)))

Version 0.1 had one state class for classifiers (`net`) and one for GANs (`gen`,
`disc`); `ema` was that of the classifier or of the generator, or None. Its configs are
converted by `nat_jax.schema.upgrade`. A run that is resumed from such a checkpoint ends
with the result of version 0.1, unless it has a range of `negatives_per_batch` (which
now gives other batches) or a warm-up (which now gives other learning rates).
"""

from collections.abc import Mapping
from typing import Any

import flax

from nat_jax.task import Net, State


@flax.struct.dataclass
class TrainState:
  """The state of a classifier in version 0.1."""

  step: Any
  key: Any
  net: Net
  ema: Any = None


@flax.struct.dataclass
class GanState:
  """The state of a GAN in version 0.1."""

  step: Any
  key: Any
  gen: Net
  disc: Net
  ema: Any = None


def is_old(config: Mapping[str, Any]) -> bool:
  """Whether a config, as saved in a checkpoint, is of version 0.1."""
  return 'task' not in config


def to_old(state: State) -> TrainState | GanState:
  """Converts a state (arrays or their shapes) to the layout of version 0.1."""
  ema = next(iter(state.ema.values()), None)
  if 'model' in state.nets:
    return TrainState(state.step, state.key, state.nets['model'], ema)
  return GanState(state.step, state.key, state.nets['gen'], state.nets['disc'], ema)


def from_old(state: TrainState | GanState) -> State:
  """Converts a state from the layout of version 0.1; the inverse of `to_old`."""
  nets = ({'model': state.net} if isinstance(state, TrainState) else
          {'gen': state.gen, 'disc': state.disc})
  ema = {} if state.ema is None else {next(iter(nets)): state.ema}
  return State(state.step, state.key, nets, ema)
