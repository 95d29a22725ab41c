"""The loop: open a run, advance it call by call, finish it. Knows no task.

    evaluation = train(config, 'runs/digits')

Every look at the metrics is one call behind the device: the host reads the figures of
a call while the device works on the next one. A call ends wherever something is to be
logged, evaluated or saved. A resumed run has the parameters of an undisturbed one, bit
for bit. It logs the same means too, since a checkpoint holds the sums since the last
record; on CPUs up to rounding, because there the clock says how long a call is
(`feed.make_call_length`) and float32 sums depend on how they are split.
"""

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any, NamedTuple

import jax
from absl import logging
from clu import parameter_overview

from nat_jax import metrics, runs
from nat_jax import task as tasks_lib
from nat_jax.runtime import (
    checkpoint,
    feed,
    files,
    parallel,
    processes,
    profiling,
    results,
    signals,
    writers,
)
from nat_jax.runtime import workdir as workdirs
from nat_jax.task import Evaluator, Trainer
from nat_jax.tasks import TASKS

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


class Job(NamedTuple):
  """What a run is made of; nothing of it changes while it is trained.

  Attributes:
    config: resolved.
    workdir: where everything is written.
    trainer, evaluator: of the task.
    step_fn, source, items, call_length: how updates are run; see `runtime.feed`.
    frozen: what the step reads and never changes, on the devices.
    manager: of the checkpoints.
    about: what is saved with the state.
    mesh: the devices.
  """

  config: dict[str, Any]
  workdir: str
  trainer: Trainer
  evaluator: Evaluator
  step_fn: Callable[..., Any]
  source: Any
  items: Callable[[int, int], Any]
  call_length: Callable[[int], int]
  frozen: Any
  manager: Any
  about: dict[str, Any]
  mesh: jax.sharding.Mesh


@dataclasses.dataclass
class Course:
  """Where a run is.

  Attributes:
    state: of the trainer; donated to the next call.
    step: completed updates.
    window: metrics of the calls since the last record that this process made.
    earlier: their sums before it was resumed, as JSON.
    pending: (step, metrics, when they were done) of the call that is not read yet.
    figures, details: of the last evaluation.
  """

  state: Any
  step: int
  earlier: dict[str, Any]
  window: list[Any] = dataclasses.field(default_factory=list)
  pending: tuple[int, Any, futures.Future] | None = None
  figures: dict[str, Any] | None = None
  details: Any = None


def check(config: Mapping[str, Any], workdir: str, overwrite: bool = False) -> None:
  """Raises ValueError for mistakes in a config, or a workdir of another config."""
  workdirs.check(workdir, runs.resolve(config), overwrite)


def train(
    config: Mapping[str, Any], workdir: str, overwrite: bool = False, profile: int = 0
) -> dict[str, Any]:
  """Trains, or goes on training, a config in a workdir.

  Args:
    config: of `presets.experiment` (a ConfigDict or a plain dict).
    workdir: where everything is written; a run of the same config is resumed.
    overwrite: move a run of another config aside first.
    profile: number of updates to trace with jax.profiler; see `profiling.tracer`.

  Returns:
    The final evaluation, as it stands in eval.json.

  Raises:
    ValueError: a mistake in the config, the data or the workdir; nothing was changed.
    Preempted: SIGTERM, SIGINT or SIGHUP came. The run is saved.
    KeyboardInterrupt: a second SIGINT came, or one before the first update.
    Diverged: the loss became NaN. The last good checkpoint is kept.
    OSError: something could not be written, such as to a full disk.
  """
  job, course = open_run(runs.resolve(config), workdir, overwrite)
  steps = job.config['steps']
  done = _finished(job, course)
  if done:
    checkpoint.close(job.manager)
    if jax.process_index() == 0:
      print(f'{workdir} is trained already ({steps} steps); nothing to do', flush=True)
    return done
  with (
      _caught(job.mesh) as came,
      contextlib.closing(_start_progress(job, course)) as progress,
      _telling(workdir, lambda: f'at step {course.step} of {steps}'),
      writers.open_writers(
          workdir, course.step, job.config['run']['tensorboard']) as write,
      checkpoint.closing(job.manager),  # an interrupt does not cut off a save
      futures.ThreadPoolExecutor(1) as watch,  # when calls end, for images/s
      profiling.tracer(workdir, course.step, steps, profile) as trace,
  ):
    if course.step and due(job, course) and not processes.count(
        writers.has_record(workdir, course.step, 'eval')):
      assess(job, course, write, progress)  # it was cut off after it was saved
    while course.step < steps:
      with trace(course.step):
        advance(job, course, write, progress, watch, came)
    return finish(job, course, came)


