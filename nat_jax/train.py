"""The loop: build, restore, step, log, evaluate, checkpoint. Knows no method.

    evaluation = train(config, 'runs/digits')

Every look at the metrics is one call behind the device: the host reads the figures of
a call while the device works on the next one. A call ends wherever something is to be
logged, evaluated or saved. A resumed run has the parameters of an undisturbed one, bit
for bit. It logs the same means too, since a checkpoint holds the sums since the last
record; on CPUs up to rounding, because there the clock says how long a call is
(`feed.make_call_length`) and float32 sums depend on how they are split.
"""

import contextlib
import math
import signal
import time
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import jax
from absl import logging
from clu import parameter_overview

from nat_jax import evaluate, experiment, feed, generation, inputs, task
from nat_jax.runtime import (
    checkpoint,
    files,
    parallel,
    processes,
    results,
    signals,
    writers,
)
from nat_jax.runtime import workdir as workdirs

# Where there is no line for a trainer, it is a classifier.
EVALUATORS = {'gan': generation.make_evaluator}

BESIDES = 10_000_000  # bytes on disk: figures, report, eval.json, folders
RECORD = 1000  # bytes on disk for each record: metrics.jsonl, TensorBoard events


class Preempted(Exception):
  """A signal came; the run was saved and can be resumed.

  Attributes:
    number: of the signal.
  """

  def __init__(self, number: int, text: str):
    super().__init__(f'stopped by {signal.Signals(number).name}; {text}')
    self.number = number


class Diverged(Exception):
  """The loss or the gradient is no longer a number."""


def check(config: Mapping[str, Any], workdir: str, overwrite: bool = False) -> None:
  """Raises ValueError for mistakes in a config, or a workdir of another config."""
  workdirs.check(workdir, experiment.plain(config), overwrite)


