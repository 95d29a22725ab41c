"""Evaluates a checkpoint and writes eval.json, as at the end of training.

    evaluation = evaluate_run('runs/digits')         # the newest checkpoint
    evaluation['evals']['cifar100_test']['ncr']['0.8']
    evaluate_run('runs/digits', config=config, out='more')  # on the sets of a config
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from nat_jax import runs, schema
from nat_jax.commands import flags, report
from nat_jax.runtime import checkpoint, files
from nat_jax.runtime import workdir as workdirs
from nat_jax.task import Inputs
from nat_jax.tasks import TASKS, unchanged


def evaluate_run(
    workdir: str, step: int | None = None, config: Mapping[str, Any] | None = None,
    out: str = '',
) -> dict[str, Any]:
  """Restores a checkpoint, evaluates it and writes eval.json.

  Args:
    workdir: of a run.
    step: of the checkpoint; None: the newest.
    config: whose evaluations, the keys `schema.MEASURED` and the series `data.test`,
      are made in place of those of the run; None: those of the run.
    out: folder of the results, with `config`: a new one, or one of an earlier
      evaluation. '': the workdir.

  Returns:
    The content of eval.json.

  Raises:
    ValueError: no checkpoint, or none of that step; a config of another task or another
      number of classes, or with a mistake; `config` without `out`, or a folder of
      something else.
  """
  if (config is None) != (not out):
    raise ValueError(
        'the evaluations of a config need a folder of their own, so that those of the '
        f'run stay: give both --config and --out, got --out={out!r} '
        f'{"without" if config is None else "with"} --config')
  restored = runs.restore(workdir, step)
  measured = restored.config
  if out:
    measured = _measured_as(restored, config)
    _check_folder(out)
  unchanged.check(workdir, restored.config, measured.get('evals', {}), runs.OTHERS)
  if not out:
    unchanged.check_classifiers(workdir, restored.config, runs.OTHERS)
  inputs = Inputs(None, None, restored.shape, restored.class_names)
  evaluator = TASKS[measured['task']].evaluator(
      measured, out or workdir, inputs, restored.trainer, restored.mesh, runs.OTHERS)
  figures, details = evaluator.run(
      restored.state, list(evaluator.periods), True)
  if out and jax.process_index() == 0:
    files.as_path(out).mkdir(parents=True, exist_ok=True)
    workdirs.write_config(out, measured)
  return evaluator.save(restored.state, restored.step, figures, details)


def _measured_as(restored, config) -> dict[str, Any]:
  """The config of a run with the evaluations of another config."""
  config = copy.deepcopy(schema.plain(config))
  size = restored.config.get('data', {}).get('image_size')
  if size and 'image_size' in config.get('data', {}):
    config['data']['image_size'] = size  # that of the run, whatever the config has
  config = runs.resolve(config)
  for key in ('task', 'num_classes'):
    if config.get(key) != restored.config.get(key):
      raise ValueError(
          f'the evaluations of --config cannot be made for this run: {key} is '
          f'{config.get(key)!r} there, and {restored.config.get(key)!r} in the run; '
          'use the config of the run with other evals')
  chosen = {key: config[key] for key in schema.MEASURED if key in config}
  if not {'evals', 'measures'} & set(chosen):
    raise ValueError(
        f'a config of the task {config["task"]!r} has no evaluations to choose; leave '
        'out --config and --out')
  if 'test' in config['data']:  # a series, read and scaled as the run does
    chosen['data'] = {**restored.config['data'], 'test': config['data']['test']}
  # The checkpoint is chosen already.
  unused = {key: type(restored.config[key])()
            for key in ('best', 'patience') if key in restored.config}
  return {**restored.config, **chosen, **unused}


def _check_folder(out):
  """Raises ValueError unless `out` is new, or a folder of an earlier evaluation."""
  folder = files.as_path(out)
  if folder.exists() and any(folder.iterdir()) and (
      (folder / checkpoint.FOLDER).exists() or not (folder / workdirs.CONFIG).exists()):
    raise ValueError(
        f'--out={out} is a run, or holds something else than an evaluation; choose a '
        'new folder')


def run(argv: Sequence[str] = ()) -> None:
  """--mode=evaluate: evaluates a checkpoint and prints its tables."""
  del argv
  workdir, out = flags.needed(flags.WORKDIR, 'evaluate'), flags.OUT.value or ''
  evaluate_run(workdir, flags.STEP.value, flags.CONFIG.value, out)
  if jax.process_index() == 0:
    print(report.tables([out or workdir]))
