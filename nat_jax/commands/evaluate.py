"""A checkpoint -> eval.json, as at the end of training; needs nothing but the workdir.

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
  """Restores a checkpoint, evaluates it and writes eval.json, which is returned.

  Args:
    workdir: of a run.
    step: of the checkpoint; None: the newest.

  Raises:
    ValueError: no checkpoint, or none of that step.
  """
  found = runs.restore(workdir, step)
  given = Inputs(None, None, found.shape, found.class_names)
  evaluator = TASKS[found.config['task']].evaluator(
      found.config, workdir, given, found.trainer, found.mesh, runs.OTHERS)
  figures, details = evaluator.run(found.state, list(evaluator.periods), True)
  return evaluator.save(found.state, found.step, figures, details)


def run(argv: Sequence[str] = ()) -> None:
  """--mode=evaluate."""
  del argv
  workdir = flags.needed(flags.WORKDIR, 'evaluate')
  evaluate_run(workdir, flags.STEP.value)
  if jax.process_index() == 0:
    print(report.tables([workdir]))
