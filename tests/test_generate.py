"""A GAN from its config to its checkpoint, and what is made from that."""

import functools
import json
import os
import pathlib
import re
import shutil
import signal
import threading
import types

import jax
import numpy as np
import pytest
import toy
from PIL import Image

from nat_jax import data, losses, metrics, runs, train
from nat_jax.commands import config_file, generate, posthoc, predict
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.models import inception
from nat_jax.runtime import checkpoint, parallel
from nat_jax.schema import presets
from nat_jax.task import Inputs
from nat_jax.tasks.gan import build, features, neighbours
from nat_jax.tasks.gan import evaluate as generation

SHAPE = (4, 4, 1)
NUM_CLASSES = 3
STEPS = 24


fake = functools.partial(toy.fake, shape=SHAPE)


def make_config(**changes):
  """A tiny GAN with two sets of negatives; keys 'a__b' change what is nested."""
  config = dict(
      name='toy', variant='nat2', steps=STEPS, num_classes=NUM_CLASSES,
      task='gan', trainer={'name': 'gan'},
      generator={'name': 'mlp_generator', 'latent': 5, 'widths': [8]},
      discriminator={'name': 'mlp_discriminator', 'widths': [8]},
      schedule={'name': 'linear', 'learning_rate': 0.01}, ema_decay=0.5,
      data=dict(
          positives=fake(classes=(0, 1, 2)),
          negatives={'three': {'source': fake(classes=(3,))},
                     'noise': {'source': {'name': 'uniform_noise', 'num': 9}}},
          batch_size=8, negatives_per_batch=2),
      measures=dict(num_samples=20, batch_size=8, neighbours=2,
                    held_out=fake(1, classes=(0, 1, 2))),
      run=dict(log_every=8, checkpoint_every=8, updates_per_call=8, tensorboard=False))
  return presets.experiment(**toy.change(config, **changes))


def make_classifier():
  return presets.experiment(
      name='classifier', steps=1, num_classes=NUM_CLASSES,
      model={'name': 'mlp', 'width': 4, 'depth': 1}, loss={'name': 'cross_entropy'},
      data=dict(positives=fake(classes=(0, 1, 2)), batch_size=8),
      evals={'test': {'source': fake(1, classes=(0, 1, 2)), 'positive': True}},
      run=dict(tensorboard=False))


def untrained(workdir, config, shape=SHAPE):
  """A checkpoint of networks as they are at the start."""
  config, mesh = runs.resolve(config), parallel.make_mesh()
  trainer = runs.build_trainer(config, shape)
  state = parallel.init_state(trainer.init, jax.random.key(0), mesh)
  manager = checkpoint.open_manager(str(workdir))
  checkpoint.save(manager, state, 1, {
      'config': config, 'image_shape': shape,
      'class_names': [f'pattern {k}' for k in range(NUM_CLASSES)]})
  checkpoint.close(manager)
  return str(workdir)


@pytest.fixture(scope='module', autouse=True)
def features_of_real_images_stay_here(tmp_path_factory):
  folder = tmp_path_factory.mktemp('cache')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(features.data, 'cache_folder', lambda name: folder / name)
    yield


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  """A GAN that nothing disturbed. Copy it before changing anything."""
  workdir = tmp_path_factory.mktemp('runs') / 'gan'
  evaluation = train.train(make_config(), str(workdir))
  assert evaluation == json.loads((workdir / 'eval.json').read_text())
  return workdir


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
  """A classifier of the same images."""
  workdir = tmp_path_factory.mktemp('classifiers') / 'classifier'
  train.train(make_classifier(), str(workdir))
  return workdir


@pytest.fixture
def copy(done, tmp_path):
  return shutil.copytree(done, tmp_path / 'copy')


def test_training_ends_with_measures_and_their_conventions(done):
  evaluation = json.loads((done / 'eval.json').read_text())
  figures = evaluation['evals']['samples']
  assert evaluation['step'] == STEPS and evaluation['class_names'] == [
      'pattern 0', 'pattern 1', 'pattern 2']
  assert figures['num_samples'] == 20 and figures['num_reference'] == 20
  assert figures['fid'] > 0 and 0 <= figures['precision'] <= 1
  assert 0 <= figures['repeats'] <= 1 and 0 < figures['nearer_training'] < 1
  conventions = evaluation['conventions']
  assert 'raw pixels' in conventions['evaluation_classifier']
  assert '20 samples against 20' in conventions['fid']
  assert '36 training images, beside those of 20 held-out' in conventions['repeats']
  assert 'Of 20 real images, measures.held_out' in conventions['held_out']
  assert toy.arrays(done / 'samples.npz')['image'].shape == (20, *SHAPE)
  assert (done / 'figures' / f'samples_{STEPS:07d}.png').exists()
  assert [record['step'] for record in toy.records(done)] == [8, 16, 24]


def test_held_out_images_are_measured_as_samples_are(done):
  config = json.loads((done / 'config.json').read_text())
  figures = json.loads((done / 'eval.json').read_text())['evals']['samples']['held_out']

  def pixels(source):  # the features
    image = data.load(source).image.reshape(-1, np.prod(SHAPE)) / 255
    return image[np.random.default_rng(0).permutation(len(image))[:20]]

  expected = metrics.prdc(
      pixels(config['measures']['held_out']), pixels(config['data']['positives']), 2)
  assert set(figures) == {'num_samples', 'fid', 'kid', 'precision', 'recall', 'density',
                          'coverage'}
  for name in ('precision', 'recall', 'density', 'coverage'):
    assert figures[name] == pytest.approx(expected[name]), name


