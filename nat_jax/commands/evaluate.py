"""Evaluates a checkpoint and writes eval.json, as at the end of training.

    evaluation = evaluate_run('runs/digits')         # the newest checkpoint
    evaluation['evals']['cifar100_test']['ncr']['0.8']
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from nat_jax import runs, schema
from nat_jax.commands import flags, report
from nat_jax.task import Inputs
from nat_jax.tasks import TASKS


def evaluate_run(
    workdir: str, step: int | None = None, config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
  """Restores a checkpoint, evaluates it and writes eval.json.

  Args:
    workdir: of a run.
    step: of the checkpoint; None: the newest.
    config: whose evaluations, the keys `schema.MEASURED`, are made in place of those
      of the run; None: those of the run.

  Returns:
    The content of eval.json.

  Raises:
    ValueError: no checkpoint, or none of that step; a config of another task or another
      number of classes, or with a mistake.
  """
  restored = runs.restore(workdir, step)
  measured = restored.config if config is None else _measured_as(restored, config)
  inputs = Inputs(None, None, restored.shape, restored.class_names)
  evaluator = TASKS[measured['task']].evaluator(
      measured, workdir, inputs, restored.trainer, restored.mesh, runs.OTHERS)
  figures, details = evaluator.run(
      restored.state, list(evaluator.periods), True)
  return evaluator.save(restored.state, restored.step, figures, details)


def _measured_as(restored, config) -> dict[str, Any]:
  """The config of a run with the evaluations of another config."""
  config = runs.resolve(config)
  for key in ('task', 'num_classes'):
    if config.get(key) != restored.config.get(key):
      raise ValueError(
          f'the evaluations of --config cannot be made for this run: {key} is '
          f'{config.get(key)!r} there, and {restored.config.get(key)!r} in the run; '
          'use the config of the run with other evals')
  return {**restored.config,
          **{key: config[key] for key in schema.MEASURED if key in config}}


def run(argv: Sequence[str] = ()) -> None:
  """--mode=evaluate: evaluates a checkpoint and prints its tables."""
  del argv
  workdir = flags.needed(flags.WORKDIR, 'evaluate')
  evaluate_run(workdir, flags.STEP.value, flags.CONFIG.value)
  if jax.process_index() == 0:
    print(report.tables([workdir]))
