"""Evaluates a checkpoint and writes eval.json, as at the end of training.

    evaluation = evaluate_run('runs/digits')         # the newest checkpoint
    evaluation['evals']['cifar100_test']['ncr']['0.8']
"""

from collections.abc import Sequence
from typing import Any

import jax

from nat_jax import runs
from nat_jax.commands import flags, report
from nat_jax.task import Inputs
from nat_jax.tasks import TASKS


def evaluate_run(workdir: str, step: int | None = None) -> dict[str, Any]:
  """Restores a checkpoint, evaluates it and writes eval.json.

  Args:
    workdir: of a run.
    step: of the checkpoint; None: the newest.

  Returns:
    The content of eval.json.

  Raises:
    ValueError: no checkpoint, or none of that step.
  """
  restored = runs.restore(workdir, step)
  inputs = Inputs(None, None, restored.shape, restored.class_names)
  evaluator = TASKS[restored.config['task']].evaluator(
      restored.config, workdir, inputs, restored.trainer, restored.mesh, runs.OTHERS)
  figures, details = evaluator.run(
      restored.state, list(evaluator.periods), True)
  return evaluator.save(restored.state, restored.step, figures, details)


def run(argv: Sequence[str] = ()) -> None:
  """--mode=evaluate: evaluates a checkpoint and prints its tables."""
  del argv
  workdir = flags.needed(flags.WORKDIR, 'evaluate')
  evaluate_run(workdir, flags.STEP.value)
  if jax.process_index() == 0:
    print(report.tables([workdir]))
