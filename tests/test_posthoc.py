"""Post-hoc scores of a run, end to end on digits, and ODIN's step."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from nat_jax import data, detectors, runs, train
from nat_jax.commands import posthoc
from nat_jax.metrics import confidences
from nat_jax.models import MODELS
from nat_jax.models.weights import STAGES
from nat_jax.runtime import parallel
from nat_jax.schema import presets
from nat_jax.task import Run
from nat_jax.tasks import TASKS

SMALL = {  # further arguments of each model, for small ones
    'fast': {'widths': [4, 4]}, 'small_conv': {'widths': [4]},
    'mlp': {'width': 4, 'depth': 1}, 'resnet': {'width': 4, 'blocks': [1]},
    'resnet18': {'width': 4},
    'wide_resnet': {'depth': 10, 'widen': 1}}


def head(state, images):
  """Two classes whose logits are quadratic in the sum of the image, and a third
  output that is no class."""
  s = images.sum((1, 2, 3))
  return jnp.stack([state * s**2, s, 100 + s], axis=1)


def test_odin_moves_towards_the_prediction():
  state = 0.5
  images = np.array([[[[1], [3]]], [[[-1], [-1]]]], np.float32)  # sums 4, -2
  plain, moved, still = (jax.jit(one) for one in (head, *(
      detectors.odin_head(head, num_classes=2, normalise=lambda x: x,
                          temperature=1000.0, epsilon=epsilon)
      for epsilon in (0.01, 0.0))))
  # log p rises with 0.5 s^2 - s, whose slope is 3 at 4 and -3 at -2.
  there = images + np.array([0.01, -0.01], np.float32).reshape(2, 1, 1, 1)
  np.testing.assert_allclose(moved(state, images), plain(state, there), rtol=1e-6)
  np.testing.assert_array_equal(still(state, images), plain(state, images))


@pytest.mark.parametrize('shape, std, expected', [
    ((2, 2, 2), (0.25, 0.5), (0.0056, 0.0028)), ((2,), (0.25, 0.5), 0.0014)])
def test_odin_moves_pixels_by_a_part_of_their_range(shape, std, expected, monkeypatch):
  """The step is that of the authors' code, epsilon / std in normalised units."""
  steps = []
  monkeypatch.setattr(detectors, 'odin_head', lambda *args, temperature, epsilon: (
      steps.append((temperature, epsilon)) or (lambda state, images: images)))
  config = runs.resolve(presets.experiment(
      num_classes=3, model={'name': 'mlp', 'width': 2, 'depth': 1},
      data=dict(mean=(0.5, 0.5), std=std)))
  trainer = TASKS['classify'].build(config, shape, runs.OTHERS)
  state = jax.eval_shape(trainer.init, jax.random.key(0))
  mesh = parallel.make_mesh()
  detectors.make_program(Run(config, shape, (), trainer, state, 1, mesh), odin=True)
  (temperature, epsilon), = steps
  assert temperature == 1000
  np.testing.assert_allclose(np.squeeze(epsilon), expected, rtol=1e-6)


def test_odin_moves_images_in_float32():
  """A step of .0014 is below what bfloat16 can tell apart in most pixels."""
  config = runs.resolve(presets.experiment(
      num_classes=3, model={'name': 'small_conv', 'widths': [4], 'dtype': 'bfloat16'}))
  build = TASKS['classify'].build
  trainer = build(config, (8, 8, 1), runs.OTHERS)
  exact = build({**config, 'model': {**config['model'], 'dtype': 'float32'}}, (8, 8, 1),
                runs.OTHERS)
  state = jax.jit(trainer.init)(jax.random.key(0))
  images = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
  restored = Run(config, (8, 8, 1), (), trainer, state, 1, None)
  found, expected, rounded = (np.asarray(jax.jit(head)(state, images)) for head in (
      detectors._float32_logits(restored), exact.heads['logits'],
      trainer.heads['logits']))
  np.testing.assert_array_equal(found, expected)
  assert not np.allclose(found, rounded, rtol=1e-5)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  digits = lambda split, classes: {  # noqa: E731
      'name': 'digits', 'split': split, 'classes': classes}
  config = presets.experiment(
      name='posthoc', num_classes=3, steps=60, loss={'name': 'background'},
      schedule={'name': 'constant', 'learning_rate': 0.05}, ema_decay=0.5,
      data=dict(
          positives=digits('train', (0, 1, 2)), batch_size=32, negatives_per_batch=8,
          negatives={'seven': {'source': digits('train', (7,))}}),
      evals={
          'test': {'source': digits('test', (0, 1, 2)), 'positive': True},
          'seven': {'source': digits('test', (7,))},
          'noise': {'source': {'name': 'normal_noise', 'num': 100}}},
      run=dict(tensorboard=False, log_every=60, checkpoint_every=0))
  path = str(tmp_path_factory.mktemp('run'))
  train.train(config, path)
  return path