def train(
    config: Mapping[str, Any], workdir: str, overwrite: bool = False
) -> dict[str, Any]:
  """Trains, or goes on training, a config in a workdir.

  Args:
    config: of `presets.experiment` (a ConfigDict or a plain dict).
    workdir: where everything is written; a run of the same config is resumed.
    overwrite: move a run of another config aside first.

  Returns:
    The final evaluation, as it stands in eval.json.

  Raises:
    ValueError: a mistake in the config, the data or the workdir; nothing was changed.
    Preempted: SIGTERM, SIGINT or SIGHUP came. The run is saved.
    KeyboardInterrupt: a second SIGINT came, or one before the first update.
    Diverged: the loss became NaN. The last good checkpoint is kept.
    OSError: something could not be written, such as to a full disk.
  """
  config = experiment.plain(config)
  run = config['run']
  workdirs.check(workdir, config, overwrite)
  mesh = parallel.make_mesh()
  training = inputs.load_training(config, mesh.devices.size)
  trainer, schedule = experiment.build_trainer(config, training.image_shape)
  target = parallel.abstract_state(trainer.init, mesh)
  frozen = trainer.frozen()
  make_evaluator = EVALUATORS.get(config['trainer']['name'], evaluate.make_evaluator)
  evaluator = make_evaluator(config, workdir, training, trainer, mesh)
  step_fn, source, items = feed.make_feed(config, training, trainer, mesh)
  call_length = feed.make_call_length(
      config, adapt=not parallel.scans(mesh) and jax.process_count() == 1)
  num_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(target))
  workdirs.prepare(
      workdir, config, overwrite,
      (run['keep'] + 2) * num_bytes + evaluator.num_bytes + BESIDES
      + config['steps'] // run['log_every'] * RECORD)
  processes.barrier('workdir')

  best = config.get('best', '')
  manager = checkpoint.open_manager(
      workdir, run['keep'], best, lowest=evaluate.lower_is_better(best))
  state, about = checkpoint.restore_latest(manager, target)
  step = about['step'] if about else 0
  earlier = about.get('window', {}) if about else {}  # sums since the last record
  done = _finished(workdir, step, config)
  if done:
    checkpoint.close(manager)
    if jax.process_index() == 0:
      print(f'{workdir} is trained already ({step} steps); nothing to do', flush=True)
    return done
  progress = writers.Progress(config['steps'], step, quiet=jax.process_index() > 0)
  if state is None:
    state = parallel.init_state(trainer.init, jax.random.key(config['seed']), mesh)
    for net in state.nets.values():
      progress.say(parameter_overview.get_parameter_overview(
          net.params, include_stats=False))
  else:
    progress.say(f'resuming {workdir} at step {step}')
  frozen = parallel.replicate(frozen, mesh)
  about = {
      'config': config, 'image_shape': training.image_shape,
      'class_names': training.class_names,
  }
  with (
      _caught(mesh) as came,
      contextlib.closing(progress),
      _telling(workdir, lambda: f'at step {step} of {config["steps"]}'),
      writers.open_writers(workdir, step, run['tensorboard']) as write,
      checkpoint.closing(manager),  # an interrupt does not cut off a save
      futures.ThreadPoolExecutor(1) as watch,  # when calls end, for images/s
  ):
    window, pending, figures, details = [], None, None, None

    def sums():
      """All since the last record, in the order of the updates."""
      before = task.from_json(earlier, window[0])
      return task.merge(window if before is None else [before, *window])

    def save(figures=None):
      kept = task.to_json(sums()) if window else {}
      checkpoint.save(manager, state, step, {**about, 'window': kept}, figures)

    def look():
      """Reads the figures of the last call; stops a run that diverged."""
      nonlocal window, earlier, pending
      if pending is None:
        return
      at, metrics, ended = pending
      pending = None
      window.append(jax.device_get(metrics))
      latest = trainer.figures(window[-1])
      for name in trainer.watch:
        if not math.isfinite(latest[name]):
          _diverged(f'{name} is {latest[name]}', at, manager)
      if at % run['log_every'] == 0 or at == config['steps']:
        record = trainer.figures(sums())
        record['learning_rate'] = float(schedule(at - 1))
        del record['images']  # its time is known of the updates of this process
        record['images_per_second'] = progress(
            at, trainer.figures(task.merge(window))['images'], trainer.line(record),
            ended.result())
        write({'step': at, 'kind': 'train', **record})
        window, earlier = [], {}

    def due(what):
      every = run[f'{what}_every']
      return step == config['steps'] or bool(every) and step % every == 0

    def assess():
      nonlocal figures, details
      go_on = progress.pause()
      figures, details = evaluator.run(state, step, step == config['steps'])
      write({'step': step, 'kind': 'eval', 'evals': figures})
      progress.say(
          f'step {step}/{config["steps"]}  evaluation: {evaluator.summary(figures)}')
      go_on()

    if step and due('eval') and not processes.count(
        writers.has_record(workdir, step, 'eval')):
      assess()  # it was cut off after it was saved
    while step < config['steps']:
      k = call_length(step)
      state, metrics = step_fn(state, frozen, source, items(step, k), k)
      look()
      step += k
      pending = step, metrics, watch.submit(_when_done, metrics)
      stop = came(state)
      evaluates, saves = due('eval'), stop or due('checkpoint')
      if evaluates or saves:
        look()
        if not parallel.all_finite(state):  # its loss will be NaN in the next update
          _diverged('a parameter is NaN or infinite', step, manager)
      if saves and not best:  # first: what is saved is not lost while it is evaluated
        save()
      if evaluates:
        assess()
      if saves and best:
        save(dict(writers.flat(figures)) if evaluates else None)
      if stop and step < config['steps']:
        raise Preempted(
            stop, f'saved at step {step} of {config["steps"]} in {workdir}. The same '
            'command goes on from there')
    if figures is None:  # it was cut off before eval.json
      figures, details = evaluator.run(state, step, True)
    checkpoint.close(manager)  # eval.json tells that the last step is saved
    evaluation = evaluator.save(state, step, figures, details)
    if stop := came(state):
      raise Preempted(
          stop, f'{workdir} is trained and evaluated at step {step}. The same command '
          'goes on from there')
  return evaluation


def _when_done(metrics):
  jax.block_until_ready(metrics)
  return time.monotonic()


@contextlib.contextmanager
def _caught(mesh):
  """Yields a function, called by all hosts alike: the signal that came to any, or 0."""
  ask = parallel.make_most(mesh)
  with signals.caught() as here:

    def came(state):
      if jax.process_count() == 1:
        return here()
      jax.block_until_ready(state)
      return ask(here())

    yield came


@contextlib.contextmanager
def _telling(workdir, when):
  """Adds when it was and what is saved to what could not be written or read."""
  try:
    yield
  except OSError as error:
    raise OSError(
        f'{when()}: {error}. {checkpoint.last_sound(workdir)} Free some space there, '
        'or mend the disk, and give the same command again') from error


def _diverged(what, step, manager):
  checkpoint.close(manager)
  good = manager.latest_step()
  raise Diverged(
      f'{what} in the updates up to step {step}. '
      + (f'The last good checkpoint is of step {good}. ' if good else
         'There is no checkpoint yet. ')
      + 'Try a lower --config.schedule.learning_rate, --config.grad_clip=1.0, a '
      'warm-up (schedule.warmup), or float32 compute, in another --workdir'
  )


def _finished(workdir, step, config):
  """The evaluation of a run that is at its end, None where there is more to do."""
  if step < config['steps']:
    return None
  try:
    evaluation = results.read_evaluation(workdir)
  except files.Unreadable as error:
    logging.warning('%s. It is evaluated now.', error)
    return None
  return evaluation if evaluation and evaluation['step'] == step else None
