"""A trained run as a source of negatives: the same bits, filters, mistakes."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
import toy

from nat_jax import data, losses, runs, train
from nat_jax.commands import card
from nat_jax.commands.evaluate import evaluate_run
from nat_jax.reports import about
from nat_jax.runtime import checkpoint, parallel
from nat_jax.schema import presets
from nat_jax.tasks import generated, images
from nat_jax.tasks.gan import evaluate as generation

SHAPE = (4, 4, 1)
fake = functools.partial(toy.fake, shape=SHAPE)
ONE = parallel.make_mesh(jax.devices()[:1])


def gan(**changes):
  return presets.experiment(**dict(
      task='gan', trainer={'name': 'gan'}, steps=1, num_classes=3,
      generator={'name': 'mlp_generator', 'latent': 3, 'widths': [6]},
      discriminator={'name': 'mlp_discriminator', 'widths': [4]},
      data=dict(positives=fake(classes=(0, 1, 2)), batch_size=8),
      measures=dict(num_samples=8, batch_size=10)) | changes)


def classifier(negatives=None, **changes):
  """A classifier; `negatives` are trained on and a test set."""
  evals = {'test': {'source': fake(1, classes=(0, 1, 2)), 'positive': True}}
  given = {}
  if negatives:
    given = {'negatives': {'made': {'source': negatives}}, 'negatives_per_batch': 4}
    evals['made'] = {'source': negatives | {'seed': 9}}
  return presets.experiment(**dict(
      steps=2, num_classes=3, model={'name': 'mlp', 'width': 4, 'depth': 1},
      loss={'name': 'nat' if negatives else 'cross_entropy'},
      data=dict(positives=fake(classes=(0, 1, 2)), batch_size=8, **given),
      evals=evals, run=dict(tensorboard=False)) | changes)


def points(**changes):
  return presets.experiment(**dict(
      task='points', steps=1, num_seeds=3, num_samples=10, run={'eval_every': 1},
      data={'name': 'rings2d', 'num': 50},
      generator={'name': 'toy_generator', 'latent': 2, 'widths': (4,)}) | changes)


def saved(workdir, config, shape, seed=0, step=None):
  """A checkpoint, of the last step, of networks as they are at the start."""
  config = runs.resolve(config)
  trainer = runs.build_trainer(config, shape)
  state = parallel.init_state(
      trainer.init, jax.random.key(seed), parallel.make_mesh())
  manager = checkpoint.open_manager(str(workdir))
  checkpoint.save(manager, state, step or config['steps'], {
      'config': config, 'image_shape': shape, 'class_names': []})
  checkpoint.close(manager)
  return str(workdir)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('sources')
  saved(path / 'gan', gan(), SHAPE)
  saved(path / 'classifier', classifier(), SHAPE)
  saved(path / 'points', points(), (2,))
  saved(path / 'wide', gan(), (6, 6, 1))
  saved(path / 'cut', gan(steps=5), SHAPE, step=1)
  return path


@pytest.fixture(scope='module')
def positives():
  return data.load(fake(classes=(0, 1, 2)))


def spec(folder, name='gan', **changes):
  return {'name': 'run', 'workdir': str(folder / name), 'num': 12, **changes}


def load(source, positives, **settings):
  settings = {'mean': [0.5], 'std': [0.5]} | settings
  return images.load_source({'data': settings}, source, positives, runs.OTHERS)


def test_examples_are_those_of_the_generator(folder, positives):
  found = load(spec(folder), positives)
  assert found.image.shape == (12, *SHAPE) and found.image.dtype == np.uint8
  assert found.label.tolist() == [0] * 12 and found.names == ('generated',)
  run = runs.restore(str(folder / 'gan'))
  sample = generation.make_sampler(run.config, run.trainer, ONE)
  state, _ = parallel.on_one_device(run.state)
  # In batches of measures.batch_size, however many devices there are.
  np.testing.assert_array_equal(found.image, sample(state, 12, (0, 0)))
  again, other = (load(spec(folder, seed=s), positives) for s in (0, 1))
  np.testing.assert_array_equal(found.image, again.image)
  assert (found.image != other.image).any((1, 2, 3)).all()


def test_gans_of_points_take_turns(folder):
  like = data.Arrays(np.zeros((5, 2), np.float32), np.zeros(5, np.int32))
  found = load(spec(folder, 'points', num=8), like, mean=[1.0, 2.0], std=[2.0, 4.0])
  run = runs.restore(str(folder / 'points'))
  z = np.random.default_rng((0, 0)).standard_normal((3, 2), np.float32)
  samples = jax.jit(run.trainer.heads['samples'])
  made = np.asarray(samples(run.state, {'z': z}))  # [seeds, 3, 2]
  expected = np.stack([made[i % 3, i // 3] for i in range(8)])
  np.testing.assert_allclose(
      found.image, (expected - [1, 2]) / [2, 4], atol=1e-6)


def confidence_of(folder, images_):
  run = runs.restore(str(folder / 'classifier'))
  return np.asarray(jax.jit(lambda state, images: losses.max_probability(
      run.trainer.heads['logits'](state, images), 3))(run.state, images_))


def test_a_filter_by_confidence(folder, positives):
  given = spec(folder, classifier=str(folder / 'classifier'))
  whole = load(spec(folder, num=200), positives).image
  low, high = np.quantile(confidence_of(folder, whole), (0.3, 0.6)).tolist()
  found = load(given | {'confidence': [low, high]}, positives)
  values = confidence_of(folder, found.image)
  assert len(found.image) == 12 and (values >= low).all() and (values <= high).all()
  outside = confidence_of(folder, load(spec(folder), positives).image)
  assert ((outside < low) | (outside > high)).any()  # without the filter


def test_a_filter_by_distance(folder, positives):
  pixels = positives.image.reshape(-1, 16) / 255
  among = np.linalg.norm(pixels[:, None] - pixels, axis=2)
  np.fill_diagonal(among, np.inf)
  unit = np.median(among.min(1))

  def distance(x):
    return np.linalg.norm(
        x.reshape(-1, 1, 16) / 255 - pixels, axis=2).min(1) / unit

  all_ = distance(load(spec(folder, num=200), positives).image)
  low, high = np.quantile(all_, (0.5, 0.9)).tolist()
  found = distance(load(spec(folder, distance=[low, high]), positives).image)
  assert len(found) == 12 and low <= found.min() and found.max() <= high
  assert (all_[:12] < low).any()


def test_a_filter_that_leaves_too_few_says_how_many(folder, positives):
  _, draw = runs.sampler(str(folder / 'gan'))
  values = confidence_of(folder, np.concatenate(
      [draw(12, (0, i)) for i in range(generated.MOST)]))
  high = float(np.sort(values)[4])  # five of all pass
  given = spec(folder, classifier=str(folder / 'classifier'), confidence=[0.0, high])
  with pytest.raises(ValueError, match=(
      r'5 of 240 examples.*gan generated pass confidence=.*num=12.*num to 5 or less')):
    load(given, positives)
  assert len(load(given | {'num': 1}, positives).image) == 1


def test_a_run_is_trained_on_them_and_evaluated_again(folder, tmp_path):
  workdir, source = tmp_path / 'run', spec(folder)
  evaluation = train.train(classifier(source), str(workdir))
  config = json.loads((workdir / 'config.json').read_text())
  crc32 = runs.about(str(folder / 'gan'))['crc32']
  for place in (config['data']['negatives']['made'], config['evals']['made']):
    assert place['source']['step'] == 1 and place['source']['crc32'] == crc32
  assert evaluation['evals']['made']['n'] == 12
  assert evaluation['evals']['made']['seen_in_training'] is True
  before = (workdir / 'eval.json').read_text()
  evaluate_run(str(workdir))
  assert (workdir / 'eval.json').read_text() == before
  start, = toy.records(workdir, 'start')
  assert start['examples']['negatives'] == {'made': 12}


def test_reports_and_cards_name_the_run():
  """A model card the last name only: folders may be private."""
  source = {'name': 'run', 'workdir': '/a/b/gan', 'num': 5, 'classifier': '/a/c',
            'confidence': [0, 0.9], 'distance': None}
  assert about.source_text(source) == '/a/b/gan'
  found = card._source(source)
  assert found == 'run workdir=gan num=5 classifier=c confidence=[0, 0.9]'


def test_another_checkpoint_is_noticed(folder, tmp_path):
  """Under the same path, when a run goes on and when one is evaluated again."""
  gan_, workdir = tmp_path / 'gan', tmp_path / 'run'
  shutil.copytree(folder / 'gan', gan_)
  config = classifier(spec(tmp_path), steps=4, run=dict(
      tensorboard=False, checkpoint_every=2))
  train.train(config, str(workdir))
  shutil.rmtree(gan_)
  saved(gan_, gan(), SHAPE, seed=1)
  (workdir / 'eval.json').unlink()
  shutil.rmtree(workdir / 'checkpoints' / '4')
  before = sorted(workdir.rglob('*'))
  with pytest.raises(ValueError, match='crc32'):
    train.train(config, str(workdir))
  with pytest.raises(ValueError, match=r'step 1 in .*gan is another one.*checksum'):
    evaluate_run(str(workdir))
  assert sorted(workdir.rglob('*')) == before


@pytest.mark.parametrize('changes, named', [
    (dict(workdir='nowhere'), 'no checkpoints in nowhere'),
    (dict(workdir='classifier'), r'generates examples in .*classifier .*GANs.*got a '
     'run of classifiers'),
    (dict(workdir='points'), r'points generates vectors of 2 columns, and the positives'
     r' are pictures of \[4, 4, 1\]'),
    (dict(workdir='wide'), r'wide generates pictures of \[6, 6, 1\] .*\[4, 4, 1\]'),
    (dict(workdir='cut'), 'cut stopped at step 1 of 5.*step=1'),
    (dict(step=7), r'no checkpoint of step 7 in .*gan; there are: \[1\]'),
    (dict(classifier='gan'), 'classifier.*confidence.*together'),
    (dict(confidence=[0.1, 0.2]), 'classifier.*confidence.*together'),
    (dict(classifier='gan', confidence=[0, 1]), 'expected classifiers in .*gan'),
    (dict(confidence=[0, 2]), r'source.confidence must be a list of 2'),
    (dict(distance=[1.0]), r'source.distance must be a list of 2'),
    (dict(seeds=3), "unexpected keyword argument 'seeds'"),
])
def test_mistakes_are_told_before_anything_is_written(
    changes, named, folder, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for key in ('workdir', 'classifier'):
    if (folder / changes.get(key, 'nowhere')).exists():
      changes = changes | {key: str(folder / changes[key])}
  with pytest.raises((ValueError, TypeError), match=named):
    train.train(classifier(spec(folder, **changes)), 'run')
  assert not (tmp_path / 'run').exists()


def test_it_is_a_source_of_negatives_only(folder):
  assert data.OF_RUNS == tuple(generated.FROM_RUNS)
  for config in (
      classifier(data=dict(positives=spec(folder), batch_size=8)),
      classifier(evals={'test': {'source': spec(folder), 'positive': True}}),
      gan(measures=dict(reference=spec(folder)))):
    with pytest.raises(ValueError, match='of negatives only'):
      config = runs.resolve(config)
      inputs = runs.TASKS[config['task']].load(config, 1, runs.OTHERS)
      trainer = runs.build_trainer(config, inputs.shape)
      runs.TASKS[config['task']].evaluator(
          config, 'x', inputs, trainer, ONE, runs.OTHERS)