def by_hand(positive, negative):
  return (positive[:, None] > negative).mean() + (
      positive[:, None] == negative).mean() / 2


@pytest.mark.slow
def test_posthoc_of_a_run(workdir, monkeypatch):
  monkeypatch.setattr(detectors, 'NUM_TRAIN', 100)
  found = posthoc.posthoc(workdir)
  with open(f'{workdir}/posthoc.json') as file:
    assert json.load(file) == found
  assert (found['step'], found['reference']) == (60, 'test')
  assert found['num_train'][0] == 100 < found['num_train'][1]
  assert found['neighbours'] == 3  # a tenth of a class
  assert found['seen_in_training'] == {'seven': True, 'noise': False}
  assert set(found['scores']) == {
      'max_softmax', 'max_logit', 'energy', 'gen', 'odin', 'ash', 'react', 'she', 'knn',
      'vim', 'mahalanobis', 'relative_mahalanobis'}
  for score, figures in found['scores'].items():
    assert set(figures) == {'seven', 'noise'}
    assert figures['seven']['auroc'] > 0.6, score
    assert set(figures['seven']) == {
        'auroc', 'aupr_in', 'aupr_out', 'fpr95_id_positive', 'fpr95_ood_positive'}
  # By hand, from the run's own logits without the background output.
  logits = {name: np.load(f'{workdir}/scores/{name}.npz')['logits'][:, :3]
            for name in ('test', 'seven')}
  for score in ('energy', 'gen'):
    pos, neg = (getattr(confidences, score)(logits[name]) for name in logits)
    assert found['scores'][score]['seven']['auroc'] == pytest.approx(
        by_hand(pos, neg), abs=1e-4)
  used, available = found['num_images']['test']
  assert used == available == len(logits['test'])
  text = posthoc.text(found)
  assert f'seven (seen, {len(logits["seven"])})' in text
  assert 'noise (unseen, 100)' in text
  flat = ' '.join(text.split())
  assert f'Fitted to 100 of {found["num_train"][1]} training positives: react, ' in flat
  assert 'Samples are drawn with seed 0.' in flat
  assert 'AUROC (higher is better)' in text
  assert 'FPR95 (ID-positive) (lower is better)' in text
  assert f'{found["scores"]["knn"]["noise"]["fpr95_id_positive"]:.3f}' in text
  with pytest.raises(ValueError, match=r'step 7\b.*\[60\]'):
    posthoc.posthoc(workdir, step=7)


