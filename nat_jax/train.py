"""The training loop of all tasks: open a run, advance it call by call, finish it.

    evaluation = train(config, 'runs/digits')

A call dispatches k updates to the device. The host reads the metrics of a call while
the device executes the next call. A call ends at every update after which metrics are
logged, an evaluation is made or a checkpoint is saved. To save, the state is copied on
the device; a thread fetches the copy, computes its checksum and writes it. Another
thread makes evaluations that decide nothing, on a copy of the state too.

A resumed run has the parameters of an uninterrupted run bit for bit. It also logs the
same means, because a checkpoint holds the sums of the metrics since the last record. On
CPUs the means agree up to rounding only: the length of a call depends on the time that
updates take (`feed.make_call_length`), and float32 sums depend on how they are split.
"""

import contextlib
import dataclasses
import math
import signal
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from clu import parameter_overview

from nat_jax import runs
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
from nat_jax.tasks import TASKS, unchanged

BESIDES = 10_000_000  # bytes on disk for figures, report, eval.json and folders
RECORD = 1000  # bytes on disk per record, in metrics.jsonl and TensorBoard events
MOST_NAMES = 8  # of classes that are printed


class Preempted(Exception):
  """The run was stopped by a signal, after it was saved; it can be resumed.

  Attributes:
    number: number of the signal.
  """

  def __init__(self, number: int, text: str):
    super().__init__(f'stopped by {signal.Signals(number).name}; {text}')
    self.number = number


class Diverged(Exception):
  """The loss, the gradient or a parameter is NaN or infinite."""