def open_run(
    config: dict[str, Any], workdir: str, overwrite: bool
) -> tuple[Job, Course]:
  """Builds everything, makes the workdir ready and restores the newest checkpoint.

  Whatever a mistake of the user can spoil comes before the workdir is touched.
  """
  workdirs.check(workdir, config, overwrite)
  task, mesh, run = TASKS[config['task']], parallel.make_mesh(), config['run']
  inputs = task.load(config, mesh.devices.size)
  trainer = runs.build_trainer(config, inputs.shape)
  target = parallel.abstract_state(trainer.init, mesh)
  frozen = trainer.frozen()
  evaluator = task.evaluator(config, workdir, inputs, trainer, mesh, runs.OTHERS)
  periods = feed.periods(run, evaluator.periods.values())
  step_fn, source, items = feed.make_feed(config, inputs, trainer, mesh, periods)
  call_length = feed.make_call_length(
      config, periods, adapt=not parallel.scans(mesh) and jax.process_count() == 1)
  num_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(target))
  workdirs.prepare(
      workdir, config, overwrite,
      (run['keep'] + 2) * num_bytes + evaluator.num_bytes + BESIDES
      + config['steps'] // run['log_every'] * RECORD)
  processes.barrier('workdir')

  best = config.get('best', '')
  manager = checkpoint.open_manager(
      workdir, run['keep'], best, lowest=metrics.lower_is_better(best))
  state, found = checkpoint.restore_latest(manager, target)
  about = {'config': config, 'image_shape': list(inputs.shape),
           'class_names': list(inputs.class_names)}
  job = Job(config, workdir, trainer, evaluator, step_fn, source, items, call_length,
            parallel.replicate(frozen, mesh), manager, about, mesh)
  if found:
    return job, Course(state, found['step'], found.get('window', {}))
  state = parallel.init_state(trainer.init, jax.random.key(config['seed']), mesh)
  return job, Course(state, 0, {})


def advance(job: Job, course: Course, write, progress, watch, came) -> None:
  """Makes one call of updates; logs, evaluates and saves what is due after it.

  Raises:
    Preempted, Diverged: see `train`.
  """
  steps, best = job.config['steps'], job.config.get('best', '')
  k = job.call_length(course.step)
  course.state, collected = job.step_fn(
      course.state, job.frozen, job.source, job.items(course.step, k), k)
  look(job, course, write, progress)  # at the call before
  course.step += k
  course.pending = course.step, collected, watch.submit(_when_done, collected)
  stop = came(course.state)
  evaluates = due(job, course)
  saves = stop or _is_at(
      course.step, job.config['run']['checkpoint_every'], steps)
  if evaluates or saves:
    look(job, course, write, progress)
    if not parallel.all_finite(course.state):  # its loss will be NaN in the next update
      _diverged('a parameter is NaN or infinite', course.step, job.manager)
  if saves and not best:  # first: what is saved is not lost while it is evaluated
    save(job, course)
  if evaluates:
    assess(job, course, write, progress)
  if saves and best:
    figures = dict(writers.flat(course.figures)) if evaluates else {}
    save(job, course, figures if best in figures else None)
  if stop and course.step < steps:
    raise Preempted(
        stop, f'saved at step {course.step} of {steps} in {job.workdir}. The same '
        'command goes on from there')


def look(job: Job, course: Course, write, progress) -> None:
  """Reads the figures of the pending call; stops a run that diverged."""
  if course.pending is None:
    return
  trainer, (at, collected, ended) = job.trainer, course.pending
  course.pending = None
  course.window.append(jax.device_get(collected))
  latest = trainer.figures(course.window[-1])
  for name in trainer.watch:
    if not math.isfinite(latest[name]):
      _diverged(f'{name} is {latest[name]}', at, job.manager)
  if at % job.config['run']['log_every'] and at != job.config['steps']:
    return
  record = trainer.figures(_sums(course))
  record['learning_rate'] = float(trainer.learning_rate(at - 1))
  del record['images']  # its time is known of the updates of this process
  images = trainer.figures(tasks_lib.merge(course.window))['images']
  record['images_per_second'] = progress(
      at, images, trainer.line(record), ended.result())
  write({'step': at, 'kind': 'train', **record})
  course.window, course.earlier = [], {}


def assess(job: Job, course: Course, write, progress) -> None:
  """Evaluates the state and writes the figures to metrics.jsonl."""
  steps, go_on = job.config['steps'], progress.pause()
  course.figures, course.details = job.evaluator.run(
      course.state, due(job, course), course.step == steps)
  write({'step': course.step, 'kind': 'eval', 'evals': course.figures})
  progress.say(f'step {course.step}/{steps}  evaluation: '
               + (job.evaluator.summary(course.figures) or ', '.join(course.figures)))
  go_on()


def save(
    job: Job, course: Course, figures: Mapping[str, float] | None = None
) -> None:
  """Saves a checkpoint, with the sums since the last record."""
  kept = tasks_lib.to_json(_sums(course)) if course.window else {}
  checkpoint.save(
      job.manager, course.state, course.step, {**job.about, 'window': kept}, figures)


def finish(job: Job, course: Course, came) -> dict[str, Any]:
  """Writes eval.json of the last state and returns it.

  Raises:
    Preempted: a signal came in the meantime; all is done.
  """
  if course.figures is None:  # it was cut off before eval.json
    course.figures, course.details = job.evaluator.run(
        course.state, due(job, course), True)
  checkpoint.close(job.manager)  # eval.json tells that the last step is saved
  evaluation = job.evaluator.save(
      course.state, course.step, course.figures, course.details)
  if stop := came(course.state):
    raise Preempted(
        stop, f'{job.workdir} is trained and evaluated at step {course.step}. The same '
        'command goes on from there')
  return evaluation


def _sums(course):
  """All metrics since the last record, in the order of the updates."""
  before = tasks_lib.from_json(course.earlier, course.window[0])
  return tasks_lib.merge(
      course.window if before is None else [before, *course.window])


def due(job: Job, course: Course) -> list[str]:
  """The evaluations to be made at this step; all of them at the last one."""
  return [name for name, every in job.evaluator.periods.items()
          if _is_at(course.step, every, job.config['steps'])]


def _is_at(step, every, steps):
  return step == steps or (bool(every) and step % every == 0)


def _start_progress(job, course):
  progress = writers.Progress(
      job.config['steps'], course.step, quiet=jax.process_index() > 0)
  if course.step:
    progress.say(f'resuming {job.workdir} at step {course.step}')
    return progress
  for net in course.state.nets.values():
    progress.say(parameter_overview.get_parameter_overview(
        net.params, include_stats=False))
  return progress


def _finished(job, course):
  """The evaluation of a run that is at its end, None where there is more to do."""
  if course.step < job.config['steps']:
    return None
  try:
    evaluation = results.read_evaluation(job.workdir)
  except files.Unreadable as error:
    logging.warning('%s. It is evaluated now.', error)
    return None
  return evaluation if evaluation and evaluation['step'] == course.step else None


def _when_done(collected):
  jax.block_until_ready(collected)
  return time.monotonic()


@contextlib.contextmanager
def _caught(mesh) -> Iterator[Callable[[Any], int]]:
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