@pytest.mark.slow
def test_fitted_scores_see_training_positives_only(workdir):
  """Scores by hand, from the features of the run: fitted to the training set."""
  found = posthoc.posthoc(workdir, scores=['she', 'rmds', 'mds', 'react'])
  restored = runs.restore(workdir)
  load = lambda split, classes: data.load(  # noqa: E731
      {'name': 'digits', 'split': split, 'classes': classes})
  arrays = {'train': load('train', (0, 1, 2)), 'test': load('test', (0, 1, 2)),
            'seven': load('test', (7,))}
  features, logits = ({name: np.asarray(restored.trainer.heads[head](
      restored.state, one.image), np.float64) for name, one in arrays.items()}
      for head in ('features', 'logits'))
  layer = restored.state.ema['model']['params']['head']
  labels = arrays['train'].label
  fitted = {
      'she': lambda name: confidences.she(
          features[name], logits[name][:, :3], features['train'],
          logits['train'][:, :3], labels),
      'mahalanobis': lambda name: confidences.mahalanobis(
          features[name], features['train'], labels),
      'relative_mahalanobis': lambda name: confidences.mahalanobis(
          features[name], features['train'], labels, relative=True),
      'react': lambda name: confidences.react(
          features[name], features['train'], layer['kernel'][:, :3],
          layer['bias'][:3])}
  assert list(found['scores']) == ['react', 'she', 'mahalanobis',
                                   'relative_mahalanobis']
  assert found['num_train'] == [len(labels)] * 2
  for score, figures in found['scores'].items():
    assert figures['seven']['auroc'] == pytest.approx(
        by_hand(fitted[score]('test'), fitted[score]('seven')), abs=1e-3), score


@pytest.mark.slow
def test_chosen_scores_of_a_sample(workdir, monkeypatch, capsys):
  """Only what they need is computed, of 20 images per set that the seed gives."""
  everything = posthoc.posthoc(workdir, scores=['max_logit'])
  capsys.readouterr()
  for name in ('odin_head', 'output_layer'):
    monkeypatch.delattr(detectors, name)
  found = posthoc.posthoc(workdir, scores=['mls', 'energy', 'msp'], per_set=20)
  assert list(found['scores']) == ['max_softmax', 'max_logit', 'energy']
  assert found['num_train'] == [0, 0] and found['neighbours'] is None
  assert {used for used, _ in found['num_images'].values()} == {20}
  assert [there for _, there in found['num_images'].values()] == [
      there for _, there in everything['num_images'].values()]
  logits = {}
  for name, (_, there) in found['num_images'].items():
    rows = np.sort(np.random.default_rng(0).permutation(there)[:20])
    logits[name] = np.load(f'{workdir}/scores/{name}.npz')['logits'][rows, :3]
  for name in ('seven', 'noise'):
    auroc = found['scores']['max_logit'][name]['auroc']
    assert auroc == pytest.approx(
        by_hand(logits['test'].max(1), logits[name].max(1)), abs=1e-6)
  assert found['scores']['max_logit'] != everything['scores']['max_logit']
  text = ' '.join(posthoc.text(found).split())
  assert 'noise (unseen, 20 of 100)' in text and "'test' (20 of " in text
  assert 'Samples are drawn with seed 0.' in text and 'Fitted' not in text
  lines = capsys.readouterr().out.splitlines()
  assert [line.split('  ETA')[0] for line in lines] == [
      f'{name}: 20 of 20 images' for name in ('test', 'noise', 'seven')]
  assert lines[-1].endswith('ETA 0:00')


@pytest.mark.slow
def test_flags_choose_scores_and_images(workdir, monkeypatch, capsys):
  toy.run_main(monkeypatch, '--mode=posthoc', f'--workdir={workdir}',
               '--scores=gen,msp', '--per_set=10')
  found = capsys.readouterr().out
  assert found.count('| gen ') == found.count('| max_softmax ') == 2
  assert '| energy ' not in found and 'noise (unseen, 10 of 100)' in found


@pytest.mark.parametrize('args, named', [
    ({'scores': ['energy', 'enrgy']},
     ["'enrgy'", 'max_softmax, ', 'msp = max_softmax']),
    ({'scores': []}, ['no score', 'relative_mahalanobis']),
    ({'per_set': 0}, ['per_set', 'got 0'])])
def test_mistakes_are_found_before_the_run_is_read(args, named, tmp_path):
  with pytest.raises(ValueError) as error:
    posthoc.posthoc(str(tmp_path / 'none'), **args)
  assert all(text in str(error.value) for text in named)