def quick(**changes):
  """The config of a GAN with few samples measured after every 8 updates."""
  return make_config(evals={'samples': {'type': 'samples', 'every': 0},
                            'quick': {'type': 'quick', 'every': 8}},
                     measures__num_quick=15, **changes)


@pytest.fixture
def slow_evaluation(monkeypatch):
  """The first quick evaluation waits until `go_on` is set; threads of all of them."""
  go_on, threads, make = threading.Event(), [], generation.EVALUATORS['quick']

  def slow(*args, **kwargs):
    measure = make(*args, **kwargs)

    def wait(state):
      threads.append(threading.current_thread())
      assert go_on.wait(60), 'training waits for the evaluation'
      return measure(state)

    return wait

  monkeypatch.setitem(generation.EVALUATORS, 'quick', slow)
  return go_on, threads


def test_training_goes_on_while_it_is_evaluated(
    done, slow_evaluation, tmp_path, monkeypatch, capsys):
  """Step 8 is evaluated after update 14, with the state that it had."""
  go_on, threads = slow_evaluation
  toy.before_update(monkeypatch, 14, go_on.set)
  workdir = tmp_path / 'run'
  evaluation = train.train(quick(run__keep=9), str(workdir))
  found = toy.evaluations(workdir)
  assert [*found] == [8, 16, STEPS]
  assert [*found[8]] == ['quick'] and {*found[STEPS]} == {'samples', 'quick'}
  main = [thread is threading.main_thread() for thread in threads]
  assert main == [False, False, True]
  jax.tree.map(np.testing.assert_array_equal, toy.final_state(done),
               toy.final_state(workdir))
  assert evaluate_run(str(workdir), 8)['evals']['quick'] == found[8]['quick']
  assert evaluate_run(str(workdir))['evals']['quick'] == evaluation['evals']['quick']
  samples = evaluation['evals']['samples']
  assert samples == json.loads((done / 'eval.json').read_text())['evals']['samples']
  assert samples['fid'] != found[STEPS]['quick']['fid'] > 0
  assert re.search(r'step 8/24  evaluation: quick: FID \d', capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize('at, evaluated', [(13, [8]), (16, [8, 16])])
def test_stopped_while_an_evaluation_runs_beside(
    at, evaluated, slow_evaluation, tmp_path, monkeypatch):
  """The state is saved before the run waits; each evaluation is written once."""
  wait = checkpoint.wait

  def until_saved(manager):
    wait(manager)
    if manager.latest_step() == at:
      slow_evaluation[0].set()

  def stop():
    os.kill(os.getpid(), signal.SIGTERM)
    monkeypatch.setattr(checkpoint, 'wait', until_saved)

  with monkeypatch.context() as patch:
    toy.before_update(patch, at - 1, stop)
    with pytest.raises(train.Preempted, match=f'step {at} of 24'):
      train.train(quick(), str(tmp_path))
  assert [*toy.evaluations(tmp_path)] == evaluated
  train.train(quick(), str(tmp_path))
  assert [record['step'] for record in toy.records(tmp_path, 'eval')] == [8, 16, STEPS]


def test_an_evaluation_beside_that_fails_ends_the_run(tmp_path, monkeypatch):
  def fail(images, path, *args, **kwargs):
    raise OSError('no space left')

  monkeypatch.setattr(generation, 'sheet', fail)
  with pytest.raises(OSError, match='at step .*no space left.*same command'):
    train.train(quick(), str(tmp_path))
  assert checkpoint.list_steps(tmp_path)[-1] in (8, 16)


@pytest.mark.slow
def test_several_devices_wait_for_an_evaluation(
    eight_devices, slow_evaluation, tmp_path):
  """Two threads could start programs of several devices in two orders."""
  slow_evaluation[0].set()
  train.train(quick(), str(tmp_path))
  assert slow_evaluation[1] == [threading.main_thread()] * 3


@pytest.mark.slow
def test_resumed_run_is_the_same_bit_for_bit(done, copy):
  """Both networks, optimisers, moving average, key and measures of 16 + 8 steps."""
  shutil.rmtree(copy / 'checkpoints' / str(STEPS))  # as if killed before it saved that
  (copy / 'eval.json').unlink()
  before = toy.final_state(copy)
  train.train(make_config(), str(copy))
  after = toy.final_state(copy)
  jax.tree.map(np.testing.assert_array_equal, toy.final_state(done), after)
  assert any(np.abs(a - b).max() > 0 for a, b in zip(before, after, strict=True))
  assert (done / 'eval.json').read_bytes() == (copy / 'eval.json').read_bytes()
  assert (done / 'samples.npz').read_bytes() == (copy / 'samples.npz').read_bytes()


def test_evaluation_of_a_checkpoint_is_that_of_training(done, copy):
  (copy / 'eval.json').unlink()
  evaluate_run(str(copy))
  assert (done / 'eval.json').read_bytes() == (copy / 'eval.json').read_bytes()
  earlier = evaluate_run(str(copy), step=16)
  assert earlier['step'] == 16
  now = json.loads((done / 'eval.json').read_text())['evals']
  assert earlier['evals']['samples']['fid'] != now['samples']['fid']


def test_a_gan_is_measured_with_other_features(copy, classifier, tmp_path, monkeypatch):
  """By the command line: the scores that only a classifier gives."""
  out = tmp_path / 'out'
  monkeypatch.setattr(config_file, 'load', lambda *args: make_config())
  (tmp_path / 'toy.py').write_text(
      'import ml_collections\n\ndef get_config():\n  return ml_collections.ConfigDict('
      f'{make_config().to_dict()})\n')
  args = ('--mode=evaluate', f'--workdir={copy}', f'--config={tmp_path}/toy.py')
  toy.run_main(
      monkeypatch, *args, f'--out={out}', '--config.measures.num_samples=16',
      "--config.measures.features={'name': 'checkpoint', 'workdir': '"
      f"{classifier}'}}")
  found = json.loads((out / 'eval.json').read_text())
  assert found['evals']['samples']['num_samples'] == 16
  assert found['evals']['samples']['inception_score'] >= 1
  assert 'our own classifier' in found['conventions']['evaluation_classifier']
  with pytest.raises(SystemExit, match='but for evals, .*leave out --config.seed'):
    toy.run_main(monkeypatch, *args, f'--out={out}', '--config.seed=2')
  with pytest.raises(SystemExit, match='give both --config and --out'):
    toy.run_main(monkeypatch, *args, '--config.measures.num_samples=16')


def test_same_seed_same_bytes(copy, tmp_path):
  one = pathlib.Path(generate.generate(str(copy), num=11))
  files = {path.name: path.read_bytes() for path in one.parent.iterdir()}
  assert set(files) == {f'samples_step{STEPS}_seed0_num11.npz',
                        f'sheet_step{STEPS}_seed0_num11.png'}
  again = generate.generate(str(copy), num=11, out=str(tmp_path / 'again'))
  assert files == {p.name: p.read_bytes() for p in pathlib.Path(again).parent.iterdir()}
  other = pathlib.Path(generate.generate(str(copy), num=11, seed=1))
  assert not np.array_equal(toy.arrays(one)['image'], toy.arrays(other)['image'])
  assert {p.name: p.read_bytes() for p in one.parent.iterdir() if p.name in files
          } == files and len(list(one.parent.iterdir())) == 4


def test_a_file_for_each_sample(copy, tmp_path):
  path = pathlib.Path(generate.generate(
      str(copy), num=12, out=str(tmp_path), png=True))
  folder = path.with_suffix('')
  (folder / 'old.png').touch()
  generate.generate(str(copy), num=12, out=str(tmp_path), png=True)
  found = sorted(folder.iterdir())
  assert [file.name for file in found] == [f'{i:02d}.png' for i in range(12)]
  expected = toy.arrays(path)['image']
  for file, image in zip(found, expected, strict=True):
    np.testing.assert_array_equal(np.asarray(Image.open(file)), image.squeeze())


def test_orthogonal_regularisation_is_of_the_generator_alone():
  config = make_config(optimizer={'name': 'adam', 'b1': 0.5, 'orthogonal': 0.1})
  pair, _ = build.pair(
      runs.resolve(config.to_dict()), SHAPE, losses.make_gan_objective(
          {'name': 'nat_gan'}, NUM_CLASSES))
  params = {'kernel': np.arange(6, dtype=np.float32).reshape(3, 2)}
  zeros = {'kernel': np.zeros((3, 2), np.float32)}
  for name, moves in (('gen_tx', True), ('disc_tx', False)):
    tx = pair[name]
    updates, _ = jax.jit(lambda grads, params, tx=tx: tx.update(
        grads, tx.init(params), params))(zeros, params)
    assert (np.abs(updates['kernel']).max() > 0) == moves, name


def test_labels_are_given_to_a_conditional_generator_whatever_its_loss_has():
  """As with a projection discriminator, whose outputs are no class logits."""
  config = {'num_classes': 4, 'loss': {'name': 'hinge'}}
  trainer = types.SimpleNamespace(heads={'samples': None})

  def wanted(labels):
    return generate._wanted(['2', '0'], types.SimpleNamespace(
        config={**config, 'trainer': {'labels': labels}}, trainer=trainer,
        class_names=()))

  np.testing.assert_array_equal(wanted('predefined'), [2, 0])
  with pytest.raises(ValueError, match="'hinge' of this run has no classes"):
    wanted('dynamic')


def test_truncated_noise_is_normal_noise_that_is_not_far_from_0(copy):
  path = pathlib.Path(generate.generate(str(copy), num=20, truncation=0.5))
  assert path.name == f'samples_step{STEPS}_seed0_num20_truncation0.5.npz'
  found = toy.arrays(path)
  assert np.abs(found['z']).max() <= 0.5
  assert json.loads(str(found['settings']))['truncation'] == 0.5
  np.testing.assert_array_equal(  # without it, the noise is what it was before
      toy.arrays(generate.generate(str(copy), num=5, truncation=0.0))['z'],
      toy.arrays(generate.generate(str(copy), num=5))['z'])
  rng = np.random.default_rng(0)
  drawn = generation.draw_noise(rng, (100_000,), 1.0)
  normal = rng.standard_normal(300_000)
  kept = normal[np.abs(normal) <= 1]  # drawn again until near
  assert drawn.dtype == np.float32 and np.abs(drawn).max() <= 1
  np.testing.assert_allclose(
      np.quantile(drawn, np.arange(0.1, 1, 0.1)),
      np.quantile(kept, np.arange(0.1, 1, 0.1)), atol=0.01)
  with pytest.raises(ValueError, match=r'truncation.*\[0, 100\], got -1'):
    generate.generate(str(copy), truncation=-1.0)


def test_a_run_may_evaluate_truncated_samples(copy):
  run = runs.restore(str(copy))
  config = {**run.config, 'measures': {**run.config['measures'], 'truncation': 1e-6}}
  wide, narrow = (
      generation.make_sampler(one, run.trainer, run.mesh)(run.state, 8)
      for one in (run.config, config))
  assert not np.array_equal(wide, narrow)
  zero = generation.make_sampler(config, run.trainer, run.mesh)(
      run.state, 8, z=np.zeros((8, 5), np.float32))
  assert np.abs(narrow.astype(int) - zero).max() <= 2


def test_samples_are_those_of_training_and_more_of_them_go_on(copy):
  """The noise is a stream: 5 samples are the first of 20, which training measured."""
  few = toy.arrays(generate.generate(str(copy), num=5))
  many = toy.arrays(generate.generate(str(copy), num=20))
  for key in ('image', 'label', 'z'):
    np.testing.assert_array_equal(few[key], many[key][:5])
  np.testing.assert_array_equal(
      many['image'], toy.arrays(copy / 'samples.npz')['image'])
  assert many['image'].dtype == np.uint8 and many['z'].shape == (20, 5)
  assert set(many['label']) <= {0, 1, 2}
  settings = json.loads(str(many['settings']))
  assert (settings['num'], settings['seed'], settings['step']) == (20, 0, STEPS)


def test_checkpoint_of_an_earlier_step(copy):
  one = toy.arrays(generate.generate(str(copy), num=3, step=16))
  other = toy.arrays(generate.generate(str(copy), num=3))
  np.testing.assert_array_equal(one['z'], other['z'])
  assert not np.array_equal(one['image'], other['image'])
  with pytest.raises(ValueError, match=r'step 4\b.*\[16, 24\]'):
    generate.generate(str(copy), num=3, step=4)


def fake_classes(monkeypatch, num_classes=NUM_CLASSES):
  """The discriminator finds the classes in turn, whatever the image."""
  def make_predict(head, mesh, batch_size):
    return lambda state, images: np.eye(num_classes)[
        np.arange(len(images)) % num_classes]
  monkeypatch.setattr(generate.inference, 'make_predict', make_predict)


def test_classes_are_selected_by_the_discriminator(copy, monkeypatch, capsys):
  everything = toy.arrays(generate.generate(str(copy), num=24))
  fake_classes(monkeypatch)
  found = toy.arrays(generate.generate(str(copy), num=5, labels=['pattern 2', '0']))
  assert found['label'].tolist() == [2, 0, 2, 0, 2]
  rows = [2, 0, 5, 3, 10]  # each batch of 8 counts anew: 0 1 2 0 1 2 0 1
  np.testing.assert_array_equal(found['z'], everything['z'][rows])
  np.testing.assert_array_equal(found['image'], everything['image'][rows])
  assert re.search(r'\b5\b.*\b16\b', capsys.readouterr().out)
  assert json.loads(str(found['settings']))['labels'] == [2, 0]


def test_labels_of_the_discriminator_are_its_own(copy):
  found = toy.arrays(generate.generate(str(copy), num=8))
  gan = runs.restore(str(copy))
  logits = jax.jit(gan.trainer.heads['logits'])(gan.state, found['image'])
  np.testing.assert_array_equal(found['label'], np.argmax(logits, -1))


def test_class_that_never_comes(copy, monkeypatch):
  fake_classes(monkeypatch, 1)
  monkeypatch.setattr(generate, 'MOST', 4)
  with pytest.raises(
      ValueError, match=r"\{'pattern 1': 2\}.*trainer.labels='predefined'"):
    generate.generate(str(copy), num=4, labels=[1, 0])
  assert not (copy / 'generated').exists()


def test_interpolation_leads_from_sample_to_sample(copy):
  generate.generate(str(copy), num=8, interpolate=2)
  sheet = copy / 'generated' / f'interpolation2_step{STEPS}_seed0_num8.png'
  width, height = Image.open(sheet).size
  assert width % 10 == 0 and height > width / 10 * 2  # and text
  gan = runs.restore(str(copy))
  found = toy.arrays(copy / 'generated' / f'samples_step{STEPS}_seed0_num8.npz')
  samples = generate.Samples(found['image'], found['label'], found['z'])
  images = generate.interpolation(
      gan, samples, [0, 2, 4, 6], [1, 3, 5, 7], 0, 0.0).reshape(4, 10, *SHAPE)
  # Neighbouring steps are nearer than the ends.
  steps = np.abs(np.diff(images.astype(int), axis=1)).mean((2, 3, 4))
  ends = np.abs(images[:, -1].astype(int) - images[:, 0]).mean((1, 2, 3))
  assert (steps.mean(1) < ends).all()
  # The other noise of the batch is truncated too: sample 0 is in the same batch again.
  path = generate.generate(str(copy), num=8, truncation=0.5)
  short = generate.Samples(*map(toy.arrays(path).get, generate.Samples._fields))
  first = generate.interpolation(gan, short, [0], [1], 0, 0.5)[0]
  np.testing.assert_array_equal(first, short.image[0])
  assert (generate.interpolation(gan, short, [0], [1], 0, 0.0)[0] != first).any()


def test_rows_of_interpolations_are_of_all_given_classes():
  first, last = generate._ends(4, 3, 10)  # the samples are of classes 0 1 2 0 1 2 ...
  assert (first, last) == ([0, 1, 2, 6], [3, 4, 5, 9])
  assert generate._ends(3, 1, 6) == ([0, 2, 4], [1, 3, 5])
  assert generate._ends(0, 3, 1) == ([], [])
  with pytest.raises(ValueError, match=r'\b4 rows.*\b10\b.*num=9'):
    generate._ends(4, 3, 9)


def test_rows_of_truncations_are_of_one_noise(copy):
  generate.generate(str(copy), num=4, truncations=(0.5, 0.0))
  sheet = copy / 'generated' / f'truncations0.5-0_step{STEPS}_seed0_num4.png'
  width, height = Image.open(sheet).size
  assert width % 10 == 0 and height > width / 10 * 2  # and text
  gan, drawn = runs.restore(str(copy)), []

  def record(state, noise):
    drawn.append(noise['z'][:10])
    return noise['z'][:, :1].reshape(-1, 1, 1, 1) * np.ones(SHAPE)

  gan = gan._replace(trainer=gan.trainer._replace(heads={'samples': record}))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(generation.parallel, 'wrap_head', lambda head, mesh: head)
    patch.setattr(generation, 'sampling_batch', lambda config, mesh: 16)
    images = generate.truncation_rows(gan, [1e-6, 0.5, 0.0], None, 0)
  assert images.shape == (30, *SHAPE)
  near, some, every = drawn
  assert np.abs(near).max() <= 1e-6 and 0.3 < np.abs(some).max() <= 0.5
  assert np.abs(every).max() > 1.5
  np.testing.assert_array_equal(  # the order of the columns stays
      np.argsort(some, 0), np.argsort(every, 0))
  assert len(np.unique(images)) > 5
  with pytest.raises(ValueError, match=r'truncation.*\[0, 100\], got -1'):
    generate.generate(str(copy), truncations=(1.0, -1.0))
  with pytest.raises(ValueError, match='--truncations.*0.5,1,2,0, got 1,x'):
    generate._numbers(['1', 'x'])


def test_slerp_stays_on_the_sphere():
  a, b = np.array([[3.0, 0.0], [1.0, 0.0]]), np.array([[0.0, 3.0], [-1.0, 0.0]])
  np.testing.assert_allclose(generate.slerp(a, b, 0.0), a)
  np.testing.assert_allclose(generate.slerp(a, b, 1.0), b, atol=1e-12)
  middle = generate.slerp(a, b, 0.5)
  np.testing.assert_allclose(middle[0], np.full(2, 3 / np.sqrt(2)))
  np.testing.assert_allclose(middle[1], 0, atol=1e-12)  # opposite: straight on


def test_neighbours_and_whether_it_is_memorising(done, copy, monkeypatch, capsys):
  monkeypatch.setattr(neighbours, 'BLOCK', 10)  # in several blocks
  generate.generate(str(copy), num=6, neighbours=3)
  sheet = copy / 'generated' / f'neighbours3_step{STEPS}_seed0_num6.png'
  width, height = Image.open(sheet).size
  assert width % 4 == 0 and height > width / 4 * 6  # and text
  assert 'of 6 samples' in capsys.readouterr().out

  gan = runs.restore(str(done))
  images = features.data.load(gan.config['data']['positives']).image
  search = neighbours.make_search(gan, 2, runs.OTHERS)
  rows, captions, line = search(images[:4])  # copies of training images
  np.testing.assert_array_equal(rows.reshape(4, 3, *SHAPE)[:, 0], images[:4])
  np.testing.assert_array_equal(rows.reshape(4, 3, *SHAPE)[:, 1], images[:4])
  assert captions[:2] == ['sample 0', '0'] and captions[3] == 'sample 1'
  assert len(captions) == len(rows)
  assert 'ratio 0.00' in line and 'exact copies: 4' in line
  pixels = images.reshape(len(images), -1) / 255
  distance = np.linalg.norm(pixels[:, None] - pixels, axis=-1)
  np.fill_diagonal(distance, np.inf)
  assert [float(text) for text in captions[2::3]] == pytest.approx(
      distance[:4].min(1), rel=1e-3)
  assert f'{np.median(distance.min(1)):.4g} of 36 training images' in line
  with pytest.raises(ValueError, match=r'neighbours.*\b36\b.*\b37\b'):
    generate.generate(str(done), neighbours=37)


def test_predefined_labels_are_given_to_the_generator(tmp_path):
  workdir = untrained(
      tmp_path, make_config(trainer__labels='predefined', loss={'name': 'ac_gan'}))
  every = toy.arrays(generate.generate(workdir, num=90, interpolate=2))
  assert every['label'].tolist() == [0, 1, 2] * 30
  for classes in ([0], [1], [2, 0], [2, 1, 0]):
    found = toy.arrays(generate.generate(
        workdir, num=5, labels=[f'pattern {c}' for c in classes]))
    assert found['label'].tolist() == np.resize(classes, 5).tolist()
    # The generator sees batches of all classes, whichever are kept.
    rows = [3 * (i // len(classes)) + c for i, c in enumerate(np.resize(classes, 5))]
    for key in ('image', 'z'):
      np.testing.assert_array_equal(found[key], every[key][rows])


@pytest.mark.parametrize('arguments, message', [
    (dict(num=0), r'num.*\[1, 1e7\].*\b0$'),
    (dict(seed=2**32), rf'seed.*\[0, 4294967295\].*{2**32}'),
    (dict(neighbours=10**9), rf'neighbours.*\[0, 1e6\].*{10**9}'),
    (dict(seed=-1), r'seed.*\[0, 4294967295\].*-1'),
    (dict(interpolate=-1), r'interpolate.*\[0, .*-1'),
    (dict(neighbours=-1), r'neighbours.*\[0, 1e6\].*-1'),
    (dict(num=3, interpolate=2), r'\b2\b.*interpolation.*\b4\b.*num=3'),
    (dict(labels=[3]), r'labels.*0\.\.2 \(pattern 0, pattern 1, pattern 2\).*\b3$'),
    (dict(labels=['-1']), r'labels.*0\.\.2\b.*-1'),
    (dict(labels=['--3']), r"labels.*0\.\.2\b.*'--3'"),
    (dict(labels=['dog']), r"labels.*0\.\.2\b.*'dog'"),
    (dict(labels=[]), 'labels'),
])
def test_arguments_that_make_no_sense(arguments, message, done):
  with pytest.raises(ValueError, match=message):
    generate.generate(str(done), **arguments)
  assert not (done / 'generated').exists()


def test_loss_without_classes(tmp_path):
  workdir = untrained(tmp_path, make_config(loss={'name': 'hinge'}))
  with pytest.raises(ValueError, match="'hinge'.*labels.*nat_gan"):
    generate.generate(workdir, labels=[0])
  assert set(toy.arrays(generate.generate(workdir, num=3))['label']) == {-1}


def make_gaan(**changes):
  """A tiny GAN with an encoder; keys as in `make_config`."""
  config = dict(
      task='gaan', name='toy', variant='gaan', steps=1, num_classes=NUM_CLASSES,
      trainer={'name': 'gaan'}, encoder={'name': 'mlp', 'width': 4, 'depth': 1},
      generator={'name': 'mlp_generator', 'latent': 5, 'widths': [8]},
      discriminator={'name': 'mlp_discriminator', 'widths': [8]},
      data=dict(positives=fake(classes=(0, 1, 2)), batch_size=8),
      measures=dict(num_samples=20, batch_size=8))
  return presets.experiment(**toy.change(config, **changes))


def made_by(workdir, z):
  """The images that the generator of a run makes of noise, quantised."""
  run = runs.restore(workdir)
  settings = run.config['data']
  images = jax.jit(run.trainer.heads['samples'])(run.state, {'z': z})
  return data.quantise(np.asarray(images), settings['mean'], settings['std'])


@pytest.mark.parametrize('prior', ['normal', 'uniform'])
def test_a_gan_with_an_encoder(prior, tmp_path):
  workdir = untrained(tmp_path, make_gaan(trainer__prior=prior))
  path = pathlib.Path(generate.generate(
      workdir, num=8, interpolate=2, neighbours=2, png=True, truncations=(0.5, 0.0)))
  tag = 'step1_seed0_num8'
  assert {file.name for file in path.parent.iterdir()} == {
      f'samples_{tag}.npz', f'samples_{tag}', f'sheet_{tag}.png',
      f'interpolation2_{tag}.png', f'neighbours2_{tag}.png',
      f'truncations0.5-0_{tag}.png'}
  found = toy.arrays(path)
  assert set(found['label']) == {-1} and np.abs(found['z']).max() > 1
  np.testing.assert_array_equal(found['image'], made_by(workdir, found['z']))
  for i, image in enumerate(found['image']):
    picture = Image.open(path.with_suffix('') / f'{i}.png')
    np.testing.assert_array_equal(np.asarray(picture), image.squeeze())
  samples = generate.Samples(*map(found.get, generate.Samples._fields))
  row = generate.interpolation(runs.restore(workdir), samples, [0], [1], 0, 0.0)
  np.testing.assert_array_equal(row[0], found['image'][0])
  with pytest.raises(ValueError, match="'gaan'.*labels.*task='gan'.*nat_gan"):
    generate.generate(workdir, labels=[0])


def test_a_semi_supervised_classifier_has_a_generator(tmp_path):
  """Its task has no `measures`: those of GANs, with its own size of a batch."""
  workdir = untrained(tmp_path, presets.experiment(
      task='semi_supervised', name='toy', steps=1, num_classes=NUM_CLASSES,
      generator={'name': 'mlp_generator', 'latent': 5, 'widths': [8]},
      discriminator={'name': 'mlp_discriminator', 'widths': [8]},
      data=dict(positives=fake(classes=(0, 1, 2)), labels_per_class=2, batch_size=8,
                labelled_per_batch=8)))
  path = generate.generate(workdir, num=8, interpolate=2, neighbours=2)
  found, run = toy.arrays(path), runs.restore(workdir)
  np.testing.assert_array_equal(found['image'], made_by(workdir, found['z']))
  logits = jax.jit(run.trainer.heads['logits'])(run.state, found['image'])
  np.testing.assert_array_equal(found['label'], np.argmax(logits, -1))
  some = int(found['label'][0])
  again = toy.arrays(generate.generate(workdir, num=3, labels=[some]))
  assert again['label'].tolist() == [some] * 3


def test_runs_of_another_kind(done, classifier, tmp_path):
  before = sorted(done.rglob('*'))
  for use in (posthoc.posthoc, lambda workdir: predict.predict(workdir, [__file__])):
    with pytest.raises(
        ValueError, match=f'classifiers.*{done}.*GANs.*--mode=.*generate'):
      use(str(done))
  assert sorted(done.rglob('*')) == before
  with pytest.raises(
      ValueError, match='GANs or GANs with an encoder or semi-supervised classifiers '
      f'in {classifier}.*classifiers.*--mode=.*, predict'):
    generate.generate(str(classifier))
  with pytest.raises(ValueError, match=f'--workdir {tmp_path}$'):
    generate.generate(str(tmp_path))
  with pytest.raises(ValueError, match=f'--workdir {tmp_path}/nowhere$'):
    evaluate_run(str(tmp_path / 'nowhere'))
  assert evaluate_run(str(classifier)) == json.loads(
      (classifier / 'eval.json').read_text())


def test_another_networks_config_in_the_workdir(done):
  with pytest.raises(ValueError, match=r'generator.widths: \[8\] -> \[9\].*overwrite'):
    train.train(make_config(generator__widths=[9]), str(done))


MISTAKES = {
    'key': ({'genrator': {}}, "'genrator'.*\\bgenerator"),
    'classifier key': ({'model': {'name': 'mlp'}}, "'model'.*\\bgenerator"),
    'nested key': ({'measures__foo': 1}, r"measures.'foo'.*measures.num_samples"),
    'generator': ({'generator__name': 'x'}, "generator 'x'.*dcgan_generator, mlp_ge"),
    'latent': ({'generator': {'name': 'mlp_generator'}}, "'mlp_generator'.*'latent'"),
    'latent 0': ({'generator__latent': 0}, r'generator.latent.*\[1, .*0'),
    'argument': ({'generator__depth': 2}, "generator 'mlp_generator':.*'depth'"),
    'discriminator': ({'discriminator__name': 'x'}, "discriminator 'x'.*mlp_discr"),
    'norm': ({'discriminator__norm': 'x'}, "norm.*spectral.*'x'"),
    'loss': ({'loss': {'name': 'nat'}}, "'nat'.*am_gan.*nat_gan"),
    'loss argument': ({'loss': {'name': 'nat_gan', 'x': 1}}, "loss 'nat_gan'.*'x'"),
    'labels': ({'trainer__labels': 'x'}, "trainer.labels.*'x'.*dynamic, predefined"),
    'critic': ({'trainer__n_critic': 0}, r'trainer.n_critic.*\[1, 100\].*0'),
    'images': ({'generator': {'name': 'dcgan_generator', 'latent': 5}},
               '32x32.*28x28.*4, 4'),
    'negatives': ({'data__negatives__three__source': fake(shape=(5, 4, 1))},
                  r"'three'.*\[5, 4, 1\].*\[4, 4, 1\]"),
    'no negatives': ({'data__negatives': {}},
                     r'data.negatives_per_batch.*\b2\b.*data.negatives\b'),
    'batch': ({'data__batch_size': 12}, r'data.batch_size.*\b12\b.*\b8\b'),
    'classes': ({'num_classes': 2}, 'num_classes is 2, .* has 3 classes'),
    'more classes': ({'num_classes': 10}, 'num_classes is 10, .* set num_classes=3'),
    'normalisation': ({'data__std': (0.25,)}, r'\[-1, 1\].* reach 2.00 .*data.std'),
    'features': ({'measures__features': {'name': 'x'}}, "features.*'x'.*checkpoint"),
    'no workdir': ({'measures__features': {'name': 'checkpoint', 'workdir': ''}},
                   '--config.measures.features.workdir='),
    'no classifier': (
        {'measures__features': {'name': 'checkpoint', 'workdir': 'nowhere'}},
        '--workdir nowhere$'),
    'reference': ({'measures__reference': fake(shape=(5, 4, 1))},
                  r'measures.reference.*\(5, 4, 1\).*\(4, 4, 1\)'),
    'held-out': ({'measures__held_out': fake(shape=(5, 4, 1))},
                 r'measures.held_out.*\(5, 4, 1\).*\(4, 4, 1\)'),
    'few held out': ({'measures__held_out': fake(num=2)},
                     r'measures.held_out has \d images, .*neighbours=2 needs more'),
    'quick splits': ({'evals': {'quick': {'type': 'quick'}}, 'measures__num_quick': 8,
                      'measures__splits': 9}, r'measures.splits.*\b8\b.*\b9\b'),
    'splits': ({'measures__splits': 21}, r'measures.splits.*\b20\b.*\b21\b'),
    'neighbours': ({'measures__neighbours': 20},
                   r'measures.neighbours.*\b19\b.*\b20\b'),
    'samples': ({'measures__num_samples': 1}, r'measures.num_samples.*\[2, 1e7\].*1'),
    'inception path': ({'measures__features': {'name': 'inception', 'path': 'x.npz'}},
                       "measures.features.*'x.npz'"),
}


def test_every_copy_of_stacked_generators_makes_all_classes():
  config = make_config().to_dict()
  turns = generation.class_turns(config, 7)
  assert turns.tolist() == [0, 1, 2, 0, 1, 2, 0]
  config['generator'] = {'name': 'stacked', 'num': 3, 'latent': 5}
  turns = generation.class_turns(config, 18)
  assert turns.tolist() == 2 * [0, 0, 0, 1, 1, 1, 2, 2, 2]
  assert all(set(turns[copy::3]) == {0, 1, 2} for copy in range(3))


def test_negatives_without_a_number_are_not_used(caplog):
  config = runs.resolve(make_config(data__negatives_per_batch=0))
  assert not build.load(config).negatives
  assert 'data.negatives (noise, three) are not used' in caplog.text


def test_a_class_that_the_data_lack_is_named_by_its_number(done):
  gan = runs.restore(str(done))
  samples = generate.Samples(None, np.array([2, 7]), None)
  assert generate._classes_shown(gan, samples, None)[1] == ['pattern 2', '7']


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes_in_a_config(mistake, tmp_path, eight_devices):
  changes, message = MISTAKES[mistake]
  with pytest.raises((ValueError, TypeError), match=f'(?s){message}'):
    train.train(make_config(**changes), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


def test_classifiers_that_do_not_fit(done, classifier, tmp_path):
  larger = untrained(tmp_path / 'larger', make_classifier(), (6, 6, 1))
  half = make_classifier()
  half.steps = 2
  half = untrained(tmp_path / 'half', half)
  for workdir, message in (
      (done, f'classifiers.*{done}.*GANs'),
      (larger, rf'{larger}.*\(6, 6, 1\).*\(4, 4, 1\)'),
      (half, rf'{half} stopped at step 1 of \d+; complete its training')):
    spec = {'name': 'checkpoint', 'workdir': str(workdir)}
    with pytest.raises(ValueError, match=message):
      train.train(make_config(measures__features=spec), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('content, message', [
    (None, 'npz.*msgpack.*weights.npz'),
    ({'params/fc/bias': np.zeros(7)},
     r'weights.npz.*params/fc/bias.*\(1008,\).*\(7,\)'),
])
def test_weight_file_of_another_network(content, message, tmp_path):
  path = tmp_path / 'weights.npz'
  if content is None:
    path.write_bytes(b'no weights')
  else:
    np.savez(path, **content)
  spec = {'name': 'inception', 'path': str(path)}
  with pytest.raises(ValueError, match=message):
    train.train(make_config(measures__features=spec), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()
  assert inception.weight_shapes()['params/fc/bias'].shape == (1008,)


def test_fewer_samples_than_dimensions_is_said(done, tmp_path, caplog):
  """At the start, on the terminal, and beside the number."""
  gan = runs.restore(str(done))
  config = make_config(measures__num_samples=15).to_dict()
  evaluator = generation.make_evaluator(
      config, str(tmp_path), Inputs(None, None, gan.shape, gan.class_names),
      gan.trainer, gan.mesh, runs.OTHERS)
  assert re.search(r'FID.*\b15\b.*\b16\b', caplog.text)
  found = evaluator.run(gan.state, ['samples'], True)
  evaluation = evaluator.save(gan.state, 1, *found)
  assert re.search(r'\b15\b.*\b16\b', evaluation['conventions']['fid'])


def test_command_line(copy, classifier, monkeypatch, capsys):
  workdir = f'--workdir={copy}'
  toy.run_main(
      monkeypatch, '--mode=generate', workdir, '--num=6', '--seed=3', '--step=16',
      '--labels=pattern 1,0', '--interpolate=1', '--neighbours=2', '--format=png')
  output = capsys.readouterr().out
  assert str(copy / 'generated') in output and 'discriminator' in output
  names = {path.name for path in (copy / 'generated').iterdir()}
  tag = 'step16_seed3_num6_labels1-0'
  assert names == {f'samples_{tag}.npz', f'samples_{tag}', f'sheet_{tag}.png',
                   f'interpolation1_{tag}.png', f'neighbours2_{tag}.png'}
  for mode, where, message in (
      ('generate', classifier, f'GANs.*{classifier}'),
      ('predict', copy, f'classifiers.*{copy}'),
      ('posthoc', copy, f'classifiers.*{copy}')):
    images = ['--images=.'] * (mode == 'predict')
    with pytest.raises(SystemExit, match=f'^error: .*{message}'):
      toy.run_main(monkeypatch, f'--mode={mode}', f'--workdir={where}', *images)


@pytest.fixture
def counted(tmp_path, monkeypatch):
  """(num -> features of num images, the numbers of the images that were computed)."""
  monkeypatch.setattr(features.data, 'cache_folder', lambda name: tmp_path / name)
  calls = []

  def apply(images):
    calls.append(len(images))
    return {'features': images.reshape(len(images), -1).astype(np.float32)}

  classifier = features.Features('', 'pixels again', apply, 0)

  def find(num):
    source = data.load({'name': 'fake', 'num': 8, 'shape': (4, 4, 1)})
    return features.reference(source, num, classifier, (4, 4, 1))[1]['features']

  return find, calls


@pytest.mark.parametrize('damage', [
    lambda content: content[: len(content) // 2], lambda content: b'',
    lambda content: b'PK' + content[:-20], lambda content: b'[]'])
def test_a_damaged_cache_of_features_is_made_again(damage, counted, tmp_path, caplog):
  find, calls = counted
  found = find(8)
  file, = (tmp_path / 'features').iterdir()
  whole = file.read_bytes()
  file.write_bytes(damage(whole))
  again = find(8)
  assert calls == [8, 8] and file.read_bytes() == whole
  np.testing.assert_array_equal(again, found)
  assert str(file) in caplog.text
  find(8)
  assert calls == [8, 8]


def test_the_features_that_were_not_used_longest_are_removed(
    counted, tmp_path, monkeypatch):
  find, calls = counted
  for num in (5, 6, 7):
    find(num)
  kept = sorted((tmp_path / 'features').iterdir(), key=os.path.getmtime)
  for age, file in enumerate(reversed(kept)):
    os.utime(file, (1e9 - age, 1e9 - age))
  find(5)  # now it is the one that was used last
  room = 3.5 * max(map(os.path.getsize, kept))  # for three of them
  monkeypatch.setattr(features, 'MAX_BYTES', room)
  find(8)
  assert calls == [5, 6, 7, 8]
  find(5), find(7), find(8)
  assert calls == [5, 6, 7, 8]
  find(6)
  assert calls == [5, 6, 7, 8, 6]


def test_without_a_cache_of_features_they_are_computed(counted, tmp_path, caplog):
  find, calls = counted
  (tmp_path / 'features').write_text('not a folder')
  assert find(8).shape == (8, 16) and 'The cache of features' in caplog.text
  assert calls == [8]