class Job(NamedTuple):
  """The parts of a run that stay constant during training.

  Attributes:
    config: resolved.
    workdir: folder to which everything is written.
    trainer, evaluator: of the task.
    step_fn, source, items: from `runtime.feed.make_feed`.
    call_length: step -> number of updates of the next call.
    frozen: `trainer.frozen()`, replicated on the devices.
    manager: orbax manager of the checkpoints.
    about: dict that each checkpoint holds besides the state.
    mesh: the devices.
    examples: numbers of training examples: {'positives': n, 'negatives': {name: n}},
      with few labels also 'unlabelled': n.
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
  examples: dict[str, Any]


@dataclasses.dataclass
class Course:
  """The progress of a run, which changes with every call.

  Attributes:
    state: of the trainer; donated to the next call.
    step: number of completed updates.
    earlier: `task.to_json` of the metrics since the last record that were computed
      before the run was resumed; {} without any.
    window: metrics of the calls of this process since the last record.
    pending: (step, metrics, time at which they were ready) of the call whose metrics
      are not read yet; None: all are read.
    figures, details: from the last evaluation, see `task.Evaluator.run`.
    saving: the last save, until `settle` has seen its end; None: none is under way.
    assessing: (step, result of `task.Evaluator.run`) of an evaluation that runs beside
      the training, until `note` has written it; None: none is under way.
    brief: from the last evaluation that had one, see `task.Evaluator.brief`.
  """

  state: Any
  step: int
  earlier: dict[str, Any]
  window: list[Any] = dataclasses.field(default_factory=list)
  pending: tuple[int, Any, futures.Future] | None = None
  figures: dict[str, Any] | None = None
  details: Any = None
  saving: futures.Future | None = None
  assessing: tuple[int, futures.Future] | None = None
  brief: str = ''


def check(config: Mapping[str, Any], workdir: str, overwrite: bool = False) -> None:
  """Checks a config and a workdir without writing or training.

  Args:
    config, workdir, overwrite: see `train`.

  Raises:
    ValueError: a mistake in the config, or the workdir holds a run of another config.
  """
  workdirs.check(workdir, runs.resolve(config), overwrite)


def rehearse(config: Mapping[str, Any], workdir: str) -> None:
  """Reads the data of a run and builds all of it, but does not write or train.

  Caches, such as that of decoded pictures, are written.

  Args:
    config, workdir: see `train`; what the config depends on must be there.

  Raises:
    ValueError, OSError: a mistake in the config or the data.
  """
  config = runs.resolve(config)
  mesh, inputs, trainer, _, periods = _build(config, workdir)
  feed.check(config, inputs, trainer, mesh, periods)


def train(
    config: Mapping[str, Any], workdir: str, overwrite: bool = False, profile: int = 0,
    command: str = '',
) -> dict[str, Any]:
  """Trains a config in a workdir, or resumes its training.

  Args:
    config: from `presets.experiment` (a ConfigDict or a plain dict).
    workdir: folder to which everything is written; a run of the same config in it is
      resumed.
    overwrite: whether to move a run of another config aside first.
    profile: number of updates to trace with jax.profiler; see `profiling.tracer`.
    command: that trains the run, for its report; '': it is not recorded.

  Returns:
    The final evaluation: the content of eval.json.

  Raises:
    ValueError: a mistake in the config, the data or the workdir; nothing was changed.
    Preempted: the process received SIGTERM, SIGINT or SIGHUP. The run is saved.
    KeyboardInterrupt: the process received a second SIGINT, or one before the first
      update.
    Diverged: the loss, the gradient or a parameter became NaN or infinite. The last
      checkpoint, whose parameters are finite, is kept.
    OSError: a file could not be written or read, for example because the disk is full.
  """
  job, course = open_run(runs.resolve(config), workdir, overwrite)
  steps = job.config['steps']
  done = _finished(job, course)
  if done:
    checkpoint.close(job.manager)
    if jax.process_index() == 0:
      print(f'{workdir} is trained already ({course.step} steps); nothing to do',
            flush=True)
    return done
  with (
      _caught(job.mesh) as came,
      contextlib.closing(_start_progress(job, course)) as progress,
      _telling(workdir, lambda: f'at step {course.step} of {steps}'),
      writers.open_writers(
          workdir, course.step, job.config['run']['tensorboard']) as write,
      checkpoint.closing(job.manager),  # on an interrupt too, a save is completed
      futures.ThreadPoolExecutor(3) as threads,
      _settling(course),
      profiling.tracer(workdir, course.step, steps, profile) as trace,
      _recorded(job, course, write, command),
  ):
    if course.step and due(job, course) and not processes.count(
        writers.has_record(workdir, course.step, 'eval')):
      # Killed between checkpoint and evaluation.
      assess(job, course, write, progress, threads)
    if _result_step(job, course) is None:
      progress.say(_wrapped(training_on(job)))
      progress.compiling(_devices(job.mesh))
    while _result_step(job, course) is None:
      with trace(course.step):
        advance(job, course, write, progress, threads, came)
    if course.step < steps:
      progress.say(
          f'stopped at step {course.step}: {job.config["best"]} has not been better '
          f'for {job.config["patience"]} updates')
    return finish(job, course, came)


@contextlib.contextmanager
def _recorded(job, course, write, command):
  """Records what trains the run, and at the end how long it took, for reports.

  A process that is killed leaves no time.
  """
  began = time.monotonic()
  write({'step': course.step, 'kind': writers.START, 'command': command,
         'devices': _devices(job.mesh), 'examples': job.examples})
  try:
    yield
  finally:
    with contextlib.suppress(OSError):  # the error that ends the run is the one to show
      write({'step': course.step, 'kind': writers.END,
             'seconds': round(time.monotonic() - began, 1)})


def _devices(mesh):
  """The devices in words: '1 x NVIDIA H200', '2 CPU cores'."""
  devices = mesh.devices.ravel()
  if devices[0].platform == 'cpu':
    cores = len(parallel.usable_cores())
    return f'{cores} CPU core{"s" if cores > 1 else ""}'
  return f'{len(devices)} x {devices[0].device_kind}'


def _examples(config, inputs):
  """The numbers of training examples, see `Job`."""
  labelled = np.asarray(inputs.pool.label) >= 0
  found = {'positives': int(labelled.sum()), 'negatives': {
      name: len(one.label) for name, one in (inputs.negatives or {}).items()}}
  if 'labels_per_class' in config['data']:
    found['unlabelled'] = int((~labelled).sum())
  return found


def training_on(job: Job) -> str:
  """What a run is trained on, in words, such as 'training on 90 positives of 2 classes
  (cat, dog) and negatives: others 30'.

  Tasks without positives, such as detectors, have 'training on 90 examples'.

  Args:
    job: from `open_run`.
  """
  num, names = f'{job.examples["positives"]:,}', job.about['class_names']
  if 'positives' not in job.config.get('data', {}):
    return f'training on {num} examples'
  text = f'training on {num} positives'
  if len(names) > 1:
    shown = [*names[:MOST_NAMES], *(['...'] if len(names) > MOST_NAMES else [])]
    text += f' of {len(names):,} classes ({", ".join(shown)})'
  if 'unlabelled' in job.examples:
    text += f', {job.examples["unlabelled"]:,} examples without labels'
  negatives = [f'{name} {n:,}' for name, n in job.examples['negatives'].items()]
  return f'{text} and negatives: {", ".join(negatives)}' if negatives else text


def open_run(
    config: dict[str, Any], workdir: str, overwrite: bool
) -> tuple[Job, Course]:
  """Builds a run, prepares its workdir and restores the newest checkpoint.

  Mistakes of the user are found before the workdir is written to.

  Args:
    config: resolved.
    workdir, overwrite: see `train`.

  Returns:
    The constant parts of the run, and its progress.

  Raises:
    ValueError, OSError: see `train`.
  """
  moved = workdirs.check(workdir, config, overwrite)
  mesh, inputs, trainer, evaluator, periods = _build(config, workdir)
  step_fn, source, items = feed.make_feed(config, inputs, trainer, mesh, periods)
  steps = checkpoint.list_steps(workdir)
  known = unchanged.record(
      workdir, config, inputs, bool(steps) and not moved, runs.OTHERS)
  target = parallel.abstract_state(trainer.init, mesh)
  frozen = trainer.frozen()
  fresh = moved or not steps
  begin = trainer.start(target) if fresh else None
  call_length = feed.make_call_length(
      config, periods, adapt=not parallel.scans(mesh) and jax.process_count() == 1)
  workdirs.prepare(workdir, config, overwrite, _bytes_needed(
      config, workdir, [] if moved else steps, target, evaluator.num_bytes))
  processes.barrier('workdir')
  if not jax.process_index():
    unchanged.write(workdir, known)
    evaluator.start()

  manager = runs.open_checkpoints(workdir, config)
  state, found = checkpoint.restore_latest(manager, target)
  about = {'config': config, 'image_shape': list(inputs.shape),
           'class_names': list(inputs.class_names)}
  job = Job(config, workdir, trainer, evaluator, step_fn, source, items, call_length,
            parallel.replicate(frozen, mesh), manager, about, mesh,
            _examples(config, inputs))
  if found:
    return job, Course(state, found['step'], found.get('window', {}))
  return job, Course(initial_state(config, trainer, mesh, begin), 0, {})


def _build(config, workdir):
  """(devices, inputs, trainer, evaluator, its periods and others) of a run."""
  task, mesh = TASKS[config['task']], parallel.make_mesh()
  inputs = task.load(config, mesh.devices.size, runs.OTHERS)
  trainer = runs.build_trainer(config, inputs.shape)
  evaluator = task.evaluator(config, workdir, inputs, trainer, mesh, runs.OTHERS)
  periods = feed.periods(config['run'], evaluator.periods.values())
  return mesh, inputs, trainer, evaluator, periods


def _bytes_needed(config, workdir, saved, target, evaluation):
  """Disk space, in bytes, that a run needs beside what is in its workdir.

  Args:
    saved: steps of its checkpoints.
    target: the state, abstract.
    evaluation: bytes of its evaluations.
  """
  if saved and _is_evaluated(config, workdir):
    return 0
  one = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(target))
  states = max(config['run']['keep'] + 2 - len(saved), 0)
  return (states * one + evaluation + BESIDES
          + config['steps'] // config['run']['log_every'] * RECORD)


def _is_evaluated(config, workdir):
  """Whether a run in a workdir is over, and eval.json is of its result."""
  try:
    found = results.read_evaluation(workdir)
  except files.Unreadable:  # it is evaluated again
    return False
  return found is not None and found['step'] == (
      runs.saved_result_step(workdir, config) if config.get('patience')
      else config['steps'])


def initial_state(
    config: Mapping[str, Any], trainer: Trainer, mesh,
    begin: Callable[[Any], Any] | None = None,
) -> Any:
  """The state that a training starts from.

  Args:
    config: resolved.
    trainer: of the run.
    mesh: the devices.
    begin: result of `trainer.start`, if it was called already.
  """
  state = parallel.init_state(trainer.init, jax.random.key(config['seed']), mesh)
  begin = begin or trainer.start(parallel.abstract_state(trainer.init, mesh))
  return jax.tree.map(
      lambda x: parallel.replicate(x, mesh) if isinstance(x, np.ndarray) else x,
      begin(state))


def advance(job: Job, course: Course, write, progress, threads, came) -> None:
  """Dispatches one call of updates; logs, evaluates and saves if that is due after it.

  Args:
    job, course: from `open_run`; `course` is changed.
    write: record -> None, from `writers.open_writers`.
    progress: a `writers.Progress`.
    threads: a `futures.ThreadPoolExecutor` of three threads: one records when calls
      end, for images/s, one saves, and one evaluates.
    came: from `_caught`.

  Raises:
    Preempted, Diverged: see `train`.
    checkpoint.NotSaved: an earlier save has failed.
  """
  if course.saving is not None and course.saving.done():
    settle(course)
  if course.assessing is not None and course.assessing[1].done():
    note(job, course, write, progress)
  steps, best = job.config['steps'], job.config.get('best', '')
  k = job.call_length(course.step)
  course.state, collected = job.step_fn(
      course.state, job.frozen, job.source, job.items(course.step, k), k)
  look(job, course, write, progress)  # reads the metrics of the previous call
  course.step += k
  course.pending = course.step, collected, threads.submit(_when_done, collected)
  stop = came()
  evaluates = due(job, course)
  saves = stop or _is_at(
      course.step, job.config['run']['checkpoint_every'], steps)
  if evaluates or saves:
    finite = parallel.all_finite(course.state)
    look(job, course, write, progress)
    if not finite:  # the next loss would be NaN
      note(job, course, write, progress)
      _diverged('a parameter is NaN or infinite', course.step, job, course)
  if (evaluates or saves) and not stop:
    note(job, course, write, progress)  # a run that resumes here will not repeat it
  if saves and not best:  # before the evaluation, during which the run may be killed
    save(job, course, threads)
  if stop:  # the state first, which is worth more than a figure
    settle(course)
    note(job, course, write, progress)
  if evaluates:
    assess(job, course, write, progress, threads, stop)
  if saves and best:
    figures = dict(writers.flat(course.figures)) if evaluates else {}
    save(job, course, threads, figures if best in figures else None)
  if stop and course.step < steps:
    raise Preempted(
        stop, f'saved at step {course.step} of {steps} in {job.workdir}. The same '
        'command goes on from there')


def look(job: Job, course: Course, write, progress) -> None:
  """Reads the metrics of the pending call and logs them if a record is due.

  Raises:
    Diverged: a figure of `trainer.watch` is NaN or infinite.
  """
  if course.pending is None:
    return
  trainer, (at, collected, ended) = job.trainer, course.pending
  course.pending = None
  course.window.append(jax.device_get(collected))
  latest = trainer.figures(course.window[-1])
  for name in trainer.watch:
    if not math.isfinite(latest[name]):
      note(job, course, write, progress)
      _diverged(f'{name} is {latest[name]}', at, job, course)
  if at % job.config['run']['log_every'] and at != job.config['steps']:
    return
  record = trainer.figures(_sums(course))
  record['learning_rate'] = float(trainer.learning_rate(at - 1))
  # Images/s counts the updates of this process only, since only their time is known.
  del record['images']
  images = trainer.figures(tasks_lib.merge(course.window))['images']
  record['images_per_second'] = progress(
      at, images, trainer.line(record), ended.result(), course.brief)
  write({'step': at, 'kind': 'train', **record})
  course.window, course.earlier = [], {}


def assess(
    job: Job, course: Course, write, progress, threads, stop: int = 0
) -> None:
  """Makes the evaluations that are due and writes their figures to metrics.jsonl.

  Before the last update those of an `Evaluator` with `beside` only start here, in a
  thread; `note` writes their figures. Programs of several devices or processes must be
  dispatched in one order, so that there the training waits.

  Args:
    job, course, write, progress, threads: see `advance`.
    stop: number of the signal on which the run ends; 0: it goes on.
  """
  names, final = due(job, course), course.step == job.config['steps']
  beside = job.evaluator.beside and not job.config.get('best')
  if beside and not (final or stop) and job.mesh.devices.size == 1:
    course.assessing = course.step, threads.submit(
        job.evaluator.run, parallel.copy(course.state), names, False)
    return
  go_on = progress.pause()
  found = job.evaluator.run(course.state, names, final)
  _write_figures(job, course, write, progress, course.step, found)
  go_on()


def note(job: Job, course: Course, write, progress) -> None:
  """Waits for the evaluation that runs beside the training, and writes its figures.

  An interrupt that comes meanwhile ends the run when the evaluation is over.

  Raises:
    OSError: a file could not be written by the evaluation.
  """
  if course.assessing is None:
    return
  step, assessing = course.assessing
  go_on = progress.pause()
  try:
    found = assessing.result()
  except OSError as error:
    raise OSError(f'evaluation of step {step}: {error}') from error
  go_on()
  course.assessing = None
  _write_figures(job, course, write, progress, step, found)


def _write_figures(job, course, write, progress, step, found):
  course.figures, course.details = found
  course.brief = job.evaluator.brief(course.figures) or course.brief
  write({'step': step, 'kind': 'eval', 'evals': course.figures})
  text = job.evaluator.summary(course.figures) or ', '.join(course.figures)
  progress.say(_wrapped(f'step {step}/{job.config["steps"]}  evaluation: {text}'))


def _wrapped(text):
  """A text in lines of the width of a progress line, all but the first indented."""
  return textwrap.fill(
      text, writers.WIDTH, subsequent_indent='  ', break_long_words=False,
      break_on_hyphens=False)


def save(
    job: Job, course: Course, threads, figures: Mapping[str, float] | None = None
) -> None:
  """Saves a checkpoint, with the sums of the metrics since the last record.

  The save before it is complete when this returns, this one when `settle` returns. A
  run of several processes waits for the copy to the host and the checksum, since orbax
  makes the processes meet while it saves, and they must not meet in another order.

  Args:
    job, course: from `open_run`.
    threads: see `advance`.
    figures: figures of the evaluation at this step, by which the best checkpoint is
      chosen; None: this checkpoint is not a candidate.
  """
  settle(course)
  kept = tasks_lib.to_json(_sums(course)) if course.window else {}
  about = {**job.about, 'window': kept}
  if processes.total() > 1:
    checkpoint.save(job.manager, course.state, course.step, about, figures)
    return
  course.saving = threads.submit(
      _save_all, job.manager, parallel.copy(course.state), course.step, about, figures)


def _save_all(manager, *what):
  checkpoint.save(manager, *what)
  checkpoint.wait(manager)


def settle(course: Course) -> None:
  """Waits until the save that is under way is complete.

  Raises:
    checkpoint.NotSaved: it has failed.
  """
  if course.saving is None:
    return
  futures.wait([course.saving])  # may be interrupted, and is then called again
  saving, course.saving = course.saving, None
  saving.result()


@contextlib.contextmanager
def _settling(course):
  """Settles the last save when the block ends, also after an error."""
  try:
    yield
  finally:
    settle(course)


def finish(job: Job, course: Course, came) -> dict[str, Any]:
  """Writes eval.json for the last state and returns its content.

  With early stopping (`patience`) eval.json is of the best checkpoint.

  Raises:
    Preempted: a signal came during the evaluation; everything is written.
  """
  settle(course)  # eval.json must imply that the last step is saved
  step, state = _result_step(job, course), course.state
  if step != course.step:
    state = checkpoint.restore(
        job.manager, step, parallel.abstract_state(job.trainer.init, job.mesh))
  # Resumed at the last step without an eval.json, or the results are of another step.
  if course.figures is None or step != course.step:
    course.figures, course.details = job.evaluator.run(
        state, list(job.evaluator.periods), True)
  checkpoint.close(job.manager)
  evaluation = job.evaluator.save(state, step, course.figures, course.details)
  if stop := came(wait=True):
    raise Preempted(
        stop, f'{job.workdir} is trained and evaluated at step {step}. The same '
        'command does the rest: further runs that the config needs, and the report')
  return evaluation


def _sums(course):
  """Sums of all metrics since the last record, added in the order of the updates."""
  before = tasks_lib.from_json(course.earlier, course.window[0])
  return tasks_lib.merge(
      course.window if before is None else [before, *course.window])


def due(job: Job, course: Course) -> list[str]:
  """Returns the names of the evaluations due at this step; at the last step, all."""
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
  for name, net in course.state.nets.items():
    progress.say(f'parameters of the network {name}:')
    progress.say(parameter_overview.get_parameter_overview(
        net.params, include_stats=False))
  return progress


def _finished(job, course):
  """The content of eval.json if training and evaluation are complete; else None."""
  step = _result_step(job, course)
  if step is None:
    return None
  try:
    evaluation = results.read_evaluation(job.workdir)
  except files.Unreadable as error:
    logging.warning('%s. The run is evaluated now.', error)
    return None
  return evaluation if evaluation and evaluation['step'] == step else None


def _result_step(job, course):
  """The step that the results are of; None while the run is not over."""
  step = runs.result_step(job.config, job.manager, course.step)
  if step is None or course.saving is None:
    return step
  settle(course)  # the checkpoint that is being saved may be the best
  return runs.result_step(job.config, job.manager, course.step)


def _when_done(collected):
  jax.block_until_ready(collected)
  return time.monotonic()


@contextlib.contextmanager
def _caught(mesh) -> Iterator[Callable[..., int]]:
  """Yields (wait=False) -> number of the signal on which to stop, or 0.

  All processes must call it after the same updates; see `processes.agreement`.
  """
  with signals.caught() as here:
    if jax.process_count() == 1:
      yield lambda wait=False: here()
    else:
      yield processes.agreement(here, parallel.make_most(mesh))


@contextlib.contextmanager
def _telling(workdir, when):
  """Adds to the message of an OSError the step, and which checkpoint is sound."""
  try:
    yield
  except OSError as error:
    raise OSError(
        f'{when()}: {error}. {checkpoint.last_sound(workdir)} Free some space on the '
        'disk of the workdir, or repair it, and run the same command again') from error


def _diverged(what, step, job, course):
  settle(course)
  checkpoint.close(job.manager)
  good = job.manager.latest_step()
  raise Diverged(
      f'{what} in the updates up to step {step}. '
      + (f'The last good checkpoint is of step {good}. ' if good else
         'There is no checkpoint yet. ')
      + 'Try a lower --config.schedule.learning_rate, --config.grad_clip=1.0, a '
      'warm-up (schedule.warmup), or float32 compute, in another --workdir'
  )