def test_time_left_follows_the_speed_of_the_program(monkeypatch, capsys):
  """100 quick passes, then 30 passes of 10 images that take ten times as long each."""
  now = 0.0
  monkeypatch.setattr(posthoc.time, 'monotonic', lambda: now)
  report = posthoc._Report(100 + 3 * 40)
  now = 10.0
  report('training positives', 1, 100, 100, 100)
  now = 12.0
  report('test', 3, 1, 1, 40)  # too soon after the last line
  now = 40.0
  report('test', 3, 9, 10, 40)
  assert capsys.readouterr().out.splitlines() == [
      'training positives: 100 of 100 images  ETA 0:12',
      'test: 10 of 40 images  ETA 1:30']


@pytest.mark.slow
def test_the_share_of_odin_is_shown(workdir, capsys):
  found = posthoc.posthoc(workdir, scores=['odin'], per_set=10)
  assert 'odin takes 3 passes' in capsys.readouterr().out
  assert found['milliseconds'] == {'forward': None, 'with_odin': None}  # too few
  assert 'of the time' not in posthoc.text(found)
  found['milliseconds'] = {'forward': 1.0, 'with_odin': 4.0}
  assert 'odin took 75% of the time of the network: 4 ms' in (
      ' '.join(posthoc.text(found).split()))
  took = [(1.0, 3), (3.0, 5)]
  assert posthoc._per_image(took, 10) == pytest.approx(4000 / 80)
  assert posthoc._per_image(took[1:], 10) is None


def test_images_pass_in_several_calls_without_a_change(monkeypatch):
  """13 images in batches of 2, three batches per call: 2, 6 and 5 images."""
  monkeypatch.setattr(posthoc, 'BATCHES', 3)
  images, calls, said = np.arange(13.0)[:, None], [], []

  def program(some):
    calls.append(len(some))
    return detectors.Outputs(some, 2 * some)

  found, (_, timed) = posthoc._apply(
      program, images, {'eval_batch_size': 2}, lambda *args: said.append(args))
  assert calls == [2, 6, 5] and timed == 6  # the last batch is padded
  assert said == [(2, 2, 13), (6, 8, 13), (5, 13, 13)]
  np.testing.assert_array_equal(found.features, images)
  np.testing.assert_array_equal(found.logits, 2 * images)
  assert found.odin_logits is None


# tests/models/test_pretrained.py has small forms of the others.
@pytest.mark.parametrize('name', sorted(set(MODELS) - set(STAGES)))
def test_every_classifier_has_the_output_layer(name):
  """The layer is found by its name, and computes the logits from the features."""
  spec = {'name': name, **SMALL[name]}
  config = runs.resolve(presets.experiment(num_classes=3, model=spec))
  trainer = TASKS['classify'].build(config, (8, 8, 3), runs.OTHERS)
  images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)

  @jax.jit
  def outputs():
    state = trainer.init(jax.random.key(0))
    return state, *(trainer.heads[head](state, images) for head in (
        'features', 'logits'))

  state, features, logits = jax.device_get(outputs())
  kernel, bias = detectors.output_layer(state, features, logits)
  np.testing.assert_allclose(features @ kernel + bias, logits, rtol=1e-4, atol=1e-5)
  assert kernel.shape == (features.shape[1], 3)


@pytest.mark.slow
def test_output_layer_is_the_one_evaluation_uses(workdir):
  restored = runs.restore(workdir)
  images = np.zeros((2, 8, 8, 1), np.uint8)
  features, logits = (np.asarray(restored.trainer.heads[name](restored.state, images))
                      for name in ('features', 'logits'))
  kernel, bias = detectors.output_layer(restored.state, features, logits)
  params = restored.state.ema['model']['params']
  np.testing.assert_array_equal(kernel, params['head']['kernel'])
  assert bias.shape == (4,)
  with pytest.raises(ValueError, match="'head'.*head/kernel"):
    detectors.output_layer(restored.state, features, logits + 1)
  # Without the average it is the trained layer itself, which is another one.
  raw = restored.state.replace(ema={})
  logits = np.asarray(restored.trainer.heads['logits'](raw, images))
  features = np.asarray(restored.trainer.heads['features'](raw, images))
  kernel, _ = detectors.output_layer(raw, features, logits)
  np.testing.assert_array_equal(kernel, raw.nets['model'].params['head']['kernel'])
