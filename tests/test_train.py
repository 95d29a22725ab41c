"""The loop on toy data: resuming, damage, divergence, placements, evaluation."""

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import signal
import threading

import jax
import numpy as np
import pytest
import toy
from clu import metrics as clu_metrics
from PIL import Image

from nat_jax import metrics, runs, task, train
from nat_jax.commands import jobs, plan, report
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.runtime import (
    checkpoint,
    feed,
    files,
    inference,
    parallel,
    results,
    writers,
)
from nat_jax.runtime import workdir as workdirs
from nat_jax.schema import presets
from nat_jax.tasks import TASKS, checkpoints
from nat_jax.tasks.classify import evaluate, inputs

pytestmark = pytest.mark.usefixtures('as_users_compile')

SHAPE = (6, 6, 1)


def make_config(steps=6, run=None, data=None, **changes):
  """A tiny run: BatchNorm, momentum, EMA, empty slots, two negative sets, crops."""
  settings = dict(
      name='toy', steps=steps, num_classes=3,
      model={'name': 'small_conv', 'widths': [4]},
      schedule={'name': 'cosine', 'learning_rate': 0.1}, ema_decay=0.9,
      eval_batch_size=16,
      data=dict(
          positives=toy.fake(classes=(0, 1, 2)),
          negatives={'three': {'source': toy.fake(classes=(3,))},
                     'noise': {'source': {'name': 'uniform_noise', 'num': 20}}},
          batch_size=8, negatives_per_batch=(2, 8),
          augment=[{'name': 'crop', 'pad': 1}], **(data or {})),
      evals={
          'test': {'source': toy.fake(1, classes=(0, 1, 2)), 'positive': True},
          'three': {'source': toy.fake(1, classes=(3,))},
          'blobs': {'source': {'name': 'blobs', 'num': 11}},
      },
      run=dict(log_every=2, checkpoint_every=3, updates_per_call=4,
               tensorboard=False) | (run or {}),
  )
  return presets.experiment(**settings | changes)


