"""Checkpoints of other runs that a run reads: teachers, classifiers, generators.

    identity('runs/teacher', None, 'trainer.teacher_step', others)   # {'step', 'crc32'}

A resolved config holds step and checksum, so that a run that is resumed reads the same
checkpoint, or is refused.
"""

from typing import Any

from nat_jax.task import Others


def identity(
    workdir: str, step: int | None, key: str, others: Others
) -> dict[str, Any]:
  """The step and the checksum of a checkpoint: {'step', 'crc32'}.

  Args:
    workdir: of the run.
    step: of the checkpoint; None: the one that the results of the run are of.
    key: of the step in the config, for the error.
    others: reads the checkpoint.

  Raises:
    ValueError: no such checkpoint; or no step, and the training is not complete.
  """
  about = others.about(workdir, step)
  if step is None and not about['complete']:
    raise ValueError(
        f'the run in {workdir} stopped at step {about["step"]} of '
        f'{about["config"]["steps"]}; complete its training, or set '
        f'{key}={about["step"]} to use this checkpoint')
  return {'step': about['step'], 'crc32': about['crc32']}
