"""The loop: build, restore, step, log, evaluate, checkpoint. Knows no method.

    evaluation = train(config, 'runs/digits')

Every look at the metrics is one call behind the device: the host reads the figures of
a call while the device works on the next one. A call ends wherever something is to be
logged, evaluated or saved, so a resumed run makes the same calls and the same bits.
"""

import contextlib
import functools
import json
import math
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grain
import jax
import numpy as np
from clu import parameter_overview

from nat_jax import data, evaluate, experiment
from nat_jax.runtime import checkpoint, parallel, writers
from nat_jax.runtime import workdir as workdirs


class Preempted(Exception):
  """SIGTERM came; the run was saved and can be resumed."""


class Diverged(Exception):
  """The loss or the gradient is no longer a number."""


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
    Preempted: SIGTERM came. The run is saved.
    Diverged: the loss became NaN. The last good checkpoint is kept.
  """
  config = experiment.plain(config)
  run = config['run']
  mesh = parallel.make_mesh()
  training = experiment.load_training(config, mesh.devices.size)
  sets = experiment.load_evals(config)
  trainer, schedule = experiment.build_trainer(config, training.image_shape)
  step_fn, source, items = make_feed(config, training, trainer, mesh)
  target = parallel.abstract_state(trainer.init, mesh)
  num_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(target))
  if jax.process_index() == 0:
    workdirs.prepare(workdir, config, overwrite, (run['keep'] + 2) * num_bytes)

  manager = checkpoint.open_manager(workdir, run['keep'], config['best'])
  state, step = checkpoint.restore_latest(manager, target)
  progress = writers.Progress(config['steps'], step, quiet=jax.process_index() > 0)
  done = _finished(workdir, step, config)
  if done:
    progress.say(f'{workdir} is trained already ({step} steps); nothing to do')
    return done
  if state is None:
    state = parallel.init_state(trainer.init, jax.random.key(config['seed']), mesh)
    progress.say(parameter_overview.get_parameter_overview(
        state.net.params, include_stats=False))
  else:
    progress.say(f'resuming {workdir} at step {step}')
  frozen = parallel.replicate(trainer.frozen(), mesh)
  about = {
      'config': config, 'image_shape': training.image_shape,
      'class_names': training.class_names,
  }
  def evaluate_now(bootstrap=False):
    predict = evaluate.make_predict(
        trainer.heads['logits'], state, mesh, config['eval_batch_size']
    )
    return evaluate.evaluate_sets(config, sets, predict, bootstrap)

  with (
      writers.open_writers(workdir, step, run['tensorboard']) as write,
      _sigterm() as preempted,
  ):
    window, pending, figures = [], None, None

    def look():
      """Reads the figures of the last call; stops a run that diverged."""
      nonlocal window, pending
      if pending is None:
        return
      at, metrics = pending
      pending = None
      window.append(jax.device_get(metrics))
      _check_finite(_figures(window[-1]), at, manager)
      if at % run['log_every'] == 0 or at == config['steps']:
        record = _merge(window)
        record['learning_rate'] = float(schedule(at - 1))
        record['images_per_second'] = progress(
            at, record.pop('images'), _line(record)
        )
        write({'step': at, 'kind': 'train', **record})
        window = []

    while step < config['steps']:
      k = experiment.call_length(step, config)
      state, metrics = step_fn(state, frozen, source, items(step, k))
      look()
      step += k
      pending = step, metrics
      last = step == config['steps']
      stop = preempted(manager, step)
      evaluates = last or (run['eval_every'] and step % run['eval_every'] == 0)
      saves = last or stop or (
          run['checkpoint_every'] and step % run['checkpoint_every'] == 0)
      if evaluates or saves:
        look()
      if evaluates:
        go_on = progress.pause()
        figures, scores = evaluate_now(bootstrap=last)
        write({'step': step, 'kind': 'eval', 'evals': figures})
        progress.say(
            f'step {step}/{config["steps"]}  evaluation: {_summary(figures)}')
        go_on()
      if saves:
        current = dict(writers.flat(figures)) if evaluates else None
        checkpoint.save(manager, state, step, about, current)
      if stop and not last:
        checkpoint.close(manager)
        raise Preempted(
            f'stopped by SIGTERM; saved at step {step} of {config["steps"]} in '
            f'{workdir}. The same command goes on from there'
        )
    if figures is None:  # it was cut off between its last checkpoint and eval.json
      figures, scores = evaluate_now(bootstrap=True)
  progress.close()
  checkpoint.close(manager)
  return evaluate.save_evaluation(
      workdir, config, step, training.class_names, sets, figures, scores
  )


def make_feed(
    config: Mapping[str, Any], training: experiment.Training, trainer, mesh
) -> tuple[Callable, Any, Callable[[int, int], Iterable[Any]]]:
  """Chooses where the pixels live.

  Returns:
    (step_fn, source, items): `step_fn(state, frozen, source, items(step, k))` makes k
    updates.

  Raises:
    ValueError: an unknown placement.
  """
  mode, placement = config['run']['mode'], config['run']['placement']
  index = training.stream.index
  if placement == 'resident':
    step_fn = parallel.wrap_step(trainer.step, mesh, mode=mode, fetch=data.gather)
    source = parallel.replicate(training.pool, mesh)
    return step_fn, source, lambda step, k: np.stack(
        [index(s) for s in range(step, step + k)])
  if placement == 'streamed':
    step_fn = parallel.wrap_step(trainer.step, mesh, mode=mode)
    batches = _Batches(lambda step: data.gather(training.pool, index(step)),
                       config['steps'])
    return step_fn, (), batches
  raise ValueError(
      f'unknown run.placement {placement!r}; valid: resident, streamed'
  )


class _Batches:
  """Batches of consecutive steps, gathered ahead by grain's threads."""

  def __init__(self, batch: Callable[[int], Any], stop: int):
    self.batch, self.stop = batch, stop
    self.next, self.iterator = None, None

  def __call__(self, step: int, k: int):
    if step != self.next:
      steps = grain.MapDataset.range(step, self.stop).map(lambda s: self.batch(int(s)))
      self.iterator = iter(steps.to_iter_dataset(
          grain.ReadOptions(num_threads=2, prefetch_buffer_size=16)))
    self.next = step + k
    return (next(self.iterator) for _ in range(k))