def assert_same(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  """A run of six steps that nothing disturbed. Copy it before changing anything."""
  workdir = tmp_path_factory.mktemp('runs') / 'done'
  evaluation = train.train(make_config(), str(workdir))
  assert evaluation == json.loads((workdir / 'eval.json').read_text())
  return workdir


@pytest.fixture
def copy(done, tmp_path):
  return shutil.copytree(done, tmp_path / 'copy')


def assert_same_records(one, other, rtol=1e-6):
  """But for the speed; the clock says how updates are split into calls, so rounding."""
  for a, b in zip(toy.records(one), toy.records(other), strict=True):
    assert a.keys() == b.keys()
    for name in a.keys() - {'kind', 'images_per_second'}:
      assert a[name] == pytest.approx(b[name], rel=rtol), name


def forget(workdir, step):
  """Leaves the run as if it had been killed before it saved `step`."""
  shutil.rmtree(workdir / 'checkpoints' / str(step))
  (workdir / 'eval.json').unlink()


def test_last_step_is_logged_evaluated_and_saved(done):
  assert checkpoint.list_steps(done) == [3, 6]
  assert [r['step'] for r in toy.records(done)] == [2, 4, 6]
  assert [r['step'] for r in toy.records(done, 'eval')] == [6]
  record = toy.records(done)[-1]
  assert {'loss', 'loss_positive', 'loss_negative', 'accuracy', 'ncr', 'grad_norm',
          'learning_rate', 'images_per_second'} <= set(record)
  assert json.loads((done / 'config.json').read_text())['steps'] == 6
  for folder, names in (('scores', ('blobs', 'test', 'three')),
                        ('mistakes', ('blobs', 'three'))):
    assert sorted(p.name for p in (done / folder).iterdir()) == [
        f'{name}.npz' for name in names]


def test_images_per_second_go_by_when_calls_end(tmp_path, monkeypatch):
  """Not by when their figures are read: 2 updates of 10 to 16 images in 10 s."""
  ends = iter(range(10**9, 10**10, 10))
  monkeypatch.setattr(train, '_when_done', lambda metrics: next(ends))
  train.train(make_config(run={'updates_per_call': 2, 'checkpoint_every': 0}),
              str(tmp_path / 'run'))
  rates = [r['images_per_second'] for r in toy.records(tmp_path / 'run')]
  assert len(rates) == 3 and all(2 <= rate <= 3.2 for rate in rates[1:])


def test_resumed_run_is_the_same_bit_for_bit(done, copy):
  """Parameters, BatchNorm, optimiser, EMA, key and evaluation of 3 + 3 and 6 steps."""
  forget(copy, 6)
  with open(copy / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 4, "kind": "tr')  # cut off while it was being written
  train.train(make_config(), str(copy))
  assert_same(toy.final_state(done), toy.final_state(copy))
  assert any(np.abs(a - b).max() > 0 for a, b in zip(
      toy.final_state(done, 3), toy.final_state(done, 6), strict=True))
  assert (done / 'eval.json').read_bytes() == (copy / 'eval.json').read_bytes()
  assert [r['step'] for r in toy.records(copy)] == [2, 4, 6]
  assert_same_records(done, copy)  # step 4: one update before, one after the resume
  assert [r['step'] for r in toy.records(copy, 'eval')] == [6]


@pytest.fixture
def stop_at(monkeypatch):
  """Calls of one update; a signal comes while those of the steps given are made."""
  def install(signals_by_step):
    def make_feed(*args):
      step_fn, source, items = feed_made(*args)

      def at_step(step, k):
        if step in signals_by_step:
          for number in signals_by_step.pop(step):
            os.kill(os.getpid(), number)
        return items(step, k)

      return step_fn, source, at_step

    feed_made = feed.make_feed
    monkeypatch.setattr(feed, 'make_feed', make_feed)
    monkeypatch.setattr(
        feed, 'make_call_length', lambda config, ends, adapt: lambda step: 1)
  return install


@pytest.mark.slow
def test_means_over_updates_before_and_after_a_resume(stop_at, tmp_path):
  """Stopped twice within one window of the log, by two signals."""
  config = make_config(run=dict(log_every=5, checkpoint_every=0))
  stop_at({})
  train.train(config, str(tmp_path / 'whole'))
  stop_at({1: [signal.SIGTERM], 3: [signal.SIGHUP]})
  for number, step in ((signal.SIGTERM, 2), (signal.SIGHUP, 4)):
    with pytest.raises(train.Preempted) as stopped:
      train.train(config, str(tmp_path / 'stopped'))
    assert stopped.value.number == number
    assert re.search(rf'{number.name}\b.*\bstep {step}\b.*\b6\b', str(stopped.value))
    assert toy.records(tmp_path / 'stopped') == []
  train.train(config, str(tmp_path / 'stopped'))
  assert_same(
      toy.final_state(tmp_path / 'whole'), toy.final_state(tmp_path / 'stopped'))
  assert_same_records(tmp_path / 'whole', tmp_path / 'stopped')


@pytest.mark.slow
def test_resumed_on_fewer_devices(stop_at, done, tmp_path, monkeypatch):
  """8, then 4, then 1: the state that was saved, bit for bit; it goes on to one end."""
  restored, make_mesh = [], parallel.make_mesh
  restore_latest = checkpoint.restore_latest

  def restore(*args):
    found = restore_latest(*args)
    if found[0] is not None:
      restored.append(toy.leaves(found[0]))
    return found

  monkeypatch.setattr(checkpoint, 'restore_latest', restore)
  stop_at({1: [signal.SIGTERM], 3: [signal.SIGTERM]})
  for num in (8, 4, 1):
    saved = checkpoint.list_steps(tmp_path) and toy.final_state(tmp_path)
    with monkeypatch.context() as patch:
      patch.setattr(
          parallel, 'make_mesh', lambda num=num: make_mesh(jax.devices()[:num]))
      with (contextlib.nullcontext() if num == 1 else pytest.raises(train.Preempted)):
        train.train(make_config(), str(tmp_path))
    if saved:
      assert_same(saved, restored[-1])
  assert len(restored) == 2
  toy.assert_trees_close(toy.final_state(done), toy.final_state(tmp_path), atol=1e-6)
  assert_same_records(done, tmp_path, rtol=1e-5)


def test_images_per_second_are_of_this_process(stop_at, tmp_path, monkeypatch):
  """The updates before a resume took no time of the process that logs them."""
  seen = []
  progress = writers.Progress.__call__
  monkeypatch.setattr(writers.Progress, '__call__', lambda self, step, images, *args: (
      seen.append((step, images)), progress(self, step, images, *args))[1])
  stop_at({3: [signal.SIGTERM]})
  config = make_config(
      loss={'name': 'cross_entropy'}, run=dict(log_every=6, checkpoint_every=0))
  with pytest.raises(train.Preempted):
    train.train(config, str(tmp_path))
  train.train(config, str(tmp_path))
  assert [step for step, _ in seen] == [6] and seen[0][1] == 2 * 8  # of the two updates


def test_windows_of_other_sums_are_left_out():
  """A checkpoint of version 0.1 holds none: the mean is over the updates since."""
  metrics = clu_metrics.Collection.create(loss=clu_metrics.Average).empty()
  metrics = jax.tree.map(lambda x: np.asarray(x + 0.1, x.dtype), metrics)
  whole = json.loads(json.dumps(task.to_json(metrics)))
  assert_same(task.from_json(whole, metrics), metrics)
  for other in ({}, {'.loss.total': 1.0}, {**whole, 'more': 1.0}):
    assert task.from_json(other, metrics) is None


def test_interrupted_twice(stop_at, tmp_path):
  """The second SIGINT stops at once, and what was saved before stays."""
  stop_at({4: (signal.SIGINT, signal.SIGINT)})
  config = make_config(run=dict(checkpoint_every=2))
  before = signal.getsignal(signal.SIGINT)
  try:
    with pytest.raises(KeyboardInterrupt):
      train.train(config, str(tmp_path))
  finally:
    signal.signal(signal.SIGINT, before)
  assert checkpoint.list_steps(tmp_path) == [2, 4]


def test_stopped_while_it_is_evaluated(tmp_path, monkeypatch):
  """The evaluation is written; the run of a pair that would come next is not begun."""
  evaluate_sets = evaluate.evaluate_sets

  def signalled(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    return evaluate_sets(*args, **kwargs)

  monkeypatch.setattr(evaluate, 'evaluate_sets', signalled)
  with pytest.raises(train.Preempted, match=rf'SIGTERM.*{tmp_path}.*\bstep 6\b'):
    train.train(make_config(), str(tmp_path))
  assert json.loads((tmp_path / 'eval.json').read_text())['step'] == 6


@pytest.fixture
def slow_saves(monkeypatch):
  """Saves wait until `go_on` is set; none begins before the one before it is over."""
  go_on, under_way, save = threading.Event(), [], checkpoint.save

  def slow(manager, state, step, *args):
    under_way.append(step)
    assert under_way == [step]
    assert go_on.wait(60), 'training waits for the save'
    save(manager, state, step, *args)
    under_way.remove(step)

  monkeypatch.setattr(checkpoint, 'save', slow)
  return go_on


def test_training_goes_on_while_it_is_saved(done, slow_saves, tmp_path, monkeypatch):
  """Step 3 is saved after updates 4 and 5, with the arrays that it had."""
  toy.before_update(monkeypatch, 5, slow_saves.set)
  train.train(make_config(), str(tmp_path))
  assert_same(toy.final_state(done, 3), toy.final_state(tmp_path, 3))
  assert_same(toy.final_state(done), toy.final_state(tmp_path))


def test_a_save_is_complete_before_the_next_one(slow_saves, tmp_path, monkeypatch):
  toy.before_update(monkeypatch, 2, slow_saves.set)
  train.train(make_config(run=dict(checkpoint_every=2, keep=9)), str(tmp_path))
  assert checkpoint.list_steps(tmp_path) == [2, 4, 6]


def test_stopped_while_it_is_saved(done, slow_saves, tmp_path, monkeypatch):
  """Both the save that is under way and the last one are completed."""
  def stop():
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Timer(0.1, slow_saves.set).start()

  toy.before_update(monkeypatch, 4, stop)
  with pytest.raises(train.Preempted, match='step 5 of 6'):
    train.train(make_config(), str(tmp_path))
  assert checkpoint.list_steps(tmp_path) == [3, 5]
  assert_same(toy.final_state(done, 3), toy.final_state(tmp_path, 3))
  toy.final_state(tmp_path, 5)  # its checksum is right


def test_interrupted_while_it_is_saved(slow_saves, tmp_path, monkeypatch):
  def interrupt():
    threading.Timer(0.1, slow_saves.set).start()
    raise KeyboardInterrupt

  toy.before_update(monkeypatch, 4, interrupt)
  with pytest.raises(KeyboardInterrupt):
    train.train(make_config(), str(tmp_path))
  assert checkpoint.list_steps(tmp_path) == [3]


def test_an_evaluation_in_its_file_is_of_a_saved_step(
    slow_saves, tmp_path, monkeypatch):
  """The last save takes longer than the evaluation after it."""
  evaluate_sets, write, seen = evaluate.evaluate_sets, results.write_evaluation, []

  def evaluated(*args, **kwargs):
    threading.Timer(0.1, slow_saves.set).start()
    return evaluate_sets(*args, **kwargs)

  def written(*args):
    seen.append(checkpoint.list_steps(tmp_path))
    return write(*args)

  monkeypatch.setattr(evaluate, 'evaluate_sets', evaluated)
  monkeypatch.setattr(results, 'write_evaluation', written)
  train.train(make_config(run=dict(checkpoint_every=0)), str(tmp_path))
  assert seen == [[6]]


def test_a_save_that_fails_ends_the_run(tmp_path, monkeypatch):
  save = checkpoint.ocp.CheckpointManager.save

  def full(self, step, *args, **kwargs):
    if step == 2:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return save(self, step, *args, **kwargs)

  monkeypatch.setattr(checkpoint.ocp.CheckpointManager, 'save', full)
  with pytest.raises(OSError, match=(
      rf'step \d of 6: a checkpoint cannot be written to {tmp_path}/checkpoints: .*'
      r'No space left on device.*checkpoint is of step 1\.')):
    train.train(make_config(run=dict(checkpoint_every=1)), str(tmp_path))
  assert checkpoint.list_steps(tmp_path) == [1]


@contextlib.contextmanager
def files_of_at_most(size):
  """As on a full disk, writing fails, for files beyond so many bytes."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_disk_that_fills_up_while_it_trains(tmp_path, monkeypatch):
  """The second record of training does not fit; the same command goes on."""
  # Records of the start, of updates 2 and 4, and of the end.
  config, room = make_config(run=dict(checkpoint_every=1)), [True, True, False, False]

  @contextlib.contextmanager
  def full(path):
    with named(path):
      yield
      if str(path).endswith('metrics.jsonl') and not room.pop(0):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  named = files.named
  with monkeypatch.context() as patch:
    patch.setattr(files, 'named', full)
    with pytest.raises(OSError, match=(
        r'step 4\b.*\b6\b.*No space left on device: .*metrics.jsonl.*'
        r'step 3\b')):
      train.train(config, str(tmp_path))
  train.train(config, str(tmp_path))
  assert [r['step'] for r in toy.records(tmp_path)] == [2, 4, 6]


def test_disk_that_is_full_when_it_is_saved(tmp_path, caplog):
  """The error names the folder; the tracebacks of orbax's threads are not logged."""
  manager = checkpoint.open_manager(str(tmp_path))
  with files_of_at_most(100), pytest.raises(
      checkpoint.NotSaved, match=f'{tmp_path}/checkpoints'):
    checkpoint.save(manager, {'x': np.zeros(10_000)}, 1, {'config': {}})
    checkpoint.close(manager)
  assert 'Traceback' not in caplog.text
  assert checkpoint.list_steps(tmp_path) == []


@pytest.fixture
def asked(monkeypatch):
  """The bytes that trainings ask for; each of them ends with the error 'looked'."""
  found = []

  def prepare(workdir, config, overwrite, num_bytes):
    found.append(num_bytes)
    raise ValueError('looked')

  monkeypatch.setattr(workdirs, 'prepare', prepare)
  return found


def test_disk_check_counts_what_is_written(done, asked, tmp_path):
  """Checkpoints while one is saved, scores, pictures of mistakes and the records."""
  evals = {'test': {'source': toy.fake(1, classes=(0, 1, 2)), 'positive': True},
           'three': {'source': toy.fake(1, classes=(3,))}}
  more = {'blobs': {'source': {'name': 'blobs', 'num': 11}}}
  for config in (make_config(evals=evals), make_config(evals=evals | more),
                 make_config(evals=evals, run=dict(keep=4)), make_config(600)):
    with pytest.raises(ValueError, match='looked'):
      train.train(config, str(tmp_path / 'run'))
  written = sum(
      array.nbytes for folder in ('scores', 'mistakes')
      for array in np.load(done / folder / 'blobs.npz').values() if array.ndim)
  assert asked[1] - asked[0] >= written
  size = sum(np.asarray(x).nbytes for x in toy.final_state(done))
  assert asked[2] - asked[0] == 2 * size  # two more checkpoints
  assert asked[3] - asked[1] >= 297 * max(
      len(line) for line in (done / 'metrics.jsonl').read_text().splitlines()
      if '"train"' in line)


def test_a_run_goes_on_where_there_is_room_for_the_rest(done, asked, tmp_path):
  """Checkpoints that are there need no more room, and a finished run needs none."""
  def look(name, config, **kwargs):
    with pytest.raises(ValueError, match='looked'):
      train.train(config, str(tmp_path / name), **kwargs)
    return asked[-1]

  config = make_config()
  new = look('new', config)
  shutil.copytree(done, tmp_path / 'run')
  assert look('run', config) == 0
  assert look('run', make_config(seed=1), overwrite=True) == new
  (tmp_path / 'run' / 'eval.json').unlink()
  size = sum(np.asarray(x).nbytes for x in toy.final_state(done))
  saved = len(checkpoint.list_steps(done))
  assert saved and new - look('run', config) == saved * size


def test_disk_that_is_full_when_it_is_evaluated(tmp_path, monkeypatch):
  """The scores cannot be written: none of them is, and the last step is saved."""
  def full(*args):
    with files_of_at_most(10):
      return write(*args)

  write = results.write_evaluation
  with monkeypatch.context() as patch:
    patch.setattr(results, 'write_evaluation', full)
    with pytest.raises(OSError, match=(
        r'step 6\b.*File too large.*scores/test.npz.*step 6\b')):
      train.train(make_config(), str(tmp_path))
  assert not (tmp_path / 'eval.json').exists()
  assert toy.records(tmp_path)[-1]['step'] == 6
  assert not any((tmp_path / 'scores').iterdir())
  assert train.train(make_config(), str(tmp_path))['step'] == 6


def test_what_is_trained_on_is_told_at_every_start(copy, capsys):
  forget(copy, 6)
  train.train(make_config(), str(copy))
  out = capsys.readouterr().out
  assert re.search(
      r'^resuming .* at step 3\ntraining on 36 positives of 3 classes \(pattern 0, .*\n'
      r'  negatives: noise 20, three 12\ncompiling the first update for \d+ CPU core',
      out, re.M), out


@pytest.mark.parametrize('names, negatives, text', [
    ('', {}, '45,000 positives'),
    ('a', {}, '45,000 positives'),
    ('ab', {'others': 1200}, '45,000 positives of 2 classes (a, b) and negatives: '
     'others 1,200'),
    ('abcdefgh', {}, '45,000 positives of 8 classes (a, b, c, d, e, f, g, h)'),
    ('abcdefghi', {}, '45,000 positives of 9 classes (a, b, c, d, e, f, g, h, ...)'),
])
def test_what_is_trained_on_in_words(names, negatives, text):
  job = train.Job(**dict.fromkeys(train.Job._fields) | {
      'config': {'data': {'positives': {}}}, 'about': {'class_names': list(names)},
      'examples': {'positives': 45_000, 'negatives': negatives}})
  assert train.training_on(job) == f'training on {text}'
  job = job._replace(examples=job.examples | {'unlabelled': 1059})
  assert ', 1,059 examples without labels' in train.training_on(job)
  for config in ({}, {'data': {'series': {}}}):  # GANs of points, detectors
    assert train.training_on(
        job._replace(config=config)) == 'training on 45,000 examples'


def test_finished_run_is_left_alone(copy, capsys):
  before = {p: p.stat().st_mtime_ns for p in copy.rglob('*')
            if p.is_file() and p.name != 'config.json'}
  evaluation = train.train(make_config(), str(copy))
  assert '6 steps' in capsys.readouterr().out
  assert evaluation == json.loads((copy / 'eval.json').read_text())
  assert before == {p: p.stat().st_mtime_ns for p in before}


def test_run_killed_before_its_evaluation_is_evaluated(done, copy):
  (copy / 'eval.json').unlink()
  train.train(make_config(), str(copy))
  assert (done / 'eval.json').read_bytes() == (copy / 'eval.json').read_bytes()
  assert [r['step'] for r in toy.records(copy)] == [2, 4, 6]


def test_evaluation_of_a_checkpoint_is_that_of_training(done, copy):
  (copy / 'eval.json').unlink()
  scores = (copy / 'scores' / 'three.npz').read_bytes()
  evaluate_run(str(copy))
  assert (done / 'eval.json').read_bytes() == (copy / 'eval.json').read_bytes()
  assert (copy / 'scores' / 'three.npz').read_bytes() == scores
  assert evaluate_run(str(copy), step=3)['step'] == 3
  with pytest.raises(ValueError, match=r'step 4\b.*\[3, 6\]'):
    evaluate_run(str(copy), step=4)


def test_a_finished_run_is_evaluated_on_further_sets(done, copy, tmp_path):
  """Those of another config, in a folder of their own; the run stays as it is."""
  config, out = make_config(steps=99, best='validation/auroc'), str(tmp_path / 'out')
  config.evals['more'] = {'source': {'name': 'pixel_permute', 'num': 5}}
  before = {path: path.read_bytes() for path in copy.rglob('*') if path.is_file()}
  for _ in range(2):
    evaluation = evaluate_run(str(copy), config=config, out=out)
  more = evaluation['evals'].pop('more')
  assert evaluation == json.loads((done / 'eval.json').read_text())
  assert more['ncr'] and more['seen_in_training'] is False
  assert toy.arrays(tmp_path / 'out' / 'scores' / 'more.npz')['logits'].shape == (5, 3)
  assert before == {path: path.read_bytes() for path in copy.rglob('*')
                    if path.is_file()}
  assert '| more' in report.tables([out])
  shape = {'test': {'source': toy.fake(shape=(5, 5, 1), classes=(0, 1, 2)),
                    'positive': True}}
  for changes, folder, message in (
      ({'num_classes': 4}, 'a', 'num_classes is 4 there, and 3 in the run'),
      ({'evals': shape}, 'a', r'5, 5.*6, 6|6, 6.*5, 5'),
      ({}, 'copy', '--out=.*copy is a run'), ({}, '', 'both --config and --out')):
    with pytest.raises(ValueError, match=message):
      evaluate_run(str(copy), config=make_config(**changes),
                   out=folder and str(tmp_path / folder))
  assert {path.name for path in tmp_path.iterdir()} == {'copy', 'out'}


def test_the_size_of_pictures_is_that_of_the_run(tmp_path):
  """The config of further evaluations may have another one."""
  for name in ('cat', 'dog'):
    (tmp_path / 'pets' / name).mkdir(parents=True)
    for k in range(10):
      image = Image.new('RGB', (9, 9), (20 * k, 0, 0))
      image.save(tmp_path / 'pets' / name / f'{k}.png')
  source = {'name': 'folder', 'path': str(tmp_path / 'pets')}
  config = presets.experiment(
      num_classes=2, steps=2, model={'name': 'mlp', 'width': 4}, loss={
          'name': 'cross_entropy'},
      data=dict(positives=source, image_size=6, batch_size=8),
      evals={'test': {'source': source, 'positive': True}},
      run=dict(tensorboard=False, checkpoint_every=2))
  train.train(config, str(tmp_path / 'run'))
  config.data.image_size = 32
  found = evaluate_run(str(tmp_path / 'run'), config=config, out=str(tmp_path / 'out'))
  assert found['evals']['test']['n'] == 20


@pytest.mark.parametrize('changes', [
    {'run': dict(placement='streamed')}, {'run': dict(updates_per_call=1)}])
def test_placement_and_calls_change_no_bit(changes, done, tmp_path):
  train.train(make_config(**changes), str(tmp_path))
  assert_same(toy.final_state(done), toy.final_state(tmp_path))
  assert (done / 'eval.json').read_bytes() == (tmp_path / 'eval.json').read_bytes()


def test_jit_and_pmap_agree(done, tmp_path):
  train.train(make_config(run=dict(mode='pmap')), str(tmp_path))
  toy.assert_trees_close(toy.final_state(done), toy.final_state(tmp_path), atol=2e-5)


def cut_short(step):
  file = max((step / 'state').rglob('*'), key=lambda p: p.stat().st_size * p.is_file())
  os.truncate(file, file.stat().st_size // 2)


def flip_bits(step):
  """Damages every large file of the arrays, so that something that counts is hit."""
  for file in (step / 'state').rglob('*'):
    if file.is_file() and 'd' in file.relative_to(step / 'state').parts:
      content = bytearray(file.read_bytes())
      for at in range(len(content) // 4, len(content), 97):
        content[at] ^= 0x10
      file.write_bytes(content)


def lose_state(step):
  shutil.rmtree(step / 'state')


def lose_everything(step):
  shutil.rmtree(step)
  step.mkdir()


def change_a_number(step):
  """Readable and well-formed, but not what was saved."""
  file = step / 'checksum' / 'metadata'
  file.write_text(json.dumps({'crc32': json.loads(file.read_text())['crc32'] ^ 1}))


def lose_the_checksum(step):
  """Such as a damaged key: 'crc32' -> 'crc22'."""
  (step / 'checksum' / 'metadata').write_text('{"crc22": 1}')


def lose_the_config(step):
  shutil.rmtree(step / 'about')


def change_the_config(step):
  file = step / 'about' / 'metadata'
  file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))


@pytest.mark.parametrize('damage', [
    cut_short, flip_bits, lose_state, lose_everything, change_a_number,
    lose_the_checksum, lose_the_config, change_the_config])
def test_damaged_checkpoint_is_passed_over(damage, done, copy, caplog):
  (copy / 'eval.json').unlink()
  damage(copy / 'checkpoints' / '6')
  train.train(make_config(), str(copy))
  assert re.search(r'checkpoint 6\b.*checkpoint 3\b', caplog.text)
  assert (copy / 'damaged_checkpoints' / '6').is_dir()
  assert checkpoint.list_steps(copy) == [3, 6]
  assert_same(toy.final_state(done), toy.final_state(copy))
  assert (done / 'eval.json').read_bytes() == (copy / 'eval.json').read_bytes()
  assert [r['step'] for r in toy.records(copy)] == [2, 4, 6]


def test_evaluation_passes_over_damage_and_moves_nothing(copy, caplog):
  cut_short(copy / 'checkpoints' / '6')
  assert evaluate_run(str(copy))['step'] == 3
  assert 'checkpoint 6' in caplog.text
  assert checkpoint.list_steps(copy) == [3, 6]
  with pytest.raises(checkpoint.Damaged, match='checkpoint 6'):
    evaluate_run(str(copy), step=6)


def test_no_changed_byte_of_the_config_in_a_checkpoint_is_used(copy):
  """Each byte of about and of the checksums changed: the same, or found out."""
  manager = checkpoint.open_manager(str(copy), read_only=True)
  before, damaged = checkpoint.read_about(manager, 6), 0
  for item in ('about', 'checksum'):
    file = copy / 'checkpoints' / '6' / item / 'metadata'
    whole = file.read_bytes()
    for at in range(0, len(whole), 1 if item == 'checksum' else 11):
      changed = bytearray(whole)
      changed[at] ^= 1
      file.write_bytes(changed)
      try:
        assert checkpoint.read_about(manager, 6) == before
      except checkpoint.Damaged:
        damaged += 1
    file.write_bytes(whole)
  assert damaged > 100
  assert checkpoint.read_about(manager, 6) == before


def test_a_renamed_checkpoint_is_found_out(copy):
  (copy / 'checkpoints' / '6').rename(copy / 'checkpoints' / '5')
  with pytest.raises(checkpoint.Damaged, match=r'checkpoint 5\b.*step 6\b'):
    runs.restore(str(copy), 5)


def test_a_lost_config_is_that_of_the_checkpoints(done, copy, caplog):
  for lose in (lambda path: path.unlink(), lambda path: path.write_text('{"steps": '),
               lambda path: path.write_text('{"trainer": 3}')):
    shutil.rmtree(copy)
    shutil.copytree(done, copy)
    forget(copy, 6)
    lose(copy / 'config.json')
    with pytest.raises(ValueError, match=r'checkpoints/3\b.*seed: 0 -> 1'):
      train.train(make_config(seed=1), str(copy))
    train.train(make_config(), str(copy))
    assert (done / 'config.json').read_bytes() == (copy / 'config.json').read_bytes()
    assert_same(toy.final_state(done), toy.final_state(copy))
  assert f'{copy}/config.json' in caplog.text


def test_a_checkpoint_of_another_run_is_refused(copy, tmp_path):
  """Copied in, beside a config.json that fits."""
  train.train(make_config(3, seed=1), str(tmp_path / 'other'))
  forget(copy, 6)
  shutil.rmtree(copy / 'checkpoints' / '3')
  shutil.copytree(tmp_path / 'other' / 'checkpoints' / '3', copy / 'checkpoints' / '3')
  with pytest.raises(
      ValueError, match=r'(?s)checkpoints/3\b.*seed: 1 -> 0.*steps: 3 -> 6'):
    train.train(make_config(), str(copy))
  assert checkpoint.list_steps(copy) == [3]


def test_a_checkpoint_beyond_the_end_is_refused(copy):
  manager = checkpoint.open_manager(str(copy), keep=9)
  about = checkpoint.read_about(manager, 6)
  state = runs.restore(str(copy), 6).state
  checkpoint.save(manager, state, 9, about)
  checkpoint.close(manager)
  with pytest.raises(ValueError, match=r'step 9\b.*\b6 steps'):
    train.train(make_config(), str(copy))


@pytest.mark.parametrize(
    'content', ['{"step": 6, "ev', '[]', '{"step": 6, "evals": 3}'])
def test_a_damaged_evaluation_is_made_again(content, done, copy, caplog):
  (copy / 'eval.json').write_text(content)
  train.train(make_config(), str(copy))
  assert f'{copy}/eval.json' in caplog.text
  assert (done / 'eval.json').read_bytes() == (copy / 'eval.json').read_bytes()


def test_a_damaged_line_of_metrics_hides_no_record(done, copy):
  forget(copy, 6)
  lines = (copy / 'metrics.jsonl').read_text().splitlines()
  (copy / 'metrics.jsonl').write_text('\n'.join(['{"step', *lines]) + '\n')
  train.train(make_config(), str(copy))
  assert [r['step'] for r in toy.records(copy)] == [2, 4, 6]


def test_nothing_but_damage_is_an_error_and_nothing_is_lost(copy):
  for step in (3, 6):
    cut_short(copy / 'checkpoints' / str(step))
  with pytest.raises(checkpoint.Damaged, match=r'\[3, 6\].*--workdir'):
    train.train(make_config(), str(copy))
  assert checkpoint.list_steps(copy) == [3, 6]
  assert not (copy / 'damaged_checkpoints').exists()


@pytest.mark.slow
def test_cut_off_while_it_is_evaluated(tmp_path, monkeypatch):
  """It was saved before, and what was not evaluated is evaluated on resuming."""
  config = make_config(run=dict(eval_every=3))
  train.train(config, str(tmp_path / 'whole'))

  def cut_off(*args, **kwargs):
    raise KeyboardInterrupt

  for _ in range(2):
    with monkeypatch.context() as patch:
      patch.setattr(evaluate, 'evaluate_sets', cut_off)
      with pytest.raises(KeyboardInterrupt):
        train.train(config, str(tmp_path / 'cut'))
    assert checkpoint.list_steps(tmp_path / 'cut') == [3]
    assert toy.records(tmp_path / 'cut', 'eval') == []
  train.train(config, str(tmp_path / 'cut'))
  for name in ('eval.json', 'config.json'):
    assert (tmp_path / 'whole' / name).read_bytes() == (
        tmp_path / 'cut' / name).read_bytes()
  assert toy.records(tmp_path / 'whole', 'eval') == toy.records(
      tmp_path / 'cut', 'eval')
  assert_same(toy.final_state(tmp_path / 'whole'), toy.final_state(tmp_path / 'cut'))


def test_full_device_is_no_damage(copy, monkeypatch):
  """The error goes through, and the checkpoint stays the newest."""
  full = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: out of memory')

  def restore(*args, **kwargs):
    raise full

  with monkeypatch.context() as patch:
    patch.setattr(checkpoint.ocp.CheckpointManager, 'restore', restore)
    with pytest.raises(jax.errors.JaxRuntimeError, match='RESOURCE_EXHAUSTED'):
      train.train(make_config(), str(copy))
  assert checkpoint.list_steps(copy) == [3, 6]


def test_divergence_stops_the_run(tmp_path):
  """A step that leaves the numbers: the checkpoint before it stays the newest."""
  schedule = {'name': 'step', 'learning_rate': 0.1, 'factor': 1e38, 'at': [0.5]}
  config = make_config(12, schedule=schedule, run=dict(checkpoint_every=1, keep=20))
  with pytest.raises(train.Diverged, match=r'step \d+\b.*step \d') as e:
    train.train(config, str(tmp_path))
  assert 'learning_rate' in str(e.value) and 'grad_clip' in str(e.value)
  steps = checkpoint.list_steps(tmp_path)
  assert steps and steps[-1] < 12 and f'of step {steps[-1]}.' in str(e.value)
  for step in steps:
    assert all(np.isfinite(x).all() for x in toy.final_state(tmp_path, step))
  assert not (tmp_path / 'eval.json').exists()


def test_divergence_before_any_checkpoint(tmp_path):
  schedule = {'name': 'constant', 'learning_rate': 1e38}
  config = make_config(schedule=schedule, run=dict(checkpoint_every=0))
  with pytest.raises(train.Diverged, match='--config.schedule.learning_rate'):
    train.train(config, str(tmp_path))
  assert checkpoint.list_steps(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize('figure, choose', [('accuracy', max), ('ece', min)])
def test_best_checkpoint_stays_beside_the_newest(figure, choose, tmp_path):
  """The learning rate becomes absurd: the best is early, and is not thrown away."""
  schedule = {'name': 'step', 'learning_rate': 0.1, 'factor': 1e4, 'at': [0.5]}
  config = make_config(
      16, schedule=schedule, best=f'validation/{figure}', ema_decay=0.0,
      model={'name': 'mlp', 'width': 16, 'depth': 1},
      run=dict(checkpoint_every=2, eval_every=2, keep=1))
  config.evals['validation'] = {
      'source': toy.fake(2, classes=(0, 1, 2)), 'positive': True, 'part': 'validation'}
  train.train(config, str(tmp_path))
  seen = {step: sets['validation'][figure]
          for step, sets in toy.evaluations(tmp_path).items()}
  assert sorted(seen) == list(range(2, 17, 2))
  best = choose(seen.values())
  assert seen[16] != best
  first, last = checkpoint.list_steps(tmp_path)
  assert last == 16 and seen[first] == best


def stopping_early(steps=60, **changes):
  """A run whose learning rate becomes absurd at update 6, so that it gets no better."""
  config = make_config(
      steps, schedule={'name': 'step', 'learning_rate': 0.1, 'factor': 1e4,
                       'at': [6 / steps]},
      best='validation/accuracy', model={'name': 'mlp', 'width': 16, 'depth': 1},
      run=dict(checkpoint_every=2, eval_every=4, keep=1), **{'patience': 8, **changes})
  config.evals['validation'] = {
      'source': toy.fake(2, classes=(0, 1, 2)), 'positive': True, 'part': 'validation'}
  return config


@pytest.fixture(scope='module')
def stopped_early(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('stopped') / 'run'
  train.train(stopping_early(), str(workdir))
  return workdir


def accuracies(workdir):
  """Step -> accuracy of the evaluations during training."""
  return {step: sets['validation']['accuracy']
          for step, sets in toy.evaluations(workdir).items()}


def test_early_stopping_ends_with_the_best_checkpoint(stopped_early, tmp_path, capsys):
  """`patience` updates after the newest of the best evaluations."""
  seen = accuracies(stopped_early)
  best = max(seen, key=lambda step: (seen[step], step))
  last = best + 8
  assert list(seen) == list(range(4, last + 1, 4)) and last < 60
  assert checkpoint.list_steps(stopped_early) == [best, last]
  found = results.read_evaluation(stopped_early)
  assert found['step'] == best and set(found['evals']) == {
      'test', 'three', 'blobs', 'validation'}
  assert found['evals']['validation']['accuracy'] == seen[best]
  assert runs.restore(str(stopped_early)).step == best
  about = runs.about(str(stopped_early))
  assert about['step'] == best and about['complete']
  assert checkpoints.identity(str(stopped_early), None, 'step', runs.OTHERS) == {
      'step': best, 'crc32': about['crc32']}
  assert runs.restore(str(stopped_early), last).step == last
  copy = shutil.copytree(stopped_early, tmp_path / 'copy')
  evaluate_run(str(copy))
  assert (copy / 'eval.json').read_bytes() == (
      stopped_early / 'eval.json').read_bytes()
  assert train.train(stopping_early(), str(stopped_early)) == found
  assert 'trained already' in capsys.readouterr().out


def test_a_sweep_knows_that_a_run_stopped_early(stopped_early, tmp_path):
  workdir = shutil.copytree(stopped_early, tmp_path / 'copy')
  job = jobs.Job('copy', str(workdir), '', stopping_early(), {}, ())
  assert plan.is_done(job.workdir, job.config)
  assert not plan.is_done(job.workdir, stopping_early(patience=12))
  shutil.rmtree(workdir / 'checkpoints' / str(checkpoint.list_steps(workdir)[-1]))
  assert not plan.is_done(job.workdir, job.config)


@pytest.mark.slow
def test_early_stopping_is_the_same_after_interruptions(
    stopped_early, stop_at, tmp_path):
  """At updates without an evaluation, at one that is evaluated, and at the last."""
  last = checkpoint.list_steps(stopped_early)[-1]
  stops = sorted({0, 2, last - 7, last - 5, last - 2, last - 1})
  stop_at({step: [signal.SIGTERM] for step in stops})
  stopped = 0
  for _ in range(len(stops) + 1):
    try:
      train.train(stopping_early(), str(tmp_path))
    except train.Preempted:
      stopped += 1
  assert stopped == len(stops)
  assert accuracies(tmp_path) == accuracies(stopped_early)
  assert (tmp_path / 'eval.json').read_bytes() == (
      stopped_early / 'eval.json').read_bytes()
  for step in checkpoint.list_steps(stopped_early):
    assert_same(toy.final_state(tmp_path, step), toy.final_state(stopped_early, step))


def test_killed_before_its_evaluation_a_stopped_run_is_not_trained_on(
    stopped_early, tmp_path):
  workdir = shutil.copytree(stopped_early, tmp_path / 'copy')
  (workdir / 'eval.json').unlink()
  train.train(stopping_early(), str(workdir))
  assert checkpoint.list_steps(workdir) == checkpoint.list_steps(stopped_early)
  assert (workdir / 'eval.json').read_bytes() == (
      stopped_early / 'eval.json').read_bytes()


def test_with_patience_the_end_of_all_steps_has_the_best_too(tmp_path):
  train.train(stopping_early(12, patience=12), str(tmp_path))
  seen = accuracies(tmp_path)
  assert list(seen) == [4, 8, 12]
  best = max(seen, key=lambda step: (seen[step], step))
  assert results.read_evaluation(tmp_path)['step'] == best < 12


@pytest.mark.parametrize('changes, message', [
    ({'best': ''}, 'patience=8 needs the key best.*validation/accuracy'),
    ({'patience': 6}, "patience=6.*multiple.*'validation', got 4 updates.*eval_every"),
    ({'run.eval_every': 0}, 'patience=8.*got 0 updates.*--config.run.eval_every'),
    ({'run.checkpoint_every': 3}, 'run.checkpoint_every=3; .*checkpoint_every=4'),
    ({'run.checkpoint_every': 0}, 'run.checkpoint_every=0; .*checkpoint_every=4'),
])
def test_mistakes_in_early_stopping(changes, message, tmp_path):
  config = stopping_early()
  config.update_from_flattened_dict(changes)
  with pytest.raises(ValueError, match=message):
    train.train(config, str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_a_report_tells_what_is_under_way(copy, monkeypatch, capsys):
  toy.run_main(monkeypatch, '--mode=report', str(copy))
  begin, *_, drawing, told, _ = capsys.readouterr().out.splitlines()
  assert (begin, drawing) == ('reading 1 run', 'drawing the figures')
  assert told == f'report: {copy}/report.html'
  drawn = [('a', 'caption', '', None), ('b', 'caption', '', None)]
  assert list(report._told(iter(drawn))) == drawn


def test_nothing_is_logged_when_a_sound_run_is_read(done, caplog):
  """orbax warns of settings that this program has chosen."""
  runs.restore(str(done))
  runs.about(str(done), 3)
  workdirs.check(str(done), runs.resolve(make_config()))
  assert caplog.text == ''


def test_overwrite_moves_a_run_of_another_config_aside(copy, capsys):
  config = make_config(seed=1, run=dict(checkpoint_every=2))
  with pytest.raises(ValueError, match='seed: 0 -> 1'):
    train.train(config, str(copy))
  assert checkpoint.list_steps(copy) == [3, 6]
  train.train(config, str(copy), overwrite=True)
  assert checkpoint.list_steps(copy) == [4, 6]
  aside, = copy.parent.glob('copy.old-*')
  assert checkpoint.list_steps(aside) == [3, 6] and (aside / 'eval.json').exists()
  train.train(config, str(copy), overwrite=True)  # the same config: nothing to move
  assert len(list(copy.parent.glob('copy*'))) == 2


def test_overwrite_in_a_folder_that_is_a_link(copy, tmp_path):
  """The link stays, and so does the lock of the workdir."""
  link = tmp_path / 'link'
  link.symlink_to(copy)
  with workdirs.hold(str(link)):
    workdirs.prepare(str(link), runs.resolve(make_config(seed=1)), True, 0)
    with pytest.raises(ValueError, match='under way'), workdirs.hold(str(copy)):
      pass
  assert link.is_symlink() and checkpoint.list_steps(link) == []
  aside, = copy.parent.glob('copy.old-*')
  assert checkpoint.list_steps(aside) == [3, 6]


@pytest.mark.parametrize('num', [1, 16, 37])
def test_evaluation_counts_every_image_once(num, done):
  """Batches of 16 over 8 devices against one direct application."""
  restored = runs.restore(str(done))
  images = np.random.default_rng(0).integers(0, 256, (num, *SHAPE)).astype(np.uint8)
  head = restored.trainer.heads['logits']
  predict = inference.make_predict(head, restored.mesh, 12)
  logits = predict(restored.state, images)
  state = restored.state.replace(key=None)
  expected = jax.jit(head)(jax.device_get(state), images)
  assert logits.shape == (num, 3)
  np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_figures_can_be_had_again_from_the_scores(done):
  evaluation = json.loads((done / 'eval.json').read_text())['evals']
  for name, figures in evaluation.items():
    scores = np.load(done / 'scores' / f'{name}.npz')
    assert figures['n'] == len(scores['label']) == len(scores['index'])
    if figures['positive']:
      assert figures['accuracy'] == (scores['prediction'] == scores['label']).mean()
    else:
      assert figures['ncr']['0.6'] == (scores['max_prob'] > 0.6).mean()


def test_progress_shows_what_can_move(done):
  evaluation = json.loads((done / 'eval.json').read_text())
  figures = evaluation['evals']
  test, three = figures['test'], figures['three']
  assert evaluate.summary({'test': test, 'three': three}, '0.6') == (
      f'test accuracy {test["accuracy"]:.3f} ECE {test["ece"]:.3f}, '
      f'three AUROC {three["auroc"]:.3f} NCR_0.6 {three["ncr"]["0.6"]:.3f}')
  assert evaluate.brief({'test': test, 'three': three}) == (
      f'AUROC {three["auroc"]:.3f}')
  assert evaluate.brief({'test': test}) == ''
  assert evaluation['background'] is False


@pytest.mark.parametrize('num_outputs', [2, 3])
def test_an_evaluation_says_whether_there_is_a_background_output(num_outputs, tmp_path):
  config = runs.resolve(make_config(num_classes=2))
  logits = np.zeros((4, num_outputs))
  scores = {'test': {**metrics.scores_from_logits(logits, 2), 'logits': logits,
                     'label': np.zeros(4, np.int32)}}
  sets = {'test': inputs.EvalSet(
      None, positive=True, seen=False, overlap=0, part='test')}
  evaluation = evaluate.save_evaluation(
      str(tmp_path), config, 1, ['a', 'b'], sets, {}, scores, {})
  assert evaluation['background'] == (num_outputs > 2)
  assert evaluation['classes']['confusion'] == [[4, 0], [0, 0]]


def test_a_run_records_what_trains_it(stop_at, tmp_path):
  """Of each process the command, the devices and, but for a kill, its time."""
  stop_at({3: [signal.SIGTERM]})
  with pytest.raises(train.Preempted):
    train.train(make_config(), str(tmp_path), command='a command')
  train.train(make_config(), str(tmp_path), command='the same')
  starts, ends = (toy.records(tmp_path, kind) for kind in ('start', 'end'))
  assert [(r['step'], r['command']) for r in starts] == [
      (0, 'a command'), (4, 'the same')]
  assert [r['step'] for r in ends] == [4, 6]
  assert all(r['seconds'] > 0 for r in ends) and 'CPU' in starts[0]['devices']
  inputs_ = TASKS['classify'].load(runs.resolve(make_config()), 1)
  label = inputs_.pool.label
  assert starts[0]['examples']['positives'] == (label >= 0).sum()
  assert sum(starts[0]['examples']['negatives'].values()) == (label < 0).sum()


def test_seen_and_overlap(caplog):
  """What was among the training negatives is said, by class and by pixel."""
  config = runs.resolve(make_config(evals={
      'test': {'source': toy.fake(1), 'positive': True},
      'same': {'source': toy.fake(classes=(3,))},
      'other_class': {'source': toy.fake(classes=(2,))},
      'told': {'source': toy.fake(classes=(2,)), 'seen': True},
      'noise': {'source': {'name': 'uniform_noise', 'num': 5, 'seed': 9}},
  }, num_classes=4))
  sets = inputs.load_evals(config)
  assert {name: s.seen for name, s in sets.items()} == {
      'test': False, 'same': True, 'other_class': False, 'told': True, 'noise': True}
  assert sets['same'].overlap == len(sets['same'].arrays.label) > 0
  assert sets['other_class'].overlap == 0
  assert 'same shares all of its 12 images with the training' in caplog.text
  assert 'other_class' not in caplog.text
  plain = inputs.load_evals(config | {'loss': {'name': 'cross_entropy'}})
  assert [name for name, s in plain.items() if s.seen or s.overlap] == ['told']