@contextlib.contextmanager
def _sigterm():
  """Yields a function that tells whether SIGTERM came, on any host."""
  came = []
  if jax.process_count() > 1:  # orbax asks JAX's coordination service, on all hosts
    yield lambda manager, step: manager.reached_preemption(step)
    return
  before = signal.signal(signal.SIGTERM, lambda *_: came.append(True))
  try:
    yield lambda manager, step: bool(came)
  finally:
    signal.signal(signal.SIGTERM, before)


def _check_finite(figures, step, manager):
  bad = [k for k in ('loss', 'grad_norm') if not math.isfinite(figures[k])]
  if bad:
    checkpoint.close(manager)
    raise Diverged(
        f'{bad[0]} is {float(figures[bad[0]])} in the updates up to step {step}. The '
        f'last good checkpoint is of step {manager.latest_step()}. Try a lower '
        '--config.schedule.learning_rate, --config.schedule.warmup, '
        '--config.grad_clip=1.0, or float32 compute'
    )


def _merge(window):
  total = functools.reduce(lambda one, other: one.merge(other), window)
  images = int(total.loss_positive.count + total.loss_negative.count)
  return {**_figures(total), 'images': images}


def _figures(metrics):
  with np.errstate(invalid='ignore'):  # no negatives: 0 / 0 = NaN
    return {k: float(v) for k, v in metrics.compute().items()}


def _line(record):
  text = (f'loss {record["loss"]:.4f} (pos {record["loss_positive"]:.4f}'
          f' neg {record["loss_negative"]:.4f})  accuracy {record["accuracy"]:.3f}')
  return f'{text}  NCR {record["ncr"]:.3f}'.replace(' neg nan', '').replace(
      '  NCR nan', '')


def _summary(figures):
  parts = []
  for name, values in figures.items():
    if values['positive']:
      parts.append(f'{name} accuracy {values["accuracy"]:.3f}')
    else:
      t, ncr = list(values['ncr'].items())[0]
      parts.append(f'{name} NCR_{t} {ncr:.3f}')
  return ', '.join(parts)


def _finished(workdir, step, config):
  path = os.path.join(workdir, evaluate.EVALUATION)
  if step != config['steps'] or not os.path.exists(path):
    return None
  with open(path) as file:
    evaluation = json.load(file)
  return evaluation if evaluation['step'] == step else None
